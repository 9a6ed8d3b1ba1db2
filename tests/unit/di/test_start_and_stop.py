"""Hosted services start in dependency order, stop in its reverse, and never begin without an end."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from polaris.di import DIContainer, ServiceLifetime
from polaris.exceptions import DeadlineExceededError, DependencyInjectionError, DependencyResolutionException
from polaris.testing import VirtualClock

Events = list[str]
SINGLETON = ServiceLifetime.SINGLETON


@pytest.fixture
def events() -> Events:
    return []


def hosted(
    name: str,
    events: Events,
    *,
    start_s: float = 0,
    stop_s: float = 0,
    start_error: BaseException | None = None,
    stop_error: BaseException | None = None,
) -> type:
    """A class with hooks that take a while, write down when they begin and end, and may fail."""

    class Hosted:
        async def start(self) -> None:
            events.append(f"+{name}")
            await asyncio.sleep(start_s)
            if start_error is not None:
                raise start_error
            events.append(f"{name} up")

        async def stop(self) -> None:
            events.append(f"-{name}")
            await asyncio.sleep(stop_s)
            if stop_error is not None:
                raise stop_error
            events.append(f"{name} down")

    Hosted.__name__ = Hosted.__qualname__ = name
    return Hosted


def register(container: DIContainer, cls: type, *needs: type) -> None:
    """A hosted singleton whose factory is given those that it needs."""

    def make(*_: object) -> Any:
        return cls()

    parameters = [
        inspect.Parameter(f"p{index}", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=need)
        for index, need in enumerate(needs)
    ]
    make.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined] # read by inspect.signature
    container.register_factory(cls, make, lifetime=SINGLETON)


async def test_services_start_in_dependency_order_and_stop_in_reverse(container: DIContainer, events: Events) -> None:
    a, b, c = (hosted(name, events, start_s=1, stop_s=1) for name in "abc")
    register(container, c, b)
    register(container, b, a)
    register(container, a)
    await container.start()
    assert events == ["+a", "a up", "+b", "b up", "+c", "c up"]
    events.clear()
    await container.stop()
    assert events == ["-c", "c down", "-b", "b down", "-a", "a down"]


async def test_order_is_kept_through_services_that_are_not_hosted(container: DIContainer, events: Events) -> None:
    a, b = (hosted(name, events) for name in "ab")

    class Between:
        pass

    def between(_: Any) -> Between:
        return Between()

    between.__annotations__["_"] = a
    register(container, b, Between)
    container.register_factory(Between, between)
    register(container, a)
    await container.start()
    await container.stop()
    assert events == ["+a", "a up", "+b", "b up", "-b", "b down", "-a", "a down"]


async def test_independent_services_start_and_stop_side_by_side(
    clock: VirtualClock, container: DIContainer, events: Events
) -> None:
    base = hosted("base", events, start_s=1, stop_s=1)
    register(container, base)
    for name in "abcde":
        register(container, hosted(name, events, start_s=3, stop_s=3), base)
    before = clock.monotonic()
    await container.start()
    assert clock.monotonic() - before == pytest.approx(4)
    await container.stop()
    assert clock.monotonic() - before == pytest.approx(8)
    assert events[-2:] == ["-base", "base down"]


async def test_every_singleton_is_built_by_start_and_nothing_else(container: DIContainer) -> None:
    built: list[str] = []

    def make(name: str) -> Any:
        def factory() -> Any:
            built.append(name)
            return object()

        return factory

    container.register_factory(object, make("singleton"), lifetime=SINGLETON)
    container.register_factory(object, make("scoped"), lifetime=ServiceLifetime.SCOPED)
    container.register_factory(object, make("transient"))
    await container.start()
    assert built == ["singleton"]
    await container.stop()


async def test_start_proves_the_graph_before_it_does_anything(container: DIContainer, events: Events) -> None:
    class Needy:
        def __init__(self, size: int) -> None:
            pass

    register(container, hosted("a", events))
    container.register_singleton(Needy)
    with pytest.raises(ExceptionGroup, match="cannot be wired"):
        await container.start()
    assert events == []
    container.register_instance(int, 3)
    await container.start()
    assert events == ["+a", "a up"]
    await container.stop()


async def test_a_failing_start_stops_exactly_what_had_begun(container: DIContainer, events: Events) -> None:
    a = hosted("a", events)
    quick = hosted("quick", events)
    slow = hosted("slow", events, start_s=100)
    broken = hosted("broken", events, start_s=1, start_error=OSError("no disk"))
    never = hosted("never", events)
    register(container, a)
    for cls in (quick, slow, broken):
        register(container, cls, a)
    register(container, never, quick)
    with pytest.raises(ExceptionGroup, match="failed to start") as caught:
        await container.start()
    (error,) = caught.value.exceptions
    assert isinstance(error, OSError)
    assert error.__notes__ == ["while starting broken"]
    begun = {event[1:] for event in events if event.startswith("+")}
    ended = [event[1:] for event in events if event.startswith("-")]
    assert begun == set(ended) == {"a", "quick", "slow", "broken"}
    assert len(ended) == 4
    assert ended[-1] == "a"
    assert "slow up" not in events


async def test_a_failing_start_tears_down_what_was_built_and_may_be_repeated(
    container: DIContainer, events: Events
) -> None:
    healthy = False

    def resource() -> Iterator[int]:
        events.append("open")
        yield 3
        events.append("close")

    class Shaky:
        def __init__(self, resource: int) -> None:
            pass

        def start(self) -> None:
            events.append("+shaky")
            if not healthy:
                raise OSError

        def stop(self) -> None:
            events.append("-shaky")

    container.register_factory(int, resource, lifetime=SINGLETON)
    container.register_singleton(Shaky)
    with pytest.raises(ExceptionGroup):
        await container.start()
    assert events == ["open", "+shaky", "-shaky", "close"]
    with pytest.raises(DependencyInjectionError, match="stopped"):
        container.resolve(Shaky)
    events.clear()
    healthy = True
    await container.start()
    assert isinstance(container.resolve(Shaky), Shaky)
    await container.stop()
    assert events == ["open", "+shaky", "-shaky", "close"]


async def test_a_failing_build_stops_the_start_and_tears_down_the_rest(container: DIContainer, events: Events) -> None:
    async def resource() -> AsyncIterator[int]:
        events.append("open")
        yield 3
        events.append("close")

    async def broken(resource: int) -> str:
        raise OSError

    container.register_factory(int, resource, lifetime=SINGLETON)
    container.register_factory(str, broken, lifetime=SINGLETON)
    with pytest.raises(ExceptionGroup) as caught:
        await container.start()
    assert isinstance(caught.value.exceptions[0], DependencyResolutionException)
    assert events == ["open", "close"]


async def test_errors_of_the_roll_back_come_out_with_the_error_of_the_start(
    container: DIContainer, events: Events
) -> None:
    a = hosted("a", events, stop_error=ValueError("stop"))
    b = hosted("b", events, start_error=OSError("start"))
    register(container, a)
    register(container, b, a)
    with pytest.raises(ExceptionGroup) as caught:
        await container.start()
    assert [type(error) for error in caught.value.exceptions] == [OSError, ValueError]


async def test_all_that_fails_within_a_level_is_reported(container: DIContainer, events: Events) -> None:
    for name in "ab":
        register(container, hosted(name, events, start_error=OSError(name)))
    with pytest.raises(ExceptionGroup) as caught:
        await container.start()
    assert {str(error) for error in caught.value.exceptions} == {"a", "b"}


async def test_a_cancelled_start_rolls_back_and_stays_cancelled(container: DIContainer, events: Events) -> None:
    a = hosted("a", events, stop_s=5)
    slow = hosted("slow", events, start_s=100)
    register(container, a)
    register(container, slow, a)
    task = asyncio.create_task(container.start())
    await asyncio.sleep(10)
    task.cancel()
    await asyncio.sleep(1)
    task.cancel()  # once more, while it rolls back
    with pytest.raises(asyncio.CancelledError):
        await task
    assert events == ["+a", "a up", "+slow", "-slow", "slow down", "-a", "a down"]


async def test_a_start_that_is_cancelled_again_has_ended_before_its_service_is_stopped(
    container: DIContainer, events: Events
) -> None:
    class Careful:
        async def start(self) -> None:
            try:
                await asyncio.sleep(100)
            finally:
                await asyncio.sleep(0.5)
                events.append("undone")

        async def stop(self) -> None:
            events.append("stop")

    container.register_singleton(Careful)
    task = asyncio.create_task(container.start())
    for _ in range(3):
        await asyncio.sleep(0.1)
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert events == ["undone", "stop"]


async def test_a_start_that_hangs_is_cut_off_at_its_own_deadline(clock: VirtualClock, events: Events) -> None:
    container = DIContainer(clock=clock, start_timeout_s=5)
    register(container, hosted("slow", events, start_s=100))
    before = clock.monotonic()
    with pytest.raises(ExceptionGroup) as caught:
        await container.start()
    assert clock.monotonic() - before == pytest.approx(5)
    assert [type(error) for error in caught.value.exceptions] == [DeadlineExceededError]
    assert events == ["+slow", "-slow", "slow down"]


async def test_all_starts_together_have_a_deadline_too(clock: VirtualClock, events: Events) -> None:
    container = DIContainer(clock=clock)
    previous = hosted("first", events, start_s=3)
    register(container, previous)
    for number in range(5):
        following = hosted(str(number), events, start_s=3)
        register(container, following, previous)
        previous = following
    before = clock.monotonic()
    with pytest.raises(ExceptionGroup) as caught:
        await container.start(timeout_s=7)
    assert clock.monotonic() - before == pytest.approx(7)
    assert [type(error) for error in caught.value.exceptions] == [DeadlineExceededError]
    assert [event for event in events if event[0] in "+-"] == ["+first", "+0", "+1", "-1", "-0", "-first"]


async def test_every_stop_runs_although_others_fail_or_hang(clock: VirtualClock, events: Events) -> None:
    container = DIContainer(clock=clock, stop_timeout_s=5)
    a = hosted("a", events)
    hanging = hosted("hanging", events, stop_s=1_000)
    broken = hosted("broken", events, stop_error=ValueError("b"))
    cancelled = hosted("cancelled", events, stop_error=asyncio.CancelledError())
    register(container, a)
    for cls in (hanging, broken, cancelled):
        register(container, cls, a)
    await container.start()
    events.clear()
    before = clock.monotonic()
    with pytest.raises(ExceptionGroup, match="failed to stop") as caught:
        await container.stop()
    assert clock.monotonic() - before == pytest.approx(5)
    assert len(caught.value.exceptions) == 3
    assert {DeadlineExceededError, ValueError} < {type(error) for error in caught.value.exceptions}
    assert sorted(events) == ["-a", "-broken", "-cancelled", "-hanging", "a down"]
    assert events[-1] == "a down"
    await container.stop()


async def test_a_cancelled_stop_still_stops_and_tears_down_everything(container: DIContainer, events: Events) -> None:
    async def resource() -> AsyncIterator[int]:
        yield 3
        await asyncio.sleep(5)
        events.append("close")

    container.register_factory(int, resource, lifetime=SINGLETON)
    a, b = (hosted(name, events, stop_s=5) for name in "ab")
    register(container, a, int)
    register(container, b, a)
    await container.start()
    events.clear()
    task = asyncio.create_task(container.stop())
    for _ in range(3):
        await asyncio.sleep(4)
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert events == ["-b", "b down", "-a", "a down", "close"]


async def test_teardown_comes_after_the_last_stop(container: DIContainer, events: Events) -> None:
    class Server:
        def start(self) -> None:
            events.append("start")

        def stop(self) -> None:
            events.append("stop")

    def server() -> Iterator[Server]:
        yield Server()
        events.append("close")

    container.register_factory(Server, server, lifetime=SINGLETON)
    async with container:
        events.append("running")
    assert events == ["start", "running", "stop", "close"]


async def test_starting_twice_starts_once_and_later_only_what_is_new(container: DIContainer, events: Events) -> None:
    a, b = (hosted(name, events) for name in "ab")
    register(container, a)
    await container.start()
    await container.start()
    assert events == ["+a", "a up"]
    register(container, b, a)
    await container.start()
    assert events == ["+a", "a up", "+b", "b up"]
    await container.stop()
    assert events[4:] == ["-b", "b down", "-a", "a down"]


async def test_a_second_start_that_fails_leaves_the_first_running(container: DIContainer, events: Events) -> None:
    a = hosted("a", events)
    broken = hosted("broken", events, start_error=OSError())
    register(container, a)
    await container.start()
    register(container, broken, a)
    with pytest.raises(ExceptionGroup):
        await container.start()
    assert events == ["+a", "a up", "+broken", "-broken", "broken down"]
    assert type(container.resolve(a)) is a
    await container.stop()
    assert events[-2:] == ["-a", "a down"]


async def test_concurrent_starts_and_stops_take_turns(container: DIContainer, events: Events) -> None:
    register(container, hosted("a", events, start_s=1, stop_s=1))
    await asyncio.gather(container.start(), container.start(), container.stop(), container.stop())
    assert events == ["+a", "a up", "-a", "a down"]


async def test_stop_without_start_stops_nothing_and_tears_down(container: DIContainer, events: Events) -> None:
    register(container, hosted("a", events))
    container.resolve(container.registrations()[0].interface)
    await container.stop()
    assert events == []


async def test_a_started_container_can_be_stopped_and_started_again(container: DIContainer, events: Events) -> None:
    a = hosted("a", events)
    register(container, a)
    instances: list[object] = []
    for _ in range(2):
        async with container:
            instances.append(container.resolve(a))
    assert events == ["+a", "a up", "-a", "a down"] * 2
    assert instances[0] is not instances[1]


def test_another_event_loop_may_stop_what_is_started_once_the_first_is_gone(
    container: DIContainer, events: Events
) -> None:
    register(container, hosted("a", events))
    asyncio.run(container.start())
    asyncio.run(container.stop())
    assert events == ["+a", "a up", "-a", "a down"]


async def test_starting_from_two_loops_at_once_is_refused(container: DIContainer, events: Events) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    class Slow:
        async def start(self) -> None:
            begun.set()
            await go_on.wait()

        async def stop(self) -> None:
            pass

    container.register_singleton(Slow)
    starting = asyncio.create_task(container.start())
    await begun.wait()
    errors: list[BaseException] = []

    def start_elsewhere() -> None:
        try:
            asyncio.run(container.start())
        except DependencyInjectionError as error:
            errors.append(error)

    thread = threading.Thread(target=start_elsewhere)
    thread.start()
    thread.join(20)
    assert "another event loop" in str(errors[0])
    go_on.set()
    await starting
    await container.stop()


async def test_one_object_under_two_interfaces_starts_once(container: DIContainer, events: Events) -> None:
    cls = hosted("a", events)
    instance = cls()
    container.register_instance(cls, instance)
    container.register_instance(object, instance)
    await container.start()
    await container.stop()
    assert events == ["+a", "a up", "-a", "a down"]


async def test_what_is_hosted_can_be_said_explicitly(container: DIContainer, events: Events) -> None:
    class OnlyStart:
        def start(self) -> None:
            events.append("never")

    class NeedsArgument:
        def start(self, port: int) -> None:
            events.append("never")

        def stop(self) -> None:
            events.append("never")

    class Duck:
        def __getattr__(self, name: str) -> Any:
            return lambda: events.append(name)

    quiet = hosted("quiet", events)
    container.register_singleton(OnlyStart)
    container.register_singleton(NeedsArgument)
    container.register_factory(quiet, quiet, lifetime=SINGLETON, hosted=False)
    container.register_instance(Duck, Duck(), hosted=True)
    await container.start()
    await container.stop()
    assert events == ["start", "stop"]


async def test_threads_of_the_standard_library_are_not_mistaken_for_hosted_services(container: DIContainer) -> None:
    thread = threading.Thread(target=lambda: None)
    container.register_instance(threading.Thread, thread)
    await container.start()
    await container.stop()
    assert not thread.is_alive()
    assert thread.ident is None


async def test_a_stubborn_start_is_left_behind_and_its_late_error_is_not_lost_in_a_warning(
    clock: VirtualClock, events: Events
) -> None:
    class Stubborn:
        async def start(self) -> None:
            try:
                await asyncio.sleep(1_000)
            except asyncio.CancelledError:
                await asyncio.sleep(10)
                raise OSError from None

        async def stop(self) -> None:
            events.append("stop")

    container = DIContainer(clock=clock, start_timeout_s=5)
    container.register_singleton(Stubborn)
    before = clock.monotonic()
    with pytest.raises(ExceptionGroup):
        await container.start()
    assert clock.monotonic() - before == pytest.approx(6)
    assert events == ["stop"]
    await asyncio.sleep(100)
