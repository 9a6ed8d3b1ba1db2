"""The telemetry path: batched, once, marked when a clock runs ahead, acknowledged after the commit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from polaris.domain import HealthEvent, HealthStatus, MetricValue, SystemState, TelemetryBatch, TelemetryEvent
from polaris.exceptions import StoreFullError
from polaris.messaging import InMemoryHub, InMemoryMessageBroker, PolarisMessageBus, telemetry_topic
from polaris.observability import MetricsCollector, StructuredLogger
from polaris.runtime._ingest import CLOCK_AHEAD_KEY, TelemetryIngest
from polaris.runtime._settings import TelemetrySettings
from polaris.storage import InMemoryEngine, PolarisDataStore, SeriesLimits, SystemStateRepository, TimeRange
from polaris.testing import run_virtual, running_clock

EVER = TimeRange(datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))


class Path:
    """Bus, store and ingest in virtual time."""

    def __init__(self, series_max: int | None = None) -> None:
        self.clock = running_clock()
        self.hub = InMemoryHub(clock=self.clock)
        self.store = PolarisDataStore.memory(clock=self.clock)
        if series_max is not None:
            limits = SeriesLimits(collection_series_max=series_max)
            self.store = PolarisDataStore(InMemoryEngine(clock=self.clock, series_limits=limits))
        self.metrics = MetricsCollector()
        self.batches: list[Sequence[SystemState]] = []
        self.ingest: TelemetryIngest | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[PolarisMessageBus]:
        bus = PolarisMessageBus(InMemoryMessageBroker(self.hub), clock=self.clock)
        await self.store.connect()
        await bus.start()
        self.ingest = TelemetryIngest(
            bus,
            self.store,
            TelemetrySettings(),
            self.metrics,
            StructuredLogger("test"),
            on_states=self.batches.append,
            clock=self.clock,
        )
        await self.ingest.start()
        try:
            yield bus
            await self.clock.sleep(60)
        finally:
            await self.ingest.stop()
            await bus.drain()

    async def history(self, system_id: str = "web") -> list[SystemState]:
        return await self.store.states.get_state_history(system_id, EVER)


def state(moment: datetime, value: float = 1.0, system_id: str = "web", **fields: Any) -> SystemState:
    return SystemState(system_id, moment, {"cpu": MetricValue("cpu", value)}, **fields)


def test_samples_of_any_form_are_stored_once() -> None:
    async def scenario() -> None:
        path = Path()
        now = path.clock.now()
        events = [TelemetryEvent(state(now + timedelta(milliseconds=n), float(n))) for n in range(20)]
        batch = TelemetryBatch.from_states([state(now - timedelta(seconds=n), float(n)) for n in range(1, 11)])
        async with path.running() as bus:
            for event in events:
                await bus.publish_telemetry(event)
                await bus.publish_telemetry(event)
            await bus.publish_telemetry(batch)
            await bus.publish_many(events)
        history = await path.history()
        assert len(history) == 30
        assert [found.value("cpu") for found in history[-20:]] == [float(n) for n in range(20)]

    run_virtual(scenario())


def test_late_and_out_of_order_samples_are_normal() -> None:
    async def scenario() -> None:
        path = Path()
        now = path.clock.now()
        offsets = [5, 1, 3, -86_400 * 3, 2]
        async with path.running() as bus:
            for offset in offsets:
                await bus.publish_telemetry(TelemetryEvent(state(now + timedelta(seconds=offset))))
        history = await path.history()
        assert [found.timestamp for found in history] == sorted(now + timedelta(seconds=offset) for offset in offsets)
        latest = await path.store.states.get_current_state("web")
        assert latest is not None
        assert latest.timestamp == now + timedelta(seconds=5)

    run_virtual(scenario())


def test_a_clock_that_runs_ahead_is_accepted_and_marked() -> None:
    async def scenario() -> None:
        path = Path()
        ahead = path.clock.now() + timedelta(days=3)
        async with path.running() as bus:
            await bus.publish_telemetry(TelemetryEvent(state(ahead, metadata={"zone": "a"})))
            await bus.publish_telemetry(TelemetryEvent(state(path.clock.now() + timedelta(seconds=4), system_id="db")))
        (marked,) = await path.history()
        assert marked.timestamp == ahead
        assert marked.metadata["zone"] == "a"
        assert marked.metadata[CLOCK_AHEAD_KEY] == pytest.approx(3 * 86_400, abs=10)
        (unmarked,) = await path.history("db")
        assert CLOCK_AHEAD_KEY not in unmarked.metadata
        assert 'polaris_telemetry_clock_ahead_total{system_id="web"} 1.0' in path.metrics.render().decode()

    run_virtual(scenario())


def test_a_time_with_another_offset_is_the_same_instant() -> None:
    async def scenario() -> None:
        path = Path()
        now = path.clock.now()
        async with path.running() as bus:
            kolkata = timezone(timedelta(hours=5, minutes=30))
            await bus.publish_telemetry(TelemetryEvent(state(now.astimezone(kolkata))))
        assert [found.timestamp for found in await path.history()] == [now]

    run_virtual(scenario())


def test_what_the_store_could_not_take_for_long_is_stored_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    refusals = 0

    async def full_at_first(self: SystemStateRepository, states: Sequence[SystemState]) -> None:
        nonlocal refusals
        if refusals < 12:
            refusals += 1
            raise StoreFullError("no space left")
        await save_many(self, states)

    save_many = SystemStateRepository.save_many
    monkeypatch.setattr(SystemStateRepository, "save_many", full_at_first)

    async def scenario() -> None:
        path = Path()
        async with path.running() as bus:
            await bus.publish_telemetry(TelemetryEvent(state(path.clock.now())))
            await path.clock.sleep(60)
            assert await bus.dead_letters.list() == []
        assert refusals == 12
        assert len(await path.history()) == 1

    run_virtual(scenario())


def test_telemetry_on_a_topic_whose_id_was_not_encoded_is_stored() -> None:
    async def scenario() -> None:
        path = Path()
        async with path.running() as bus:
            await bus.publish("polaris.telemetry.web.1", TelemetryEvent(state(path.clock.now(), system_id="web.1")))
        assert len(await path.history("web.1")) == 1

    run_virtual(scenario())


def test_events_of_another_kind_on_the_topic_do_no_harm() -> None:
    async def scenario() -> None:
        path = Path()
        async with path.running() as bus:
            await bus.publish(telemetry_topic("web"), HealthEvent("web", HealthStatus.HEALTHY))
            await bus.publish_telemetry(TelemetryEvent(state(path.clock.now())))
        assert len(await path.history()) == 1

    run_virtual(scenario())


def test_the_cause_of_an_action_is_known_by_its_correlation() -> None:
    async def scenario() -> None:
        path = Path()
        now = path.clock.now()
        async with path.running() as bus:
            await bus.publish_telemetry(TelemetryEvent(state(now), correlation_id="c1"))
        assert path.ingest is not None
        assert path.ingest.caused_at("c1") == now
        assert path.ingest.caused_at("c2") is None
        assert path.ingest.caused_at(None) is None

    run_virtual(scenario())


def test_only_samples_of_series_there_is_no_room_for_are_put_aside() -> None:
    async def scenario() -> None:
        path = Path(series_max=10)
        now = path.clock.now()
        events = [TelemetryEvent(state(now + timedelta(seconds=n), system_id=f"s{n % 20}")) for n in range(60)]
        async with path.running() as bus:
            await bus.publish_many(events)
            await path.clock.sleep(30)
            letters = await bus.dead_letters.list()
        stored = {system: len(await path.history(system)) for system in (f"s{n}" for n in range(20))}
        kept = {system for system, count in stored.items() if count}
        assert len(kept) == 10
        assert all(stored[system] == 3 for system in kept)
        assert [letter.entry.error_code for letter in letters] == ["polaris.store.series_limit"] * 30
        assert {letter.entry.reason.value for letter in letters} == {"refused"}
        assert {letter.entry.topic for letter in letters} == {
            telemetry_topic(system) for system, count in stored.items() if not count
        }
        assert path.ingest is not None
        assert path.ingest.states_total == 30
        assert sum(len(batch) for batch in path.batches) == 30
        rendered = path.metrics.render().decode()
        for status in ("committed", "failed"):
            written = f'polaris_store_writes_total{{collection="system_states",status="{status}",store="telemetry"}}'
            assert f"{written} 30.0" in rendered

    run_virtual(scenario())


def test_a_message_of_many_events_loses_only_those_there_is_no_room_for() -> None:
    async def scenario() -> None:
        path = Path(series_max=1)
        now = path.clock.now()
        async with path.running() as bus:
            await bus.publish_telemetry(TelemetryEvent(state(now, system_id="a")))
            await path.clock.sleep(5)
            events = [
                TelemetryEvent(state(now + timedelta(seconds=n), system_id="ab"[n % 2], metadata={"n": n}))
                for n in range(8)
            ]
            await bus.publish_many(events, topic="polaris.telemetry.fleet")
            await path.clock.sleep(30)
            letters = await bus.dead_letters.list()
        assert len(await path.history("a")) == 4
        assert len(letters) == 4
        assert path.ingest is not None
        assert path.ingest.states_total == 5

    run_virtual(scenario())
