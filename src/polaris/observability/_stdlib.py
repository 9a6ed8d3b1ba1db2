"""Records of the standard library's `logging` in the format of everything else."""

from __future__ import annotations

import logging

from polaris._redaction import as_text, redact_text
from polaris.observability._exc_info import error_of
from polaris.observability._pipeline import PROCESS_PIPELINE
from polaris.observability._record import Record, encode_record, make_record

_OWN_ATTRIBUTES = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """Formats any `logging.LogRecord` as one JSON object on one line, for any standard-library handler.

    What was passed as `extra` becomes the fields. Secrets are redacted; stacks hold no local variables. Arguments of
    `logging.Formatter` are not needed and not taken.
    """

    def __init__(self) -> None:
        super().__init__()

    def format(self, record: logging.LogRecord) -> str:
        return encode_record(record_of(record)).decode()


class BridgeHandler(logging.Handler):
    """Passes the records of standard-library loggers to the log of the process."""

    def emit(self, record: logging.LogRecord) -> None:
        PROCESS_PIPELINE.write(record_of(record))


def record_of(record: logging.LogRecord) -> Record:
    """The same line as data. A record whose arguments do not fit its message keeps the message as it is."""
    fields = {name: value for name, value in record.__dict__.items() if name not in _OWN_ATTRIBUTES}
    if record.stack_info:
        fields["stack_info"] = _without_source(record.stack_info)
    if record.exc_text and not record.exc_info:
        fields["exc_text"] = _without_source(record.exc_text)
    return make_record(
        _level_name(record.levelno),
        record.name,
        _message_of(record),
        fields,
        error_of(record.exc_info),
        created_s=record.created,
    )


def _message_of(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception as error:  # boundary: foreign arguments and their formatting
        return f"{as_text(record.msg)} [arguments do not fit: {type(error).__name__}]"


def _level_name(number: int) -> str:
    # Libraries make levels of their own (5 TRACE, 25 NOTICE); they count as the standard one below.
    for least, name in ((50, "CRITICAL"), (40, "ERROR"), (30, "WARNING"), (20, "INFO")):
        if number >= least:
            return name
    return "DEBUG"


def _without_source(stack: str) -> list[str]:
    """The lines of a formatted stack that name frames, and its last line: source lines may hold secrets."""
    lines = stack.splitlines()
    return [redact_text(line.strip()) for line in lines if line.startswith("  File ") or not line.startswith(" ")]
