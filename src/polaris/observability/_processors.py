"""The structlog processor chains that turn an event into a record."""

from __future__ import annotations

from typing import Any, NamedTuple

from structlog.contextvars import merge_contextvars
from structlog.typing import EventDict, Processor, WrappedLogger

from polaris.observability._exc_info import error_of
from polaris.observability._record import Record, make_record

CALL_KEY = "polaris.call"


class Call(NamedTuple):
    """What one call of a `StructuredLogger` said; kept apart from the bound fields, so that no name collides."""

    level: str
    logger: str
    message: object
    fields: dict[str, Any]
    error: BaseException | None


_LEVEL_OF_METHOD = {
    "debug": "DEBUG",
    "info": "INFO",
    "msg": "INFO",
    "warning": "WARNING",
    "warn": "WARNING",
    "error": "ERROR",
    "err": "ERROR",
    "exception": "ERROR",
    "failure": "ERROR",
    "critical": "CRITICAL",
    "fatal": "CRITICAL",
}


def assemble(_: WrappedLogger, __: str, event: EventDict) -> Record:
    """The record of a `StructuredLogger` call: bound fields, and those of the call above them."""
    call: Call = event.pop(CALL_KEY)
    event.update(call.fields)
    return make_record(call.level, call.logger, call.message, event, call.error)


def assemble_native(logger: WrappedLogger, method: str, event: EventDict) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The record of a call on a logger that came from `structlog.get_logger()`."""
    message = event.pop("event", "")
    error = error_of(event.pop("exc_info", None))
    event.pop("stack_info", None)
    name = getattr(logger, "name", "")
    return (make_record(_LEVEL_OF_METHOD.get(method, "INFO"), name, message, event, error),), {}


PROCESSORS: tuple[Processor, ...] = (merge_contextvars, assemble)
NATIVE_PROCESSORS: tuple[Processor, ...] = (merge_contextvars, assemble_native)
