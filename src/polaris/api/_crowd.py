"""How many connections the server of an app holds, and how many are too many."""

from __future__ import annotations

from collections.abc import Callable

from polaris.exceptions import BulkheadRejectedException

CONNECTIONS_MAX = 1_024


class Crowd:
    """The server says how to count; the edge turns requests away while there are more than `CONNECTIONS_MAX`."""

    def __init__(self) -> None:
        self._count: Callable[[], int] = _nobody

    def count_by(self, count: Callable[[], int]) -> None:
        """Ask `count` for the open connections from now on."""
        self._count = count

    @property
    def connections(self) -> int:
        """How many are open now; 0 without a server."""
        return self._count()

    @property
    def is_full(self) -> bool:
        """Whether there are too many."""
        return self._count() > CONNECTIONS_MAX

    def check(self) -> None:
        """Raise `BulkheadRejectedException` when there are too many."""
        if self.is_full:
            raise BulkheadRejectedException("http connections", active=self._count(), queued=0, reason="full")


def _nobody() -> int:
    return 0
