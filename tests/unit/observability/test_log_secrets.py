"""Planted secrets: none of them may come out of any way into the log."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from polaris.exceptions import PublishError
from polaris.observability import JsonFormatter, LoggingConfig, StructuredLogger, configure_logging

NEEDLE = "h4rdToGuess"
TEXTS = {
    "url with user and password": f"cannot reach nats://polaris:{NEEDLE}@127.0.0.1:4222",
    "url with a token": f"nats://{NEEDLE}@127.0.0.1",
    "url with an at sign in the password": f"postgres://u:x@{NEEDLE}@db/name",
    "url with a slash in the password": f"postgres://u:x/{NEEDLE}@db/name",
    "the second url of a list": f"nats://a:4222,nats://u:{NEEDLE}@b:4222",
    "pem block": f"-----BEGIN PRIVATE KEY-----\nMII{NEEDLE}\n-----END PRIVATE KEY-----",
    "cut pem block": f"-----BEGIN RSA PRIVATE KEY-----\nMII{NEEDLE}",
    "authorization header": f"Authorization: Bearer {NEEDLE}",
    "json web token": f"got eyJhbGciOi.{NEEDLE}.sig",
    "key and value": f"connect failed (password={NEEDLE}, host=db)",
    "quoted value": f"connect failed (api_key='a b {NEEDLE}')",
    "json in a text": f'{{"client_secret": "x {NEEDLE}"}}',
    "json in a text, with an escaped quote": f'{{"client_secret": "x \\" {NEEDLE}"}}',
    "long text": "x" * 2_000 + f" token={NEEDLE} " + "y" * 2_000,
    "secret at the end of what is looked at": "x" * 16_370 + f" token={NEEDLE}",
}
FIELDS = {
    "password": NEEDLE,
    "PASSWORD_HASH": NEEDLE,
    "apiKey": NEEDLE,
    "Authorization": f"Basic {NEEDLE}",
    "token": [NEEDLE],
    "nested": {"inner": [{"client_secret": NEEDLE}]},
    "dsn": f"host=db {NEEDLE}",
    f"token={NEEDLE}": 1,
    "number_key": {f"nats://u:{NEEDLE}@h": 1},
}


class Settings:
    def __repr__(self) -> str:
        return f"Settings(user='u', password='{NEEDLE}')"


def by_message(logger: StructuredLogger, text: str) -> None:
    logger.info(text)


def by_field(logger: StructuredLogger, text: str) -> None:
    logger.info("said", note=text, items=[text], deep={"a": {"b": text}}, error=ValueError(text))


def by_bound_field(logger: StructuredLogger, text: str) -> None:
    logger.bind(note=text).info("said")


def by_exception(logger: StructuredLogger, text: str) -> None:
    local_variable = text
    try:
        try:
            raise ValueError(local_variable)
        except ValueError as error:
            error.add_note(text)
            raise PublishError(text, {"note": text, "password": NEEDLE}) from error
    except PublishError:
        logger.exception("said")


def by_group(logger: StructuredLogger, text: str) -> None:
    logger.error("said", exc_info=ExceptionGroup(text, [ValueError(text), ExceptionGroup("in", [OSError(text)])]))


def by_foreign_logger(_: StructuredLogger, text: str) -> None:
    foreign = logging.getLogger("foreign.library")
    foreign.warning("%s happened", text, extra={"note": text, "password": NEEDLE}, stack_info=True)
    try:
        raise ValueError(text)
    except ValueError:
        foreign.exception("said")


def by_failed_formatting(_: StructuredLogger, text: str) -> None:
    record = logging.makeLogRecord({"name": "foreign", "levelno": 30, "msg": text + " %s %s", "args": (text,)})
    # Past the handlers of the test runner, which take this for a mistake in the test.
    (bridge,) = (handler for handler in logging.getLogger().handlers if type(handler).__name__ == "BridgeHandler")
    bridge.handle(record)


WAYS = [by_message, by_field, by_bound_field, by_exception, by_group, by_foreign_logger, by_failed_formatting]


@pytest.mark.parametrize("console_format", ["json", "console"])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: str(way.__name__))
def test_no_text_brings_a_secret_into_the_log(
    way: Callable[[StructuredLogger, str], None], console_format: str, log_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    console = io.StringIO()
    monkeypatch.setattr(sys, "stderr", console)
    configure_logging(
        LoggingConfig(console_format=console_format, file_enabled=True, file_path=log_path)  # type: ignore[arg-type]
    )
    for name, text in TEXTS.items():
        way(StructuredLogger("polaris.test"), text)
        for output in (console.getvalue(), log_path.read_text(encoding="utf-8")):
            assert output, name
            assert NEEDLE not in output, name
    assert "[redacted]" in console.getvalue()


def test_no_field_brings_a_secret_into_the_log(logger: StructuredLogger, log_path: Path) -> None:
    logger.info("said", settings=Settings(), **FIELDS)
    logger.bind(**FIELDS).info("said")
    logger.error("said", exc_info=PublishError("not stored", FIELDS))

    output = log_path.read_text(encoding="utf-8")
    assert len(output.splitlines()) == 3
    assert NEEDLE not in output


def test_a_field_added_to_the_context_of_an_error_is_redacted_too(logger: StructuredLogger, log_path: Path) -> None:
    error = PublishError("not stored")
    error.context["password"] = NEEDLE
    logger.error("said", exc_info=error)
    assert NEEDLE not in log_path.read_text(encoding="utf-8")


def test_the_source_text_of_frames_is_not_written(logger: StructuredLogger, log_path: Path) -> None:
    configure_logging(logger._pipeline.config)
    try:
        _connect("h4rdToGuess")
    except ValueError:
        logger.exception("said")
        logging.getLogger("foreign.library").exception("said")
        cached = logging.makeLogRecord({"name": "f", "levelno": 40, "levelname": "ERROR", "msg": "said"})
        cached.exc_text = logging.Formatter().formatException(sys.exc_info())
        logging.getLogger().handle(cached)
    _log_the_stack("h4rdToGuess")
    output = log_path.read_text(encoding="utf-8")
    assert len(output.splitlines()) == 4
    assert NEEDLE not in output
    assert output.count("_connect") == 3
    assert "in _log_the_stack" in output


def _log_the_stack(_: str) -> None:
    logging.getLogger("foreign.library").warning("said", stack_info=True)


def _connect(_: str) -> None:
    raise ValueError("refused")


def test_the_formatter_for_standard_handlers_redacts_alike() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    foreign = logging.Logger("foreign")  # noqa: LOG001
    foreign.addHandler(handler)
    for text in TEXTS.values():
        foreign.warning("%s", text, extra=dict(FIELDS))
    lines = stream.getvalue().splitlines()
    assert len(lines) == len(TEXTS)
    assert NEEDLE not in stream.getvalue()
    assert all(json.loads(line)["fields"]["password"] == "[redacted]" for line in lines)


@pytest.mark.parametrize(
    "text",
    [
        "connected to nats://127.0.0.1:4222",
        "keyboard: qwerty",
        "polaris.telemetry.web-1 took 3 ms",
        "mail to someone@example.org",
        "http://127.0.0.1:8080/api/systems?limit=3",
    ],
)
def test_harmless_text_stays_as_it_is(text: str, logger: StructuredLogger, log_path: Path) -> None:
    logger.info(text)
    assert json.loads(log_path.read_text(encoding="utf-8"))["message"] == text
