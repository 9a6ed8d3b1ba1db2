"""Scoped services and the teardown of everything that has one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from polaris.di import DIContainer, Scope, ServiceLifetime
from polaris.di._teardown import TEARDOWNS_MAX
from polaris.exceptions import (
    DeadlineExceededError,
    DependencyInjectionError,
    DependencyResolutionException,
    ServiceNotRegisteredException,
)
from polaris.testing import VirtualClock


class First:
    pass


class Second:
    def __init__(self, first: First) -> None:
        self.first = first


class Third:
    def __init__(self, second: Second) -> None:
        self.second = second


@pytest.fixture
def closed() -> list[str]:
    return []


def generator_of(cls: type, closed: list[str], error: BaseException | None = None) -> Any:
    def make() -> Iterator[Any]:
        yield cls()
        closed.append(cls.__name__)
        if error is not None:
            raise error

    return make


def async_generator_of(cls: type, closed: list[str], error: BaseException | None = None, delay_s: float = 0) -> Any:
    async def make() -> AsyncIterator[Any]:
        yield cls()
        await asyncio.sleep(delay_s)
        closed.append(cls.__name__)
        if error is not None:
            raise error

    return make


async def test_a_scoped_service_is_one_per_scope(container: DIContainer) -> None:
    container.register_scoped(First)
    container.register_scoped(Second)
    container.register_transient(Third)
    with container.scope() as one, container.scope() as other:
        for _ in range(3):
            assert one.resolve(Second) is one.resolve(Third).second is await one.aresolve(Second)
            assert one.resolve(First) is one.resolve(Second).first is await one.aresolve(First)
            assert one.resolve(First) is not other.resolve(First)
            assert (await other.aresolve(Third)).second is other.resolve(Second)


def test_scopes_share_the_singletons_of_the_container(container: DIContainer) -> None:
    container.register_singleton(First)
    container.register_scoped(Second)
    with container.scope() as one, container.scope() as other:
        assert one.resolve(Second).first is other.resolve(Second).first is container.resolve(First)
        assert one.resolve(First) is container.resolve(First)


async def test_a_scoped_service_cannot_be_had_without_a_scope(container: DIContainer) -> None:
    container.register_scoped(First)
    container.register_transient(Second)
    container.register_transient(Third)
    with pytest.raises(DependencyResolutionException, match="First needs a scope") as caught:
        container.resolve(Third)
    assert caught.value.path == ("Third", "Second", "First")
    with pytest.raises(DependencyResolutionException, match="First needs a scope"):
        await container.aresolve(Third)


async def test_a_singleton_never_receives_a_scoped_service_not_even_inside_a_scope(container: DIContainer) -> None:
    container.register_scoped(First)
    container.register_transient(Second)
    container.register_singleton(Third)
    with container.scope() as scope:
        scope.resolve(First)
        with pytest.raises(DependencyResolutionException, match="captive") as caught:
            scope.resolve(Third)
        assert caught.value.path == ("Third", "Second", "First")
        with pytest.raises(DependencyResolutionException, match="captive"):
            await scope.aresolve(Third)


def test_a_closed_scope_resolves_nothing_and_closes_twice(container: DIContainer) -> None:
    container.register_scoped(First)
    container.register_singleton(Second)
    scope = container.scope()
    scope.resolve(First)
    scope.close()
    scope.close()
    for interface in (First, Second):
        with pytest.raises(DependencyInjectionError, match="the scope is closed"):
            scope.resolve(interface)
    with pytest.raises(DependencyInjectionError, match="the scope is closed"):
        scope.resolve_all(First)


async def test_teardown_runs_in_reverse_order_of_creation(container: DIContainer, closed: list[str]) -> None:
    container.register_factory(First, generator_of(First, closed), lifetime=ServiceLifetime.SCOPED)
    container.register_factory(Second, async_generator_of(First, closed), lifetime=ServiceLifetime.SCOPED)
    kinds = {name: type(name, (), {}) for name in "abcdef"}
    for number, kind in enumerate(kinds.values()):
        make = async_generator_of if number % 2 else generator_of
        container.register_factory(kind, make(kind, closed), lifetime=ServiceLifetime.SCOPED)
    async with container.scope() as scope:
        for name in "cafebd":
            await scope.aresolve(kinds[name])
        assert closed == []
    assert closed == list("dbefac")


def test_what_a_service_depends_on_is_torn_down_after_it(container: DIContainer, closed: list[str]) -> None:
    def second(first: First) -> Iterator[Second]:
        yield Second(first)
        closed.append("Second")

    def third(second: Second) -> Iterator[Third]:
        yield Third(second)
        closed.append("Third")

    container.register_factory(First, generator_of(First, closed), lifetime=ServiceLifetime.SCOPED)
    container.register_factory(Second, second)
    container.register_factory(Third, third, lifetime=ServiceLifetime.SCOPED)
    with container.scope() as scope:
        scope.resolve(Third)
    assert closed == ["Third", "Second", "First"]


async def test_every_finalizer_runs_although_others_fail_and_all_errors_come_out(
    container: DIContainer, closed: list[str]
) -> None:
    kinds = [type(f"Kind{number}", (), {}) for number in range(6)]
    for number, kind in enumerate(kinds):
        make = async_generator_of if number % 2 else generator_of
        error = ValueError(str(number)) if number in {1, 2, 4} else None
        container.register_factory(kind, make(kind, closed, error), lifetime=ServiceLifetime.SCOPED)
    scope = container.scope()
    for kind in kinds:
        await scope.aresolve(kind)
    with pytest.raises(ExceptionGroup) as caught:
        await scope.aclose()
    assert closed == [kind.__name__ for kind in reversed(kinds)]
    assert [str(error) for error in caught.value.exceptions] == ["4", "2", "1"]
    assert caught.value.exceptions[0].__notes__ == ["while closing Kind4"]


def test_synchronous_teardown_gives_all_errors_too(container: DIContainer, closed: list[str]) -> None:
    container.register_factory(First, generator_of(First, closed, OSError()), lifetime=ServiceLifetime.SCOPED)
    container.register_factory(int, generator_of(int, closed, ValueError()), lifetime=ServiceLifetime.SCOPED)
    container.register_factory(str, generator_of(str, closed), lifetime=ServiceLifetime.SCOPED)
    scope = container.scope()
    for kind in (First, int, str):
        scope.resolve(kind)
    with pytest.raises(ExceptionGroup) as caught:
        scope.close()
    assert closed == ["str", "int", "First"]
    assert [type(error) for error in caught.value.exceptions] == [ValueError, OSError]


def test_an_interrupt_in_a_finalizer_skips_no_other(container: DIContainer, closed: list[str]) -> None:
    container.register_factory(First, generator_of(First, closed), lifetime=ServiceLifetime.SCOPED)
    container.register_factory(int, generator_of(int, closed, KeyboardInterrupt()), lifetime=ServiceLifetime.SCOPED)
    scope = container.scope()
    scope.resolve(First)
    scope.resolve(int)
    with pytest.raises(KeyboardInterrupt):
        scope.close()
    assert closed == ["int", "First"]


@pytest.mark.parametrize("cancellations", [1, 2, 3])
async def test_cancelling_the_closer_skips_no_finalizer_and_is_delivered_afterwards(
    container: DIContainer, closed: list[str], cancellations: int
) -> None:
    kinds = [type(f"Kind{number}", (), {}) for number in range(4)]
    for kind in kinds:
        container.register_factory(kind, async_generator_of(kind, closed, delay_s=1), lifetime=ServiceLifetime.SCOPED)
    opened = asyncio.Event()
    after: list[str] = []

    async def use() -> None:
        async with container.scope() as scope:
            for kind in kinds:
                await scope.aresolve(kind)
            opened.set()
        after.append("reached")

    task = asyncio.create_task(use())
    await opened.wait()
    for _ in range(cancellations):
        await asyncio.sleep(0.7)
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert closed == [kind.__name__ for kind in reversed(kinds)]
    assert after == []


async def test_errors_of_finalizers_are_the_cause_of_the_cancellation_that_closed(
    container: DIContainer, closed: list[str]
) -> None:
    make = async_generator_of(First, closed, ValueError("late"), delay_s=1)
    container.register_factory(First, make, lifetime=ServiceLifetime.SCOPED)
    scope = container.scope()
    await scope.aresolve(First)
    task = asyncio.create_task(scope.aclose())
    await asyncio.sleep(0.5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    assert isinstance(caught.value.__cause__, ExceptionGroup)


@pytest.mark.parametrize("stubborn", [False, True])
async def test_a_finalizer_that_hangs_is_cut_off_and_the_others_run(
    clock: VirtualClock, closed: list[str], stubborn: bool
) -> None:
    container = DIContainer(clock=clock, teardown_timeout_s=5)
    release = asyncio.Event()

    async def hang() -> AsyncIterator[Second]:
        yield Second(First())
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                if not stubborn:
                    raise

    container.register_factory(First, async_generator_of(First, closed), lifetime=ServiceLifetime.SCOPED)
    container.register_factory(Second, hang, lifetime=ServiceLifetime.SCOPED)
    scope = container.scope()
    await scope.aresolve(First)
    await scope.aresolve(Second)
    before = clock.monotonic()
    with pytest.raises(ExceptionGroup) as caught:
        await scope.aclose()
    assert clock.monotonic() - before == pytest.approx(6 if stubborn else 5)
    assert [type(error) for error in caught.value.exceptions] == [DeadlineExceededError]
    assert closed == ["First"]
    release.set()
    await asyncio.sleep(1)


async def test_singletons_are_torn_down_when_the_container_stops(container: DIContainer, closed: list[str]) -> None:
    container.register_factory(First, async_generator_of(First, closed), lifetime=ServiceLifetime.SINGLETON)
    async with container.scope() as scope:
        await scope.aresolve(First)
    assert closed == []
    await container.stop()
    assert closed == ["First"]
    await container.stop()
    assert closed == ["First"]
    with pytest.raises(DependencyInjectionError, match="the container is stopped"):
        container.resolve(First)
    with pytest.raises(DependencyInjectionError, match="the container is stopped"):
        await container.aresolve(First)


def test_a_container_without_a_loop_is_closed_synchronously(closed: list[str]) -> None:
    with DIContainer() as container:
        container.register_factory(First, generator_of(First, closed), lifetime=ServiceLifetime.SINGLETON)
        container.register_factory(int, generator_of(int, closed))
        container.resolve(First)
        container.resolve(int)
    assert closed == ["int", "First"]


async def test_a_synchronous_close_refuses_asynchronous_teardown_before_it_touches_anything(
    container: DIContainer, closed: list[str]
) -> None:
    container.register_factory(First, generator_of(First, closed))
    container.register_factory(int, async_generator_of(int, closed))
    scope = container.scope()
    for owner in (scope, container):
        scope_or_container: Scope | DIContainer = owner
        await scope_or_container.aresolve(First)
        await scope_or_container.aresolve(int)
        with pytest.raises(DependencyInjectionError, match="int has an asynchronous teardown"):
            scope_or_container.close()
    assert closed == []
    await scope.aclose()
    await container.stop()
    assert closed == ["int", "First"] * 2


async def test_a_scope_opened_with_plain_with_refuses_asynchronous_teardown(
    container: DIContainer, closed: list[str]
) -> None:
    container.register_factory(First, async_generator_of(First, closed), lifetime=ServiceLifetime.SCOPED)
    with container.scope() as scope, pytest.raises(DependencyResolutionException, match="async with"):
        await scope.aresolve(First)


async def test_a_generator_must_yield_exactly_once(container: DIContainer) -> None:
    def never() -> Iterator[First]:
        if container is None:
            yield First()

    async def never_async() -> AsyncIterator[First]:
        if container is None:
            yield First()

    def twice() -> Iterator[First]:
        yield First()
        yield First()

    async def twice_async() -> AsyncIterator[First]:
        yield First()
        yield First()

    for lazy in (never, never_async):
        container.register_factory(First, lazy)
        with pytest.raises(DependencyResolutionException, match="ended without a yield"):
            await container.aresolve(First)
    for eager in (twice, twice_async):
        container.register_factory(First, eager)
        scope = container.scope()
        await scope.aresolve(First)
        with pytest.raises(ExceptionGroup) as caught:
            await scope.aclose()
        assert "yields more than once" in str(caught.value.exceptions[0])


async def test_a_product_that_does_not_fit_is_torn_down_with_its_scope(
    container: DIContainer, closed: list[str]
) -> None:
    container.register_factory(First, generator_of(int, closed))
    scope = container.scope()
    with pytest.raises(DependencyResolutionException, match="no instance of First"):
        scope.resolve(First)
    scope.close()
    assert closed == ["int"]


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_service_whose_scope_closes_in_mid_build_is_torn_down_at_once(
    container: DIContainer, closed: list[str], asynchronous: bool
) -> None:
    building, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> First:
        building.set()
        await go_on.wait()
        return First()

    async def second_async(first: First) -> AsyncIterator[Second]:
        yield Second(first)
        closed.append("Second")

    def second(first: First) -> Iterator[Second]:
        yield Second(first)
        closed.append("Second")

    container.register_factory(First, slow)
    container.register_factory(Second, second_async if asynchronous else second, lifetime=ServiceLifetime.SCOPED)
    scope = container.scope()
    asking = asyncio.create_task(scope.aresolve(Second))
    await building.wait()
    await scope.aclose()
    go_on.set()
    with pytest.raises(DependencyResolutionException, match="the scope was closed meanwhile"):
        await asking
    assert closed == ["Second"]


async def test_the_teardowns_that_a_scope_may_owe_are_bounded(container: DIContainer, closed: list[str]) -> None:
    container.register_factory(First, generator_of(First, closed))
    for _ in range(TEARDOWNS_MAX):
        container.resolve(First)
    with pytest.raises(DependencyResolutionException, match="owes 10000 teardowns already"):
        container.resolve(First)
    assert closed == ["First"]
    await container.stop()
    assert len(closed) == TEARDOWNS_MAX + 1


async def test_a_cancelled_build_leaves_nothing_behind(container: DIContainer, closed: list[str]) -> None:
    cleaned: list[str] = []

    async def slow(first: First) -> AsyncIterator[Second]:
        try:
            await asyncio.sleep(10)
            yield Second(first)
        finally:
            cleaned.append("slow")

    container.register_factory(First, generator_of(First, closed), lifetime=ServiceLifetime.SCOPED)
    container.register_factory(Second, slow, lifetime=ServiceLifetime.SCOPED)
    async with container.scope() as scope:
        task = asyncio.create_task(scope.aresolve(Second))
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert cleaned == ["slow"]
        assert (await scope.aresolve(Second)).first is scope.resolve(First)
    assert closed == ["First"]


async def test_errors_inside_a_scope_are_explained_after_it_is_compiled(container: DIContainer) -> None:
    broken = False

    class Shaky:
        def __init__(self) -> None:
            if broken:
                raise OSError

    container.register_scoped(Shaky)
    for _ in range(2):
        async with container.scope() as scope:
            scope.resolve(Shaky)
    broken = True
    for _ in range(2):
        async with container.scope() as scope:
            with pytest.raises(DependencyResolutionException, match="Shaky could not be built"):
                scope.resolve(Shaky)
            with pytest.raises(DependencyResolutionException, match="Shaky could not be built"):
                await scope.aresolve(Shaky)
    with container.scope() as scope, pytest.raises(ServiceNotRegisteredException):
        await scope.aresolve(First)
