"""Subscriptions that pause, wait for a breaker, begin where they are told to; and replays of what was stored."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.unit.messaging.doubles import eventually, health, new_bus, number_of, publish_raw, running_bus, telemetry

from polaris.domain import HealthEvent, TelemetryEvent
from polaris.exceptions import BusConnectionError, InvalidValueError, SubscriptionError
from polaris.messaging import InMemoryHub, InMemoryMessageBroker, RedeliveryPolicy, Start
from polaris.messaging._replay import AWAY_MAX
from polaris.messaging._streams import ADVISORY_STREAM
from polaris.resilience import CircuitBreaker, CircuitBreakerConfig
from polaris.testing import running_clock

POLICY = RedeliveryPolicy(max_deliveries=3, base_delay_s=1.0, max_delay_s=4.0)


def collecting(seen: list[float]) -> Any:
    async def handle(event: TelemetryEvent) -> None:
        seen.append(number_of(event))

    return handle


async def test_a_paused_subscription_begins_nothing_and_goes_on_where_it_was() -> None:
    seen: list[float] = []
    async with running_bus() as bus:
        subscription = await bus.subscribe("polaris.telemetry.*", collecting(seen))
        await bus.publish_telemetry(telemetry(1))
        await eventually(lambda: seen == [1.0])
        subscription.pause()
        assert subscription.paused
        for number in range(2, 6):
            await bus.publish_telemetry(telemetry(number))
        await asyncio.sleep(300)
        assert seen == [1.0]
        subscription.resume()
        await eventually(lambda: len(seen) == 5)
    assert seen == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert (subscription.paused, subscription.stats.redelivered) == (False, 0)


async def test_a_handler_that_runs_when_a_pause_begins_finishes() -> None:
    begun, gate = asyncio.Event(), asyncio.Event()
    done: list[float] = []

    async def handle(event: TelemetryEvent) -> None:
        begun.set()
        await gate.wait()
        done.append(number_of(event))

    async with running_bus() as bus:
        subscription = await bus.subscribe("polaris.telemetry.*", handle)
        await bus.publish_telemetry(telemetry(1))
        await begun.wait()
        subscription.pause()
        gate.set()
        await eventually(lambda: subscription.in_flight == 0)
    assert done == [1.0]


@pytest.mark.parametrize("drained", [True, False])
async def test_ending_a_paused_subscription_ends_the_pause(drained: bool) -> None:
    seen: list[float] = []
    hub = InMemoryHub(clock=running_clock())
    async with running_bus(hub) as bus:
        subscription = await bus.subscribe("polaris.telemetry.*", collecting(seen), durable="d")
        await bus.publish_telemetry(telemetry(0))
        await eventually(lambda: seen == [0.0])
        await eventually(lambda: subscription.in_flight == 0)
        subscription.pause()
        await bus.publish_telemetry(telemetry(1))
        await (subscription.drain() if drained else subscription.unsubscribe())
        assert subscription.in_flight == 0
        again = await bus.subscribe("polaris.telemetry.*", collecting(seen), durable="d")
        await eventually(lambda: len(seen) == 2)
        assert again.active


async def test_while_the_breaker_is_open_messages_wait_instead_of_being_delivered_in_vain() -> None:
    down = True
    calls: list[float] = []
    clock = running_clock()

    async def handle(event: TelemetryEvent) -> None:
        calls.append(clock.monotonic())
        if down:
            raise ConnectionError("the store is away")

    breaker = CircuitBreaker("store", CircuitBreakerConfig(failure_threshold=2, timeout=60.0), clock=clock)
    async with running_bus(redelivery=RedeliveryPolicy(max_deliveries=5, base_delay_s=0.1, max_delay_s=0.1)) as bus:
        subscription = await bus.subscribe("polaris.telemetry.*", handle, breaker=breaker, in_flight_max=8)
        for number in range(50):
            await bus.publish_telemetry(telemetry(number))
        await asyncio.sleep(119.0)
        # Two failures opened it, and one probe a minute is all that was tried since.
        assert len(calls) == 3
        assert subscription.in_flight <= 8
        assert (subscription.stats.dead_lettered, subscription.stats.handled) == (0, 0)
        down = False
        await eventually(lambda: subscription.stats.handled == 50)
        assert subscription.stats.dead_lettered == 0


async def test_an_open_breaker_does_not_hold_up_the_end() -> None:
    breaker = CircuitBreaker("store", clock=running_clock())
    breaker.isolate()
    hub, seen = InMemoryHub(clock=running_clock()), list[float]()
    bus = new_bus(hub, redelivery=POLICY)
    await bus.start()
    subscription = await bus.subscribe("polaris.telemetry.*", collecting(seen), durable="d", breaker=breaker)
    await bus.publish_telemetry(telemetry(1))
    await eventually(lambda: subscription.in_flight == 1)
    await bus.stop()
    assert (seen, subscription.in_flight) == ([], 0)
    async with running_bus(hub) as again:
        await again.subscribe("polaris.telemetry.*", collecting(seen), durable="d")
        await eventually(lambda: seen == [1.0])


async def test_closing_the_breaker_by_hand_lets_the_messages_through() -> None:
    breaker = CircuitBreaker("store", clock=running_clock())
    breaker.isolate()
    seen: list[float] = []
    async with running_bus() as bus:
        await bus.subscribe("polaris.telemetry.*", collecting(seen), breaker=breaker)
        await bus.publish_telemetry(telemetry(1))
        await asyncio.sleep(100)
        assert seen == []
        breaker.close()
        await eventually(lambda: seen == [1.0])


async def test_a_position_begins_where_it_is_told_to() -> None:
    seen: dict[str, list[float]] = {name: [] for name in ("all", "new", "sequence", "time")}
    clock = running_clock()
    async with running_bus() as bus:
        for number in range(1, 4):
            await bus.publish_telemetry(telemetry(number))
            await asyncio.sleep(60)
        await asyncio.sleep(1)
        starts = {
            "all": Start.ALL,
            "new": Start.NEW,
            "sequence": Start.at_sequence(2),
            "time": Start.at_time(clock.now() - timedelta(seconds=90)),
        }
        for name, start in starts.items():
            await bus.subscribe("polaris.telemetry.*", collecting(seen[name]), durable=name, start=start)
        await bus.publish_telemetry(telemetry(4))
        await eventually(lambda: all(numbers[-1:] == [4.0] for numbers in seen.values()))
    assert seen == {
        "all": [1.0, 2.0, 3.0, 4.0],
        "new": [4.0],
        "sequence": [2.0, 3.0, 4.0],
        "time": [3.0, 4.0],
    }


def test_a_senseless_start_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="sequence"):
        Start.at_sequence(0)
    with pytest.raises(InvalidValueError, match="time"):
        Start.at_time(datetime(2026, 1, 1))  # noqa: DTZ001


async def test_a_replay_hands_over_the_window_in_order_and_ends() -> None:
    seen: list[float] = []
    clock = running_clock()
    async with running_bus() as bus:
        for number in range(1, 601):
            await bus.publish_telemetry(telemetry(number, "a" if number % 2 else "b"))
            if number == 300:
                await asyncio.sleep(60)
                middle = clock.now()
                await asyncio.sleep(60)
        report = await bus.replay("polaris.telemetry.a", collecting(seen))
        assert seen == [float(number) for number in range(1, 600, 2)]
        assert (report.messages, report.events, report.last_sequence) == (300, 300, 599)
        seen.clear()
        await bus.replay("polaris.telemetry.*", collecting(seen), start=Start.at_time(middle))
        assert seen == [float(number) for number in range(301, 601)]
        seen.clear()
        await bus.replay("polaris.telemetry.*", collecting(seen), start=Start.at_sequence(10), until=middle)
        assert seen == [float(number) for number in range(10, 301)]


async def test_a_replay_gives_batches_to_a_batch_handler() -> None:
    sizes: list[int] = []

    async def handle(events: list[TelemetryEvent]) -> None:
        sizes.append(len(events))

    async with running_bus() as bus:
        await bus.publish_many([telemetry(number) for number in range(25)], topic="polaris.telemetry.web")
        report = await bus.replay("polaris.telemetry.*", handle, batch_max=10)
    assert sizes == [10, 10, 5]
    assert (report.messages, report.events) == (1, 25)


async def test_a_replay_of_nothing_ends_at_once() -> None:
    async with running_bus() as bus:
        report = await bus.replay("polaris.telemetry.*", collecting([]))
    assert (report.messages, report.last_sequence) == (0, None)


async def test_a_replay_passes_over_other_types_and_bytes_that_are_no_event() -> None:
    seen: list[float] = []
    async with running_bus() as bus:
        await bus.publish_telemetry(telemetry(1))
        await bus.publish("polaris.telemetry.web", health())
        await publish_raw(bus, "polaris.telemetry.web", b"\x00 noise")
        await bus.publish_telemetry(telemetry(2))
        report = await bus.replay("polaris.telemetry.*", collecting(seen))
    assert seen == [1.0, 2.0]
    assert (report.messages, report.events, report.skipped, report.undecodable) == (4, 2, 1, 1)


async def test_what_the_handler_raises_ends_the_replay_and_says_how_far_it_came() -> None:
    async def handle(event: TelemetryEvent) -> None:
        if number_of(event) == 3:
            raise ArithmeticError("diverged")

    hub = InMemoryHub(clock=running_clock())
    async with running_bus(hub) as bus:
        for number in range(1, 6):
            await bus.publish_telemetry(telemetry(number))
        with pytest.raises(ArithmeticError) as caught:
            await bus.replay("polaris.telemetry.*", handle)
        assert [position.attached for position in hub.streams["POLARIS_TELEMETRY"].positions.values()] == [0]
        assert caught.value.__notes__ == ["replayed 2 events, the last whole message was number 2"]
        assert await bus.dead_letters.list() == []


async def test_a_replay_moves_no_position_and_leaves_none_behind() -> None:
    seen: list[float] = []
    hub = InMemoryHub(clock=running_clock())
    async with running_bus(hub) as bus:
        await bus.publish_telemetry(telemetry(1))
        await bus.replay("polaris.telemetry.*", collecting([]))
        await bus.subscribe("polaris.telemetry.*", collecting(seen), durable="d")
        await eventually(lambda: seen == [1.0])
        await asyncio.sleep(120)
        await bus.publish_telemetry(telemetry(2))
        await eventually(lambda: len(seen) == 2)
        stream = hub.streams["POLARIS_TELEMETRY"]
        await bus.broker.consumer(_spec())
        assert not [name for name in stream.positions if name.startswith("replay")]


def _spec() -> Any:
    from polaris.messaging import ConsumerSpec

    return ConsumerSpec(stream="POLARIS_TELEMETRY", durable="other", pattern="polaris.telemetry.*")


class FlickeringBroker(InMemoryMessageBroker):
    """Loses its connection at every third fetch of a message of the bus, and what it had fetched with it."""

    fetches = 0
    broken = False

    async def consumer(self, spec: Any) -> Any:
        inner = await super().consumer(spec)
        if spec.stream == ADVISORY_STREAM.name:
            return inner
        fetch = inner.fetch

        async def flickering(count_max: int, *, wait_s: float) -> Any:
            self.fetches += 1
            deliveries = await fetch(min(count_max, 7), wait_s=wait_s)
            if self.broken or self.fetches % 3 == 0:
                raise BusConnectionError("gone")
            return deliveries

        inner.fetch = flickering  # type: ignore[method-assign]
        return inner


async def test_a_replay_stays_complete_and_in_order_over_losses_of_the_connection() -> None:
    from polaris.messaging import PolarisMessageBus

    seen: list[float] = []
    broker = FlickeringBroker(clock=running_clock())
    async with PolarisMessageBus(broker, clock=running_clock()) as bus:
        for number in range(1, 101):
            await bus.publish_telemetry(telemetry(number))
        await bus.replay("polaris.telemetry.*", collecting(seen))
        assert seen == [float(number) for number in range(1, 101)]
        broker.broken, broker.fetches = True, 0
        with pytest.raises(BusConnectionError):
            await bus.replay("polaris.telemetry.*", collecting(seen))
        assert broker.fetches == AWAY_MAX + 1


async def test_a_replay_needs_a_stream_and_an_aware_end() -> None:
    async def handle(event: HealthEvent) -> None: ...

    async with running_bus() as bus:
        with pytest.raises(SubscriptionError, match="no stream stores it"):
            await bus.replay("polaris.health.*", handle)
        with pytest.raises(InvalidValueError, match="until"):
            await bus.replay("polaris.telemetry.*", handle, until=datetime(2026, 1, 1))  # noqa: DTZ001
        with pytest.raises(InvalidValueError, match="batch_max"):
            await bus.replay("polaris.telemetry.*", handle, until=datetime.now(UTC), batch_max=0)
