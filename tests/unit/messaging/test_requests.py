"""Request and reply between parts of POLARIS."""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.messaging.doubles import health, running_bus, telemetry

from polaris._correlation import correlation_scope, current_correlation_id
from polaris.domain import HealthEvent
from polaris.exceptions import (
    ConflictError,
    MessageBusError,
    MessageDecodeError,
    RequestFailedError,
    RequestTimeoutError,
)
from polaris.messaging import Delivery, OutgoingMessage
from polaris.testing import running_clock


async def test_the_event_that_a_handler_returns_is_the_reply() -> None:
    seen: list[str | None] = []

    async def answer(event: HealthEvent) -> HealthEvent:
        seen.append(current_correlation_id())
        return health(f"re: {event.message}")

    async with running_bus() as bus:
        await bus.subscribe("polaris.health.*", answer)
        with correlation_scope("chain-1"):
            reply = await bus.request("polaris.health.store", health("hello"), timeout=2.0)
    assert isinstance(reply, HealthEvent)
    assert (reply.message, reply.correlation_id, seen) == ("re: hello", "chain-1", ["chain-1"])


@pytest.mark.parametrize(
    ("error", "code", "retryable"),
    [(ConflictError("secret detail"), "polaris.store.conflict", False), (KeyError("secret"), "polaris.error", None)],
)
async def test_a_failed_handler_is_told_from_silence(error: Exception, code: str, retryable: bool | None) -> None:
    async def answer(event: HealthEvent) -> HealthEvent:
        raise error

    async with running_bus() as bus:
        await bus.subscribe("polaris.health.*", answer)
        with pytest.raises(RequestFailedError) as caught:
            await bus.request("polaris.health.store", health())
    assert (caught.value.remote_code, caught.value.remote_retryable) == (code, retryable)
    assert "secret" not in str(caught.value)


async def test_nobody_listening_is_noticed_at_once() -> None:
    clock = running_clock()
    async with running_bus() as bus:
        began_s = clock.monotonic()
        with pytest.raises(RequestTimeoutError):
            await bus.request("polaris.health.store", health(), timeout=30.0)
        assert clock.monotonic() - began_s < 0.1


async def test_a_handler_without_an_answer_lets_the_request_time_out() -> None:
    async def silent(event: HealthEvent) -> None: ...

    async with running_bus() as bus:
        await bus.subscribe("polaris.health.*", silent)
        with pytest.raises(RequestTimeoutError):
            await bus.request("polaris.health.store", health(), timeout=0.5)


async def test_a_reply_that_is_no_event_is_an_error() -> None:
    async with running_bus() as bus:

        async def answer(delivery: Delivery) -> None:
            assert delivery.reply_to is not None
            await bus.broker.publish(OutgoingMessage(delivery.reply_to, b"noise"))

        await bus.broker.subscribe("polaris.health.*", answer)
        with pytest.raises(MessageDecodeError):
            await bus.request("polaris.health.store", health())


async def test_a_topic_that_a_stream_stores_cannot_be_asked() -> None:
    async with running_bus() as bus:
        with pytest.raises(MessageBusError, match="stream"):
            await bus.request("polaris.telemetry.web", telemetry())


async def test_many_requests_wait_at_the_same_time() -> None:
    clock = running_clock()

    async def answer(event: HealthEvent) -> HealthEvent:
        await asyncio.sleep(1.0)
        return event

    async with running_bus() as bus:
        await bus.subscribe("polaris.health.*", answer, concurrency=50)
        began_s = clock.monotonic()
        replies = await asyncio.gather(*(bus.request("polaris.health.x", health(str(n))) for n in range(50)))
        assert clock.monotonic() - began_s < 2.0
    assert [reply.message for reply in replies if isinstance(reply, HealthEvent)] == [str(n) for n in range(50)]
