"""One instance per singleton and per scoped service, whoever asks at the same time; and no wait without an end."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Any

import pytest

from polaris.di import DIContainer, Scope, ServiceLifetime, _slots
from polaris.di._store import Store
from polaris.exceptions import DependencyResolutionException

SOON_S = 20.0
"""Far more than any of these waits can take; a test that needs it has failed."""
AT_ONCE_S = 2.0
"""What is had without waiting for anybody takes less on any machine."""


class Service:
    pass


class Other:
    pass


class Third:
    pass


SINGLETON = ServiceLifetime.SINGLETON


def in_threads(count: int, work: Callable[[], Any]) -> list[Any]:
    """The outcome of `work` in each of several threads that begin together: a result or an exception."""
    barrier = threading.Barrier(count)

    def run() -> Any:
        barrier.wait(SOON_S)
        try:
            return work()
        except Exception as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        return [future.result(SOON_S) for future in [pool.submit(run) for _ in range(count)]]


@pytest.mark.parametrize("round_", range(5))
def test_threads_tasks_and_loops_together_build_one(container: DIContainer, round_: int) -> None:
    built: Counter[str] = Counter()

    class Slow:
        def __init__(self) -> None:
            built["slow"] += 1
            threading.Event().wait(0.01)

    async def make(slow: Slow) -> Service:
        built["service"] += 1
        await asyncio.sleep(0.01)
        return Service()

    container.register_singleton(Slow)
    container.register_factory(Service, make, lifetime=SINGLETON)

    async def many() -> list[Any]:
        return await asyncio.gather(*(container.aresolve(Service) for _ in range(20)))

    def work() -> list[Any]:
        return [container.resolve(Slow), *asyncio.run(many())]

    outcomes = in_threads(8, work)
    assert built == {"slow": 1, "service": 1}
    assert {id(found) for outcome in outcomes for found in outcome} == {
        id(container.resolve(Slow)),
        id(container.resolve(Service)),
    }


def test_a_scope_shared_by_threads_builds_its_services_once(container: DIContainer) -> None:
    built: list[object] = []

    class Slow:
        def __init__(self) -> None:
            built.append(self)
            threading.Event().wait(0.01)

    container.register_scoped(Slow)
    with container.scope() as warm:
        warm.resolve(Slow)
        warm.resolve(Slow)
    built.clear()
    with container.scope() as scope:
        outcomes = in_threads(8, lambda: scope.resolve(Slow))
    assert len(built) == 1
    assert set(outcomes) == set(built)


async def test_tasks_that_share_a_scope_build_its_services_once(container: DIContainer) -> None:
    built: list[object] = []

    async def make() -> Service:
        await asyncio.sleep(1)
        built.append(service := Service())
        return service

    container.register_factory(Service, make, lifetime=ServiceLifetime.SCOPED)
    async with container.scope() as scope:
        found = await asyncio.gather(*(scope.aresolve(Service) for _ in range(10)))
    assert set(found) == set(built)
    assert len(built) == 1


async def test_a_synchronous_service_held_up_by_an_asynchronous_singleton_is_awaited_by_others(
    container: DIContainer,
) -> None:
    """A task of the same loop builds a scoped service and awaits; another asks for it after it has been compiled."""
    go_on = asyncio.Event()

    async def make() -> Service:
        await go_on.wait()
        return Service()

    class User:
        def __init__(self, service: Service) -> None:
            self.service = service

    container.register_factory(Service, make, lifetime=SINGLETON)
    container.register_scoped(User)
    async with container.scope() as scope, container.scope() as other:
        first = asyncio.create_task(scope.aresolve(User))
        await asyncio.sleep(0)
        go_on.set()
        await container.aresolve(Service)
        await other.aresolve(User)
        await other.aresolve(User)
        assert await scope.aresolve(User) is await first


def test_a_finished_singleton_is_never_delayed_by_the_construction_of_another(container: DIContainer) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow() -> Other:
        begun.set()
        assert go_on.wait(SOON_S)
        return Other()

    container.register_singleton(Service)
    container.register_singleton(Third)
    container.register_factory(Other, slow, lifetime=SINGLETON)
    service = container.resolve(Service)
    with ThreadPoolExecutor(1) as pool:
        building = pool.submit(container.resolve, Other)
        assert begun.wait(SOON_S)
        assert container.resolve(Service) is service
        assert asyncio.run(container.aresolve(Service)) is service
        assert isinstance(container.resolve(Third), Third)  # nor is the construction of one that is independent
        container.register_instance(int, 3)
        assert container.resolve(Service) is service
        assert not building.done()
        go_on.set()
        assert building.result(SOON_S) is container.resolve(Other)


def test_a_cached_singleton_is_had_at_once_while_another_is_built(container: DIContainer) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow() -> Other:
        begun.set()
        assert go_on.wait(SOON_S)
        return Other()

    container.register_singleton(Service)
    container.register_factory(Other, slow, lifetime=SINGLETON)
    service = container.resolve(Service)
    with ThreadPoolExecutor(3) as pool:
        building = pool.submit(container.resolve, Other)
        assert begun.wait(SOON_S)
        asking = [pool.submit(container.resolve, Service) for _ in range(2)]
        done, _ = wait(asking, AT_ONCE_S)
        go_on.set()
        assert done == set(asking)
        assert all(asked.result() is service for asked in asking)
        assert isinstance(building.result(SOON_S), Other)


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_failed_build_hands_over_to_the_next_waiter(container: DIContainer, asynchronous: bool) -> None:
    attempts: list[int] = []

    async def make() -> Service:
        attempts.append(len(attempts))
        await asyncio.sleep(1)
        if len(attempts) < 3:
            message = f"attempt {len(attempts)}"
            raise OSError(message)
        return Service()

    container.register_factory(Service, make, lifetime=SINGLETON)
    tasks = [asyncio.create_task(container.aresolve(Service)) for _ in range(5)]
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [DependencyResolutionException] * 2 + [Service] * 3
    assert str(outcomes[0]) != str(outcomes[1])
    assert len(attempts) == 3
    assert set(outcomes[2:]) == {container.resolve(Service)}


def test_threads_take_over_from_a_failed_build(container: DIContainer) -> None:
    attempts: list[int] = []

    def make() -> Service:
        attempts.append(1)
        threading.Event().wait(0.01)
        if len(attempts) < 4:
            raise OSError
        return Service()

    container.register_factory(Service, make, lifetime=SINGLETON)
    outcomes = in_threads(8, lambda: container.resolve(Service))
    assert Counter(type(outcome) for outcome in outcomes) == {DependencyResolutionException: 3, Service: 5}
    assert len(attempts) == 4


async def test_a_cancelled_build_hands_over_and_a_cancelled_waiter_changes_nothing(container: DIContainer) -> None:
    attempts: list[int] = []

    async def make() -> Service:
        attempts.append(1)
        await asyncio.sleep(10)
        return Service()

    container.register_factory(Service, make, lifetime=SINGLETON)
    tasks = [asyncio.create_task(container.aresolve(Service)) for _ in range(5)]
    await asyncio.sleep(1)
    tasks[2].cancel()
    await asyncio.sleep(1)
    assert len(attempts) == 1
    tasks[0].cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert len(attempts) == 2
    assert [type(outcome) for outcome in outcomes] == [
        asyncio.CancelledError,
        Service,
        asyncio.CancelledError,
        Service,
        Service,
    ]


async def test_a_key_is_usable_after_a_cancelled_build(container: DIContainer) -> None:
    async def make() -> Service:
        await asyncio.sleep(1)
        return Service()

    container.register_factory(Service, make, lifetime=SINGLETON)
    task = asyncio.create_task(container.aresolve(Service))
    await asyncio.sleep(0.5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(100):
        assert await container.aresolve(Service) is container.resolve(Service)


async def test_registering_in_the_middle_of_a_build_keeps_what_is_being_built(container: DIContainer) -> None:
    async def make(other: Other) -> Service:
        container.register_instance(int, 3)
        await asyncio.sleep(1)
        return Service()

    container.register_singleton(Other)
    container.register_factory(Service, make, lifetime=SINGLETON)
    task = asyncio.create_task(container.aresolve(Service))
    await asyncio.sleep(0.5)
    other = container.resolve(Other)
    container.register_instance(str, "text")
    service = await task
    assert container.resolve(Service) is service
    assert container.resolve(Other) is other


@pytest.mark.parametrize("ticks", range(6))
async def test_a_waiter_cancelled_as_it_is_woken_passes_the_turn_on(container: DIContainer, ticks: int) -> None:
    """The builder fails, which wakes the next waiter, which is cancelled so many ticks later: somebody must build."""
    fail = asyncio.Event()

    async def make() -> Service:
        if not fail.is_set():
            await fail.wait()
            raise OSError
        await asyncio.sleep(1)
        return Service()

    container.register_factory(Service, make, lifetime=SINGLETON)
    tasks = [asyncio.create_task(container.aresolve(Service)) for _ in range(4)]
    await asyncio.sleep(0.1)
    fail.set()
    for _ in range(ticks):
        await asyncio.sleep(0)
    tasks[1].cancel()
    async with asyncio.timeout(100):
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(outcomes[0], DependencyResolutionException)
    assert isinstance(outcomes[1], asyncio.CancelledError)
    assert outcomes[2] is outcomes[3] is container.resolve(Service)


def test_a_thread_waits_for_a_task_and_a_task_for_a_thread(container: DIContainer) -> None:
    begun = {Service: threading.Event(), Other: threading.Event()}
    go_on = threading.Event()

    async def make() -> Service:
        begun[Service].set()
        while not go_on.is_set():
            await asyncio.sleep(0.001)
        return Service()

    def make_other() -> Other:
        begun[Other].set()
        assert go_on.wait(SOON_S)
        return Other()

    container.register_factory(Service, make, lifetime=SINGLETON)
    container.register_factory(Other, make_other, lifetime=SINGLETON)
    with ThreadPoolExecutor(4) as pool:
        in_task = pool.submit(lambda: asyncio.run(container.aresolve(Service)))
        assert begun[Service].wait(SOON_S)
        in_thread = pool.submit(container.resolve, Other)
        assert begun[Other].wait(SOON_S)
        thread_for_task: Future[Any] = pool.submit(container.resolve, Service)
        task_for_thread = pool.submit(lambda: asyncio.run(container.aresolve(Other)))
        assert not thread_for_task.done()
        assert not task_for_thread.done()
        go_on.set()
        assert thread_for_task.result(SOON_S) is in_task.result(SOON_S)
        assert task_for_thread.result(SOON_S) is in_thread.result(SOON_S)


@pytest.mark.parametrize("waiter", ["thread", "task"])
def test_a_build_whose_event_loop_was_closed_is_taken_over(container: DIContainer, waiter: str) -> None:
    stuck = True

    async def make() -> Service:
        if stuck:
            await asyncio.get_running_loop().create_future()
        return Service()

    container.register_factory(Service, make, lifetime=SINGLETON)
    loop = asyncio.new_event_loop()
    task = loop.create_task(container.aresolve(Service))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    stuck = False
    if waiter == "task":
        assert isinstance(asyncio.run(container.aresolve(Service)), Service)
    else:
        with pytest.raises(DependencyResolutionException, match="aresolve"):  # not a hang, not a cycle
            container.resolve(Service)
    task._log_destroy_pending = False  # type: ignore[attr-defined] # it was abandoned on purpose
    task.get_coro().close()  # or it would be closed by the collector at any time


def test_a_task_that_waits_for_a_build_takes_over_when_its_event_loop_is_closed(
    container: DIContainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_slots, "_STALE_CHECK_S", 0.01)
    stuck = True

    async def make() -> Service:
        if stuck:
            await asyncio.get_running_loop().create_future()
        return Service()

    container.register_factory(Service, make, lifetime=SINGLETON)
    other = asyncio.new_event_loop()
    abandoned = other.create_task(container.aresolve(Service))
    other.run_until_complete(asyncio.sleep(0))

    async def main() -> Service:
        nonlocal stuck
        waiting = asyncio.create_task(container.aresolve(Service))
        for _ in range(3):
            await asyncio.sleep(0)
        stuck = False
        other.close()
        return await asyncio.wait_for(waiting, SOON_S)

    assert isinstance(asyncio.run(main()), Service)
    abandoned._log_destroy_pending = False  # type: ignore[attr-defined] # it was abandoned on purpose
    abandoned.get_coro().close()


@pytest.mark.parametrize("lifetime", [SINGLETON, ServiceLifetime.SCOPED])
async def test_a_cycle_through_the_body_of_factories_raises(container: DIContainer, lifetime: ServiceLifetime) -> None:
    class Asker:
        def __init__(self, resolver: Any, interface: Any) -> None:
            self.found = resolver.resolve(interface)

    scope = container.scope()
    resolver: DIContainer | Scope = container if lifetime == "singleton" else scope
    container.register_factory(Service, lambda: Asker(resolver, Other).found, lifetime=lifetime)
    container.register_factory(Other, lambda: Asker(resolver, Third).found, lifetime=lifetime)
    container.register_factory(Third, lambda: Asker(resolver, Service).found, lifetime=lifetime)
    with pytest.raises(DependencyResolutionException, match="while it is being built"):
        resolver.resolve(Service)
    with pytest.raises(DependencyResolutionException, match="while it is being built"):
        await resolver.aresolve(Service)
    container.register_singleton(Third)
    assert isinstance(container.resolve(Third), Third)


def test_a_cycle_through_the_body_of_a_factory_raises_at_once(container: DIContainer) -> None:
    """In a thread that is left behind if it stands still."""
    outcome: list[Any] = []

    def ask() -> None:
        try:
            outcome.append(container.resolve(Service))
        except DependencyResolutionException as error:
            outcome.append(error)

    container.register_factory(Service, lambda: container.resolve(Other), lifetime=SINGLETON)
    container.register_factory(Other, lambda: container.resolve(Service), lifetime=SINGLETON)
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(AT_ONCE_S)
    (error,) = outcome
    assert error.path[-1] == error.path[0]


async def test_a_cycle_through_the_body_of_async_factories_raises_and_names_the_services(
    container: DIContainer,
) -> None:
    async def service() -> Service:
        await container.aresolve(Other)
        return Service()

    async def other() -> Other:
        await container.aresolve(Service)
        return Other()

    container.register_factory(Service, service, lifetime=SINGLETON)
    container.register_factory(Other, other, lifetime=SINGLETON)
    for _ in range(2):
        with pytest.raises(DependencyResolutionException) as caught:
            await container.aresolve(Service)
        assert caught.value.path[0] == caught.value.path[-1] == "Service"


async def test_a_cycle_through_a_task_that_a_factory_started_raises(container: DIContainer) -> None:
    async def service() -> Service:
        return await asyncio.create_task(container.aresolve(Service))

    container.register_factory(Service, service, lifetime=SINGLETON)
    with pytest.raises(DependencyResolutionException, match="while it is being built"):
        await container.aresolve(Service)


async def test_a_cycle_through_a_worker_thread_of_a_factory_raises(container: DIContainer) -> None:
    async def service() -> Service:
        return await asyncio.to_thread(container.resolve, Service)

    container.register_factory(Service, service, lifetime=SINGLETON)
    with pytest.raises(DependencyResolutionException, match="while it is being built"):
        await container.aresolve(Service)


async def test_two_tasks_that_wait_for_each_others_build_are_told_apart_from_two_that_only_meet(
    container: DIContainer,
) -> None:
    async def service() -> Service:
        await asyncio.sleep(1)
        await asyncio.gather(asyncio.sleep(1), container.aresolve(Other))
        return Service()

    async def other() -> Other:
        await asyncio.sleep(1)
        await asyncio.create_task(container.aresolve(Service))
        return Other()

    container.register_factory(Service, service, lifetime=SINGLETON)
    container.register_factory(Other, other, lifetime=SINGLETON)
    async with asyncio.timeout(100):
        outcomes = await asyncio.gather(container.aresolve(Service), container.aresolve(Other), return_exceptions=True)
    assert any(isinstance(outcome, DependencyResolutionException) for outcome in outcomes)

    async def independent() -> Other:
        await asyncio.sleep(5)
        return Other()

    container.register_factory(Other, independent, lifetime=SINGLETON)
    async with asyncio.timeout(100):
        found = await asyncio.gather(*(container.aresolve(kind) for kind in (Service, Other, Service, Other)))
    assert found[0] is found[2]
    assert found[1] is found[3]


def test_two_threads_that_build_into_each_other_raise(container: DIContainer) -> None:
    meeting = threading.Barrier(2)
    met: set[str] = set()

    def meet(who: str) -> None:
        if who not in met:  # the one that is told to go on builds both, alone
            met.add(who)
            meeting.wait(SOON_S)

    def service() -> Service:
        meet("service")
        container.resolve(Other)
        return Service()

    def other() -> Other:
        meet("other")
        container.resolve(Service)
        return Other()

    container.register_factory(Service, service, lifetime=SINGLETON)
    container.register_factory(Other, other, lifetime=SINGLETON)
    interfaces = iter([Service, Other])
    outcomes = in_threads(2, lambda: container.resolve(next(interfaces)))
    assert any(isinstance(outcome, DependencyResolutionException) for outcome in outcomes)


async def test_asking_synchronously_for_what_a_task_of_this_loop_is_building_raises(container: DIContainer) -> None:
    async def make() -> Service:
        await asyncio.sleep(1)
        return Service()

    class User:
        def __init__(self) -> None:
            self.service = container.resolve(Service)

    container.register_factory(Service, make, lifetime=SINGLETON)
    container.register_transient(User)
    task = asyncio.create_task(container.aresolve(Service))
    await asyncio.sleep(0.5)
    with pytest.raises(DependencyResolutionException, match=r"aresolve|being built"):
        container.resolve(User)
    await task
    assert container.resolve(User).service is await task


def test_a_loop_thread_that_stands_still_for_a_build_that_waits_for_that_loop_raises(container: DIContainer) -> None:
    """Loop A builds Service and, in the same thread, blocks on Other, whose builder in loop B awaits Service."""
    service_begun, other_waits = threading.Event(), threading.Event()

    async def service() -> Service:
        service_begun.set()
        await asyncio.sleep(0.05)
        return Service()

    async def other() -> Other:
        assert await asyncio.to_thread(service_begun.wait, SOON_S)
        other_waits.set()
        await container.aresolve(Service)
        return Other()

    container.register_factory(Service, service, lifetime=SINGLETON)
    container.register_factory(Other, other, lifetime=SINGLETON)

    async def loop_a() -> list[Any]:
        building = asyncio.create_task(container.aresolve(Service))
        await asyncio.sleep(0)
        assert other_waits.wait(SOON_S)
        try:
            blocked: Any = container.resolve(Other)
        except DependencyResolutionException as error:
            blocked = error
        return [blocked, await building]

    with ThreadPoolExecutor(2) as pool:
        future_b = pool.submit(lambda: asyncio.run(container.aresolve(Other)))
        future_a = pool.submit(lambda: asyncio.run(loop_a()))
        blocked, built = future_a.result(SOON_S)
        outcome_b = future_b.exception(SOON_S)
    assert isinstance(built, Service)
    assert isinstance(blocked, DependencyResolutionException) or outcome_b is not None


async def test_no_books_are_kept_of_waits_that_are_over(container: DIContainer) -> None:
    async def make() -> Service:
        await asyncio.sleep(1)
        raise OSError

    container.register_factory(Service, make, lifetime=SINGLETON)
    tasks = [asyncio.create_task(container.aresolve(Service)) for _ in range(4)]
    await asyncio.sleep(0.5)
    tasks[3].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    root: Store = container._root
    assert root.values == {}
    assert _slots._waiters == {}


async def test_a_ring_through_a_build_inside_another_raises(container: DIContainer) -> None:
    """One task builds Service and inside it Other, which waits for Third; the builder of Third waits for Service."""

    async def service() -> Service:
        await container.aresolve(Other)
        return Service()

    async def other() -> Other:
        await asyncio.sleep(1)
        await container.aresolve(Third)
        return Other()

    async def third() -> Third:
        await asyncio.sleep(2)
        await container.aresolve(Service)
        return Third()

    for kind, factory in ((Service, service), (Other, other), (Third, third)):
        container.register_factory(kind, factory, lifetime=SINGLETON)
    async with asyncio.timeout(100):
        outcomes = await asyncio.gather(container.aresolve(Service), container.aresolve(Third), return_exceptions=True)
    assert any(isinstance(outcome, DependencyResolutionException) for outcome in outcomes)


async def test_a_ring_that_one_who_took_over_a_build_closes_raises(container: DIContainer) -> None:
    """Other waits for the first build of Service, which fails; the second one waits for Other."""
    attempts: list[int] = []

    async def service() -> Service:
        attempts.append(1)
        await asyncio.sleep(1)
        if len(attempts) == 1:
            raise OSError
        await container.aresolve(Other)
        return Service()

    async def other() -> Other:
        await container.aresolve(Service)
        return Other()

    container.register_factory(Service, service, lifetime=SINGLETON)
    container.register_factory(Other, other, lifetime=SINGLETON)
    asked = (Service, Service, Other)
    async with asyncio.timeout(100):
        outcomes = await asyncio.gather(*(container.aresolve(kind) for kind in asked), return_exceptions=True)
    assert all(isinstance(outcome, DependencyResolutionException) for outcome in outcomes)


async def test_what_a_task_has_just_built_is_not_held_against_it(container: DIContainer) -> None:
    """It asks for what another task builds that had waited for it and does not know yet that it may go on."""

    async def service() -> Service:
        await asyncio.sleep(1)
        return Service()

    async def other() -> Other:
        await container.aresolve(Service)
        return Other()

    async def one_after_the_other() -> Other:
        await container.aresolve(Service)
        return await container.aresolve(Other)

    container.register_factory(Service, service, lifetime=SINGLETON)
    container.register_factory(Other, other, lifetime=SINGLETON)
    async with asyncio.timeout(100):
        first, second = await asyncio.gather(one_after_the_other(), container.aresolve(Other))
    assert first is second


def test_a_build_is_not_handed_to_a_task_whose_thread_stands_still_for_another_who_waits(
    container: DIContainer,
) -> None:
    """A loop waits for Service and, in the same thread, stands still for Other, whose builder waits for Service too."""
    begun, fail, waiting = threading.Event(), threading.Event(), threading.Event()

    def service() -> Service:
        if not begun.is_set():
            begun.set()
            assert fail.wait(SOON_S)
            raise OSError
        return Service()

    def other() -> Other:
        waiting.set()
        container.resolve(Service)
        return Other()

    def ask(kind: type) -> None:
        def run() -> None:
            with suppress(DependencyResolutionException):
                container.resolve(kind)

        threading.Thread(target=run, daemon=True).start()

    async def loop() -> None:
        first = asyncio.create_task(container.aresolve(Service))
        await asyncio.sleep(0)
        ask(Other)
        assert waiting.wait(SOON_S)
        threading.Timer(0.05, fail.set).start()
        outcome.append((container.resolve(Other), await first))

    container.register_factory(Service, service, lifetime=SINGLETON)
    container.register_factory(Other, other, lifetime=SINGLETON)
    outcome: list[tuple[Other, Service]] = []
    ask(Service)
    assert begun.wait(SOON_S)
    thread = threading.Thread(target=lambda: asyncio.run(loop()), daemon=True)
    thread.start()
    thread.join(AT_ONCE_S)
    assert not thread.is_alive()
    assert outcome == [(container.resolve(Other), container.resolve(Service))]
