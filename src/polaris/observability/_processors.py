"""The structlog processor chains that turn an event into a record."""

from __future__ import annotations

from typing import Any

from structlog.contextvars import merge_contextvars
from structlog.typing import EventDict, Processor, WrappedLogger

from polaris.observability._exc_info import error_of
from polaris.observability._record import Record, make_record

# Dotted, so that no keyword argument is likely to be one of them.
MESSAGE_KEY = "polaris.message"
LEVEL_KEY = "polaris.level"
LOGGER_KEY = "polaris.logger"
ERROR_KEY = "polaris.error"

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
    """The record of a `StructuredLogger` call: everything that is not ours is a field."""
    message = event.pop(MESSAGE_KEY)
    level = event.pop(LEVEL_KEY)
    logger = event.pop(LOGGER_KEY)
    error = event.pop(ERROR_KEY, None)
    return make_record(level, logger, message, event, error)


def assemble_native(logger: WrappedLogger, method: str, event: EventDict) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The record of a call on a logger that came from `structlog.get_logger()`."""
    message = event.pop("event", "")
    error = error_of(event.pop("exc_info", None))
    event.pop("stack_info", None)
    name = getattr(logger, "name", "")
    return (make_record(_LEVEL_OF_METHOD.get(method, "INFO"), name, message, event, error),), {}


PROCESSORS: tuple[Processor, ...] = (merge_contextvars, assemble)
NATIVE_PROCESSORS: tuple[Processor, ...] = (merge_contextvars, assemble_native)
