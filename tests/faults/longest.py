"""How long the longest of many acts took that go on at the same time, such as publishes that have a timeout."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tests.awake import Awake

ALLOWANCE_S = 0.5
"""Beyond its timeout, for what is done after it: to clean up, to tell, to get the next turn of the event loop."""


class Longest:
    """Counts in the time in which the event loop runs."""

    def __init__(self, clock: Awake) -> None:
        self.seconds = 0.0
        self._clock = clock

    @contextlib.contextmanager
    def act(self) -> Iterator[None]:
        """One act, however it ends."""
        began_s = self._clock.seconds
        try:
            yield
        finally:
            self.seconds = max(self.seconds, self._clock.seconds - began_s)
