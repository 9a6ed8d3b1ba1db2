"""One line on a terminal that tells how far long work is."""

from __future__ import annotations

import sys
import time

PROGRESS_EVERY_S = 0.2


class Progress:
    """One line on standard error that tells how far long work is; only where people can see it, and gone at the end."""

    def __init__(self) -> None:
        self._shown = False
        self._visible = sys.stderr.isatty()
        self._next_s = time.monotonic() + PROGRESS_EVERY_S

    def tell(self, text: str) -> None:
        """Show `text` instead of what stands there, unless that is too young."""
        if self._visible and time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + PROGRESS_EVERY_S
            self._shown = True
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Make room for other lines."""
        if self._shown:
            self._shown = False
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
