"""Log records as a program sees them: for tests and for views of the recent log."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from polaris.observability._pipeline import add_tap, remove_tap
from polaris.observability._record import Record

CapturedLogs = deque[Record]
RECORDS_MAX = 10_000


@contextmanager
def capture_logs(*, records_max: int = RECORDS_MAX) -> Iterator[CapturedLogs]:
    """Collect the records that this process writes while the body runs, from whatever logger.

    The youngest `records_max` are kept. Records arrive as they are written: redacted, with the keys `timestamp level
    logger message correlation_id trace_id span_id fields`, and `exception` where there is one. Levels apply as usual,
    and the sinks get their lines as usual.
    """
    captured: CapturedLogs = deque(maxlen=records_max)
    tap = captured.append
    add_tap(tap)
    try:
        yield captured
    finally:
        remove_tap(tap)
