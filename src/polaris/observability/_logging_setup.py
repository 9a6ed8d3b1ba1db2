"""Sets up the log of the process: our loggers, those of dependencies, and structlog's own, in one format."""

from __future__ import annotations

import logging

import structlog

from polaris.observability._logging_config import LoggingConfig
from polaris.observability._pipeline import PROCESS_PIPELINE
from polaris.observability._processors import NATIVE_PROCESSORS
from polaris.observability._record import Record
from polaris.observability._stdlib import BridgeHandler

_bridge = BridgeHandler()
_root_level_before: int | None = None


class _NativeTarget:
    """What a logger of `structlog.get_logger(name)` writes to."""

    def __init__(self, *args: object) -> None:
        self.name = str(args[0]) if args else ""

    def _write(self, record: Record) -> None:
        PROCESS_PIPELINE.write(record)

    debug = info = msg = warning = warn = error = err = exception = failure = critical = fatal = log = _write


def configure_logging(config: LoggingConfig | None = None) -> None:
    """Send the log of this process where `config` says, in one format, whatever logger a line comes from.

    That is every `StructuredLogger` without a configuration of its own, the standard-library loggers from
    `foreign_level` on (through a handler on the root logger; handlers that others put there stay), and loggers of
    `structlog.get_logger()`. Calling it again replaces the former configuration. A configuration that is refused
    (ConfigurationError: a file that cannot be opened) changes nothing. `reset_logging` undoes it.
    """
    global _root_level_before  # noqa: PLW0603 - the root logger is as global
    chosen = config or LoggingConfig()
    PROCESS_PIPELINE.configure(chosen)
    root = logging.getLogger()
    if _bridge not in root.handlers:
        _root_level_before = root.level
        root.addHandler(_bridge)
    root.setLevel(chosen.foreign_level_number)
    structlog.configure(
        processors=list(NATIVE_PROCESSORS),
        wrapper_class=structlog.make_filtering_bound_logger(chosen.level_number),
        logger_factory=_NativeTarget,
        cache_logger_on_first_use=False,
    )


def reset_logging() -> None:
    """Undo `configure_logging`: our lines go to the console again, dependencies and structlog log as they did."""
    global _root_level_before  # noqa: PLW0603
    root = logging.getLogger()
    if _bridge in root.handlers:
        root.removeHandler(_bridge)
        if _root_level_before is not None:
            root.setLevel(_root_level_before)
            _root_level_before = None
    structlog.reset_defaults()
    PROCESS_PIPELINE.configure(LoggingConfig())
