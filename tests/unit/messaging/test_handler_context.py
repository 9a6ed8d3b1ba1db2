"""A handler that asks for it is told about the message that its event came in."""

from __future__ import annotations

import pytest
from tests.unit.messaging.doubles import eventually, running_bus, telemetry

from polaris.domain import TelemetryEvent
from polaris.messaging import MessageContext


async def test_a_second_parameter_gets_the_context_of_the_message() -> None:
    seen: list[tuple[str, str]] = []

    async def handle(event: TelemetryEvent, context: MessageContext) -> None:
        seen.append((event.event_id, context.topic))

    async with running_bus() as bus:
        await bus.subscribe("polaris.telemetry.>", handle)
        await bus.publish("polaris.telemetry.a.b", telemetry(event_id="e1"))
        await eventually(lambda: bool(seen))
    assert seen == [("e1", "polaris.telemetry.a.b")]


async def test_a_batch_handler_gets_the_context_of_its_first_message() -> None:
    seen: list[tuple[int, str]] = []

    async def handle(events: list[TelemetryEvent], context: MessageContext) -> None:
        seen.append((len(events), context.topic))

    async with running_bus() as bus:
        await bus.subscribe("polaris.telemetry.*", handle)
        await bus.publish_many([telemetry(1), telemetry(2)])
        await eventually(lambda: bool(seen))
    assert seen == [(2, "polaris.telemetry.web")]


@pytest.mark.parametrize("default", [None, "x"])
async def test_a_second_parameter_with_a_default_keeps_it(default: str | None) -> None:
    seen: list[object] = []

    async def handle(event: TelemetryEvent, mine: str | None = default) -> None:
        seen.append(mine)

    async with running_bus() as bus:
        await bus.subscribe("polaris.telemetry.*", handle)
        await bus.publish_telemetry(telemetry())
        await eventually(lambda: bool(seen))
    assert seen == [default]
