"""What may be registered, and what is refused before anything is."""

from __future__ import annotations

import functools
import inspect
from abc import ABC, abstractmethod
from typing import Any, Generic, Protocol, TypeVar

import pytest

from polaris.di import DIContainer, Injectable, ProviderKind, ServiceLifetime
from polaris.exceptions import DependencyResolutionException, InvalidValueError, ServiceNotRegisteredException

T = TypeVar("T")


class Store(ABC):
    @abstractmethod
    def get(self) -> int: ...


class MemoryStore(Store):
    def get(self) -> int:
        return 1


class Reader(Protocol):
    limit: int

    def read(self) -> str: ...

    @property
    def name(self) -> str: ...


class FileReader:
    name = "file"

    def __init__(self) -> None:
        self.limit = 3

    def read(self) -> str:
        return "text"


def test_an_implementation_must_be_a_subclass_of_its_interface(container: DIContainer) -> None:
    class Stranger:
        pass

    wrong: Any = Stranger
    for register in (container.register_singleton, container.register_scoped, container.register_transient):
        with pytest.raises(DependencyResolutionException, match="Stranger is not a subclass of Store"):
            register(Store, wrong)
    assert container.registrations() == []


def test_an_abstract_class_alone_is_refused_with_what_it_lacks(container: DIContainer) -> None:
    with pytest.raises(DependencyResolutionException, match=r"abstract.*get"):
        container.register_singleton(Store)


def test_a_protocol_alone_is_refused(container: DIContainer) -> None:
    with pytest.raises(DependencyResolutionException, match="Reader is a Protocol"):
        container.register_singleton(Reader)


def test_a_protocol_is_satisfied_by_structure(container: DIContainer) -> None:
    container.register_singleton(Reader, FileReader)
    assert container.resolve(Reader).read() == "text"


def test_a_class_without_the_methods_of_a_protocol_is_refused(container: DIContainer) -> None:
    class Deaf:
        read = 3

    wrong: Any = Deaf
    with pytest.raises(DependencyResolutionException, match="Deaf lacks read"):
        container.register_singleton(Reader, wrong)


def test_a_virtual_subclass_of_an_abc_is_accepted(container: DIContainer) -> None:
    class Sized(ABC):
        @abstractmethod
        def size(self) -> int: ...

    class Registered:
        pass

    Sized.register(Registered)
    virtual: Any = Registered
    container.register_singleton(Sized, virtual)
    assert isinstance(container.resolve(Sized), Registered)


def test_an_instance_must_fit_its_interface(container: DIContainer) -> None:
    wrong: Any = object()
    with pytest.raises(DependencyResolutionException, match="object of type object is no instance of Store"):
        container.register_instance(Store, wrong)
    with pytest.raises(DependencyResolutionException, match="lacks limit, name, read of the Protocol Reader"):
        container.register_instance(Reader, wrong)
    none: Any = None
    with pytest.raises(DependencyResolutionException, match="NoneType"):
        container.register_instance(Store, none)
    store = MemoryStore()
    container.register_instance(Store, store)
    assert container.resolve(Store) is store


def test_what_is_no_class_is_refused_with_a_hint(container: DIContainer) -> None:
    function: Any = MemoryStore().get
    with pytest.raises(InvalidValueError, match="register_factory"):
        container.register_singleton(Store, function)
    instance: Any = MemoryStore()
    with pytest.raises(InvalidValueError, match="register_instance"):
        container.register_singleton(Store, instance)
    with pytest.raises(InvalidValueError, match="factory"):
        container.register_factory(Store, instance)


@pytest.mark.parametrize("interface", [None, "Store", b"Store", {}])
def test_an_interface_that_cannot_be_looked_up_is_refused(container: DIContainer, interface: Any) -> None:
    with pytest.raises(InvalidValueError, match="interface"):
        container.register_instance(interface, 3)


def test_an_unhashable_key_is_refused(container: DIContainer) -> None:
    key: Any = []
    with pytest.raises(InvalidValueError, match="key"):
        container.register_instance(int, 3, key=key)
    with pytest.raises(InvalidValueError, match="hashable"):
        container.resolve(int, key=key)


def test_an_unknown_lifetime_is_refused(container: DIContainer) -> None:
    lifetime: Any = "forever"
    with pytest.raises(InvalidValueError, match="lifetime"):
        container.register_factory(int, lambda: 3, lifetime=lifetime)


def test_the_name_of_a_lifetime_is_as_good_as_the_lifetime(container: DIContainer) -> None:
    lifetime: Any = "singleton"
    container.register_factory(Store, MemoryStore, lifetime=lifetime)
    assert container.resolve(Store) is container.resolve(Store)


def test_a_factory_annotated_with_an_unrelated_class_is_refused(container: DIContainer) -> None:
    def make() -> int:
        return 3

    with pytest.raises(DependencyResolutionException, match="the factory returns int"):
        container.register_factory(Store, make)


def test_a_factory_may_be_annotated_with_an_ancestor_of_the_interface(container: DIContainer) -> None:
    def make() -> Store:
        return MemoryStore()

    container.register_factory(MemoryStore, make)
    assert isinstance(container.resolve(MemoryStore), MemoryStore)


def test_a_factory_that_gives_something_else_is_found_out_when_it_does(container: DIContainer) -> None:
    container.register_factory(Store, lambda: None)
    with pytest.raises(DependencyResolutionException, match="NoneType is no instance of Store"):
        container.resolve(Store)
    container.register_factory(Store, lambda: 3, lifetime=ServiceLifetime.SINGLETON)
    with pytest.raises(DependencyResolutionException, match="object of type int"):
        container.resolve(Store)


def test_a_hosted_class_must_have_both_hooks(container: DIContainer) -> None:
    with pytest.raises(DependencyResolutionException, match="lacks start or stop"):
        container.register_singleton(Store, MemoryStore, hosted=True)


@pytest.mark.parametrize("field", ["start_timeout_s", "stop_timeout_s", "teardown_timeout_s"])
@pytest.mark.parametrize("value", [0, -1.0, float("nan")])
def test_a_timeout_must_be_positive(field: str, value: float) -> None:
    with pytest.raises(InvalidValueError, match=field):
        DIContainer(**{field: value})  # type: ignore[arg-type] # one of the three


def test_a_registration_tells_what_it_is(container: DIContainer) -> None:
    def make() -> MemoryStore:
        return MemoryStore()

    first = container.register_scoped(Store, MemoryStore, key="a")
    second = container.register_factory(Store, functools.partial(make), key="b")
    assert (first.interface, first.key, first.lifetime, first.kind) == (Store, "a", "scoped", ProviderKind.CLASS)
    assert (second.lifetime, second.kind) == (ServiceLifetime.TRANSIENT, ProviderKind.FUNCTION)
    assert second.name == "Store['b']"
    assert container.registrations() == [first, second]


def test_nothing_is_written_onto_user_classes(container: DIContainer) -> None:
    class Plain:
        def __init__(self, store: Store) -> None:
            self.store = store

    before = dict(vars(Plain))
    container.register_singleton(Store, MemoryStore)
    container.register_singleton(Plain)
    container.validate()
    plain = container.resolve(Plain)
    assert dict(vars(Plain)) == before
    assert vars(plain) == {"store": container.resolve(Store)}


def test_two_containers_share_nothing() -> None:
    first, second = DIContainer(), DIContainer()
    first.register_singleton(Store, MemoryStore)
    with pytest.raises(ServiceNotRegisteredException):
        second.resolve(Store)
    second.register_singleton(Store, MemoryStore)
    assert first.resolve(Store) is not second.resolve(Store)


def test_an_injectable_must_annotate_every_parameter_when_it_is_defined() -> None:
    with pytest.raises(DependencyResolutionException, match=r"Bad is not injectable.*'first', 'third'"):

        class Bad(Injectable):
            def __init__(self, first, second: int, *, third) -> None:
                pass


def test_an_injectable_may_have_defaults_and_any_number_of_arguments() -> None:
    class Good(Injectable):
        def __init__(self, store: Store, size=3, *args, **kwargs) -> None:
            self.store, self.size = store, size

    class WithoutConstructor(Good):
        pass

    class Fresh(Injectable):
        pass

    container = DIContainer()
    container.register_singleton(Store, MemoryStore)
    for cls in (Good, WithoutConstructor, Fresh):
        container.register_transient(cls)
        assert isinstance(container.resolve(cls), cls)
    assert container.resolve(WithoutConstructor).size == 3


def test_an_injectable_can_be_abstract_generic_and_take_class_arguments() -> None:
    class Marked:
        def __init_subclass__(cls, *, mark: str = "", **kwargs: object) -> None:
            super().__init_subclass__(**kwargs)
            cls.mark = mark

        mark: str

    class Port(Injectable, ABC, Generic[T]):
        @abstractmethod
        def get(self) -> T: ...

    class Adapter(Port[int], Marked, mark="m"):
        def get(self) -> int:
            return 3

    container = DIContainer()
    container.register_singleton(Port[int], Adapter)
    assert container.resolve(Port[int]).get() == 3
    assert Adapter.mark == "m"


def test_an_injectable_without_a_constructor_of_its_own_is_fine_whatever_it_inherits() -> None:
    class Foreign:
        def __init__(self, bare=3, *, other) -> None:
            pass

    class Adopted(Injectable, Foreign):
        pass

    class Child(Adopted):
        size = 3

    assert issubclass(Child, Injectable)


def test_a_signature_is_read_once_when_the_service_is_registered(
    container: DIContainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[object] = []
    signature = inspect.signature

    def counting(target: Any, **options: Any) -> inspect.Signature:
        read.append(target)
        return signature(target, **options)

    class Plain:
        def __init__(self, store: Store) -> None:
            self.store = store

    def make(plain: Plain) -> MemoryStore:
        return MemoryStore()

    monkeypatch.setattr(inspect, "signature", counting)
    container.register_singleton(Store, MemoryStore)
    container.register_transient(Plain)
    container.register_factory(MemoryStore, make)
    assert read == [Plain, make]  # a class without a constructor has no parameters to read
    container.validate()
    for _ in range(3):
        container.resolve(MemoryStore)
        container.register_instance(int, 3)
    assert read == [Plain, make]
