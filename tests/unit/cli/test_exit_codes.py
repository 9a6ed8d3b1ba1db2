"""How errors end the command line."""

from __future__ import annotations

import pytest

from polaris.cli import _exit
from polaris.cli._act import parameters_of
from polaris.exceptions import (
    BusConnectionError,
    ConfigurationError,
    DataStoreError,
    InvalidTopicError,
    InvalidValueError,
    MessageDecodeError,
    PayloadTooLargeError,
    PolarisException,
    RequestTimeoutError,
    StoreConnectionError,
    StoreLockedError,
)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (PolarisException("x"), 1),
        (MessageDecodeError("x"), 1),
        (DataStoreError("x"), 1),
        (PayloadTooLargeError("polaris.x", payload_bytes=2, payload_bytes_max=1), 1),
        (InvalidValueError("field", "a number", "x"), 2),
        (InvalidTopicError("x"), 2),
        (BusConnectionError("x"), 69),
        (StoreConnectionError("x"), 69),
        (RequestTimeoutError("x"), 75),
        (ConfigurationError("x"), 78),
        (StoreLockedError("x"), 78),
    ],
)
def test_every_kind_of_error_has_its_code(error: PolarisException, code: int) -> None:
    assert _exit.exit_code_of(error) == code


def test_every_problem_of_a_configuration_has_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ending:
        _exit.leave(ConfigurationError(problems=["a: wrong", "b: wrong"]))
    assert ending.value.code == 78
    assert capsys.readouterr().err == "polaris: a: wrong\npolaris: b: wrong\n"


def test_errors_that_came_together_are_all_told_and_the_first_decides(capsys: pytest.CaptureFixture[str]) -> None:
    inner = ExceptionGroup("inner", [BusConnectionError("no bus"), StoreLockedError("no store")])
    several: list[Exception] = [inner, PolarisException("more")]
    known, _ = ExceptionGroup("outer", several).split(PolarisException)
    assert known is not None
    with pytest.raises(SystemExit) as ending:
        _exit.leave_all(known)
    assert ending.value.code == 69
    assert capsys.readouterr().err == "polaris: no bus\npolaris: no store\npolaris: more\n"


def test_a_parameter_is_json_where_it_is_json_and_text_elsewhere() -> None:
    pairs = ["count=4", "name=red", 'quoted="4"', "list=[1, 2]", "empty=", "sum=1+1=2", "flag=true"]
    assert parameters_of(pairs) == {
        "count": 4,
        "name": "red",
        "quoted": "4",
        "list": [1, 2],
        "empty": "",
        "sum": "1+1=2",
        "flag": True,
    }
