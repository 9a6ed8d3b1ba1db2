"""What waits to be sent while the broker is away: bounded in bytes and in age, with a rule for who must go."""

from __future__ import annotations

import asyncio
import enum
from collections import OrderedDict
from datetime import datetime
from typing import Any

import msgspec

from polaris.clock import Clock
from polaris.domain import EventKind
from polaris.exceptions import BusConnectionError, InvalidValueError

OUTAGE_BYTES_MAX = 16 * 1024 * 1024
OUTAGE_AGE_MAX_S = 60.0


class WhenFull(enum.StrEnum):
    """What becomes of an event that finds no room any more."""

    NEWEST_WINS = "newest_wins"
    """It takes the place of the oldest ones of its kind, whose publishers are told."""
    REFUSE = "refuse"
    """Its publisher is told at once, except that it takes the place of events whose kind lets the newest win."""


class OutageBuffer(msgspec.Struct, frozen=True, kw_only=True):
    """How much may wait while the broker is away or takes nothing more, over all publishers of a bus.

    Every publisher waits for its own event, at most as long as its `timeout_s`, so nothing here is lost unnoticed: one
    that must go gets `BusConnectionError` with the reason "buffer_full" or "expired", and knows that nothing was sent.
    """

    bytes_max: int = OUTAGE_BYTES_MAX
    """Of encoded messages. What is left when the broker breaks off is let in; only more is not."""
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


class Waiting:
    """One message, or one event that is to become part of one, while it waits.

    It is the clock of the one who waits for it: a sleep ends early when the broker is back, and with
    `BusConnectionError` when the event had to make room.
    """

    __slots__ = ("_ends", "_room", "_wakes", "kind", "since_s", "size")

    def __init__(self, room: WaitingRoom, kind: EventKind, size: int, since_s: float) -> None:
        self.kind = kind
        self.size = size
        self.since_s = since_s
        self._room = room
        self._ends: asyncio.Future[Any] | None = None
        self._wakes = False

    def now(self) -> datetime:
        return self._room.clock.now()

    def monotonic(self) -> float:
        return self._room.clock.monotonic()

    async def sleep(self, delay_s: float) -> None:
        """Wait so long, or until the broker is back; raises when the event must go."""
        nap: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        pause = asyncio.ensure_future(self._room.clock.sleep(delay_s))
        pause.add_done_callback(lambda _: _end(nap))
        self._ends, self._wakes = nap, True
        try:
            await nap
        finally:
            self._ends = None
            pause.cancel()

    def ends_by(self, outcome: asyncio.Future[Any]) -> None:
        """Somebody waits for this future, which fails when the event must go; nothing of it is under way till then."""
        self._ends = outcome

    @property
    def rests(self) -> bool:
        """Whether it can be made to go: nothing of it is under way."""
        return self._ends is not None and not self._ends.done()

    def wake(self) -> None:
        """The broker is back: a sleep is over."""
        if self._wakes and self._ends is not None:
            _end(self._ends)

    def push_out(self, error: BusConnectionError) -> None:
        """Make room: whoever waits gets `error`."""
        self.leave()
        if self._ends is not None and not self._ends.done():
            self._ends.set_exception(error)

    def expired(self) -> BusConnectionError:
        """What to tell a publisher whose event has waited for too long."""
        waited_s = self.monotonic() - self.since_s
        return BusConnectionError(
            f"the broker was away for longer than an event may wait: {waited_s:.1f} s",
            {"reason": "expired", "waited_s": waited_s},
        )

    def leave(self) -> None:
        """It does not wait any more. Idempotent."""
        self._room.leave(self)


class WaitingRoom:
    """Everything that waits for the broker. Empty as long as the broker is there."""

    def __init__(self, limits: OutageBuffer, clock: Clock) -> None:
        self.limits = limits
        self.clock = clock
        self.bytes = 0
        # Of each kind, the oldest first.
        self._waiting: dict[EventKind, OrderedDict[Waiting, None]] = {kind: OrderedDict() for kind in EventKind}

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def __bool__(self) -> bool:
        return any(self._waiting.values())

    def enter(self, kind: EventKind, size: int, *, since_s: float | None = None) -> Waiting:
        """A place for so many bytes, which have waited since then or come just now.

        Raises `BusConnectionError` when there is none and none can be made.
        """
        waiting = Waiting(self, kind, size, self.clock.monotonic() if since_s is None else since_s)
        if self.bytes + size > self.limits.bytes_max:
            self._make_room(waiting)
        self._waiting[kind][waiting] = None
        if since_s is not None:
            self._waiting[kind].move_to_end(waiting, last=False)
        self.bytes += size
        return waiting

    def leave(self, waiting: Waiting) -> None:
        """Give the place back. Idempotent."""
        if waiting in self._waiting[waiting.kind]:
            del self._waiting[waiting.kind][waiting]
            self.bytes -= waiting.size

    def wake(self) -> None:
        """The broker is back: nobody waits out the pause before his next attempt."""
        for those in self._waiting.values():
            for waiting in list(those):
                waiting.wake()

    def _make_room(self, newcomer: Waiting) -> None:
        missing = self.bytes + newcomer.size - self.limits.bytes_max
        leaving: list[Waiting] = []
        for kind in EventKind:
            if not self._gives_way(kind, newcomer.kind):
                continue
            for waiting in self._waiting[kind]:
                if missing <= 0:
                    break
                # One that takes its place anew is older than those behind it.
                if waiting.rests and (kind is not newcomer.kind or waiting.since_s <= newcomer.since_s):
                    leaving.append(waiting)
                    missing -= waiting.size
        if missing > 0:
            raise self._full("no room for another event")
        for waiting in leaving:
            waiting.push_out(self._full("a newer event has taken the place of this one"))

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
