"""The way to the broker: whether anything can be sent, and whose turn it is to find out."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeAlias

from polaris.clock import Clock
from polaris.domain import EventKind
from polaris.messaging._broker import ConnectionState, MessageBroker, OutgoingMessage, Receipt
from polaris.messaging._weak_listening import listen_weakly
from polaris.resilience import Backoff

if TYPE_CHECKING:
    from polaris.messaging._outage import Waiting

SILENT_S = 1.0
PROBING = Backoff(0.05, 1.0, jitter="equal")

Offer: TypeAlias = Callable[[OutgoingMessage], Receipt | None]
"""See `MessageBroker`."""


class Line:
    """One connection, as the publishers see it.

    When somebody could not send, the line is away: the others do not try, but are parked. One at a time, at growing
    intervals, is woken to find out; when one gets through, or the connection is back, all are, control events first. So
    an outage costs the same however many wait.
    """

    def __init__(self, broker: MessageBroker, clock: Clock) -> None:
        self.broker = broker
        self.offer = _offer_of(broker)
        self.replaced: Mapping[str, object] = getattr(broker, "__dict__", {})
        """What somebody has put in the place of the broker's methods, at any time: with a `publish` here, no offers."""
        self.away = False
        """The last attempt could not be sent."""
        self._clock = clock
        self.heard_s = clock.monotonic()
        """When the broker last confirmed or refused something."""
        self._parked: dict[EventKind, OrderedDict[Waiting, None]] = {
            EventKind.CONTROL: OrderedDict(),
            EventKind.TELEMETRY: OrderedDict(),
        }
        self._timer: asyncio.TimerHandle | None = None
        self._probes = 0
        listen_weakly(broker, self._changed)

    @property
    def troubled(self) -> bool:
        """It is away, or nothing was heard for a second."""
        return self.away or self._clock.monotonic() - self.heard_s > SILENT_S

    def lost(self) -> None:
        """Something could not be sent."""
        self.away = True

    def heard(self) -> None:
        """The broker has confirmed or refused something."""
        self.heard_s = self._clock.monotonic()
        if self.away:
            self.back()

    def back(self) -> None:
        """Something could be sent: all who are parked may try."""
        self.away = False
        self._probes = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for parked in self._parked.values():
            for waiting in list(parked):
                waiting.wake()
            parked.clear()

    def park(self, waiting: Waiting) -> None:
        """Wait until it is one's turn, see the class."""
        parked = self._parked[waiting.kind]
        parked[waiting] = None
        if waiting.probed:
            parked.move_to_end(waiting, last=False)
        if self._timer is None:
            self._set_timer()

    def unpark(self, waiting: Waiting) -> None:
        """It does not wait any more. Idempotent."""
        self._parked[waiting.kind].pop(waiting, None)

    def _set_timer(self) -> None:
        self._probes += 1
        self._timer = asyncio.get_running_loop().call_later(PROBING.delay_s(self._probes), self._probe)

    def _probe(self) -> None:
        self._timer = None
        for parked in self._parked.values():
            if parked:
                waiting, _ = parked.popitem(last=False)
                waiting.probed = True
                waiting.wake()
                # It may be cancelled just now: the next one has its turn at any rate.
                self._set_timer()
                return

    def _changed(self, state: ConnectionState) -> None:
        if state is ConnectionState.CONNECTED:
            self.back()


def _offer_of(broker: MessageBroker) -> Offer | None:
    """Its `offer`, unless somebody has put another `publish` in place of the one that goes with it."""
    offer: Offer | None = getattr(broker, "offer", None)
    if offer is None:
        return None
    defined = next(vars(each) for each in type(broker).__mro__ if "publish" in vars(each))
    return offer if "offer" in defined else None
