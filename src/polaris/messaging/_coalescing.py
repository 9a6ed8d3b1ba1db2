"""Group commit for telemetry: while one message of a topic is on its way, the next events of the topic gather."""

from __future__ import annotations

import asyncio
import contextvars
import copy
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from typing import Protocol, TypeAlias

from polaris._correlation import current_correlation_id
from polaris.domain import EventKind, PolarisEvent
from polaris.exceptions import BusConnectionError, InvalidValueError, PolarisException, UnconfirmedPublishError
from polaris.messaging._batches import BATCH_EVENTS, Batch
from polaris.messaging._broker import Receipt
from polaris.messaging._line import Line
from polaris.messaging._outage import WAIT_S_MAX, NotSent, Waiting, WaitingRoom
from polaris.messaging._settlement import is_being_cancelled

LINGER_S = 0.001

SendBatch: TypeAlias = Callable[[str, Batch, float, Waiting | None], Awaitable[Receipt]]
"""Sends a batch on a topic within a timeout. One event that could not be sent waits, in the place given if there is
one; several raise `NotSent`."""
Cut: TypeAlias = Callable[[Sequence[PolarisEvent], Sequence[bytes]], Sequence[Batch]]


class Way(Protocol):
    """How messages go to the broker."""

    @property
    def room(self) -> WaitingRoom:
        """What waits for the broker."""
        ...

    def line_of(self, topic: str) -> Line:
        """The line of a topic."""
        ...


class _Member:
    """An event whose publisher waits for the receipt, at most until `deadline_s` of the event loop's time.

    `waiting` is its place among what waits for the broker, if it waited while the line was in trouble.
    """

    __slots__ = ("correlation_id", "deadline_s", "event", "kind", "payload", "receipt", "waiting")

    def __init__(self, event: PolarisEvent, payload: bytes, kind: EventKind, timeout_s: float) -> None:
        loop = asyncio.get_running_loop()
        self.event = event
        self.payload = payload
        self.kind = kind
        self.receipt: asyncio.Future[Receipt] = loop.create_future()
        self.deadline_s = loop.time() + min(timeout_s, WAIT_S_MAX)
        self.waiting: Waiting | None = None
        self.correlation_id = current_correlation_id()


class _Gathering:
    """What gathers for one topic, in order."""

    __slots__ = ("_enough", "_wanted", "members")

    def __init__(self) -> None:
        self.members: OrderedDict[_Member, None] = OrderedDict()
        self._wanted = 0
        self._enough: asyncio.Future[None] | None = None

    def add(self, member: _Member) -> None:
        self.members[member] = None
        if self._enough is not None and len(self.members) >= self._wanted and not self._enough.done():
            self._enough.set_result(None)

    def put_back(self, members: Sequence[_Member]) -> None:
        """They could not be sent: they are the first ones again."""
        for member in reversed(members):
            self.members[member] = None
            self.members.move_to_end(member, last=False)

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

    def first(self, count_max: int) -> list[_Member]:
        """The next ones to be sent; those that have given up are struck out."""
        found: list[_Member] = []
        for member in list(islice(self.members, count_max)):
            if member.receipt.done():
                del self.members[member]
            else:
                found.append(member)
        return found


class Coalescer:
    """Sends the events of a topic in order, one message at a time, each with all that gathered meanwhile.

    An event on an idle topic leaves at once and alone, so nothing waits for company; under load the messages grow to
    512 events. Once a message has left with n events, the next one waits for as many, because those who publish one
    event after the other are about to come again, but not longer than `linger_s`, the latency that this may cost.

    Every publisher waits for the receipt of the message that held its event, so what gathers is bounded by how many
    wait, and while the line is in trouble by `OutageBuffer`: one event at a time asks then whether it is back, the
    others wait here, where each can make room for a newer one. A failed message fails all who wait for it, each with an
    error of its own; those behind it are still sent. A publisher that is cancelled, or whose time is up, before its
    event left takes it back.
    """

    def __init__(self, send: SendBatch, cut: Cut, way: Way, *, linger_s: float = LINGER_S) -> None:
        if not 0 <= linger_s <= 1:
            raise InvalidValueError("telemetry_linger_s", "seconds from 0 to 1", linger_s)
        self._send = send
        self._cut = cut
        self._way = way
        self._linger_s = linger_s
        self._gathering: dict[str, _Gathering] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def publish(
        self, topic: str, event: PolarisEvent, payload: bytes, timeout_s: float, *, kind: EventKind
    ) -> Receipt:
        """Send one encoded event with its like. Raises as `Publisher.send` does, within `timeout_s`."""
        gathering = self._gathering.get(topic)
        if gathering is not None:
            return await self._join(topic, gathering, _Member(event, payload, kind, timeout_s))
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

    async def _join(self, topic: str, gathering: _Gathering, member: _Member) -> Receipt:
        if self._way.line_of(topic).troubled:
            self._let_wait(topic, member, forced=False)
        gathering.add(member)
        # A timer: `asyncio.timeout` would be a quarter of the price of the event.
        timer = asyncio.get_running_loop().call_at(member.deadline_s, _time_is_up, topic, gathering, member)
        try:
            return await member.receipt
        finally:
            timer.cancel()
            gathering.members.pop(member, None)
            if member.waiting is not None:
                member.waiting.leave()

    def _let_wait(self, topic: str, member: _Member, *, forced: bool) -> None:
        """Give it a place among what waits for the broker."""
        line, size = self._way.line_of(topic), len(member.payload)
        member.waiting = self._way.room.enter(line, member.kind, size, forced=forced)
        member.waiting.ends_by(member.receipt)

    async def _flush(self, topic: str, gathering: _Gathering) -> None:
        line = self._way.line_of(topic)
        company = 1
        taken: Sequence[_Member] = ()
        try:
            while True:
                if line.away:
                    company = 1
                elif self._linger_s and len(gathering.members) < company:
                    await gathering.reach(company, within_s=self._linger_s)
                if not gathering.members:
                    break
                taken = self._take(gathering, 1 if line.away else BATCH_EVENTS)
                company = len(taken)
                if taken:
                    await self._send_for(topic, gathering, taken)
        finally:
            del self._gathering[topic]
            # Nobody is left behind, however this has ended.
            for one in (*taken, *gathering.members):
                if not one.receipt.done():
                    one.receipt.set_exception(UnconfirmedPublishError(f"the publishing of {topic!r} was broken off"))

    def _take(self, gathering: _Gathering, count_max: int) -> Sequence[_Member]:
        """The members of the next message."""
        first = gathering.first(count_max)
        batch = next(iter(self._cut([one.event for one in first], [one.payload for one in first])), None)
        taken = first[: 0 if batch is None else len(batch.events)]
        for one in taken:
            del gathering.members[one]
        return taken

    async def _send_for(self, topic: str, gathering: _Gathering, members: Sequence[_Member]) -> None:
        place = members[0].waiting if len(members) == 1 else None
        if place is None:
            for one in members:
                if one.waiting is not None:
                    one.waiting.begin(one.waiting.deadline_s)
        # Each minds its own time; the message has that of the most patient one.
        timeout_s = max(one.deadline_s for one in members) - asyncio.get_running_loop().time()
        batch = Batch(tuple(one.event for one in members), tuple(one.payload for one in members))
        try:
            receipt = await self._send(topic, batch, max(0.0, timeout_s), place)
        except NotSent:
            still = [one for one in members if not one.receipt.done()]
            for one in still:
                if one.waiting is None:
                    self._let_wait(topic, one, forced=True)
                else:
                    one.waiting.ends_by(one.receipt)
            gathering.put_back(still)
        except asyncio.CancelledError as error:
            if is_being_cancelled():
                raise
            _fail(members, UnconfirmedPublishError(f"publishing on {topic!r} was cancelled by somebody else"), error)
        except Exception as error:  # boundary: whatever a middleware raised belongs to those who wait
            _fail(members, error, error.__cause__)
        else:
            for one in members:
                if not one.receipt.done():
                    one.receipt.set_result(receipt)


def _fail(members: Sequence[_Member], error: Exception, cause: BaseException | None) -> None:
    """Tell everybody who waits, each by an error of its own."""
    for one in members:
        if not one.receipt.done():
            own = _copied(error)
            if isinstance(own, PolarisException):
                own.context = copy.deepcopy(own.context)
                own.correlation_id = one.event.correlation_id or one.correlation_id
            own.__cause__ = cause
            one.receipt.set_exception(own)


def _copied(error: Exception) -> Exception:
    try:
        own = copy.copy(error)
        if hasattr(own, "__notes__"):
            own.__notes__ = list(own.__notes__)
    except Exception:  # boundary: foreign exceptions need not take the arguments that they keep
        return error
    return own


def _time_is_up(topic: str, gathering: _Gathering, member: _Member) -> None:
    if member.receipt.done():
        return
    if member in gathering.members:
        message = f"nothing was sent on {topic!r} in time: the broker has not answered to what came before"
        member.receipt.set_exception(BusConnectionError(message, {"topic": topic, "reason": "away"}))
    else:
        message = f"no confirmation for {topic!r} in time"
        member.receipt.set_exception(UnconfirmedPublishError(message, {"topic": topic}))
