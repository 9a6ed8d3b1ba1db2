"""An exception as data for a log line: code, context and where it happened, never the values of local variables."""

from __future__ import annotations

from collections import deque
from types import TracebackType
from typing import Any

from polaris._redaction import as_text, redact_fields, redact_text
from polaris.exceptions import PolarisException

FRAMES_FIRST_MAX = 10
FRAMES_LAST_MAX = 40
LINKS_MAX = 8
GROUP_ITEMS_MAX = 8
GROUP_DEPTH_MAX = 3
NOTES_MAX = 8


def report_exception(error: BaseException) -> dict[str, Any]:
    """The error with its code, redacted message and context, its stack, and the chain of what led to it.

    A frame is file, line and function: no source text and no local variables, since both may hold secrets. At most 10
    outer and 40 inner frames, 8 links of the chain, 8 members of a group to a depth of 3, 8 notes.
    """
    report = _report_one(error, depth=0)
    chain: list[dict[str, Any]] = []
    seen = {id(error)}
    link = _led_to(error)
    while link is not None and id(link) not in seen and len(chain) < LINKS_MAX:
        seen.add(id(link))
        chain.append(_report_one(link, depth=0))
        link = _led_to(link)
    if chain:
        report["causes"] = chain
    return report


def _led_to(error: BaseException) -> BaseException | None:
    if error.__cause__ is not None:
        return error.__cause__
    return None if error.__suppress_context__ else error.__context__


def _report_one(error: BaseException, depth: int) -> dict[str, Any]:
    kind = type(error)
    module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    report: dict[str, Any] = {
        "type": redact_text(f"{module}{kind.__qualname__}"),
        "code": error.code if isinstance(error, PolarisException) else None,
        "message": redact_text(as_text(error)),
        "context": redact_fields(error.context) if isinstance(error, PolarisException) and error.context else {},
        "stack": report_stack(error.__traceback__),
    }
    notes = getattr(error, "__notes__", None)
    if isinstance(notes, list) and notes:
        report["notes"] = [redact_text(as_text(note)) for note in notes[:NOTES_MAX]]
    if isinstance(error, BaseExceptionGroup) and depth < GROUP_DEPTH_MAX:
        report["group"] = [_report_one(member, depth + 1) for member in error.exceptions[:GROUP_ITEMS_MAX]]
    return report


def report_stack(traceback: TracebackType | None) -> list[str]:
    """The frames of a traceback as `file:line function`, outermost first; a gap says how many it hides."""
    first: list[str] = []
    last: deque[str] = deque(maxlen=FRAMES_LAST_MAX)
    hidden = 0
    while traceback is not None:
        code = traceback.tb_frame.f_code
        frame = redact_text(f"{code.co_filename}:{traceback.tb_lineno} {code.co_qualname}")
        if len(first) < FRAMES_FIRST_MAX:
            first.append(frame)
        else:
            hidden += len(last) == FRAMES_LAST_MAX
            last.append(frame)
        traceback = traceback.tb_next
    gap = [f"... {hidden} frames more ..."] if hidden else []
    return [*first, *gap, *last]
