"""Loggers of dependencies in the format of ours."""

from __future__ import annotations

import io
import json
import logging
from pathlib import Path

from polaris.exceptions import PublishError
from polaris.observability import (
    JsonFormatter,
    LoggingConfig,
    StructuredLogger,
    configure_logging,
    correlation_scope,
    reset_logging,
)

from .conftest import ReadLines


def test_a_foreign_line_has_the_keys_of_ours(file_config: LoggingConfig, read_lines: ReadLines) -> None:
    configure_logging(file_config)
    StructuredLogger("polaris.test").warning("ours")
    with correlation_scope("chain-1"):
        logging.getLogger("nats.aio").warning("slow %s after %d ms", "consumer", 3, extra={"subject": "a.b"})

    ours, foreign = read_lines()
    assert set(ours) == set(foreign)
    assert foreign["message"] == "slow consumer after 3 ms"
    assert (foreign["logger"], foreign["level"], foreign["correlation_id"]) == ("nats.aio", "WARNING", "chain-1")
    assert foreign["fields"] == {"subject": "a.b"}


def test_levels_of_libraries_count_as_the_standard_one_below(file_config: LoggingConfig, read_lines: ReadLines) -> None:
    configure_logging(file_config)
    foreign = logging.getLogger("foreign")
    foreign.setLevel(1)
    try:
        for number in (5, 25, 35, 60):
            foreign.log(number, "said")
    finally:
        foreign.setLevel(logging.NOTSET)
    assert [line["level"] for line in read_lines()] == ["DEBUG", "INFO", "WARNING", "CRITICAL"]


def test_quiet_by_default_and_louder_when_asked(log_path: Path, read_lines: ReadLines) -> None:
    for level, said in (("WARNING", 1), ("DEBUG", 3)):
        configure_logging(
            LoggingConfig(console_enabled=False, file_enabled=True, file_path=log_path, foreign_level=level)
        )
        foreign = logging.getLogger("foreign")
        foreign.debug("said")
        foreign.info("said")
        foreign.warning("said")
        assert len(read_lines()) == said + (1 if level == "DEBUG" else 0)


def test_configuring_twice_does_not_double_lines_and_reset_leaves_nothing(
    file_config: LoggingConfig, read_lines: ReadLines
) -> None:
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    configure_logging(file_config)
    configure_logging(file_config)
    logging.getLogger("foreign").warning("said")
    assert len(read_lines()) == 1
    reset_logging()
    assert (root.handlers, root.level) == (before, level)
    logging.getLogger("foreign").warning("said")
    assert len(read_lines()) == 1
    reset_logging()


def test_the_formatter_writes_one_line_with_code_and_stack() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    foreign = logging.Logger("foreign")  # noqa: LOG001
    foreign.addHandler(handler)
    try:
        raise PublishError("not\nstored")
    except PublishError:
        foreign.exception("two\nlines")

    assert stream.getvalue().count("\n") == 1
    line = json.loads(stream.getvalue())
    assert line["message"] == "two\nlines"
    assert line["exception"]["code"] == "polaris.bus.publish"
    assert line["exception"]["stack"][0].endswith("test_the_formatter_writes_one_line_with_code_and_stack")


def test_arguments_that_do_not_fit_keep_the_message() -> None:
    record = logging.makeLogRecord({"name": "foreign", "levelno": 30, "msg": "%d of %d", "args": ("x",)})
    line = json.loads(JsonFormatter().format(record))
    assert line["message"] == "%d of %d [arguments do not fit: TypeError]"
