"""The proof of the graph before it is used."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from polaris.di import DIContainer, Scope, ServiceLifetime
from polaris.exceptions import (
    DependencyInjectionError,
    DependencyResolutionException,
    ServiceNotRegisteredException,
)


def problems_of(container: DIContainer) -> list[DependencyInjectionError]:
    with pytest.raises(ExceptionGroup) as caught:
        container.validate()
    problems = list(caught.value.exceptions)
    assert all(isinstance(problem, DependencyInjectionError) for problem in problems)
    return problems  # type: ignore[return-value] # checked above


class Missing:
    pass


class NeedsMissing:
    def __init__(self, missing: Missing, size: int) -> None:
        pass


class Chicken:
    def __init__(self, egg: Egg) -> None:
        pass


class Egg:
    def __init__(self, chicken: Chicken) -> None:
        pass


class Request:
    pass


class Handler:
    def __init__(self, request: Request) -> None:
        pass


class Server:
    def __init__(self, handler: Handler) -> None:
        pass


def test_a_sound_graph_passes_and_nothing_is_built(container: DIContainer) -> None:
    built: list[str] = []

    class Service:
        def __init__(self, maybe: Missing | None, size: int = 3) -> None:
            built.append("service")

    container.register_singleton(Service)
    container.register_scoped(Request)
    container.register_transient(Handler)
    container.validate()
    assert built == []


def test_everything_wrong_is_reported_at_once_with_drawn_paths(container: DIContainer) -> None:
    container.register_singleton(NeedsMissing)
    container.register_singleton(Chicken)
    container.register_transient(Egg)
    container.register_singleton(Server)
    container.register_transient(Handler)
    container.register_scoped(Request)
    problems = problems_of(container)
    missing = [problem for problem in problems if isinstance(problem, ServiceNotRegisteredException)]
    assert [(problem.service, problem.path) for problem in missing] == [
        ("Missing", ("NeedsMissing",)),
        ("int", ("NeedsMissing",)),
    ]
    others = [problem for problem in problems if isinstance(problem, DependencyResolutionException)]
    assert [problem.path for problem in others] == [("Chicken", "Egg", "Chicken"), ("Server", "Handler", "Request")]
    assert str(others[0]) == "cyclic dependency\nChicken\n   └─ Egg\n      └─ Chicken"
    assert "captive dependency: the singleton Server would keep Request" in str(others[1])


def test_a_service_that_needs_itself_is_a_cycle(container: DIContainer) -> None:
    class Selfish:
        def __init__(self, other: Selfish) -> None:
            pass

    container.register_transient(Selfish)
    (problem,) = problems_of(container)
    assert isinstance(problem, DependencyResolutionException)
    assert problem.path == ("Selfish", "Selfish")
    with pytest.raises(DependencyResolutionException, match="cyclic dependency"):
        container.resolve(Selfish)


def test_a_cycle_raises_at_resolution_with_the_way_that_led_into_it(container: DIContainer) -> None:
    class Farm:
        def __init__(self, egg: Egg) -> None:
            pass

    container.register_singleton(Farm)
    container.register_singleton(Chicken)
    container.register_singleton(Egg)
    with pytest.raises(DependencyResolutionException, match="cyclic dependency") as caught:
        container.resolve(Farm)
    assert caught.value.path == ("Farm", "Egg", "Chicken", "Egg")


def test_a_cycle_through_the_parameters_of_factories_is_found(container: DIContainer) -> None:
    def chicken(egg: Egg) -> Iterator[Chicken]:
        yield Chicken(egg)

    container.register_factory(Chicken, chicken)
    container.register_factory(Egg, Egg)
    assert len(problems_of(container)) == 1


def test_every_dependency_on_a_cycle_is_in_a_drawing(container: DIContainer) -> None:
    class A:
        def __init__(self, b: B, c: C) -> None: ...

    class B:
        def __init__(self, a: A, c: C) -> None: ...

    class C:
        def __init__(self, a: A, b: B) -> None: ...

    for cls in (A, B, C):
        container.register_singleton(cls)
    drawn = set()
    for problem in problems_of(container):
        assert isinstance(problem, DependencyResolutionException)
        drawn |= set(zip(problem.path, problem.path[1:], strict=False))
    assert drawn == {(one, other) for one in "ABC" for other in "ABC" if one != other}


def test_a_singleton_that_wants_the_scope_is_captive(container: DIContainer) -> None:
    class Greedy:
        def __init__(self, scope: Scope) -> None:
            pass

    class Holder:
        def __init__(self, greedy: Greedy) -> None:
            pass

    container.register_singleton(Greedy)
    container.register_singleton(Holder)
    (problem,) = problems_of(container)
    assert isinstance(problem, DependencyResolutionException)
    assert problem.path == ("Greedy", "Scope")
    container.register_transient(Greedy)
    assert [problem.path[0] for problem in problems_of(container)] == ["Greedy", "Holder"]  # type: ignore[attr-defined]


def test_a_singleton_that_keeps_a_transient_with_a_teardown_is_captive(container: DIContainer) -> None:
    def make() -> Iterator[Request]:
        yield Request()

    container.register_factory(Request, make)
    container.register_transient(Handler)
    container.register_singleton(Server)
    (problem,) = problems_of(container)
    assert isinstance(problem, DependencyResolutionException)
    assert problem.path == ("Server", "Handler", "Request")
    assert "teardown" in str(problem)


def test_a_singleton_behind_a_singleton_is_not_blamed_for_its_captive(container: DIContainer) -> None:
    class Outer:
        def __init__(self, server: Server) -> None:
            pass

    container.register_singleton(Outer)
    container.register_singleton(Server)
    container.register_transient(Handler)
    container.register_scoped(Request)
    assert [problem.path for problem in problems_of(container)] == [("Server", "Handler", "Request")]  # type: ignore[attr-defined]


def test_earlier_registrations_of_an_interface_are_proved_too(container: DIContainer) -> None:
    container.register_singleton(NeedsMissing)
    container.register_instance(NeedsMissing, object.__new__(NeedsMissing))
    assert len(problems_of(container)) == 2


def test_many_cycles_are_counted_instead_of_drawn(container: DIContainer) -> None:
    for number in range(120):
        chicken = type(f"Chicken{number}", (), {})
        egg = type(f"Egg{number}", (), {})

        def lay(bird: object) -> object:
            return bird

        def hatch(shell: object) -> object:
            return shell

        lay.__annotations__ = {"bird": chicken}
        hatch.__annotations__ = {"shell": egg}
        container.register_factory(egg, lay)
        container.register_factory(chicken, hatch)
    problems = problems_of(container)
    assert len(problems) == 101
    assert "more dependencies lie on cycles" in str(problems[-1])


def chained(container: DIContainer, length: int, lifetime: ServiceLifetime) -> type:
    previous: type | None = None
    for number in range(length):
        cls = type(f"Link{number}", (), {})

        def make(cls: type = cls, before: object = None) -> object:
            return cls()

        make.__annotations__ = {} if previous is None else {"before": previous}
        container.register_factory(cls, make, lifetime=lifetime)
        previous = cls
    assert previous is not None
    return previous


def test_a_chain_of_two_thousand_singletons_is_proved_and_built(container: DIContainer) -> None:
    last = chained(container, 2_000, ServiceLifetime.SINGLETON)
    container.validate()
    assert type(container.resolve(last)) is last


def test_the_proof_is_linear(container: DIContainer) -> None:
    """Ten times the services may take at most forty times as long: quadratic work would take a hundred times."""

    def cost_s(length: int) -> float:
        best = float("inf")
        for _ in range(3):
            fresh = DIContainer()
            chained(fresh, length, ServiceLifetime.SINGLETON)
            begin = time.perf_counter()
            fresh.validate()
            best = min(best, time.perf_counter() - begin)
        return best

    assert cost_s(2_000) < 40 * cost_s(200) + 0.05
