"""What fills the parameters of constructors and factories."""

from __future__ import annotations

import functools
import gc
import inspect
import typing  # noqa: F401 - an annotation below looks it up
import weakref
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Generic, Protocol, TypeVar

import pytest

from polaris.di import DIContainer, Key, Scope, ServiceLifetime
from polaris.exceptions import DependencyResolutionException, ServiceNotRegisteredException

T = TypeVar("T")
S = TypeVar("S")


class Clock:
    pass


class Database:
    def __init__(self, clock: Clock) -> None:
        self.clock = clock


class Whole:
    pass


class Service:
    def __init__(self, database: Database, clock: Clock) -> None:
        self.database = database
        self.clock = clock


def taking(kinds: list[type], function: Callable[..., Any], *, keyword: bool = False) -> Callable[..., Any]:
    """A factory with one parameter of each kind."""

    def factory(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    how = inspect.Parameter.KEYWORD_ONLY if keyword else inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(f"p{index}", how, annotation=kind) for index, kind in enumerate(kinds)]
    factory.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined] # read by inspect.signature
    return factory


def test_constructors_are_wired_by_their_annotations(container: DIContainer) -> None:
    container.register_singleton(Clock)
    container.register_transient(Database)
    container.register_transient(Service)
    for _ in range(3):  # found, compiled, remembered
        service = container.resolve(Service)
        assert service.clock is service.database.clock is container.resolve(Clock)
    assert container.resolve(Service) is not container.resolve(Service)
    assert container.resolve(Service).database is not container.resolve(Service).database


def test_a_class_local_to_a_function_is_found_behind_its_string_annotation(container: DIContainer) -> None:
    class Local:
        pass

    class User:
        def __init__(self, local: Local, others: list[Local], maybe: Local | None = None) -> None:
            self.all = [local, *others, maybe]

    container.register_singleton(Local)
    container.register_singleton(User)
    assert container.resolve(User).all == [container.resolve(Local)] * 3


def test_a_name_only_known_to_type_checkers_means_the_registered_interface_of_that_name(container: DIContainer) -> None:
    class User:
        def __init__(self, hidden) -> None:  # annotated below
            self.hidden = hidden

    hidden_class = type("Hidden", (), {})
    User.__init__.__annotations__["hidden"] = "Hidden | None"
    container.register_transient(User)
    assert container.resolve(User).hidden is None
    container.register_singleton(hidden_class)
    assert isinstance(container.resolve(User).hidden, hidden_class)
    User.__init__.__annotations__["hidden"] = "Hidden"
    container.register_transient(User)
    assert isinstance(container.resolve(User).hidden, hidden_class)


def test_an_unknown_name_is_missing_unless_there_is_a_default(container: DIContainer) -> None:
    class User:
        def __init__(self, a, b=2) -> None:  # annotated below
            self.b = b

    User.__init__.__annotations__.update(a="Nowhere", b="Nowhere")
    container.register_singleton(User)
    with pytest.raises(ServiceNotRegisteredException, match="Nowhere is not registered"):
        container.resolve(User)
    User.__init__.__annotations__.update(a="Clock")
    container.register_singleton(Clock)
    container.register_singleton(User)
    assert container.resolve(User).b == 2


def test_a_default_is_used_only_when_the_type_is_unregistered(container: DIContainer) -> None:
    fallback = Clock()

    class User:
        def __init__(self, clock: Clock = fallback, size: int = 3) -> None:
            self.clock, self.size = clock, size

    class MaybeUser:
        def __init__(self, clock: Clock | None = fallback) -> None:
            self.clock = clock

    container.register_transient(User)
    container.register_transient(MaybeUser)
    assert (container.resolve(User).clock, container.resolve(User).size) == (fallback, 3)
    assert container.resolve(MaybeUser).clock is fallback
    container.register_singleton(Clock)
    assert container.resolve(User).clock is container.resolve(Clock) is not fallback
    container.register_instance(int, 7)
    assert container.resolve(User).size == 7


@pytest.mark.parametrize("annotation", ["Clock | None", "typing.Optional[Clock]", "None | Clock"])
def test_an_optional_parameter_is_none_only_when_its_type_is_unregistered(
    container: DIContainer, annotation: str
) -> None:
    class User:
        def __init__(self, clock) -> None:  # annotated below
            self.clock = clock

    User.__init__.__annotations__["clock"] = annotation
    container.register_transient(User)
    assert container.resolve(User).clock is None

    class BrokenClock(Clock):
        def __init__(self) -> None:
            message = "no battery"
            raise OSError(message)

    container.register_singleton(Clock, BrokenClock)
    with pytest.raises(DependencyResolutionException, match="no battery"):
        container.resolve(User)


def test_an_optional_parameter_whose_own_dependency_is_missing_is_an_error(container: DIContainer) -> None:
    class User:
        def __init__(self, database: Database | None = None) -> None:
            self.database = database

    container.register_transient(User)
    container.register_transient(Database)
    with pytest.raises(ServiceNotRegisteredException) as caught:
        container.resolve(User)
    assert caught.value.path == ("User", "Database")


def test_of_a_union_the_first_registered_member_is_taken(container: DIContainer) -> None:
    class User:
        def __init__(self, either: Database | Clock) -> None:
            self.either = either

    container.register_transient(User)
    container.register_singleton(Clock)
    assert isinstance(container.resolve(User).either, Clock)
    container.register_singleton(Database)
    assert isinstance(container.resolve(User).either, Database)


def test_the_error_for_something_missing_draws_the_path_and_suggests_names(container: DIContainer) -> None:
    class Clok:
        pass

    container.register_transient(Service)
    container.register_transient(Database)
    container.register_singleton(Clok)
    with pytest.raises(ServiceNotRegisteredException) as caught:
        container.resolve(Service)
    assert caught.value.service == "Clock"
    assert caught.value.path in {("Service",), ("Service", "Database")}
    assert "└─ Clock" in str(caught.value)
    assert "did you mean Clok?" in str(caught.value)
    with pytest.raises(ServiceNotRegisteredException, match="did you mean Clok"):
        container.resolve(Clock)


def test_a_missing_key_suggests_the_keys_there_are(container: DIContainer) -> None:
    container.register_instance(int, 3, key="size")
    with pytest.raises(ServiceNotRegisteredException, match=r"int\['siz'\] is not registered\n.*int\['size'\]"):
        container.resolve(int, key="siz")
    with pytest.raises(ServiceNotRegisteredException, match="int is not registered"):
        container.resolve(int)


def test_nothing_is_built_when_something_is_missing(container: DIContainer) -> None:
    built: list[str] = []

    class First:
        def __init__(self) -> None:
            built.append("first")

    class Second:
        def __init__(self, first: First, clock: Clock) -> None:
            built.append("second")

    container.register_singleton(First)
    container.register_singleton(Second)
    with pytest.raises(ServiceNotRegisteredException):
        container.resolve(Second)
    assert built == []


def test_a_parameter_without_annotation_is_filled_by_its_default_alone(container: DIContainer) -> None:
    class User:
        def __init__(self, size=3) -> None:
            self.size = size

    class Bare:
        def __init__(self, size) -> None:
            self.size = size

    container.register_transient(User)
    container.register_transient(Bare)
    assert container.resolve(User).size == 3
    with pytest.raises(ServiceNotRegisteredException, match="parameter 'size' has no annotation"):
        container.resolve(Bare)


def test_every_kind_of_parameter_is_passed_as_it_must_be(container: DIContainer) -> None:
    fallback = Clock()

    class Kinds:
        def __init__(
            self,
            one: int = 1,
            two: Clock = fallback,
            /,
            three: str = "3",
            four: Clock = fallback,
            *args: int,
            five: Clock,
            **kwargs: int,
        ) -> None:
            self.all = (one, two, three, four, args, five, kwargs)

    container.register_singleton(Clock)
    container.register_transient(Kinds)
    for _ in range(3):
        clock = container.resolve(Clock)
        assert container.resolve(Kinds).all == (1, clock, "3", clock, (), clock, {})


@pytest.mark.parametrize("lifetime", list(ServiceLifetime))
@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 6])
async def test_any_number_of_parameters_in_any_lifetime(
    container: DIContainer, lifetime: ServiceLifetime, count: int
) -> None:
    class Fresh:
        pass

    # Transients, singletons and constants in turn.
    kinds = [Fresh, Clock, str]
    expected = [kinds[index % 3] for index in range(count)]
    factory = taking(expected, lambda *parts: parts)
    container.register_transient(Fresh)
    container.register_singleton(Clock)
    container.register_instance(str, "text")
    container.register_factory(tuple, factory, lifetime=lifetime)
    async with container.scope() as scope:
        for _ in range(3):
            for found in (scope.resolve(tuple), await scope.aresolve(tuple)):
                assert [type(part) for part in found] == expected


def test_dataclasses_are_wired_with_their_factories_of_defaults(container: DIContainer) -> None:
    @dataclass
    class Config:
        clock: Clock
        names: list[str] = field(default_factory=lambda: ["a"])
        size: int = 3

    container.register_singleton(Clock)
    container.register_transient(Config)
    config = container.resolve(Config)
    assert (config.clock, config.names, config.size) == (container.resolve(Clock), ["a"], 3)


def test_factories_of_every_callable_shape_are_injected(container: DIContainer) -> None:
    class Maker:
        def __call__(self, clock: Clock) -> Database:
            return Database(clock)

        def make(self, clock: Clock) -> Database:
            return Database(clock)

        @classmethod
        def build(cls, clock: Clock) -> Database:
            return Database(clock)

        @staticmethod
        def create(clock: Clock) -> Database:
            return Database(clock)

    def with_label(label: str, clock: Clock) -> Database:
        assert label == "label"
        return Database(clock)

    container.register_singleton(Clock)
    shapes: list[Callable[..., Any]] = [
        Maker(),
        Maker().make,
        Maker.build,
        Maker.create,
        functools.partial(with_label, "label"),
        Database,
    ]
    for shape in shapes:
        container.register_factory(Database, shape)
        assert container.resolve(Database).clock is container.resolve(Clock)
    container.register_factory(Database, lambda: Database(Clock()))
    assert container.resolve(Database).clock is not container.resolve(Clock)


@pytest.mark.parametrize("lifetime", [ServiceLifetime.SINGLETON, ServiceLifetime.TRANSIENT])
async def test_async_factories_and_generators_are_injected(container: DIContainer, lifetime: ServiceLifetime) -> None:
    async def make(clock: Clock) -> Database:
        return Database(clock)

    async def make_async_generator(clock: Clock) -> AsyncIterator[Database]:
        yield Database(clock)

    def make_generator(clock: Clock) -> Iterator[Database]:
        yield Database(clock)

    def make_coroutine(clock: Clock) -> Any:
        return make(clock)

    container.register_singleton(Clock)
    for factory in (make, make_async_generator, make_generator, make_coroutine):
        container.register_factory(Database, factory, lifetime=lifetime)
        container.register_transient(Service)
        for _ in range(3):
            database = await container.aresolve(Database)
            assert database.clock is (await container.aresolve(Service)).clock is container.resolve(Clock)
        assert (await container.aresolve(Database) is database) == (lifetime == "singleton")
    await container.stop()


async def test_what_is_built_asynchronously_cannot_be_resolved_synchronously_until_it_lives(
    container: DIContainer,
) -> None:
    async def make() -> Clock:
        return Clock()

    def make_coroutine() -> Any:
        return make()

    container.register_factory(Clock, make, lifetime=ServiceLifetime.SINGLETON)
    container.register_singleton(Database)
    with pytest.raises(DependencyResolutionException, match="aresolve"):
        container.resolve(Database)
    clock = await container.aresolve(Clock)
    assert container.resolve(Clock) is container.resolve(Database).clock is clock
    container.register_factory(Clock, make_coroutine)
    with pytest.raises(DependencyResolutionException, match="aresolve"):
        container.resolve(Clock)


def test_the_error_of_a_constructor_is_the_cause_and_the_path_leads_to_it(container: DIContainer) -> None:
    class BrokenClock(Clock):
        def __init__(self) -> None:
            message = "no battery"
            raise OSError(message)

    for register in (container.register_singleton, container.register_transient):
        container.register_transient(Service)
        container.register_transient(Database)
        register(Clock, BrokenClock)
        for _ in range(3):
            with pytest.raises(
                DependencyResolutionException, match="Clock could not be built: OSError: no battery"
            ) as caught:
                container.resolve(Service)
            assert isinstance(caught.value.__cause__, OSError)
            assert caught.value.path[0] == "Service"
            assert caught.value.path[-1] == "Clock"


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("scoped", [False, True])
@pytest.mark.parametrize("keyword", [False, True])
def test_the_failing_one_of_several_dependencies_is_named(
    container: DIContainer, count: int, scoped: bool, keyword: bool
) -> None:
    parts = [type(f"Part{index}", (), {}) for index in range(count)]
    fail: set[type] = set()

    def part_of(cls: type) -> Any:
        def make() -> Any:
            if cls in fail:
                raise OSError
            return cls()

        return make

    whole = taking(parts, lambda *args, **kwargs: Whole(), keyword=keyword)
    lifetime = ServiceLifetime.SCOPED if scoped else ServiceLifetime.TRANSIENT
    for part in parts:
        container.register_factory(part, part_of(part), lifetime=lifetime)
    container.register_factory(Whole, whole)
    with container.scope() as warm:
        warm.resolve(Whole)
        warm.resolve(Whole)
    for part in parts:
        fail.clear()
        fail.add(part)
        with container.scope() as scope, pytest.raises(DependencyResolutionException) as caught:
            scope.resolve(Whole)
        assert caught.value.path == ("Whole", part.__name__)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("lifetime", list(ServiceLifetime))
async def test_the_failing_link_of_a_chain_is_named(
    container: DIContainer, length: int, lifetime: ServiceLifetime
) -> None:
    links = [type(f"Link{index}", (), {}) for index in range(length)]
    failing: type | None = None

    def make(link: type) -> Callable[..., Any]:
        def function(*_: object) -> Any:
            if failing is link:
                raise OSError
            return link()

        return function

    for index, link in enumerate(links):
        needs = links[index - 1 : index] if index else []
        container.register_factory(link, taking(needs, make(link)), lifetime=lifetime)

    async def fails_at(link: type, scope: Scope) -> None:
        nonlocal failing
        failing = link
        for _ in range(2):
            with pytest.raises(DependencyResolutionException) as caught:
                scope.resolve(links[-1])
            assert caught.value.path[-1] == link.__name__
        with pytest.raises(DependencyResolutionException) as caught:
            await scope.aresolve(links[-1])
        assert caught.value.path[-1] == link.__name__
        failing = None

    for link in links:
        async with container.scope() as scope:
            await fails_at(link, scope)
    if lifetime is ServiceLifetime.SINGLETON:
        return  # those that did not fail are alive by now
    for _ in range(2):  # once more with compiled closures
        async with container.scope() as scope:
            scope.resolve(links[-1])
    for link in links:
        async with container.scope() as scope:
            await fails_at(link, scope)


def test_the_last_registration_counts_and_all_of_them_are_in_resolve_all(container: DIContainer) -> None:
    class Tick(Clock):
        pass

    class Tock(Clock):
        pass

    assert container.resolve_all(Clock) == []
    container.register_singleton(Clock, Tick)
    container.register_transient(Clock, Tock)
    container.register_instance(Clock, Clock(), key="plain")
    assert isinstance(container.resolve(Clock), Tock)
    first, second, third = container.resolve_all(Clock)
    assert [type(first), type(second), type(third)] == [Tick, Tock, Clock]
    assert container.resolve_all(Clock)[0] is first
    assert container.resolve_all(Clock)[1] is not second


async def test_resolve_all_awaits_what_is_built_asynchronously(container: DIContainer) -> None:
    async def make() -> Clock:
        return Clock()

    container.register_factory(Clock, make)
    container.register_factory(Clock, make, lifetime=ServiceLifetime.SCOPED)
    with pytest.raises(DependencyResolutionException, match="aresolve"):
        container.resolve_all(Clock)
    async with container.scope() as scope:
        first, second = await scope.aresolve_all(Clock)
        assert await scope.aresolve(Clock) is second is not first


def test_collections_receive_every_registration(container: DIContainer) -> None:
    class User:
        def __init__(
            self,
            as_list: list[Clock],
            as_tuple: tuple[Clock, ...],
            as_sequence: Sequence[Clock],
            by_key: Mapping[str, Clock],
            nothing: Sequence[Database] = (),
        ) -> None:
            self.all = [as_list, list(as_tuple), list(as_sequence)]
            self.by_key, self.nothing = by_key, nothing

    one, two = Clock(), Clock()
    container.register_instance(Clock, one)
    container.register_instance(Clock, two, key="two")
    container.register_transient(User)
    for _ in range(3):
        user = container.resolve(User)
        assert user.all == [[one, two]] * 3
        assert user.by_key == {"two": two}
        assert user.nothing == ()


def test_a_collection_registered_itself_is_taken_as_it_is(container: DIContainer) -> None:
    class User:
        def __init__(self, names: list[str]) -> None:
            self.names = names

    container.register_transient(User)
    with pytest.raises(ServiceNotRegisteredException, match=r"list\[str\]"):
        container.resolve(User)
    container.register_instance(list[str], ["a"])
    assert container.resolve(User).names == ["a"]


def test_keys_tell_registrations_of_one_interface_apart(container: DIContainer) -> None:
    class User:
        def __init__(
            self, first: Annotated[Clock, Key("a")], second: Annotated[Clock, "noise", Key("b")], plain: Clock
        ) -> None:
            self.all = (first, second, plain)

    clocks = Clock(), Clock(), Clock()
    container.register_instance(Clock, clocks[0], key="a")
    container.register_instance(Clock, clocks[1], key="b")
    container.register_instance(Clock, clocks[2])
    container.register_transient(User)
    assert container.resolve(User).all == clocks
    annotated: Any = Annotated[Clock, Key("b")]
    assert container.resolve(annotated) is clocks[1]
    assert container.resolve(annotated) is clocks[1]


def test_the_container_and_the_scope_can_be_asked_for(container: DIContainer) -> None:
    class User:
        def __init__(self, container: DIContainer) -> None:
            self.container = container

    class ScopeUser:
        def __init__(self, scope: Scope) -> None:
            self.scope = scope

    container.register_singleton(User)
    container.register_transient(ScopeUser)
    assert container.resolve(User).container is container
    assert container.resolve(DIContainer) is container
    with container.scope() as scope:
        assert scope.resolve(ScopeUser).scope is scope
        assert scope.resolve(ScopeUser).scope is scope
        assert scope.resolve(Scope) is scope
    with pytest.raises(DependencyResolutionException, match="needs a scope"):
        container.resolve(ScopeUser)


def test_registering_after_the_first_resolve_keeps_live_singletons(container: DIContainer) -> None:
    container.register_singleton(Clock)
    container.register_singleton(Database)
    clock, database = container.resolve(Clock), container.resolve(Database)
    container.register_singleton(Service)
    container.register_instance(int, 3)
    assert container.resolve(Service).clock is clock is container.resolve(Clock)
    assert container.resolve(Service).database is database is container.resolve(Database)


def test_a_new_registration_is_seen_by_what_is_built_afterwards(container: DIContainer) -> None:
    container.register_singleton(Clock)
    container.register_transient(Database)
    for _ in range(3):
        old = container.resolve(Database).clock
    newer = Clock()
    container.register_instance(Clock, newer)
    assert container.resolve(Database).clock is newer is not old


def test_nothing_transient_is_retained(container: DIContainer) -> None:
    container.register_singleton(Clock)
    container.register_transient(Database)
    container.register_factory(Service, lambda: Service(Database(Clock()), Clock()))
    with container.scope() as scope:
        for _ in range(3):
            references = [
                weakref.ref(found)
                for found in (container.resolve(Database), container.resolve(Service), scope.resolve(Database))
            ]
            gc.collect()
            assert [reference() for reference in references] == [None] * 3


class Repository(Generic[T]):
    def __init__(self, codec: Codec[T]) -> None:
        self.codec = codec


class Codec(Generic[T]):
    pass


class User:
    pass


class Order:
    pass


class SqlRepository(Repository[S], Generic[S]):
    def __init__(self, codec: Codec[S], clock: Clock) -> None:
        super().__init__(codec)
        self.clock = clock


def test_type_arguments_reach_the_parameters_of_a_generic_class(container: DIContainer) -> None:
    class UserRepository(Repository[User]):
        pass

    users, orders = Codec[User](), Codec[Order]()
    container.register_instance(Codec[User], users)
    container.register_instance(Codec[Order], orders)
    container.register_singleton(Repository[User], UserRepository)
    container.register_singleton(Repository[Order], Repository[Order])
    assert container.resolve(Repository[User]).codec is users
    assert container.resolve(Repository[Order]).codec is orders


async def test_an_open_generic_serves_every_choice_of_its_arguments(container: DIContainer) -> None:
    class Page:
        def __init__(self, users: Repository[User], orders: Repository[Order]) -> None:
            self.users, self.orders = users, orders

    container.register_singleton(Clock)
    container.register_singleton(Codec)
    container.register_singleton(Repository, SqlRepository)
    container.register_singleton(Page)
    container.validate()
    await container.start()
    page = container.resolve(Page)
    assert page.users is container.resolve(Repository[User])
    assert page.orders is container.resolve(Repository[Order])
    assert id(page.users) != id(page.orders)
    assert page.users.codec is container.resolve(Codec[User])
    assert page.orders.codec is container.resolve(Codec[Order])
    await container.stop()


class Port(ABC):
    @abstractmethod
    def get(self) -> int: ...


class Shape(Protocol):
    def area(self) -> float: ...


class Square:
    def area(self) -> float:
        return 4.0


class Adapter(Port):
    def get(self) -> int:
        return 3


async def test_abstract_classes_and_protocols_are_typed_interfaces_without_ignores(container: DIContainer) -> None:
    """The type checker is the witness: every result below has its exact type."""
    container.register_singleton(Port, Adapter)
    container.register_transient(Shape, Square)
    container.register_factory(Repository[User], lambda: Repository(Codec[User]()))
    port: Port = container.resolve(Port)
    shape: Shape = await container.aresolve(Shape)
    ports: list[Port] = container.resolve_all(Port)
    users: Repository[User] = container.resolve(Repository[User])
    with container.scope() as scope, container.override(Port, Adapter()):
        assert scope.resolve(Port).get() == port.get() == ports[0].get() == 3
    assert shape.area() == 4.0
    assert users.codec is not None
