"""A log line for a person at a terminal."""

from __future__ import annotations

import os
import re
from typing import Any, TextIO

import msgspec

from polaris.observability._record import Record

_RESET = "\x1b[0m"
_DIM = "\x1b[2m"
_BOLD = "\x1b[1m"
_CYAN = "\x1b[36m"
_LEVEL_STYLES = {
    "DEBUG": "\x1b[32m",
    "INFO": "\x1b[32;1m",
    "WARNING": "\x1b[33;1m",
    "ERROR": "\x1b[31;1m",
    "CRITICAL": "\x1b[41;97;1m",
}
_MESSAGE_COLUMNS = 40
_SHORT_ID_CHARS = 8
# C0, DEL and C1: a text from outside must not move the cursor, recolour the terminal or forge a second line.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_PLAIN = re.compile(r"[^\s\"'=]+")


def wants_colour(stream: TextIO) -> bool:
    """Whether to colour: on a terminal that can, unless NO_COLOR is set; anywhere when FORCE_COLOR is set."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return is_terminal(stream) and os.environ.get("TERM") != "dumb"


def is_terminal(stream: TextIO) -> bool:
    """Whether a person reads the stream; a closed stream has no reader."""
    try:
        return stream.isatty()
    except (AttributeError, ValueError):
        return False


def render_console(record: Record, *, colour: bool) -> str:
    """UTC time, level, message, fields, logger and ids on one line; an exception on indented lines below it."""

    def paint(style: str, text: str) -> str:
        return f"{style}{text}{_RESET}" if colour else text

    level = record["level"]
    parts = [
        paint(_DIM, record["timestamp"][11:23]),
        paint(_LEVEL_STYLES.get(level, ""), f"{level:<8}"),
        paint(_BOLD, f"{_visible(record['message']):<{_MESSAGE_COLUMNS}}"),
        *(f"{paint(_CYAN, _visible(name))}={_visible_value(value)}" for name, value in record["fields"].items()),
        paint(_DIM, f"[{_visible(record['logger'])}]"),
    ]
    for key, label in (("correlation_id", "corr"), ("trace_id", "trace")):
        if record[key] is not None:
            parts.append(paint(_DIM, f"{label}={_visible(record[key])[:_SHORT_ID_CHARS]}"))
    lines = [" ".join(parts)]
    if "exception" in record:
        for depth, report in enumerate((record["exception"], *record["exception"].get("causes", ()))):
            lines += _render_exception(report, "    " if depth == 0 else "    caused by ", paint)
    return "\n".join(lines)


def _render_exception(report: dict[str, Any], head: str, paint: Any) -> list[str]:
    code = f" ({report['code']})" if report["code"] else ""
    lines = [head + paint(_LEVEL_STYLES["ERROR"], f"{_visible(report['type'])}{code}: {_visible(report['message'])}")]
    if report["context"]:
        lines.append("      " + " ".join(f"{_visible(k)}={_visible_value(v)}" for k, v in report["context"].items()))
    lines += [f"      {paint(_DIM, 'at')} {_visible(frame)}" for frame in report["stack"]]
    lines += [f"      note: {_visible(note)}" for note in report.get("notes", ())]
    for member in report.get("group", ()):
        lines += [f"    {line}" for line in _render_exception(member, "    | ", paint)]
    return lines


def _visible(text: str) -> str:
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}" if match[0] != "\n" else "\\n", text)


def _visible_value(value: object) -> str:
    if isinstance(value, str):
        return value if _PLAIN.fullmatch(value) and not _CONTROL.search(value) else _visible(repr(value))
    return _visible(msgspec.json.encode(value).decode())
