"""Where the shipped middlewares belong, and what each of them costs."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from tests.unit.messaging.doubles import health

from polaris.exceptions import ConfigurationError, InvalidValueError
from polaris.messaging import (
    CircuitBreakerMiddleware,
    CompressionMiddleware,
    CorrelationMiddleware,
    DeduplicationMiddleware,
    LoggingMiddleware,
    MessageContext,
    MessageMiddleware,
    MetricsMiddleware,
    MiddlewareChain,
    NextHandler,
    RateLimitMiddleware,
    RetryMiddleware,
    TracingMiddleware,
    ValidationMiddleware,
    middleware,
)
from polaris.observability import MetricsCollector, StructuredLogger
from polaris.resilience import CircuitBreaker, RateLimiter, RetryPolicy

SHIPPED: list[MessageMiddleware] = [
    CorrelationMiddleware(),
    TracingMiddleware(),
    LoggingMiddleware(StructuredLogger("test")),
    MetricsMiddleware(),
    ValidationMiddleware(),
    DeduplicationMiddleware(),
    RetryMiddleware(RetryPolicy()),
    CircuitBreakerMiddleware(CircuitBreaker("b")),
    RateLimitMiddleware(RateLimiter("r")),
    CompressionMiddleware(),
]
ORDERED = [one for one in SHIPPED if one.order is not None]


class Foreign(MessageMiddleware):
    async def process(self, context: MessageContext, next_handler: NextHandler) -> Any:
        return await next_handler(context)


async def plain(context: MessageContext, next_handler: NextHandler) -> Any:
    return await next_handler(context)


def context() -> MessageContext:
    return MessageContext("polaris.health.store", health())


# Order.


def test_every_shipped_middleware_is_in_these_tests_and_says_where_it_belongs() -> None:
    named = {name for name in middleware.__all__ if name.endswith("Middleware")}
    assert {type(one).__name__ for one in SHIPPED} == named
    assert {type(one).__name__ for one in SHIPPED} - {type(one).__name__ for one in ORDERED} == {
        "CompressionMiddleware"
    }
    innermost = max(one.order or 0 for one in SHIPPED)
    assert all(one.order_reason for one in ORDERED if one.order != innermost)


def test_all_of_them_in_their_order_are_a_chain() -> None:
    assert MiddlewareChain(SHIPPED).middlewares == tuple(SHIPPED)


@pytest.mark.parametrize(("outer", "inner"), list(itertools.combinations(ORDERED, 2)))
def test_two_that_stand_the_wrong_way_round_are_refused_by_name_and_with_the_reason(
    outer: MessageMiddleware, inner: MessageMiddleware
) -> None:
    MiddlewareChain([outer, inner])
    if outer.order == inner.order:
        MiddlewareChain([inner, outer])
        return
    with pytest.raises(ConfigurationError) as caught:
        MiddlewareChain([inner, plain, outer])
    (problem,) = caught.value.problems
    names = type(outer).__name__, type(inner).__name__
    assert problem == f"{names[0]} must stand before {names[1]}: {outer.order_reason}"


def test_every_misplaced_one_is_named_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        MiddlewareChain(reversed(ORDERED))
    named = [problem.split()[0] for problem in caught.value.problems]
    # Logging and metrics may stand either way; the last of the order is the only one that stands right.
    assert named == [type(one).__name__ for one in reversed(ORDERED[:-1])]
    assert all("must stand before RateLimitMiddleware: " in problem for problem in caught.value.problems)


def test_others_and_two_of_a_kind_may_stand_anywhere() -> None:
    for place in range(len(SHIPPED) + 1):
        MiddlewareChain([*SHIPPED[:place], Foreign(), plain, CompressionMiddleware(), *SHIPPED[place:]])
    MiddlewareChain([RateLimitMiddleware(RateLimiter("a")), RateLimitMiddleware(RateLimiter("b"))])


def test_ones_own_middleware_may_declare_a_place_too() -> None:
    class Early(Foreign):
        order = 25

    class Anywhere(ValidationMiddleware):
        order = None

    MiddlewareChain([TracingMiddleware(), Early(), ValidationMiddleware()])
    MiddlewareChain([RateLimitMiddleware(RateLimiter("r")), Anywhere()])
    with pytest.raises(ConfigurationError, match=r"Early must stand before ValidationMiddleware$"):
        MiddlewareChain([ValidationMiddleware(), Early()])


def test_a_class_in_place_of_an_instance_is_refused() -> None:
    with pytest.raises(InvalidValueError):
        MiddlewareChain([ValidationMiddleware])  # type: ignore[list-item]


# Cost.


class Slow(MessageMiddleware):
    """Takes a second before and two after what is inside it."""

    async def process(self, context: MessageContext, next_handler: NextHandler) -> Any:
        await asyncio.sleep(1)
        try:
            return await next_handler(context)
        finally:
            await asyncio.sleep(2)


class SlowStartMiddleware(MessageMiddleware):
    async def process(self, context: MessageContext, next_handler: NextHandler) -> Any:
        await asyncio.sleep(4)
        return await next_handler(context)


async def quick(context: MessageContext, next_handler: NextHandler) -> Any:
    return await next_handler(context)


async def final(context: MessageContext) -> str:
    await asyncio.sleep(8)
    return "result"


@pytest.fixture
def virtual_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.perf_counter", lambda: asyncio.get_running_loop().time())


@pytest.mark.usefixtures("virtual_seconds")
async def test_each_middleware_is_measured_without_what_stands_inside_it() -> None:
    collector = MetricsCollector()
    chain = MiddlewareChain([Slow(), quick, SlowStartMiddleware()], measure=collector)
    for _ in range(3):
        assert await chain.process(context(), final) == "result"
    for name, seconds in (("slow", 3.0), ("slow_start", 4.0), ("quick", 0.0)):
        timer = collector.operation_timer("middleware", name)
        assert timer.count == 3, name
        assert timer.sum == pytest.approx(3 * seconds), name
    text = collector.render().decode()
    assert 'polaris_operation_duration_seconds_count{component="middleware",operation="slow_start"} 3.0' in text


@pytest.mark.usefixtures("virtual_seconds")
async def test_what_fails_is_measured_and_passes_through() -> None:
    collector = MetricsCollector()

    async def bad(context: MessageContext) -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        await MiddlewareChain([Slow()], measure=collector).process(context(), bad)
    assert collector.operation_timer("middleware", "slow").sum == pytest.approx(3.0)


@pytest.mark.usefixtures("virtual_seconds")
async def test_one_that_calls_what_is_inside_it_twice_at_once_takes_no_negative_time() -> None:
    collector = MetricsCollector()

    async def hedge(context: MessageContext, next_handler: NextHandler) -> Any:
        return (await asyncio.gather(next_handler(context), next_handler(context)))[0]

    await MiddlewareChain([hedge], measure=collector).process(context(), final)
    timer = collector.operation_timer("middleware", "hedge")
    assert (timer.count, timer.sum) == (1, 0.0)


async def test_without_a_measure_the_functions_are_the_same_as_ever() -> None:
    chain = MiddlewareChain([Foreign()])
    assert chain.bind(final).__name__ == "run"
    assert not asyncio.iscoroutinefunction(chain.bind(final))
    assert asyncio.iscoroutinefunction(MiddlewareChain([Foreign()], measure=MetricsCollector()).bind(final))


@pytest.mark.usefixtures("virtual_seconds")
async def test_a_chain_within_another_middleware_keeps_its_measure() -> None:
    collector = MetricsCollector()
    chain = MiddlewareChain([quick], measure=collector).within(Slow())
    assert [getattr(one, "__name__", type(one).__name__) for one in chain.middlewares] == ["Slow", "quick"]
    await chain.process(context(), final)
    assert collector.operation_timer("middleware", "slow").count == 1
    assert MiddlewareChain([quick]).within(Slow())._measure is None
