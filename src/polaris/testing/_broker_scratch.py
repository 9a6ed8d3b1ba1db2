"""What the tests of the broker suite work with: scratch subjects and streams, and patience."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Self

import pytest

from polaris.ids import new_id
from polaris.messaging import (
    ConsumerSpec,
    Delivery,
    DeliveryClass,
    MessageBroker,
    OutgoingMessage,
    PullConsumer,
    StreamSpec,
)

MakeBroker = Callable[[], Awaitable[MessageBroker]]

STORED = DeliveryClass.AT_LEAST_ONCE
PATIENCE_S = 15.0
ACK_WAIT_S = 0.6
STREAM_BYTES_MAX = 1 << 24
"""What a stream may reserve: nobody removes the suite's streams, and the server may be shared and small."""

STEP_S = 0.01


class Turns:
    """Counts how long the event loop has run: a time limit that a machine which stands still does not break.

    Every step is worth `STEP_S`, however long it took. `longest_s` is what the longest of them took by the clock.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.longest_s = 0.0

    async def _count(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            began_s = loop.time()
            await asyncio.sleep(STEP_S)
            self.seconds += STEP_S
            self.longest_s = max(self.longest_s, loop.time() - began_s)

    async def __aenter__(self) -> Self:
        self._counting = asyncio.create_task(self._count())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._counting.cancel()
        await asyncio.wait([self._counting])


class Inbox:
    """Collects deliveries and waits for them."""

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []

    async def __call__(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)

    @property
    def payloads(self) -> list[bytes]:
        return [delivery.payload for delivery in self.deliveries]

    async def wait_for(self, count: int) -> None:
        await eventually(lambda: len(self.deliveries) >= count, f"{count} deliveries")


async def eventually(holds: Callable[[], bool], what: str) -> None:
    async def poll() -> None:
        while not holds():  # noqa: ASYNC110 # the condition has no event of its own
            await asyncio.sleep(0.01)

    try:
        await asyncio.wait_for(poll(), PATIENCE_S)
    except TimeoutError:
        pytest.fail(f"waited {PATIENCE_S:g} s in vain for {what}")


async def settle_down() -> None:
    """Time enough for a message that must not come to come."""
    await asyncio.sleep(0.15)


async def fetch(consumer: PullConsumer, count: int, *, wait_s: float = PATIENCE_S) -> list[Delivery]:
    """Exactly `count` deliveries, fewer only when the wait was in vain."""
    found: list[Delivery] = []
    while len(found) < count:
        more = await consumer.fetch(count - len(found), wait_s=wait_s)
        if not more:
            break
        found.extend(more)
    return found


class ScratchStream:
    """A fresh stream of two-token subjects, and short ways to use it."""

    def __init__(self, broker: MessageBroker, *, max_bytes: int | None = STREAM_BYTES_MAX) -> None:
        self.broker = broker
        self.prefix = f"suite{new_id().replace('-', '')}"
        self.spec = StreamSpec(name=f"SUITE_{self.prefix}", subjects=(f"{self.prefix}.>",), max_bytes=max_bytes)

    def subject(self, last: str = "a") -> str:
        return f"{self.prefix}.{last}"

    async def publish(self, payload: bytes, *, last: str = "a", message_id: str | None = None) -> int:
        message = OutgoingMessage(self.subject(last), payload, message_id or new_id())
        receipt = await self.broker.publish(message, delivery=STORED)
        assert receipt.sequence is not None
        return receipt.sequence

    async def consumer(
        self, durable: str = "reader", *, broker: MessageBroker | None = None, **spec: object
    ) -> PullConsumer:
        options: dict[str, object] = {"ack_wait_s": ACK_WAIT_S, "pattern": f"{self.prefix}.>", **spec}
        wanted = ConsumerSpec(stream=self.spec.name, durable=durable, **options)  # type: ignore[arg-type]
        return await (broker or self.broker).consumer(wanted)


async def scratch_stream(make_broker: MakeBroker, *, max_bytes: int | None = STREAM_BYTES_MAX) -> ScratchStream:
    stream = ScratchStream(await make_broker(), max_bytes=max_bytes)
    await stream.broker.ensure_stream(stream.spec)
    return stream


def scratch_subject() -> str:
    return f"suite{new_id().replace('-', '')}"
