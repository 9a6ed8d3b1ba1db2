"""What a core subscription has no room for: counted, told to its callback, and logged without flooding the log."""

from __future__ import annotations

import logging
from collections.abc import Callable

from polaris.clock import SYSTEM_CLOCK, Clock
from polaris.messaging._broker import Delivery, OnDelivery
from polaris.messaging._kept_back import KeptBack

_log = logging.getLogger(__name__)


class Overflow:
    """The messages that one core subscription dropped because too many waited for its callback.

    Each is counted in `count` and given to the callback's method `dropped`, if it has one. The first is logged at once,
    after that one line a minute while it goes on, and the rest at the end; every line says how many there were in all.
    """

    def __init__(self, pattern: str, on_delivery: OnDelivery, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self.count = 0
        self._pattern = pattern
        self._dropped: Callable[[Delivery], None] | None = getattr(on_delivery, "dropped", None)
        self._lines: KeptBack[str] = KeptBack(clock)
        self._logged = 0

    def drop(self, delivery: Delivery) -> None:
        """Account for a message that will not be delivered. Never raises."""
        self.count += 1
        if self._dropped is not None:
            try:
                self._dropped(delivery)
            except Exception:  # boundary: a callback's failure is not the publisher's
                _log.exception("the callback of subscription %s failed", self._pattern)
        if self._lines.admit(self._pattern) is not None:
            self._warn()

    def end(self, _: object = None) -> None:
        """The subscription has ended: what no line has told is told now."""
        if self.count > self._logged:
            self._warn()

    def _warn(self) -> None:
        self._logged = self.count
        _log.warning("subscription %s is too slow: messages are dropped (%d so far)", self._pattern, self.count)
