"""What commands print: tables for people, one JSON document or JSON lines for programs."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

_COLOURS = {"green": "32", "yellow": "33", "red": "31", "dim": "2", "bold": "1"}
_STATUS_COLOURS = {
    "healthy": "green",
    "success": "green",
    "warning": "yellow",
    "partial": "yellow",
    "running": "yellow",
    "pending": "yellow",
    "critical": "red",
    "unhealthy": "red",
    "failed": "red",
    "rejected": "red",
    "timeout": "red",
    "cancelled": "red",
}


def on_terminal() -> bool:
    """Whether people read the output: a terminal, and no NO_COLOR (no-color.org)."""
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ


def coloured(text: str, colour: str) -> str:
    """`text` in a colour on a terminal, unchanged elsewhere."""
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if on_terminal() else text


def say_next(step: str) -> None:
    """What to do now that this is done; for people, so only on a terminal."""
    if sys.stdout.isatty():
        print(coloured(f"next: {step}", "dim"))


def status_text(status: str, width: int = 0) -> str:
    """A status, padded to `width` and coloured by what it means."""
    colour = _STATUS_COLOURS.get(status)
    padded = status.ljust(width)
    return coloured(padded, colour) if colour else padded


def print_json(value: Any) -> None:
    """One indented JSON document."""
    text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    print(text)


def print_json_line(value: Any) -> None:
    """One JSON value on one line, flushed, so that a pipe sees it at once."""
    print(msgspec.json.encode(value).decode(), flush=True)


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, status_column: int | None = None) -> None:
    """Left-aligned columns, two spaces apart, as wide as their content."""
    widths = [max(len(line[column]) for line in (headings, *rows)) for column in range(len(headings))]
    print(coloured("  ".join(text.ljust(width) for text, width in zip(headings, widths, strict=True)).rstrip(), "bold"))
    for row in rows:
        cells = [
            status_text(text, width) if column == status_column else text.ljust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())


def ago(moment: datetime | None, now: datetime | None = None) -> str:
    """How long ago `moment` was, in words; `never` for None, `in 3 d` for the future."""
    if moment is None:
        return "never"
    seconds = ((now or datetime.now(UTC)) - moment).total_seconds()
    return f"{duration_text(seconds)} ago" if seconds >= -0.5 else f"in {duration_text(-seconds)}"


def duration_text(seconds: float) -> str:
    """A duration with one unit: 12 ms, 3.4 s, 5 min, 2 h, 3 d."""
    if seconds < 1:
        return f"{max(0.0, seconds) * 1000:.0f} ms"
    for limit, unit, size in ((90, "s", 1), (5400, "min", 60), (129_600, "h", 3600)):
        if seconds < limit:
            amount = seconds / size
            return f"{amount:.1f} {unit}" if amount < 10 else f"{amount:.0f} {unit}"
    return f"{timedelta(seconds=seconds).days} d"


def moment_text(moment: datetime) -> str:
    """An instant in UTC as RFC 3339, to the millisecond."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def value_text(value: object, unit: str | None = None) -> str:
    """A metric value for people; a missing one is a dash, never 0."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)) and unit in ("By", "By/s"):
        return _bytes_text(value) + unit.removeprefix("By")
    text = _number_text(value) if isinstance(value, float) else str(value)
    # UCUM writes what is counted in braces: {thread}.
    shown = (unit or "1").removeprefix("1").replace("{", "").replace("}", "")
    return f"{text} {shown}".rstrip()


def _number_text(value: float) -> str:
    return f"{value:.0f}" if 1e6 <= abs(value) < 1e15 else f"{value:.6g}"


def _bytes_text(value: float) -> str:
    size, units = float(value), iter(("B", "KiB", "MiB", "GiB", "TiB"))
    unit = next(units)
    while abs(size) >= 1024 and unit != "TiB":
        size, unit = size / 1024, next(units)
    return f"{size:.4g} {unit}"
