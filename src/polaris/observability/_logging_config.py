"""What is logged and where to: the options of the log, validated when they are made."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from polaris.exceptions import InvalidValueError

LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
LogFormat = Literal["auto", "json", "console"]

LEVELS: dict[str, int] = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40, "CRITICAL": 50}
FILE_BYTES_MIN = 1_024
BACKUPS_MAX = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggingConfig:
    """Where log lines go and which; compared by value, so loggers with equal configurations share their files.

    `level` is the least severe level written (a name in any case, or a number of the standard library); `foreign_level`
    the same for the standard-library loggers of dependencies. The console is standard error: coloured and readable on
    a terminal, JSON otherwise, unless `console_format` says which; with `console_level` it gets only what is as severe.
    A file holds JSON only; it is rotated before it would exceed `max_file_size` bytes (10 MiB; at least 1 KiB), and
    `backup_count` old ones are kept as `<file>.1` (the youngest) and so on; 0 keeps none. One process writes one file.
    `file_path` is needed when `file_enabled`.
    """

    level: LogLevel | str | int = "INFO"
    console_enabled: bool = True
    console_format: LogFormat = "auto"
    console_level: LogLevel | str | int | None = None
    file_enabled: bool = False
    file_path: str | os.PathLike[str] | None = None
    max_file_size: int = 10 * 1024 * 1024
    backup_count: int = 5
    foreign_level: LogLevel | str | int = "WARNING"

    def __post_init__(self) -> None:
        object.__setattr__(self, "level", _level_name("level", self.level))
        object.__setattr__(self, "foreign_level", _level_name("foreign_level", self.foreign_level))
        if self.console_level is not None:
            object.__setattr__(self, "console_level", _level_name("console_level", self.console_level))
        for field in ("console_enabled", "file_enabled"):
            if not isinstance(getattr(self, field), bool):
                raise InvalidValueError(field, "a boolean", getattr(self, field))
        if self.console_format not in ("auto", "json", "console"):
            raise InvalidValueError("console_format", "auto, json or console", self.console_format)
        _check_count("max_file_size", self.max_file_size, FILE_BYTES_MIN, None)
        _check_count("backup_count", self.backup_count, 0, BACKUPS_MAX)
        if self.file_path is not None:
            if not isinstance(self.file_path, (str, os.PathLike)) or not os.fspath(self.file_path):
                raise InvalidValueError("file_path", "a path", self.file_path)
            object.__setattr__(self, "file_path", Path(self.file_path))
        elif self.file_enabled:
            raise InvalidValueError("file_path", "a path, since file_enabled is true", self.file_path)

    @property
    def level_number(self) -> int:
        """`level` as the standard library counts."""
        return LEVELS[str(self.level)]

    @property
    def console_level_number(self) -> int:
        """The least level of the console as the standard library counts; 0 without a level of its own."""
        return 0 if self.console_level is None else LEVELS[str(self.console_level)]

    @property
    def foreign_level_number(self) -> int:
        """`foreign_level` as the standard library counts."""
        return LEVELS[str(self.foreign_level)]


@functools.lru_cache(maxsize=64)
def level_number(level: str | int) -> int:
    """A level as the standard library counts; InvalidValueError for what is none."""
    return LEVELS[_level_name("level", level)]


def _level_name(field: str, level: object) -> str:
    if isinstance(level, str) and level.strip().upper() in LEVELS:
        return level.strip().upper()
    if isinstance(level, int) and not isinstance(level, bool):
        for name, number in LEVELS.items():
            if number == level:
                return name
    raise InvalidValueError(field, "one of " + ", ".join(LEVELS), level)


def _check_count(field: str, value: object, least: int, most: int | None) -> None:
    limit = f"an integer of at least {least}" if most is None else f"an integer from {least} to {most}"
    if isinstance(value, bool) or not isinstance(value, int) or value < least or (most is not None and value > most):
        raise InvalidValueError(field, limit, value)
