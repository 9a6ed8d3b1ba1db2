"""Ends connections on which nothing goes on: a head that does not come, an answer that nobody takes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

HEAD_WAIT_S = 10.0
TAKE_WAIT_S = 60.0
"""Longer, as the system takes bytes of ours in lumps: over a slow line nothing seems to move for a while."""


class _Seen(NamedTuple):
    since_s: float
    cycle: object
    unsent_bytes: int


class IdleWatch:
    """Notes at each look what every connection does, and aborts those on which nothing goes on.

    For `wait_s` seconds one may wait for a request: before the first and between two. Bytes of a head that is not
    complete are no progress, so that nobody holds a connection by sending one now and then. For `take_wait_s` seconds
    an answer may lie there untaken, also one that has no end. The time begins anew with every answer, and with every
    byte that is taken. A request may be worked on for ever, and an endless answer may have nothing to say.
    """

    def __init__(self, wait_s: float | None = None, take_wait_s: float | None = None) -> None:
        self._wait_s = HEAD_WAIT_S if wait_s is None else wait_s
        self._take_wait_s = TAKE_WAIT_S if take_wait_s is None else take_wait_s
        self._waiting: dict[Any, _Seen] = {}

    def look(self, connections: Iterable[Any], now_s: float) -> int:
        """Look at all of them, and tell how many were aborted."""
        before, self._waiting = self._waiting, {}
        aborted = 0
        for connection in tuple(connections):
            cycle, transport = connection.cycle, connection.transport
            if transport is None:
                continue
            seen = _Seen(now_s, cycle, transport.get_write_buffer_size())
            if cycle is not None and not cycle.response_complete and not seen.unsent_bytes:
                continue
            known = before.get(connection)
            if known is not None and known.cycle is cycle and known.unsent_bytes == seen.unsent_bytes:
                seen = known
            if now_s - seen.since_s >= (self._take_wait_s if seen.unsent_bytes else self._wait_s):
                transport.abort()
                aborted += 1
            else:
                self._waiting[connection] = seen
        return aborted
