"""Group commit for telemetry: while one message of a topic is on its way, the next events of the topic gather."""

from __future__ import annotations

import asyncio
import contextvars
import copy
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, Protocol, TypeAlias

from polaris.domain import EventKind, PolarisEvent
from polaris.exceptions import InvalidValueError, PolarisException, UnconfirmedPublishError
from polaris.messaging._batches import BATCH_EVENTS, Batch
from polaris.messaging._broker import Receipt
from polaris.messaging._outage import Waiting, WaitingRoom

LINGER_S = 0.001

SendBatch: TypeAlias = Callable[[str, Batch, float, float | None], Awaitable[Receipt]]
"""Sends a batch on a topic within a timeout; the last argument says since when it waits for the broker, if it does."""
Cut: TypeAlias = Callable[[Sequence[PolarisEvent], Sequence[bytes]], Sequence[Batch]]


class Line(Protocol):
    """How the way to the broker is."""

    @property
    def away(self) -> bool:
        """The last attempt of anybody could not be sent."""
        ...

    @property
    def waiting(self) -> WaitingRoom:
        """What waits for the broker."""
        ...


class _Member(NamedTuple):
    """An event whose publisher waits for the receipt."""

    event: PolarisEvent
    payload: bytes
    receipt: asyncio.Future[Receipt]
    timeout_s: float
    waiting: Waiting | None
    """Its place among what waits for the broker, if it joined while the broker was away."""


class _Gathering:
    """What gathers for one topic."""

    __slots__ = ("_enough", "_wanted", "members")

    def __init__(self) -> None:
        self.members: list[_Member] = []
        self._wanted = 0
        self._enough: asyncio.Future[None] | None = None

    def add(self, member: _Member) -> None:
        self.members.append(member)
        if self._enough is not None and len(self.members) >= self._wanted and not self._enough.done():
            self._enough.set_result(None)

    async def reach(self, count: int, *, within_s: float) -> None:
        """Wait until so many have gathered, at most so long."""
        self._wanted = count
        self._enough = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(within_s):
                await self._enough
        except TimeoutError:
            pass
        finally:
            self._enough = None

    def take(self, count_max: int) -> list[_Member]:
        """The next ones to be sent, without those that have given up."""
        taken = [one for one in self.members[:count_max] if not one.receipt.done()]
        del self.members[:count_max]
        for one in taken:
            if one.waiting is not None:
                one.waiting.leave()
        return taken


class Coalescer:
    """Sends the events of a topic in order, one message at a time, each with all that gathered meanwhile.

    An event on an idle topic leaves at once and alone, so nothing waits for company; under load the messages grow to
    512 events. Once a message has left with n events, the next one waits for as many, because those who publish one
    event after the other are about to come again, but not longer than `linger_s`, the latency that this may cost.

    Every publisher waits for the receipt of the message that held its event, so what gathers is bounded by how many
    wait, and while the broker is away by `OutageBuffer`: one event at a time asks then whether it is back, the others
    wait here, where each can make room for a newer one. A failed message fails all who wait for it, each with an error
    of its own; those behind it are still sent. A publisher that is cancelled, or whose time is up, before its event
    left takes it back.
    """

    def __init__(self, send: SendBatch, cut: Cut, line: Line, *, linger_s: float = LINGER_S) -> None:
        if not 0 <= linger_s <= 1:
            raise InvalidValueError("telemetry_linger_s", "seconds from 0 to 1", linger_s)
        self._send = send
        self._cut = cut
        self._line = line
        self._linger_s = linger_s
        self._gathering: dict[str, _Gathering] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def publish(
        self, topic: str, event: PolarisEvent, payload: bytes, timeout_s: float, *, kind: EventKind
    ) -> Receipt:
        """Send one encoded event with its like. Raises as `Publisher.send` does, within `timeout_s`."""
        gathering = self._gathering.get(topic)
        if gathering is not None:
            return await self._join(topic, gathering, event, payload, timeout_s, kind)
        gathering = self._gathering[topic] = _Gathering()
        try:
            return await self._send(topic, Batch((event,), (payload,)), timeout_s, None)
        finally:
            if gathering.members:
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
        self,
        topic: str,
        gathering: _Gathering,
        event: PolarisEvent,
        payload: bytes,
        timeout_s: float,
        kind: EventKind,
    ) -> Receipt:
        receipt: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        waiting, within_s = None, timeout_s
        if self._line.waiting:
            waiting = self._line.waiting.enter(kind, len(payload))
            waiting.ends_by(receipt)
            within_s = min(timeout_s, self._line.waiting.limits.age_max_s)
        member = _Member(event, payload, receipt, timeout_s, waiting)
        gathering.add(member)
        # A timer: `asyncio.timeout` would be a quarter of the price of the event.
        timer = asyncio.get_running_loop().call_later(within_s, self._time_is_up, topic, gathering, member, within_s)
        try:
            return await receipt
        finally:
            timer.cancel()
            if waiting is not None:
                waiting.leave()

    @staticmethod
    def _time_is_up(topic: str, gathering: _Gathering, member: _Member, within_s: float) -> None:
        if member.receipt.done():
            return
        if member.waiting is not None and within_s < member.timeout_s:
            if member in gathering.members:
                member.receipt.set_exception(member.waiting.expired())
                return
            # It is under way: who sends it minds its age.
            left_s = member.timeout_s - within_s
            asyncio.get_running_loop().call_later(
                left_s, Coalescer._time_is_up, topic, gathering, member, member.timeout_s
            )
            return
        context = {"topic": topic, "timeout_s": member.timeout_s}
        member.receipt.set_exception(
            UnconfirmedPublishError(f"no confirmation for {topic!r} within {member.timeout_s:g} s", context)
        )

    async def _flush(self, topic: str, gathering: _Gathering) -> None:
        company = 1
        try:
            while True:
                if self._line.away:
                    company = 1
                elif self._linger_s and len(gathering.members) < company:
                    await gathering.reach(company, within_s=self._linger_s)
                if not gathering.members:
                    break
                taken = gathering.take(1 if self._line.away else BATCH_EVENTS)
                company = len(taken)
                batches = self._cut([one.event for one in taken], [one.payload for one in taken])
                for batch in batches:
                    members, taken = taken[: len(batch.events)], taken[len(batch.events) :]
                    await self._send_for(topic, batch, members)
        finally:
            del self._gathering[topic]
            for one in gathering.members:
                one.receipt.cancel()

    async def _send_for(self, topic: str, batch: Batch, members: Sequence[_Member]) -> None:
        try:
            since_s = min((one.waiting.since_s for one in members if one.waiting is not None), default=None)
            receipt = await self._send(topic, batch, min(one.timeout_s for one in members), since_s)
        except Exception as error:  # boundary: whatever a middleware raised belongs to those who wait
            for one in members:
                if not one.receipt.done():
                    # An instance is raised once: every publisher gets an error of its own.
                    one.receipt.set_exception(copy.copy(error) if isinstance(error, PolarisException) else error)
            return
        for one in members:
            if not one.receipt.done():
                one.receipt.set_result(receipt)
