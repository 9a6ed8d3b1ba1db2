"""A cancellation that nobody asked for is a failure like any other, wherever it comes from."""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.messaging.doubles import running_bus, telemetry

from polaris.domain import TelemetryEvent
from polaris.messaging import DeadLetterReason, RedeliveryPolicy

POLICY = RedeliveryPolicy(max_deliveries=3, base_delay_s=0.1, max_delay_s=0.1)


@pytest.mark.parametrize("batches", [False, True])
async def test_a_message_whose_handler_always_lets_a_cancellation_escape_is_put_aside(batches: bool) -> None:
    async def one(event: TelemetryEvent) -> None:
        raise asyncio.CancelledError

    async def many(events: list[TelemetryEvent]) -> None:
        raise asyncio.CancelledError

    async with running_bus(redelivery=POLICY) as bus:
        subscription = await bus.subscribe("polaris.telemetry.*", many if batches else one)
        await bus.publish_telemetry(telemetry())
        await asyncio.sleep(5.0)
        assert (subscription.stats.failed, subscription.stats.dead_lettered) == (3, 1)
        assert subscription.active
        (record,) = await bus.dead_letters.list()
    assert (record.entry.reason, record.entry.attempts) == (DeadLetterReason.EXHAUSTED, 3)
    assert "cancellation" in record.entry.error_message
