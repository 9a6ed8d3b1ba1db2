"""What commands print: tables for people, one JSON document or JSON lines for programs."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

CUT_CHARS_MIN = 12
"""What a narrow terminal leaves of a column."""
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


def room() -> int | None:
    """How many columns the terminal has; None where programs read, which get everything in one line."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def print_table(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    status_column: int | None = None,
    spare_columns: Sequence[int] = (),
) -> None:
    """Left-aligned columns, two spaces apart, as wide as their content.

    On a terminal that is too narrow for them the widest are cut, never below twelve characters; where that does not do,
    the spare columns are left out, the first one first.
    """
    widths = [max(len(line[column]) for line in (headings, *rows)) for column in range(len(headings))]
    columns = room()
    shown = list(range(len(widths)))
    for spare in spare_columns:
        if columns is not None and _width([min(widths[one], CUT_CHARS_MIN) for one in shown]) > columns:
            shown.remove(spare)
    given = dict(zip(shown, fitted([widths[one] for one in shown], columns), strict=True))
    print(coloured("  ".join(_cut(headings[one], width) for one, width in given.items()).rstrip(), "bold"))
    for row in rows:
        cells = [
            status_text(_cut(row[one], width).rstrip(), width) if one == status_column else _cut(row[one], width)
            for one, width in given.items()
        ]
        print("  ".join(cells).rstrip())


def fitted(widths: Sequence[int], columns: int | None) -> list[int]:
    """The widths as they fit into so many columns, as far as they can: the widest give way first."""
    given = list(widths)
    while columns is not None and _width(given) > columns and max(given) > CUT_CHARS_MIN:
        given[given.index(max(given))] -= 1
    return given


def _width(widths: Sequence[int]) -> int:
    return sum(widths) + 2 * (len(widths) - 1)


def _cut(text: str, width: int) -> str:
    """`text` in so many columns; what is left out is left out of the middle, for the ends differ."""
    if len(text) <= width:
        return text.ljust(width)
    tail = (width - 1) // 2
    return f"{text[: width - 1 - tail]}\N{HORIZONTAL ELLIPSIS}{text[-tail:]}"


def print_wrapped(text: str, indent: int, *, mark: str = "") -> None:
    """`text` after a mark that takes no room of its own, broken between words on a terminal and indented."""
    columns = room()
    lines = [text]
    if columns is not None and columns > 2 * indent:
        lines = textwrap.wrap(text, columns - indent, break_long_words=False, break_on_hyphens=False) or [""]
    print(f"{mark}{lines[0]}")
    for line in lines[1:]:
        print(f"{'':{indent}}{line}")


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
