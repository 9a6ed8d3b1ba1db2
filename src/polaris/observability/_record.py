"""One log line as data: the fixed keys, the redacted fields, and its JSON form."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from polaris._correlation import current_correlation_id
from polaris._redaction import as_text, redact_fields, redact_text
from polaris.observability._exception_report import report_exception
from polaris.observability._trace import current_trace

Record = dict[str, Any]
"""`timestamp level logger message correlation_id trace_id span_id fields`, and `exception` where there is one."""

_second = (0, "1970-01-01T00:00:00")
_encoder = msgspec.json.Encoder()


def make_record(
    level: str,
    logger: str,
    message: object,
    fields: Mapping[str, object],
    error: BaseException | None = None,
    *,
    created_s: float | None = None,
) -> Record:
    """A line, complete and safe to write anywhere: secrets out, sizes bounded, JSON types only. Never raises.

    User fields live under `fields`, so no name of theirs can collide with a name of ours. The ids are those of the
    running task. `created_s` is a Unix time; now if not given.
    """
    trace = current_trace()
    correlation_id = current_correlation_id()
    if correlation_id is not None and not correlation_id.isalnum():
        correlation_id = redact_text(correlation_id)  # it may come from outside, and be anything
    record: Record = {
        "timestamp": _stamp(time.time_ns() // 1_000 if created_s is None else round(created_s * 1e6)),
        "level": level,
        "logger": logger,
        "message": redact_text(message if type(message) is str else as_text(message)),
        "correlation_id": correlation_id,
        "trace_id": None if trace is None else trace.trace_id,
        "span_id": None if trace is None else trace.span_id,
        "fields": redact_fields(fields) if fields else {},
    }
    if error is not None:
        record["exception"] = report_exception(error)
    return record


def _stamp(now_us: int) -> str:
    """RFC 3339 in UTC to the microsecond. The text of a second is made once: most of the price of a stamp is in it."""
    global _second  # noqa: PLW0603 - replaced as a whole, so that no thread sees half of it
    second, text = _second
    if second != now_us // 1_000_000:
        second = now_us // 1_000_000
        text = datetime.fromtimestamp(second, UTC).isoformat()[:19]
        _second = second, text
    return f"{text}.{now_us % 1_000_000:06d}+00:00"


def encode_record(record: Record) -> bytes:
    """The record as one line of JSON in UTF-8, without the line end; line breaks inside texts are escaped."""
    return _encoder.encode(record)
