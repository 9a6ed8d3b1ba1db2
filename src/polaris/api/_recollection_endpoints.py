"""The endpoints of traces and logs."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

import msgspec

from polaris.api._endpoints import Context, Endpoint
from polaris.api._parameters import CURSOR_CHARS_MAX, Parameter, choice, identifier, limit
from polaris.api._recollection_view import LogFilter, LogView, TraceFilter, TraceKey, TraceSummary, TraceView
from polaris.exceptions import InvalidValueError, NotFoundError

LEVELS = ("debug", "info", "warning", "error", "critical")


class TracesAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Traces, newest first; `next_cursor` goes on with older ones, None at the end."""

    traces: tuple[TraceSummary, ...]
    next_cursor: str | None


class LogsAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Log records, newest first; `next_cursor` goes on with older ones, None at the end."""

    logs: tuple[LogView, ...]
    next_cursor: str | None


async def _traces(context: Context, arguments: Mapping[str, Any]) -> TracesAnswer:
    """One page of traces."""
    count = arguments["limit"]
    wanted = TraceFilter(
        correlation_id=arguments["correlation_id"],
        system_id=arguments["system"],
        action_id=arguments["action_id"],
        about=arguments["about"],
        errors_only=arguments["status"] == "error",
    )
    found = await context.view.recollections.traces(wanted, limit=count + 1, before=arguments["cursor"])
    page = found[:count]
    cursor = _encoded(page[-1][0]) if len(found) > count else None
    return TracesAnswer(traces=tuple(summary for _, summary in page), next_cursor=cursor)


async def _trace(context: Context, arguments: Mapping[str, Any]) -> TraceView:
    """One trace with its spans."""
    found = await context.view.recollections.trace(arguments["trace_id"])
    if found is None:
        raise NotFoundError("no trace with this id is kept")
    return found


async def _logs(context: Context, arguments: Mapping[str, Any]) -> LogsAnswer:
    """One page of log records."""
    count = arguments["limit"]
    wanted = LogFilter(
        correlation_id=arguments["correlation_id"],
        trace_id=arguments["trace_id"],
        about=arguments["about"],
        after=arguments["after"],
        level=arguments["level"].upper(),
    )
    found = await context.view.recollections.logs(wanted, limit=count + 1, before=arguments["cursor"])
    page = tuple(found[:count])
    return LogsAnswer(logs=page, next_cursor=page[-1].log_id if len(found) > count else None)


def _encoded(key: TraceKey) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(key)).rstrip(b"=").decode()


def _cursor() -> Parameter:
    """The `next_cursor` of a former page of traces: opaque to clients."""

    def parse(text: str) -> TraceKey:
        try:
            if len(text) > CURSOR_CHARS_MAX:
                raise ValueError(text[:16])
            raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
            key = msgspec.json.decode(raw, type=TraceKey)
            if not -(1 << 62) < key.start_us < 1 << 62:
                raise ValueError(text[:16])
        except (ValueError, binascii.Error, msgspec.DecodeError) as error:
            raise InvalidValueError("cursor", "the next_cursor of a former answer", text) from error
        return key

    schema = {"type": "string", "maxLength": CURSOR_CHARS_MAX}
    return Parameter("cursor", "Go on after a former page: its `next_cursor`.", schema, parse)


_CORRELATION = identifier("correlation_id", "Only what belongs to this correlation id.")
RECOLLECTION_ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint(
        "/api/v1/traces",
        "traces",
        "The last recorded traces, newest first.",
        _traces,
        TracesAnswer,
        parameters=(
            _CORRELATION,
            identifier("system", "Only traces that have to do with this managed system."),
            identifier("action_id", "Only the traces of this action."),
            identifier("about", "Only what has this id: as its own, as a correlation id, or as that of an action."),
            choice("status", "Only traces with errors, or all.", ("any", "error"), default="any"),
            limit(default=50, maximum=500),
            _cursor(),
        ),
    ),
    Endpoint(
        "/api/v1/traces/{trace_id}",
        "trace",
        "One trace with its spans: sample, decision, action, attempts, result.",
        _trace,
        TraceView,
        parameters=(identifier("trace_id", "The trace, 32 hexadecimal digits.", place="path"),),
    ),
    Endpoint(
        "/api/v1/logs",
        "logs",
        "The last log records, newest first.",
        _logs,
        LogsAnswer,
        parameters=(
            _CORRELATION,
            identifier("trace_id", "Only what was logged in this trace."),
            identifier("about", "Only what has this id: as a correlation id, or as that of its trace."),
            identifier("after", "Only what was kept later than the record with this `log_id`: to follow the log."),
            choice("level", "Only records as severe as this, or more.", LEVELS, default="debug"),
            limit(default=100, maximum=1_000),
            identifier("cursor", "Go on after a former page: its `next_cursor`."),
        ),
    ),
)
