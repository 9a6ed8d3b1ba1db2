"""Planted secrets, of every kind and in every place that takes a text: no form of an error holds one."""

from __future__ import annotations

import copy
import inspect
import io
import json
import pickle
import sys
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any, Literal

import pytest

import polaris.exceptions as module
from polaris import _redaction
from polaris._redaction import clean_texts, redact_fields, redact_text
from polaris.exceptions import (
    BulkheadRejectedException,
    CircuitBreakerOpenException,
    ConfigurationError,
    DeadlineExceededError,
    ErrorContext,
    ForeignCause,
    InvalidValueError,
    PolarisException,
    PublishError,
    RateLimitExceededError,
)
from polaris.observability import LoggingConfig, StructuredLogger, reset_logging

NEEDLE = "h4rdToGuess"
SECRETS = {
    "password": f"login failed: password={NEEDLE}",
    "token": f"asked with token: {NEEDLE}",
    "api key": f"GET /items?api_key={NEEDLE}&page=2",
    "secret in JSON": json.dumps({"client_secret": NEEDLE}),
    "bearer": f"Authorization: Bearer {NEEDLE}",
    "basic": f"Authorization: Basic {NEEDLE}",
    "bearer without its header": f"sent as Bearer {NEEDLE}",
    "JWT": f"got eyJhbGciOiJIUzI1NiJ9.{NEEDLE}.c2lnbmF0dXJl",
    "user and password of a URL": f"nats://polaris:{NEEDLE}@127.0.0.1:4222",
    "user of a URL": f"https://{NEEDLE}@example.org/path",
    "PEM": f"-----BEGIN PRIVATE KEY-----\n{NEEDLE}\n-----END PRIVATE KEY-----",
    "PEM that was cut": f"-----BEGIN RSA PRIVATE KEY-----\n{NEEDLE}",
}
TELLING_NAMES = [
    "password",
    "db_password",
    "token",
    "bearer_value",
    "api_key",
    "client_secret",
    "private_key",
    "cookie",
]

CLASSES: list[type[PolarisException]] = sorted(
    {value for value in vars(module).values() if isinstance(value, type) and issubclass(value, PolarisException)},
    key=lambda cls: cls.__name__,
)
every_class = pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: str(cls.__name__))


def made_with(cls: type[PolarisException], text: str) -> PolarisException:
    """An error with `text` wherever its class takes text, on its own or in something."""
    given: dict[str, Any] = {
        "str": text,
        "object": text,
        "Sequence[str]": [text, text],
        "Mapping[str, object] | None": {"note": text, text: 1, "deep": [{"inner": text}], "error": OSError(text)},
        "BaseException": ValueError(text),
        "BaseException | None": ValueError(text),
        "int": 3,
        "float | None": 1.5,
        "bool | None": True,
    }
    signature = inspect.signature(cls)
    # By position where it can be: Python remembers such arguments.
    bound = signature.bind(**{name: given[one.annotation] for name, one in signature.parameters.items()})
    return cls(*bound.args, **bound.kwargs)


def forms(error: PolarisException) -> dict[str, str]:
    """Everything that an error can be turned into."""
    slot = BaseException.__dict__["args"].__get__(error)
    return {
        "what Python keeps of the call": repr(slot),
        "vars": repr(vars(error)),
        "pickle": pickle.dumps(error).decode("latin-1"),
        "str": str(error),
        "repr": repr(error),
        "args": repr(error.args),
        "to_dict": json.dumps(error.to_dict(), ensure_ascii=False),
        "to_problem": json.dumps(error.to_problem()),
        "vars, looked at": repr(vars(error)),
        "pickle, looked at": pickle.dumps(error).decode("latin-1"),
        "copy": repr((vars(copy.copy(error)), vars(copy.deepcopy(error)))),
        "back from pickle": repr(vars(pickle.loads(pickle.dumps(error)))),
    }


def leaks(error: PolarisException) -> list[str]:
    return [name for name, form in forms(error).items() if NEEDLE in form]


@every_class
def test_no_form_of_any_error_holds_a_planted_secret(cls: type[PolarisException]) -> None:
    for kind, text in SECRETS.items():
        assert leaks(made_with(cls, text)) == [], kind


@pytest.mark.parametrize("name", TELLING_NAMES)
def test_what_stands_under_a_telling_name_goes_whatever_it_is(name: str) -> None:
    for value in (NEEDLE, [NEEDLE], {"inner": NEEDLE}, {NEEDLE}, object(), NEEDLE.encode()):
        for context in (
            {name: value},
            {"outer": [{name.upper(): value}], "count": 1},
            ErrorContext.create_context("x", **{name: value}),
        ):
            error = PublishError("not stored", context)
            assert leaks(error) == []
            assert "[redacted]" in json.dumps(error.context)


class Named(StrEnum):
    SECRET = f"password={NEEDLE}"


class Loud(str):
    """A text that prints more than it says."""

    __slots__ = ()

    def __str__(self) -> str:
        return f"token={NEEDLE}"

    __repr__ = __str__


@every_class
def test_a_text_in_disguise_is_redacted_too(cls: type[PolarisException]) -> None:
    assert leaks(made_with(cls, Named.SECRET)) == []
    assert leaks(made_with(cls, Loud("harmless"))) == []
    assert leaks(made_with(cls, Loud("orders"))) == []


class QuotaError(PublishError):
    """As an application would write one."""

    def __init__(self, tenant: str, hosts: tuple[str, ...], **more: Any) -> None:
        self.tenant = tenant
        self.hosts = hosts
        for name, value in more.items():
            setattr(self, name, value)
        super().__init__()


@pytest.mark.parametrize("kind", SECRETS)
def test_the_attributes_of_a_class_of_the_users_own_are_redacted(kind: str) -> None:
    error = QuotaError(SECRETS[kind], ("a", SECRETS[kind]))
    assert leaks(error) == []
    assert error.hosts[0] == "a"


def test_a_class_that_sets_message_and_context_itself_brings_no_secret_out_by_that() -> None:
    error = QuotaError("t", (), message=f"password={NEEDLE}", context={"password": NEEDLE})
    assert leaks(error) == []
    assert (error.message, error.context) == ("Event not published", {})


class WordedOpenError(CircuitBreakerOpenException):
    def __init__(self, note: str) -> None:
        self.note = note
        super().__init__(note, state=note)


def test_a_class_of_the_users_own_below_one_that_words_itself_late_is_redacted_at_once() -> None:
    assert leaks(WordedOpenError(f"password={NEEDLE}")) == []


LATE = [
    CircuitBreakerOpenException(SECRETS["bearer"], state=SECRETS["JWT"], retry_after=1.5),
    BulkheadRejectedException(SECRETS["PEM"], active=3, queued=1, reason=SECRETS["token"]),
    RateLimitExceededError(SECRETS["user of a URL"], retry_after=1.5, reason=SECRETS["password"]),
    DeadlineExceededError(SECRETS["api key"], timeout_s=1.5),
    InvalidValueError(SECRETS["password"], SECRETS["bearer"], SECRETS["JWT"]),
]


@pytest.mark.parametrize("error", LATE, ids=lambda error: type(error).__name__)
def test_an_error_that_is_worded_late_was_redacted_at_construction(error: PolarisException) -> None:
    assert "message" not in vars(error), "somebody has looked at it before"
    assert NEEDLE not in repr(vars(error))
    assert "[redacted]" in repr(vars(error))
    assert BaseException.__dict__["args"].__get__(error) == ()


def test_the_cause_is_described_without_its_secrets_and_stays_as_it_is_in_this_process() -> None:
    foreign = OSError(SECRETS["user and password of a URL"])
    error = PublishError("not stored", cause=foreign)
    assert error.__cause__ is foreign
    assert error.to_dict()["cause"] == "OSError: nats://[redacted]@127.0.0.1:4222"
    assert leaks(error) == []
    assert NEEDLE not in str(ForeignCause(SECRETS["bearer"]))


@pytest.fixture
def log_of_the_process() -> Iterator[None]:
    yield
    reset_logging()


@pytest.mark.parametrize("console_format", ["json", "console"])
def test_no_log_line_of_any_error_holds_a_planted_secret(
    console_format: Literal["json", "console"], monkeypatch: pytest.MonkeyPatch, log_of_the_process: None
) -> None:
    console = io.StringIO()
    monkeypatch.setattr(sys, "stderr", console)
    logger = StructuredLogger("polaris.test", LoggingConfig(console_format=console_format))
    for cls in CLASSES:
        for kind, text in SECRETS.items():
            error = made_with(cls, text)
            try:
                raise error
            except PolarisException:
                logger.exception("failed", error=error, whole=error.to_dict(), parts=vars(error))
            logger.error(str(error), exc_info=ExceptionGroup("all", [error]))
            written = console.getvalue()
            assert cls.__name__ in written
            assert NEEDLE not in written, (cls, kind)
            console.seek(0)
            console.truncate()


# What is remembered to be clean.


def test_a_text_that_holds_a_secret_is_never_remembered() -> None:
    for text in SECRETS.values():
        redact_text(text)
        redact_fields({"note": text, text: 1, "password": NEEDLE})
    assert not [text for text in clean_texts if NEEDLE in text]
    assert not [name for name in _redaction._names if NEEDLE in name]


def test_what_is_remembered_is_redacted_as_if_it_were_not() -> None:
    texts = [
        *SECRETS.values(),
        "orders",
        "a fixed message",
        "größer",
        "lone \udc80 surrogate",
        "",
        "x" * 3_000,
        "web-1",
    ]
    clean_texts.clear()
    first = [redact_text(text) for text in texts]
    again = [redact_text(text) for text in texts]
    short = [redact_text(text, chars_max=13) for text in texts]
    clean_texts.clear()
    assert again == first == [clean_texts[text] for text in texts]
    assert short == [redact_text(text, chars_max=13) for text in texts]
    assert max(map(len, short)) <= 13
    assert {"orders", "a fixed message", "größer", "web-1"} <= set(clean_texts)


def test_the_memory_of_clean_texts_and_names_is_bounded() -> None:
    for number in range(7_000):
        redact_fields({f"field {number}": f"text {number}"})
    assert len(clean_texts) <= 2_048
    assert len(_redaction._names) <= 2_048
    redact_text("x y " * 100)
    assert max(map(len, clean_texts)) <= 128


def test_a_flat_record_is_copied_as_any_other() -> None:
    class Fields(Mapping[str, object]):
        """No dict: it is copied the long way."""

        def __init__(self, fields: dict[str, object]) -> None:
            self._fields = fields

        def __getitem__(self, key: str) -> object:
            return self._fields[key]

        def __iter__(self) -> Iterator[str]:
            return iter(self._fields)

        def __len__(self) -> int:
            return len(self._fields)

    records: list[dict[str, object]] = [
        {"text": "a b", "int": 3, "float": 1.5, "none": None, "true": True, "password": NEEDLE, "token": object()},
        {"nan": float("nan"), "inf": float("-inf"), "big": 2**70, "long": "x" * 3_000, **SECRETS},
        {f"field {number}": number for number in range(64)},
        {f"field {number}": number for number in range(65)},
        {text: number for number, text in enumerate(SECRETS.values())},
        {"password=a": 1, "password=b": 2},
        {"text": "a", "list": [1], "enum": Named.SECRET},
    ]
    for record in records:
        assert redact_fields(record) == redact_fields(Fields(record))
        assert NEEDLE not in repr(redact_fields(record))


def test_a_record_that_another_thread_changes_meanwhile_is_reported_and_does_not_raise() -> None:
    record: dict[str, object] = {"a": 1}

    class Growing(dict[str, tuple[str, bool]]):
        def __missing__(self, key: str) -> tuple[str, bool]:
            record[f"{key}+"] = 1
            return key, False

    names, _redaction._names = _redaction._names, Growing()  # type: ignore[assignment]
    try:
        error = PolarisException("x", record)
    finally:
        _redaction._names = names
    assert json.dumps(error.context)


def test_problems_of_a_configuration_are_redacted_one_by_one() -> None:
    error = ConfigurationError(problems=list(SECRETS.values()))
    assert leaks(error) == []
    assert len(error.problems) == len(SECRETS)
