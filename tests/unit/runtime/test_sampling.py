"""Sampling: fixed ticks, gaps instead of invented values, and nothing lost while the bus is away."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.scripted_connector import ScriptedConnector

from polaris.domain import HealthStatus, SystemState, TelemetryEvent
from polaris.exceptions import BusConnectionError, PayloadTooLargeError
from polaris.observability import MetricsCollector, StructuredLogger
from polaris.runtime._connection import Connection
from polaris.runtime._health import HealthBoard
from polaris.runtime._sampling import Sampling, SystemSampler
from polaris.runtime._settings import SystemSettings
from polaris.runtime._traces import Traces
from polaris.testing import run_virtual, running_clock


class RecordingBus:
    """Takes telemetry while it is there; raises what it is told to otherwise."""

    def __init__(self) -> None:
        self.published: list[TelemetryEvent] = []
        self.failing: Exception | None = None
        self.attempts = 0

    async def publish_telemetry(self, event: TelemetryEvent, *, timeout_s: float = 5.0) -> None:
        self.attempts += 1
        if self.failing is not None:
            raise self.failing
        self.published.append(event)


class Bench:
    def __init__(self, connector: ScriptedConnector, **settings: Any) -> None:
        self.clock = running_clock()
        self.board = HealthBoard(clock=self.clock)
        self.bus = RecordingBus()
        self.metrics = MetricsCollector()
        self.connector = connector
        self.buffer_max = settings.pop("buffer_max", 10)
        traces = settings.pop("traces", None)
        self.connection = Connection(connector, StructuredLogger("test"))
        self.sampler = SystemSampler(
            self.connection,
            SystemSettings(connector="scripted", **settings),
            self.bus,  # type: ignore[arg-type] # a bus that records
            self.board,
            self.metrics.instruments,
            StructuredLogger("test"),
            buffer_max=self.buffer_max,
            source="test",
            traces=traces,
            clock=self.clock,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        service = Sampling([self.sampler], self.board, StructuredLogger("test"), drain_s=5.0)
        await service.start()
        try:
            yield
        finally:
            await service.stop()
            await self.connection.drop()

    @property
    def status(self) -> HealthStatus:
        view = self.board.get("connector:web")
        assert view is not None
        return view.status


def balanced(bench: Bench) -> bool:
    account = bench.sampler.account
    return account.sampled_total == account.confirmed_total + account.waiting + account.dropped_total


def test_every_sample_is_confirmed_waiting_or_dropped_for_a_reason() -> None:
    async def scenario() -> None:
        bench = Bench(ScriptedConnector(), interval_s=1.0, buffer_max=5)
        async with bench.running():
            await bench.clock.sleep(3.5)
            assert (bench.sampler.account.confirmed_total, balanced(bench)) == (4, True)
            bench.bus.failing = BusConnectionError("away")
            for _ in range(20):
                await bench.clock.sleep(0.7)
                assert balanced(bench)
            assert bench.sampler.account.waiting == 6  # five buffered, one on its way
            text = bench.metrics.render().decode()
            assert 'polaris_telemetry_waiting_samples{system_id="web"} 6.0' in text
            assert 'polaris_telemetry_confirmed_total{system_id="web"} 4.0' in text
        account = bench.sampler.account
        assert (account.waiting, balanced(bench)) == (0, True)
        assert account.sampled_total == bench.connector.samples
        assert (
            'polaris_telemetry_dropped_total{reason="stopped",system_id="web"} 6.0' in bench.metrics.render().decode()
        )

    run_virtual(scenario())


def test_samples_come_at_the_interval() -> None:
    async def scenario() -> None:
        bench = Bench(ScriptedConnector(), interval_s=0.5)
        async with bench.running():
            await bench.clock.sleep(10.1)
        assert len(bench.bus.published) == 21
        assert bench.connector.connections == 1
        assert not bench.connector.connected
        assert bench.status is HealthStatus.HEALTHY

    run_virtual(scenario())


def test_a_slow_sample_delays_itself_and_leaves_out_the_ticks_it_ran_over() -> None:
    async def scenario() -> None:
        class Slow(ScriptedConnector):
            async def collect_metrics(self) -> SystemState:
                await running_clock().sleep(1.2)
                return await super().collect_metrics()

        bench = Bench(Slow(), interval_s=1.0)
        async with bench.running():
            await bench.clock.sleep(19.9)
        assert bench.connector.samples == 10

    run_virtual(scenario())


def test_a_system_that_does_not_answer_leaves_a_gap_and_is_connected_anew() -> None:
    async def scenario() -> None:
        bench = Bench(ScriptedConnector(), interval_s=1.0)
        async with bench.running():
            await bench.clock.sleep(2.1)
            bench.connector.unreachable = True
            await bench.clock.sleep(10)
            assert bench.status.value == "unhealthy"
            taken = len(bench.bus.published)
            bench.connector.unreachable = False
            await bench.clock.sleep(3)
            assert bench.status.value == "healthy"
        assert taken == 3
        assert len(bench.bus.published) >= 5
        assert bench.connector.connections == 2

    run_virtual(scenario())


def test_a_connector_that_fails_in_a_foreign_way_leaves_a_gap_like_any_other() -> None:
    async def scenario() -> None:
        class Foreign(ScriptedConnector):
            async def connect(self) -> None:
                if self.unreachable:
                    raise ConnectionRefusedError("port closed")
                await super().connect()

        connector = Foreign()
        connector.unreachable = True
        bench = Bench(connector, interval_s=1.0)
        async with bench.running():
            await bench.clock.sleep(5)
            view = bench.board.get("connector:web")
            assert view is not None
            assert "ConnectionRefusedError: port closed" in view.message
            connector.unreachable = False
            await bench.clock.sleep(3)
            assert bench.status.value == "healthy"
        assert [name for name in (view.name for view in bench.board.components()) if "sample" in name] == []

    run_virtual(scenario())


def test_a_sample_that_hangs_is_given_up_after_its_timeout() -> None:
    async def scenario() -> None:
        class Hanging(ScriptedConnector):
            async def collect_metrics(self) -> SystemState:
                if self.connected and self.connections == 1:
                    await running_clock().sleep(1e6)
                return await super().collect_metrics()

        bench = Bench(Hanging(), interval_s=1.0, timeout_s=2.0)
        async with bench.running():
            await bench.clock.sleep(30)
        assert len(bench.bus.published) > 10

    run_virtual(scenario())


def test_samples_taken_while_the_bus_is_away_are_published_later_in_order_with_their_own_ids() -> None:
    async def scenario() -> None:
        bench = Bench(ScriptedConnector(), interval_s=1.0, buffer_max=100)
        async with bench.running():
            bench.bus.failing = BusConnectionError("away")
            await bench.clock.sleep(30)
            assert bench.bus.published == []
            bench.bus.failing = None
            await bench.clock.sleep(10)
        values = [event.system_state.value("load") for event in bench.bus.published]
        assert values == [float(number) for number in range(1, len(values) + 1)]
        assert len(values) >= 40
        assert len({event.event_id for event in bench.bus.published}) == len(values)
        assert bench.sampler.account.dropped_total == 0

    run_virtual(scenario())


def test_a_full_buffer_drops_the_oldest_and_counts_them() -> None:
    async def scenario() -> None:
        bench = Bench(ScriptedConnector(), interval_s=1.0, buffer_max=5)
        async with bench.running():
            bench.bus.failing = BusConnectionError("away")
            await bench.clock.sleep(20.5)
            bench.bus.failing = None
            await bench.clock.sleep(6)
        assert bench.sampler.account.dropped_total == bench.connector.samples - len(bench.bus.published)
        assert bench.sampler.account.dropped_total > 10
        text = bench.metrics.render().decode()
        dropped = bench.sampler.account.dropped_total
        assert f'polaris_telemetry_dropped_total{{reason="buffer_full",system_id="web"}} {dropped}.0' in text

    run_virtual(scenario())


def test_a_sample_that_the_bus_refuses_for_good_is_counted_and_does_not_block_the_next() -> None:
    async def scenario() -> None:
        bench = Bench(ScriptedConnector(), interval_s=1.0)
        async with bench.running():
            bench.bus.failing = PayloadTooLargeError("polaris.telemetry.web", payload_bytes=2, payload_bytes_max=1)
            await bench.clock.sleep(2.5)
            bench.bus.failing = None
            await bench.clock.sleep(2)
        assert bench.bus.attempts == bench.connector.samples
        assert [event.system_state.value("load") for event in bench.bus.published] == [4.0, 5.0]

    run_virtual(scenario())


class NotedFailures(Traces):
    """Remembers what it is told of failures."""

    def __init__(self) -> None:
        super().__init__()
        self.failures: list[str] = []

    def failed(self, spec: object, of: str, error: Exception, began_ns: int, **values: str | None) -> None:
        self.failures.append(str(error))


def test_every_sample_that_fails_becomes_a_trace() -> None:
    async def scenario() -> None:
        traces = NotedFailures()
        connector = ScriptedConnector()
        bench = Bench(connector, interval_s=1.0, traces=traces)
        connector.unreachable = True
        async with bench.running():
            await bench.clock.sleep(9.5)
            assert len(traces.failures) == 10

    run_virtual(scenario())
