"""The way of a record to its sinks."""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from polaris.observability._console import is_terminal, render_console, wants_colour
from polaris.observability._logging_config import LEVELS, LoggingConfig
from polaris.observability._record import Record, encode_record
from polaris.observability._sinks import CONSOLE, RotatingFile, count_dropped_line, open_rotating_file

Tap = Callable[[Record], None]
_taps: tuple[Tap, ...] = ()
_taps_lock = threading.Lock()


class Pipeline:
    """Renders records and hands them to the console and the file of one configuration.

    Shared by all loggers of that configuration; its file is closed when the last of them is gone.
    """

    __slots__ = ("__weakref__", "_console_format", "_console_level", "_file", "_look", "config", "level")

    def __init__(self, config: LoggingConfig) -> None:
        self.configure(config)

    def configure(self, config: LoggingConfig) -> None:
        """Take another configuration; one that is refused (ConfigurationError) changes nothing."""
        file: RotatingFile | None = None
        if config.file_enabled and isinstance(config.file_path, Path):
            file = open_rotating_file(
                config.file_path,
                bytes_max=config.max_file_size,
                backup_count=config.backup_count,
                held=getattr(self, "_file", None),
            )
        self.config = config
        self.level = config.level_number
        self._file = file
        self._console_format = config.console_format if config.console_enabled else None
        self._console_level = config.console_level_number
        self._look: tuple[TextIO | None, bool, bool] = (None, False, False)

    def write(self, record: Record) -> None:
        """Write the record everywhere it belongs. Never raises."""
        try:
            line: bytes | None = None
            if self._file is not None:
                line = encode_record(record)
                self._file.write(line)
            if self._console_format is not None and LEVELS[record["level"]] >= self._console_level:
                readable, colour = self._look_of_console()
                if readable:
                    CONSOLE.write(render_console(record, colour=colour))
                else:
                    CONSOLE.write((line or encode_record(record)).decode())
            for tap in _taps:
                tap(record)
        except Exception:  # boundary: logging must never break what it reports on
            count_dropped_line()

    def _look_of_console(self) -> tuple[bool, bool]:
        stream = sys.stderr
        known, readable, colour = self._look
        if stream is not known:
            readable = self._console_format == "console" or (
                self._console_format == "auto" and stream is not None and is_terminal(stream)
            )
            colour = readable and stream is not None and wants_colour(stream)
            self._look = (stream, readable, colour)
        return readable, colour


PROCESS_PIPELINE = Pipeline(LoggingConfig())
"""What loggers without a configuration of their own write to; `configure_logging` changes it in place."""

_pipelines: weakref.WeakValueDictionary[LoggingConfig, Pipeline] = weakref.WeakValueDictionary()
_pipelines_lock = threading.Lock()


def pipeline_for(config: LoggingConfig | None) -> Pipeline:
    """The pipeline of a configuration, made at the first request; None is that of the process."""
    if config is None:
        return PROCESS_PIPELINE
    with _pipelines_lock:
        pipeline = _pipelines.get(config)
        if pipeline is None:
            pipeline = _pipelines[config] = Pipeline(config)
        return pipeline


def add_tap(tap: Tap) -> None:
    """Have every record that is written passed to `tap` as well, after the sinks and in the thread that logs."""
    global _taps  # noqa: PLW0603
    with _taps_lock:
        _taps = (*_taps, tap)


def remove_tap(tap: Tap) -> None:
    """Undo `add_tap`. Methods are compared as such: each mention of one is another object."""
    global _taps  # noqa: PLW0603
    with _taps_lock:
        _taps = tuple(other for other in _taps if other != tap)


def _begin_in_child() -> None:
    """A forked child is not what the taps belong to, and a lock that a thread held is never released there."""
    global _taps, _taps_lock
    _taps, _taps_lock = (), threading.Lock()


os.register_at_fork(after_in_child=_begin_in_child)
