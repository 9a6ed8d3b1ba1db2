"""When the bus was away: nothing can be said of it meanwhile, so it is said once, afterwards."""

from __future__ import annotations

import math
from typing import NamedTuple

from polaris.clock import Clock
from polaris.messaging import ConnectionState

SETTLED_S = 1.0
"""Before it is told: those who should hear of it come back by themselves, each at its own moment."""


class Outages(NamedTuple):
    """How many there were, and how long they were together."""

    number: int
    seconds: float

    def __str__(self) -> str:
        if self.number == 1:
            return f"was away for {self.seconds:.1f} s"
        return f"was away {self.number} times, for {self.seconds:.1f} s in all"


class Absences:
    """The outages of a connection: all of them, the last one, and those of which nobody has been told yet."""

    def __init__(self, *, clock: Clock) -> None:
        self.count = 0
        self.last_s = 0.0
        self._clock = clock
        self._lost_s: float | None = None
        self._back_s = 0.0
        self._untold = Outages(0, 0.0)

    def note(self, state: ConnectionState) -> None:
        """Take notice of a change of state."""
        now_s = self._clock.monotonic()
        if state is ConnectionState.RECONNECTING and self._lost_s is None:
            self._lost_s = now_s
        elif state is ConnectionState.CONNECTED and self._lost_s is not None:
            self.last_s = now_s - self._lost_s
            self.count += 1
            self._untold = Outages(self._untold.number + 1, self._untold.seconds + self.last_s)
        if state is ConnectionState.CONNECTED:
            self._lost_s, self._back_s = None, now_s
        elif state in (ConnectionState.CLOSED, ConnectionState.DISCONNECTED):
            # Given up, not lost: nobody misses it.
            self._lost_s, self._back_s = None, math.inf

    def untold(self) -> Outages | None:
        """What there is to tell, as soon as the connection has stood for a second."""
        settled = self._lost_s is None and self._clock.monotonic() - self._back_s >= SETTLED_S
        return self._untold if settled and self._untold.number else None

    def told(self, outages: Outages) -> None:
        """Those have been told of; there may have been further ones meanwhile."""
        number, seconds = self._untold
        self._untold = Outages(number - outages.number, seconds - outages.seconds)
