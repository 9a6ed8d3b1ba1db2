"""Every error of the tree: safe to print, to send and to bring back; and the decorator that makes them."""

from __future__ import annotations

import asyncio
import concurrent.futures
import copy
import functools
import inspect
import json
import multiprocessing
import pickle
import re
import traceback
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import polaris.exceptions as module
from polaris._correlation import correlation_scope
from polaris.exceptions import (
    BulkheadRejectedException,
    CircuitBreakerOpenException,
    ConfigurationError,
    DeadlineExceededError,
    DependencyResolutionException,
    ErrorContext,
    ForeignCause,
    InvalidValueError,
    PayloadTooLargeError,
    PolarisException,
    PublishError,
    RateLimitExceededError,
    RetryExhaustedError,
    ServiceNotRegisteredException,
    UnconfirmedPublishError,
)

NEEDLE = "h4rdToGuess"
URL = f"nats://polaris:{NEEDLE}@127.0.0.1:4222"

CLASSES: list[type[PolarisException]] = sorted(
    {
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, PolarisException) and value.__module__ == module.__name__
    },
    key=lambda cls: cls.__name__,
)


def make(cls: type[PolarisException], text: str = "some text") -> PolarisException:
    """An error of any class of the tree, with `text` wherever it takes text."""
    parameters = inspect.signature(cls).parameters
    if list(parameters)[:2] == ["message", "context"]:
        return cls(text, {"note": text, "count": 1}, cause=ValueError(text))
    arguments: dict[str, Any] = {}
    for name, parameter in parameters.items():
        annotation = str(parameter.annotation)
        if name == "cause":
            arguments[name] = ValueError(text)
        elif "Sequence" in annotation:
            arguments[name] = [text, text]
        elif "bool" in annotation:
            arguments[name] = True
        elif "int" in annotation:
            arguments[name] = 3
        elif "float" in annotation:
            arguments[name] = 1.5
        else:
            arguments[name] = text
    # By position where it can be: Python remembers such arguments.
    bound = inspect.signature(cls).bind(**arguments)
    return cls(*bound.args, **bound.kwargs)


def raise_again(error: PolarisException) -> None:
    raise error


every_class = pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: str(cls.__name__))


def test_the_tree_is_found_whole() -> None:
    assert len(CLASSES) >= 40
    assert PolarisException in CLASSES


def test_codes_are_stable_words_of_which_none_stands_for_two_classes() -> None:
    codes = {cls.code for cls in CLASSES}
    assert len(codes) == len(CLASSES)
    assert all(re.fullmatch(r"polaris(\.[a-z_]+)+", code) for code in codes)


@every_class
def test_a_class_says_for_itself_what_it_is_and_the_drawing_shows_it(cls: type[PolarisException]) -> None:
    assert cls.__doc__
    assert "code" in vars(cls)
    assert "title" in vars(cls)
    assert cls.retryable in {True, False, None}
    assert 400 <= cls.http_status <= 599
    assert re.search(rf"\b{cls.__name__}\b.*\s{re.escape(cls.code)}(\s|$)", module.__doc__ or "", re.MULTILINE)


@every_class
def test_an_error_comes_back_equal_from_pickle_and_copy(cls: type[PolarisException]) -> None:
    with correlation_scope("chain-1"):
        error = make(cls)
    error.add_note("a note")
    assert error.correlation_id == "chain-1"
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        assert_equal(pickle.loads(pickle.dumps(error, protocol)), error)
    for copied in (copy.copy(error), copy.deepcopy(error)):
        assert copied is not error
        assert copied.__cause__ is error.__cause__
        assert_equal(copied, error)
    # A second journey changes nothing more.
    assert_equal(pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(error)))), error)


@every_class
def test_what_an_error_was_called_with_is_nowhere_but_in_its_fields(cls: type[PolarisException]) -> None:
    error = make(cls, "positional")
    assert error.args == (error.message,)
    assert BaseException.__dict__["args"].__get__(error) in {(), (error.message,)}


def test_args_can_be_set_as_those_of_any_exception_and_travel_along() -> None:
    error = CircuitBreakerOpenException("orders")
    error.args = ("other", 3)
    assert error.args == pickle.loads(pickle.dumps(error)).args == copy.copy(error).args == ("other", 3)
    assert str(error) == "circuit breaker 'orders' is open"


@pytest.mark.parametrize(
    ("error", "message", "context"),
    [
        (
            CircuitBreakerOpenException("orders", state="half_open", retry_after=1.5),
            "circuit breaker 'orders' is half_open, retry after 1.5 s",
            {"name": "orders", "state": "half_open", "retry_after": 1.5},
        ),
        (
            CircuitBreakerOpenException("orders"),
            "circuit breaker 'orders' is open",
            {"name": "orders", "state": "open", "retry_after": None},
        ),
        (
            BulkheadRejectedException("orders", active=10, queued=2, reason="waited too long"),
            "bulkhead 'orders' rejected the call: waited too long (10 active, 2 queued)",
            {"name": "orders", "active": 10, "queued": 2, "reason": "waited too long"},
        ),
        (
            RateLimitExceededError("orders", retry_after=0.25),
            "rate limiter 'orders' rejected the call: rate, retry after 0.25 s",
            {"name": "orders", "retry_after": 0.25, "reason": "rate"},
        ),
        (
            DeadlineExceededError("", timeout_s=0.5),
            "operation exceeded its deadline after 0.5 s",
            {"operation": "", "timeout_s": 0.5},
        ),
        (
            InvalidValueError("ratio", "a number from 0 to 1", "x"),
            "ratio: expected a number from 0 to 1, got str",
            {"field": "ratio", "expected": "a number from 0 to 1", "type": "str"},
        ),
    ],
    ids=["breaker", "breaker without a time", "bulkhead", "rate limiter", "deadline", "value"],
)
def test_an_error_that_is_worded_late_says_all_its_fields_and_may_be_copied_before(
    error: PolarisException, message: str, context: dict[str, object]
) -> None:
    for one in (pickle.loads(pickle.dumps(copy.copy(error))), copy.deepcopy(error), error):
        assert one.context == context
        assert str(one) == one.message == message
        assert one.context is one.context


def test_an_error_of_the_container_draws_the_path_of_the_services() -> None:
    missing = ServiceNotRegisteredException("Clock", path=["App", "Scheduler"], suggestions=["SystemClock"])
    assert str(missing) == "Clock is not registered\nApp\n   └─ Scheduler\n      └─ Clock\ndid you mean SystemClock?"
    assert missing.path == ("App", "Scheduler")
    failed = DependencyResolutionException("Clock cannot be built", path=["App", "Clock"])
    assert str(failed) == "Clock cannot be built\nApp\n   └─ Clock"
    assert failed.context == {"path": ["App", "Clock"]}


def test_what_happens_to_the_callers_context_afterwards_changes_nothing() -> None:
    fields: dict[str, Any] = {"items": [1], "note": "a"}
    error = PolarisException("x", fields)
    fields["password"] = NEEDLE
    fields["items"].append(NEEDLE)
    assert error.context == {"items": [1], "note": "a"}


class ForeignError(Exception):
    """Has a constructor of its own, as the errors of many libraries."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.request = text.upper()


class OursAndForeignError(PublishError, ForeignError):
    """Caught by the class of the library that is replaced, too."""


def test_a_foreign_second_parent_is_constructed_with_the_redacted_message() -> None:
    error = OursAndForeignError(f"password={NEEDLE}", {"count": 1})
    assert error.request == "PASSWORD=[REDACTED]"
    assert pickle.loads(pickle.dumps(error)).request == error.request


def assert_equal(other: PolarisException, error: PolarisException) -> None:
    assert type(other) is type(error)
    assert other.to_dict() == error.to_dict()
    assert other.to_problem() == error.to_problem()
    assert (str(other), repr(other), other.args) == (str(error), repr(error), error.args)
    assert vars(other) == vars(error)
    assert other.__suppress_context__ == error.__suppress_context__


def test_every_error_crosses_a_process_pool() -> None:
    errors = [make(cls) for cls in CLASSES]
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        for error, future in [(error, pool.submit(raise_again, error)) for error in errors]:
            caught = future.exception()
            assert isinstance(caught, PolarisException)
            assert (type(caught), caught.to_dict() | {"cause": 0}) == (type(error), error.to_dict() | {"cause": 0})


class Unpicklable(Exception):
    def __init__(self, *, needed: object) -> None:
        super().__init__("cannot be brought back")
        self.needed = needed


def test_a_cause_that_cannot_be_pickled_does_not_keep_the_error_from_it() -> None:
    error = PublishError("not stored", cause=Unpicklable(needed=lambda: None))
    back = pickle.loads(pickle.dumps(error))
    assert back.to_dict() == error.to_dict()
    assert isinstance(back.__cause__, ForeignCause)
    assert str(back.__cause__) == "Unpicklable: cannot be brought back"


def test_a_cause_of_ours_is_kept_as_it_is_with_its_own_cause() -> None:
    innermost = PublishError("innermost", cause=ValueError("foreign"))
    error = ConfigurationError("outer", cause=innermost)
    back = pickle.loads(pickle.dumps(error))
    assert type(back.__cause__) is PublishError
    assert back.__cause__.to_dict() == innermost.to_dict()


def test_a_deep_copy_shares_no_context_and_keeps_a_long_one_whole() -> None:
    error = PublishError("not stored", {"items": list(range(100)), "deep": {"a": {"b": [1]}}})
    copied = copy.deepcopy(error)
    assert copied.context == error.context
    copied.context["deep"]["a"]["b"].append(2)
    assert error.context["deep"] == {"a": {"b": [1]}}


@every_class
def test_no_form_of_an_error_holds_a_secret(cls: type[PolarisException]) -> None:
    error = make(cls, URL)
    forms = [
        str(error),
        repr(error),
        json.dumps(error.to_dict()),
        json.dumps(error.to_problem()),
        pickle.dumps(error).decode("latin-1"),
        repr(vars(error)),
        repr(error.args),
        repr(copy.deepcopy(error).to_dict()),
    ]
    assert not [form for form in forms if NEEDLE in form]
    assert "polaris:" not in str(error)


@pytest.mark.parametrize(
    "context",
    [
        {"password": NEEDLE},
        {"nested": {"list": [{"api_key": NEEDLE}]}},
        {"url": URL},
        {"text": f"-----BEGIN PRIVATE KEY-----\n{NEEDLE}\n-----END PRIVATE KEY-----"},
        {"header": f"Authorization: Bearer {NEEDLE}"},
        {URL: 1},
        {"error": ValueError(URL)},
        {"bytes": NEEDLE.encode()},
        {"late": "x" * 3_000 + URL},
    ],
    ids=lambda context: next(iter(context))[:12],
)
def test_no_context_brings_a_secret_out(context: dict[str, object]) -> None:
    error = PolarisException(f"failed: {URL}", context, cause=RuntimeError(URL))
    assert NEEDLE not in json.dumps(error.to_dict()) + str(error) + repr(error) + pickle.dumps(error).decode("latin-1")


def test_the_public_form_shows_neither_message_nor_context_nor_cause() -> None:
    with correlation_scope("chain-1"):
        error = PublishError("the inside", {"inside": "the inside"}, cause=ValueError("the inside"))
    problem = error.to_problem(instance="/api/systems/1")
    assert "the inside" not in json.dumps(problem)
    assert problem == {
        "type": "urn:polaris:error:polaris.bus.publish",
        "title": "Event not published",
        "status": 503,
        "code": "polaris.bus.publish",
        "instance": "/api/systems/1",
        "correlation_id": "chain-1",
    }


def test_the_inner_form_says_everything_as_json() -> None:
    with correlation_scope("chain-1"):
        error = PublishError("not stored", {"topic": "a.b", "bytes": 3}, cause=OSError(f"password={NEEDLE}"))
    assert json.loads(json.dumps(error.to_dict())) == {
        "type": "PublishError",
        "code": "polaris.bus.publish",
        "message": "not stored",
        "retryable": True,
        "timestamp": error.timestamp.isoformat(),
        "correlation_id": "chain-1",
        "context": {"topic": "a.b", "bytes": 3},
        "cause": "OSError: password=[redacted]",
    }


def test_an_error_knows_when_it_was_made_in_utc() -> None:
    before = datetime.now(UTC)
    error = PolarisException("x")
    assert before - timedelta(milliseconds=1) <= error.timestamp <= datetime.now(UTC) + timedelta(milliseconds=1)
    assert error.timestamp.utcoffset() == timedelta(0)
    assert error.to_dict()["timestamp"] == error.timestamp.isoformat()


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


@pytest.mark.parametrize("message", [None, 7, b"bytes", ValueError("x"), Unprintable()])
def test_a_message_of_a_wrong_type_does_not_hide_the_error(message: Any) -> None:
    error = PolarisException(message)
    assert isinstance(error.message, str)
    assert error.message
    assert json.dumps(error.to_dict())


def test_an_unprintable_cause_does_not_hide_the_error() -> None:
    class UnprintableError(Exception):
        __str__ = Unprintable.__str__

    error = RetryExhaustedError("write", attempts=3, cause=UnprintableError())
    assert "UnprintableError" in error.message
    assert json.dumps(error.to_dict())


def test_without_a_message_the_title_stands_in() -> None:
    assert PublishError().message == str(PublishError("")) == "Event not published"


@pytest.mark.parametrize("characters", [2_049, 20_000, 1_000_000])
def test_a_very_long_message_is_cut(characters: int) -> None:
    error = PolarisException("x" * characters)
    assert len(error.message) == 2_048
    assert error.message.endswith("x[truncated]")
    assert len(InvalidValueError("x" * characters, "y" * characters).message) == 2_048


def test_a_context_of_anything_becomes_json_types() -> None:
    fields: dict[str, Any] = {
        "nan": float("nan"),
        "bytes": b"abc",
        "when": datetime(2026, 1, 1, tzinfo=UTC),
        "big": 2**70,
        "set": {1},
        "class": int,
        "wide": list(range(100)),
        "deep": [[[[[["x"]]]]]],
        "text": "x" * 3_000,
    }
    fields["self"] = fields
    context = PolarisException("x", fields).context
    assert context == {
        "nan": "nan",
        "bytes": "[3 bytes]",
        "when": "2026-01-01T00:00:00+00:00",
        "big": "[integer of 71 bits]",
        "set": [1],
        "class": "int",
        "wide": [*range(64), "... 36 more"],
        "deep": [[[[["[truncated]"]]]]],
        "text": "x" * (2_048 - len("[truncated]")) + "[truncated]",
        "self": "[cycle]",
    }
    assert json.loads(json.dumps(context, allow_nan=False)) == context


def test_nothing_stored_and_maybe_stored_are_told_apart_by_their_class() -> None:
    assert not issubclass(UnconfirmedPublishError, PublishError)
    assert not issubclass(PublishError, UnconfirmedPublishError)
    assert issubclass(PayloadTooLargeError, PublishError)


def test_a_refused_value_is_named_by_field_type_and_limit_and_not_shown() -> None:
    error = InvalidValueError("ratio", "a number from 0 to 1", f"secret {NEEDLE}")
    assert isinstance(error, ValueError)
    assert str(error) == "ratio: expected a number from 0 to 1, got str"
    assert NEEDLE not in pickle.dumps(error).decode("latin-1")


def test_a_context_holds_operation_time_id_and_redacted_fields() -> None:
    with correlation_scope("chain-1"):
        context = ErrorContext.create_context("connect", url=URL, password=NEEDLE, timestamp="mine", count=3)
    assert list(context)[:3] == ["operation", "timestamp", "correlation_id"]
    assert (context["operation"], context["correlation_id"], context["count"]) == ("connect", "chain-1", 3)
    assert datetime.fromisoformat(context["timestamp"]).utcoffset() == timedelta(0)
    assert NEEDLE not in json.dumps(context)
    assert NEEDLE not in json.dumps(ErrorContext.create_context(f"connect to {URL}"))


def test_many_fields_do_not_push_out_operation_time_and_id() -> None:
    context = ErrorContext.create_context("connect", **{f"field_{number}": number for number in range(1_000)})
    assert PolarisException("x", context).context["operation"] == "connect"
    assert len(context) < 100


def failing_with(error: BaseException) -> Callable[[str], str]:
    def fail(note: str) -> str:
        raise error

    return fail


def failing_async_with(error: BaseException) -> Callable[[str], Any]:
    async def fail(note: str) -> str:
        raise error

    return fail


def outcome(function: Callable[[str], Any]) -> BaseException:
    """What a call raises; coroutines are stepped by hand, so that no event loop stands between."""
    try:
        result = function("x")
        if inspect.iscoroutine(result):
            result.send(None)
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


both = pytest.mark.parametrize("failing", [failing_with, failing_async_with])


@both
def test_a_foreign_error_becomes_ours_with_context_and_cause(failing: Callable[[BaseException], Any]) -> None:
    foreign = OSError(f"cannot reach {URL}")
    wrapped = ErrorContext.wrap_exception("connect", error=PublishError, server="nats-1")(failing(foreign))
    with correlation_scope("chain-1"):
        error = outcome(wrapped)
    assert type(error) is PublishError
    assert error.__cause__ is foreign
    assert error.message == "connect failed: OSError: cannot reach nats://[redacted]@127.0.0.1:4222"
    assert error.context["operation"] == "connect"
    assert error.context["server"] == "nats-1"
    assert error.context["correlation_id"] == error.correlation_id == "chain-1"


@both
def test_an_error_of_ours_passes_as_the_same_instance_however_often_it_is_wrapped(
    failing: Callable[[BaseException], Any],
) -> None:
    ours = PublishError("not stored")
    wrapped = ErrorContext.wrap_exception("outer")(ErrorContext.wrap_exception("inner")(failing(ours)))
    assert outcome(wrapped) is ours
    assert ours.__cause__ is None


@both
def test_the_same_foreign_error_is_never_the_same_instance_of_ours_twice(
    failing: Callable[[BaseException], Any],
) -> None:
    wrapped = ErrorContext.wrap_exception("connect")(failing(OSError("x")))
    first, second = outcome(wrapped), outcome(wrapped)
    assert first is not second
    assert first.__cause__ is second.__cause__


@both
@pytest.mark.parametrize(
    "error",
    [
        asyncio.CancelledError(),
        KeyboardInterrupt(),
        SystemExit(3),
        GeneratorExit(),
        concurrent.futures.CancelledError(),
        BaseExceptionGroup("stopping", [asyncio.CancelledError()]),
        StopAsyncIteration(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_cancellation_exit_and_the_ends_of_iterations_are_never_wrapped(
    error: BaseException, failing: Callable[[BaseException], Any]
) -> None:
    wrapped = ErrorContext.wrap_exception("work")(failing(error))
    assert outcome(wrapped) is error


async def test_a_cancelled_task_ends_as_cancelled() -> None:
    started = asyncio.Event()

    @ErrorContext.wrap_exception
    async def wait() -> None:
        started.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


def test_the_decorator_keeps_name_result_and_kind_of_function() -> None:
    @ErrorContext.wrap_exception
    def add(a: int, b: int = 1) -> int:
        """Adds."""
        return a + b

    @ErrorContext.wrap_exception("adding")
    async def add_async(a: int) -> int:
        return a + 1

    assert (add.__name__, add.__doc__, add(1, b=2)) == ("add", "Adds.", 3)
    assert inspect.iscoroutinefunction(add_async)
    assert asyncio.run(add_async(1)) == 2


def test_the_decorator_takes_partials_and_callable_objects() -> None:
    class Failing:
        async def __call__(self, note: str) -> None:
            raise OSError(note)

    for target in (Failing(), functools.partial(failing_with(OSError("x"))), failing_async_with(OSError("x"))):
        error = outcome(ErrorContext.wrap_exception(target))
        assert isinstance(error, PolarisException)
        assert isinstance(error.__cause__, OSError)


def test_the_traceback_of_the_foreign_error_is_kept() -> None:
    def deepest() -> None:
        raise OSError("x")

    error = outcome(ErrorContext.wrap_exception("work")(lambda note: deepest()))
    assert error.__cause__ is not None
    frames = [frame.name for frame in traceback.extract_tb(error.__cause__.__traceback__)]
    assert frames[-1] == "deepest"


def test_the_chain_behind_the_foreign_error_is_kept() -> None:
    def fail(note: str) -> None:
        try:
            raise KeyError("first")
        except KeyError as first:
            raise OSError("second") from first

    error = outcome(ErrorContext.wrap_exception("work")(fail))
    assert isinstance(error, PolarisException)
    assert isinstance(error.__cause__, OSError)
    assert isinstance(error.__cause__.__cause__, KeyError)


@both
def test_an_error_of_ours_that_passes_keeps_its_chain_and_its_whole_traceback(
    failing: Callable[[BaseException], Any],
) -> None:
    cause = OSError("x")
    ours = PublishError("not stored", cause=cause)
    error = outcome(ErrorContext.wrap_exception("outer")(ErrorContext.wrap_exception("inner")(failing(ours))))
    assert error.__cause__ is cause
    assert error.__context__ is None
    names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    assert names[0] == "outcome"
    assert names[-1] == "fail"


def test_what_the_decorator_cannot_protect_it_refuses_at_once() -> None:
    def generate(note: str) -> Any:
        yield 1

    async def generate_async(note: str) -> Any:
        yield 1

    for target in (generate, generate_async):
        with pytest.raises(InvalidValueError, match="generator"):
            ErrorContext.wrap_exception("work")(target)
    with pytest.raises(InvalidValueError, match="error"):
        ErrorContext.wrap_exception("work", error=RetryExhaustedError)
