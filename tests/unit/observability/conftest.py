"""The log of the process is as global as the process: every test leaves it as it was."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from polaris.observability import LoggingConfig, StructuredLogger, reset_logging

ReadLines = Callable[[], list[dict[str, Any]]]


@pytest.fixture(autouse=True)
def log_of_the_process() -> Iterator[None]:
    yield
    reset_logging()


@pytest.fixture
def log_path(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "polaris.log"


@pytest.fixture
def file_config(log_path: Path) -> LoggingConfig:
    return LoggingConfig(level="DEBUG", console_enabled=False, file_enabled=True, file_path=log_path)


@pytest.fixture
def logger(file_config: LoggingConfig) -> StructuredLogger:
    return StructuredLogger("polaris.test", file_config)


@pytest.fixture
def read_lines(log_path: Path) -> ReadLines:
    def read() -> list[dict[str, Any]]:
        return [json.loads(line) for line in log_path.read_text(encoding="utf-8").split("\n") if line]

    return read
