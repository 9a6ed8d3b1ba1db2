"""Group commit for telemetry: while one message of a topic is on its way, the next events of the topic gather."""

from __future__ import annotations

import asyncio
import contextvars
import copy
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, TypeAlias

from polaris.domain import PolarisEvent
from polaris.exceptions import PolarisException, UnconfirmedPublishError
from polaris.messaging._batches import BATCH_EVENTS, Batch
from polaris.messaging._broker import Receipt

SendBatch: TypeAlias = Callable[[str, Batch, float], Awaitable[Receipt]]
Cut: TypeAlias = Callable[[Sequence[PolarisEvent], Sequence[bytes]], Sequence[Batch]]


class _Waiting(NamedTuple):
    """An event whose publisher waits for the receipt."""

    event: PolarisEvent
    payload: bytes
    receipt: asyncio.Future[Receipt]
    timeout_s: float


class Coalescer:
    """Sends the events of a topic in order, one message at a time, each with all that gathered meanwhile.

    An event on an idle topic leaves at once and alone, so nothing waits for company; under load the messages grow to
    512 events. Every publisher waits for the receipt of the message that held its event, so what gathers is bounded by
    how many wait. A failed message fails all who wait for it, each with an error of its own; those behind it are still
    sent. A publisher that is cancelled, or whose time is up, before its event left takes it back.
    """

    def __init__(self, send: SendBatch, cut: Cut) -> None:
        self._send = send
        self._cut = cut
        self._gathering: dict[str, list[_Waiting]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def publish(self, topic: str, event: PolarisEvent, payload: bytes, timeout_s: float) -> Receipt:
        """Send one encoded event with its like. Raises as `Publisher.send` does, within `timeout_s`."""
        gathering = self._gathering.get(topic)
        if gathering is not None:
            return await self._join(topic, gathering, event, payload, timeout_s)
        gathering = self._gathering[topic] = []
        try:
            return await self._send(topic, Batch((event,), (payload,)), timeout_s)
        finally:
            if gathering:
                # Not in the context of the one who came first: its correlation and deadline are not the others'.
                flush = self._flush(topic, gathering)
                task = asyncio.create_task(flush, name=f"polaris-coalesce {topic}", context=contextvars.Context())
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            else:
                del self._gathering[topic]

    async def finish(self, *, timeout_s: float) -> None:
        """Wait until everything that gathered is sent or has failed, at most `timeout_s`."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)

    async def _join(
        self, topic: str, gathering: list[_Waiting], event: PolarisEvent, payload: bytes, timeout_s: float
    ) -> Receipt:
        receipt: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        gathering.append(_Waiting(event, payload, receipt, timeout_s))
        try:
            async with asyncio.timeout(timeout_s):
                return await receipt
        except TimeoutError as error:
            raise UnconfirmedPublishError(
                f"no confirmation for {topic!r} within {timeout_s:g} s", {"topic": topic, "timeout_s": timeout_s}
            ) from error

    async def _flush(self, topic: str, gathering: list[_Waiting]) -> None:
        try:
            while gathering:
                taken = [one for one in gathering[:BATCH_EVENTS] if not one.receipt.done()]
                del gathering[:BATCH_EVENTS]
                batches = self._cut([one.event for one in taken], [one.payload for one in taken])
                for batch in batches:
                    members, taken = taken[: len(batch.events)], taken[len(batch.events) :]
                    await self._send_for(topic, batch, members)
        finally:
            del self._gathering[topic]
            for one in gathering:
                one.receipt.cancel()

    async def _send_for(self, topic: str, batch: Batch, members: Sequence[_Waiting]) -> None:
        try:
            receipt = await self._send(topic, batch, min(one.timeout_s for one in members))
        except Exception as error:  # boundary: whatever a middleware raised belongs to those who wait
            for one in members:
                if not one.receipt.done():
                    # An instance is raised once: every publisher gets an error of its own.
                    one.receipt.set_exception(copy.copy(error) if isinstance(error, PolarisException) else error)
            return
        for one in members:
            if not one.receipt.done():
                one.receipt.set_result(receipt)
