"""One log line as data: the fixed keys, the redacted fields, and its JSON form."""

from __future__ import annotations

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
    moment = datetime.now(UTC) if created_s is None else datetime.fromtimestamp(created_s, UTC)
    trace = current_trace()
    record: Record = {
        "timestamp": moment.isoformat(timespec="microseconds"),
        "level": level,
        "logger": logger,
        "message": redact_text(message if type(message) is str else as_text(message)),
        "correlation_id": current_correlation_id(),
        "trace_id": None if trace is None else trace.trace_id,
        "span_id": None if trace is None else trace.span_id,
        "fields": redact_fields(fields) if fields else {},
    }
    if error is not None:
        record["exception"] = report_exception(error)
    return record


def encode_record(record: Record) -> bytes:
    """The record as one line of JSON in UTF-8, without the line end; line breaks inside texts are escaped."""
    return _encoder.encode(record)
