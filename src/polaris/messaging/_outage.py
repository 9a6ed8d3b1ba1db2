"""What waits to be sent while the broker is away: bounded in bytes and in age, with a rule for who must go."""

from __future__ import annotations

import asyncio
import enum
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from polaris.clock import Clock
from polaris.domain import EventKind
from polaris.exceptions import BusConnectionError, InvalidValueError

if TYPE_CHECKING:
    from polaris.messaging._line import Line

OUTAGE_BYTES_MAX = 16 * 1024 * 1024
OUTAGE_AGE_MAX_S = 60.0
WAIT_S_MAX = 365 * 86_400.0
"""What is longer is for ever; timers do not take infinity."""


class WhenFull(enum.StrEnum):
    """What becomes of an event that finds no room any more."""

    NEWEST_WINS = "newest_wins"
    """It takes the place of the oldest ones of its kind, whose publishers are told."""
    REFUSE = "refuse"
    """Its publisher is told at once. It takes the place of events whose kind lets the newest win."""


class OutageBuffer(msgspec.Struct, frozen=True, kw_only=True):
    """How much may wait while the broker is away or takes nothing more, over all publishers of a bus.

    Every publisher waits for its own event, at most as long as its `timeout_s`, so nothing here is lost unnoticed: one
    that must go gets `BusConnectionError` with the reason "buffer_full" or "expired", and knows that nothing was sent.
    What may have been sent is never made to go.
    """

    bytes_max: int = OUTAGE_BYTES_MAX
    """Of encoded messages. What was under way when the broker broke off is let in; only more is not."""
    age_max_s: float = OUTAGE_AGE_MAX_S
    """What has waited longer is not sent any more, though its publisher would wait on."""
    telemetry: WhenFull = WhenFull.NEWEST_WINS
    """The rule for events of `EventKind.TELEMETRY`."""
    control: WhenFull = WhenFull.REFUSE
    """The rule for events of `EventKind.CONTROL`."""

    def rule(self, kind: EventKind) -> WhenFull:
        """What becomes of an event of that kind that finds no room."""
        return self.telemetry if kind is EventKind.TELEMETRY else self.control

    def __post_init__(self) -> None:
        if type(self.bytes_max) is not int or self.bytes_max < 1:
            raise InvalidValueError("bytes_max", "an integer of at least 1", self.bytes_max)
        if not self.age_max_s > 0:
            raise InvalidValueError("age_max_s", "seconds, over 0", self.age_max_s)
        for name in ("telemetry", "control"):
            if not isinstance(getattr(self, name), WhenFull):
                raise InvalidValueError(name, "a WhenFull", getattr(self, name))


class TimeIsUp(Exception):
    """Whoever waits has no time left for another attempt."""


class NotSent(BusConnectionError):
    """A message of several events could not be sent; each of them can wait for itself."""


class Waiting:
    """One message, or one event that is to become part of one, while it waits.

    It is the clock of the one who repeats it: a sleep is as long as was asked for if the broker is there, and lasts
    until the line wakes it if not. It ends with `TimeIsUp` at the publisher's deadline, with `BusConnectionError` when
    the event is too old or had to make room.
    """

    __slots__ = ("_ends", "_room", "deadline_s", "kind", "line", "probed", "since_s", "size")

    def __init__(self, room: WaitingRoom, line: Line, kind: EventKind, size: int, since_s: float) -> None:
        self.line = line
        self.kind = kind
        self.size = size
        self.since_s = since_s
        self.deadline_s = since_s + WAIT_S_MAX
        self.probed = False
        """It was the one to ask whether the broker is back, and keeps its place in front."""
        self._room = room
        self._ends: asyncio.Future[Any] | None = None

    def now(self) -> datetime:
        return self._room.clock.now()

    def monotonic(self) -> float:
        return self._room.clock.monotonic()

    async def sleep(self, delay_s: float) -> None:
        """Wait until another attempt may be made."""
        left_s = self._left_s()
        loop = asyncio.get_running_loop()
        ends: asyncio.Future[None] = loop.create_future()
        self._ends = ends
        pause: asyncio.Future[None] | None = None
        timer = loop.call_later(left_s, _end, ends)
        try:
            if self.line.away:
                self.line.park(self)
            else:
                pause = asyncio.ensure_future(self._room.clock.sleep(delay_s))
                pause.add_done_callback(lambda _: _end(ends))
            await ends
        finally:
            self._ends = None
            timer.cancel()
            self.line.unpark(self)
            if pause is not None:
                pause.cancel()
        self._left_s()

    def _left_s(self) -> float:
        """How long it may go on waiting. Raises when that is over."""
        if self._room.closed:
            raise BusConnectionError("the bus has ended; nothing more is sent", {"reason": "ended"})
        now_s = self.monotonic()
        expires_s = self.since_s + self._room.limits.age_max_s
        if now_s >= min(self.deadline_s, expires_s):
            raise TimeIsUp if expires_s > self.deadline_s else self.expired()
        return min(self.deadline_s, expires_s) - now_s

    def expired(self) -> BusConnectionError:
        """What to tell a publisher whose event has waited for too long."""
        waited_s = self.monotonic() - self.since_s
        return BusConnectionError(
            f"the broker was away for longer than an event may wait: {waited_s:.1f} s",
            {"reason": "expired", "waited_s": waited_s},
        )

    def ends_by(self, outcome: asyncio.Future[Any]) -> None:
        """Somebody waits for this future, which fails when the event must go; nothing of it is under way till then."""
        self._ends = outcome

    def begin(self, deadline_s: float) -> None:
        """It is under way now, with so much time, and cannot be made to go until it sleeps."""
        self._ends = None
        self.deadline_s = deadline_s

    @property
    def rests(self) -> bool:
        """Whether it can be made to go: nothing of it is under way."""
        return self._ends is not None and not self._ends.done()

    def wake(self) -> None:
        """A sleep is over."""
        if self._ends is not None:
            _end(self._ends)

    def fail(self, error: BusConnectionError) -> None:
        """Let it go: whoever waits gets `error`."""
        self.leave()
        if self._ends is not None and not self._ends.done():
            self._ends.set_exception(error)

    def leave(self) -> None:
        """It does not wait any more. Idempotent."""
        self._room.leave(self)


class WaitingRoom:
    """Everything that waits for the broker. Empty as long as the broker is there."""

    def __init__(self, limits: OutageBuffer, clock: Clock) -> None:
        self.limits = limits
        self.clock = clock
        self.closed = False
        """The bus has ended: nobody waits any more."""
        self.bytes = 0
        self._bytes_of = dict.fromkeys(EventKind, 0)
        # Of each kind, in the order in which they came.
        self._waiting: dict[EventKind, dict[Waiting, None]] = {kind: {} for kind in EventKind}

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def enter(self, line: Line, kind: EventKind, size: int, *, forced: bool = False) -> Waiting:
        """A place for so many bytes. `forced` is for what is under way already.

        Raises `BusConnectionError` when there is none and none can be made.
        """
        waiting = Waiting(self, line, kind, size, self.clock.monotonic())
        if not forced and self.bytes + size > self.limits.bytes_max:
            self._make_room(waiting)
        self._waiting[kind][waiting] = None
        self.bytes += size
        self._bytes_of[kind] += size
        return waiting

    def leave(self, waiting: Waiting) -> None:
        """Give the place back. Idempotent."""
        if waiting in self._waiting[waiting.kind]:
            del self._waiting[waiting.kind][waiting]
            self.bytes -= waiting.size
            self._bytes_of[waiting.kind] -= waiting.size

    def close(self) -> None:
        """The bus ends: everybody who waits is told."""
        self.closed = True
        for those in self._waiting.values():
            for waiting in list(those):
                waiting.fail(BusConnectionError("the bus has ended; nothing was sent", {"reason": "ended"}))

    def _make_room(self, newcomer: Waiting) -> None:
        missing = self.bytes + newcomer.size - self.limits.bytes_max
        leaving: list[Waiting] = []
        for kind in EventKind:
            if not self._gives_way(kind, newcomer.kind):
                continue
            for waiting in self._waiting[kind]:
                if missing <= 0:
                    break
                if waiting.rests:
                    leaving.append(waiting)
                    missing -= waiting.size
        refuses = self.limits.rule(newcomer.kind) is WhenFull.REFUSE
        # One that may not be dropped for others is not refused for their bytes either.
        if missing > 0 and not (refuses and self._bytes_of[newcomer.kind] + newcomer.size <= self.limits.bytes_max):
            raise self._full("no room for another event")
        for waiting in leaving:
            waiting.fail(self._full("a newer event has taken the place of this one"))

    def _gives_way(self, kind: EventKind, newcomer: EventKind) -> bool:
        """Whether an event of `kind` may have to make room for a new one of the other."""
        if self.limits.rule(kind) is not WhenFull.NEWEST_WINS:
            return False
        return kind is newcomer or self.limits.rule(newcomer) is WhenFull.REFUSE

    def _full(self, what: str) -> BusConnectionError:
        return BusConnectionError(
            f"{what}: {self.limits.bytes_max} bytes wait for the broker already",
            {"reason": "buffer_full", "waiting": len(self), "bytes_max": self.limits.bytes_max},
        )


def _end(nap: asyncio.Future[Any]) -> None:
    if not nap.done():
        nap.set_result(None)
