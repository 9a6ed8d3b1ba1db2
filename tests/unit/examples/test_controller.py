"""The example's controller: what it decides, and that it says so on the bus."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from controller import P95, WORKERS, WorkerRule

from polaris.domain import (
    AdaptationAction,
    AdaptationEvent,
    ExecutionResult,
    ExecutionResultEvent,
    ExecutionStatus,
    MetricValue,
    SystemState,
    TelemetryEvent,
)
from polaris.messaging import InMemoryMessageBroker, PolarisMessageBus, adaptation_topic, execution_topic
from polaris.testing import run_virtual, running_clock

START = datetime(2030, 1, 1, tzinfo=UTC)


def state(at_s: float, p95: float | None, workers: int | None, **limits: int) -> SystemState:
    metrics = [MetricValue(P95, p95, "s"), MetricValue(WORKERS, workers, "{process}")]
    metadata: dict[str, Any] = {f"workers.{name}": value for name, value in limits.items()}
    keyed = {metric.name: metric for metric in metrics}
    return SystemState("web", START + timedelta(seconds=at_s), keyed, metadata=metadata)


def rule() -> WorkerRule:
    return WorkerRule(cast(PolarisMessageBus, None), "web", high_s=0.25, low_s=0.05, calm_s=8.0)


def test_a_high_response_time_asks_for_a_worker_more() -> None:
    assert rule().decide(state(0, 0.3, 1)) == "add_worker"
    assert rule().decide(state(0, 0.25, 1)) is None


def test_no_worker_is_asked_for_over_the_connectors_limits() -> None:
    controller = rule()
    assert controller.decide(state(0, 9.0, 4, max=4)) is None
    for at_s in range(20):
        assert controller.decide(state(at_s, 0.01, 1, min=1)) is None


def test_a_worker_less_needs_a_calm_time_without_interruption() -> None:
    controller = rule()
    assert [controller.decide(state(at_s, 0.01, 2)) for at_s in (0, 4, 7)] == [None] * 3
    assert controller.decide(state(7.5, 0.06, 2)) is None
    assert [controller.decide(state(at_s, 0.01, 2)) for at_s in (8, 15)] == [None] * 2
    assert controller.decide(state(16, 0.01, 2)) == "remove_worker"


def test_a_missing_response_time_is_neither_high_nor_low() -> None:
    controller = rule()
    assert [controller.decide(state(at_s, None, 3)) for at_s in range(30)] == [None] * 30
    controller.decide(state(30, 0.01, 3))
    controller.decide(state(35, None, 3))
    assert controller.decide(state(39, 0.01, 3)) is None, "the calm was interrupted by not knowing"
    assert controller.decide(state(0, 9.0, None)) is None


def event(at_s: float, p95: float, workers: int) -> TelemetryEvent:
    return TelemetryEvent(system_state=state(at_s, p95, workers))


def test_it_asks_on_the_bus_waits_for_the_result_and_then_cools_down() -> None:
    async def main() -> None:
        asked: list[AdaptationAction] = []
        bus = PolarisMessageBus(InMemoryMessageBroker(clock=running_clock()), clock=running_clock())

        async def note(event: AdaptationEvent) -> None:
            asked.append(event.action)

        async with bus:
            await bus.subscribe(adaptation_topic("web"), note)
            await WorkerRule(bus, "web", cooldown_s=5.0).start()

            async def tell(at_s: float, p95: float) -> int:
                await bus.publish_telemetry(event(at_s, p95, 1))
                await running_clock().sleep(0.1)
                return len(asked)

            assert await tell(0, 0.9) == 1
            assert (asked[0].action_type, asked[0].target_system) == ("add_worker", "web")
            assert await tell(30, 0.9) == 1, "no second word before the answer to the first"
            done = START + timedelta(seconds=31)
            result = ExecutionResult(asked[0].action_id, ExecutionStatus.SUCCESS, completed_at=done)
            await bus.publish(execution_topic("web"), ExecutionResultEvent(result=result))
            await running_clock().sleep(0.1)
            assert await tell(35.9, 0.9) == 1, "the window still holds requests of the time before"
            assert await tell(36.1, 0.9) == 2

    run_virtual(main())


@pytest.mark.parametrize(("at_s", "expected"), [(59, 1), (61, 2)])
def test_a_result_that_never_comes_is_not_waited_for_for_ever(at_s: float, expected: int) -> None:
    async def main() -> None:
        asked: list[AdaptationEvent] = []

        class Recorder:
            async def publish(self, topic: str, event: AdaptationEvent) -> None:
                asked.append(event)

        controller = WorkerRule(cast(PolarisMessageBus, Recorder()), "web")
        await controller.on_telemetry(event(0, 0.9, 1))
        await controller.on_telemetry(event(at_s, 0.9, 1))
        assert len(asked) == expected

    run_virtual(main())
