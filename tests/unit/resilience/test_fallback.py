"""What a fallback promises."""

from __future__ import annotations

import asyncio

import pytest

from polaris.exceptions import InvalidValueError
from polaris.resilience import Fallback, FallbackUsed, Pipeline, RetryConfig, RetryPolicy, Signal

from .doubles import BoomError, Script, fail, succeed, taking


async def test_a_success_needs_no_fallback(signals: list[Signal]) -> None:
    assert await Fallback.value("cached", handles=(BoomError,), listeners=[signals.append]).execute(succeed) == "ok"
    assert signals == []


async def test_a_failure_is_answered_by_the_value_and_signalled(signals: list[Signal]) -> None:
    boom = BoomError()
    fallback = Fallback.value("cached", handles=(BoomError,), listeners=[signals.append])
    assert await fallback.execute(taking(1, boom), "load") == "cached"
    assert signals == [FallbackUsed("load", boom)]


async def test_the_handler_sees_the_error_and_may_be_asynchronous() -> None:
    async def handler(error: Exception) -> str:
        await asyncio.sleep(1)
        return f"instead of {error}"

    assert await Fallback(handler, handles=(BoomError,)).execute(fail) == "instead of boom"


@pytest.mark.parametrize("error", [KeyError(), asyncio.CancelledError()])
async def test_other_errors_and_cancellation_pass(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        await Fallback.value("cached", handles=(BoomError,)).execute(taking(0, error))
    assert caught.value is error


async def test_an_error_of_the_handler_keeps_the_first_one_as_context() -> None:
    def handler(error: Exception) -> str:
        raise LookupError

    with pytest.raises(LookupError) as caught:
        await Fallback(handler, handles=(BoomError,)).execute(fail)
    assert isinstance(caught.value.__context__, BoomError)


async def test_in_a_pipeline_it_answers_after_the_last_attempt() -> None:
    script = Script([BoomError()] * 3)
    pipeline = Pipeline(
        fallback=Fallback.value("cached", handles=(Exception,)), retry=RetryPolicy(RetryConfig(base_delay=0))
    )
    assert await pipeline.execute(script) == "cached"
    assert script.calls == 3


def test_it_must_say_what_it_handles() -> None:
    for handles in ((), (BaseException,)):
        with pytest.raises(InvalidValueError):
            Fallback.value(1, handles=handles)  # type: ignore[arg-type]
