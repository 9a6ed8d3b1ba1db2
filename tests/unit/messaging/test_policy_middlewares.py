"""Retry, circuit breaker and rate limit round publishing and handling."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from tests.unit.messaging.doubles import eventually, health, running_bus, telemetry

from polaris.domain import HealthEvent, TelemetryEvent
from polaris.exceptions import (
    BusConnectionError,
    CircuitBreakerOpenException,
    DeadlineExceededError,
    InvalidValueError,
    PublishError,
    RateLimitExceededError,
    RetryExhaustedError,
    StoreConnectionError,
    UnconfirmedPublishError,
)
from polaris.messaging import (
    CircuitBreakerMiddleware,
    DeadLetterReason,
    MessageContext,
    MessageDirection,
    MessageMiddleware,
    MiddlewareChain,
    NextHandler,
    RateLimitMiddleware,
    RedeliveryPolicy,
    RetryMiddleware,
)
from polaris.resilience import (
    CircuitBreaker,
    CircuitBreakerConfig,
    CircuitBreakerState,
    RateLimiter,
    RateLimiterConfig,
    RetryConfig,
    RetryPolicy,
)
from polaris.testing import running_clock

PUBLISH, DELIVER = MessageDirection.PUBLISH, MessageDirection.DELIVER
TOPIC = "polaris.telemetry.web"


def context(direction: MessageDirection = DELIVER, **fields: Any) -> MessageContext:
    return MessageContext(**{"topic": "polaris.health.store", "event": health(), "direction": direction, **fields})


def retry(attempts: int = 3, **options: Any) -> RetryPolicy:
    config = RetryConfig(max_attempts=attempts, base_delay=1.0, max_delay=10.0, jitter="none", **options)
    return RetryPolicy(config, clock=running_clock())


def breaker(name: str = "b", failures: int = 2) -> CircuitBreaker:
    config = CircuitBreakerConfig(failure_threshold=failures, timeout=timedelta(seconds=30))
    return CircuitBreaker(name, config, clock=running_clock())


class Script:
    """A final handler that raises what it is told to, and then returns "done"."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.at_s: list[float] = []

    async def __call__(self, context: MessageContext) -> str:
        self.at_s.append(asyncio.get_running_loop().time())
        if self.errors:
            raise self.errors.pop(0)
        context.result = "done"
        return "done"

    @property
    def waits_s(self) -> list[float]:
        return [round(after - before, 3) for before, after in zip(self.at_s, self.at_s[1:], strict=False)]


async def run(middleware: MessageMiddleware, final: NextHandler, of: MessageContext | None = None) -> Any:
    return await MiddlewareChain([middleware]).process(of or context(), final)


# Retry.


@pytest.mark.parametrize("direction", MessageDirection)
async def test_what_fails_is_tried_again_after_the_waits_of_the_policy(direction: MessageDirection) -> None:
    final = Script(StoreConnectionError("1"), StoreConnectionError("2"))
    assert await run(RetryMiddleware(retry()), final, context(direction)) == "done"
    assert final.waits_s == [1.0, 2.0]


@pytest.mark.parametrize("direction", MessageDirection)
async def test_the_last_error_is_raised_as_it_was_when_the_policy_gives_up(direction: MessageDirection) -> None:
    root = KeyError("root")
    last = StoreConnectionError("3", cause=root)
    final = Script(StoreConnectionError("1"), StoreConnectionError("2"), last)
    with pytest.raises(StoreConnectionError) as caught:
        await run(RetryMiddleware(retry()), final, context(direction))
    assert caught.value is last
    assert last.__cause__ is root
    assert len(final.at_s) == 3


async def test_what_must_not_be_retried_is_raised_at_once() -> None:
    final = Script(InvalidValueError("n", "less"))
    with pytest.raises(InvalidValueError):
        await run(RetryMiddleware(retry()), final)
    assert len(final.at_s) == 1


async def test_a_retry_that_the_handler_exhausted_itself_stays_what_it_is() -> None:
    inner = RetryExhaustedError("inside", attempts=3, cause=KeyError("x"))
    with pytest.raises(RetryExhaustedError) as caught:
        await run(RetryMiddleware(retry()), Script(inner))
    assert caught.value is inner


async def test_a_publish_that_may_be_stored_is_told_so_whatever_came_last() -> None:
    doubt = UnconfirmedPublishError("no answer")
    for last in (PublishError("refused"), BusConnectionError("away"), InvalidValueError("x", "y")):
        final = Script(doubt, BusConnectionError("away"), last)
        with pytest.raises(UnconfirmedPublishError) as caught:
            await run(RetryMiddleware(retry()), final, context(PUBLISH))
        assert caught.value is doubt
        assert len(final.at_s) == 3


async def test_a_publish_that_was_stored_in_the_end_is_no_doubt() -> None:
    final = Script(UnconfirmedPublishError("no answer"))
    assert await run(RetryMiddleware(retry()), final, context(PUBLISH)) == "done"


async def test_a_publish_cut_off_by_the_policys_time_limit_is_unconfirmed() -> None:
    async def hang(context: MessageContext) -> None:
        await asyncio.sleep(1_000)

    for limit in ({"total_timeout": 5.0}, {"attempt_timeout": 5.0}):
        with pytest.raises(UnconfirmedPublishError) as caught:
            await run(RetryMiddleware(retry(1, **limit)), hang, context(PUBLISH))
        assert "polaris.health.store" in caught.value.message


async def test_a_delivery_cut_off_by_the_policys_time_limit_comes_again() -> None:
    async def hang(context: MessageContext) -> None:
        await asyncio.sleep(1_000)

    for limit in ({"total_timeout": 5.0}, {"attempt_timeout": 5.0}):
        with pytest.raises(DeadlineExceededError) as caught:
            await run(RetryMiddleware(retry(2, **limit)), hang)
        assert caught.value.retryable is not False


async def test_an_attempt_does_not_see_the_result_of_the_one_before() -> None:
    results: list[Any] = []

    async def final(context: MessageContext) -> None:
        results.append(context.result)
        context.result = "left behind"
        if len(results) < 3:
            raise StoreConnectionError("x")

    await run(RetryMiddleware(retry()), final)
    assert results == [None, None, None]


async def test_a_delivery_is_retried_in_place_and_then_redelivered_by_what_was_raised_last() -> None:
    calls: list[int] = []

    async def handle(event: TelemetryEvent, context: MessageContext) -> None:
        calls.append(context.attempt)
        raise StoreConnectionError("no store")

    policy = RedeliveryPolicy(max_deliveries=3)
    async with running_bus(middlewares=[RetryMiddleware(retry(2), direction=DELIVER)], redelivery=policy) as bus:
        subscription = await bus.subscribe("polaris.telemetry.*", handle)
        await bus.publish_telemetry(telemetry())
        await eventually(lambda: subscription.stats.dead_lettered == 1)
        (record,) = await bus.dead_letters.list()
    assert calls == [1, 1, 2, 2, 3, 3]
    assert record.entry.reason is DeadLetterReason.EXHAUSTED
    assert record.entry.error_code == "polaris.store.connection"


async def test_a_cancelled_message_is_not_tried_again() -> None:
    final = Script()

    async def hang(context: MessageContext) -> None:
        await final(context)
        await asyncio.sleep(1_000)

    task = asyncio.create_task(run(RetryMiddleware(retry()), hang))
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(final.at_s) == 1


# Circuit breaker.


@pytest.mark.parametrize("direction", MessageDirection)
async def test_an_open_breaker_rejects_and_says_when_to_come_back(direction: MessageDirection) -> None:
    final = Script(StoreConnectionError("1"), StoreConnectionError("2"))
    chain = MiddlewareChain([CircuitBreakerMiddleware(breaker())])
    for _ in range(2):
        with pytest.raises(StoreConnectionError):
            await chain.process(context(direction), final)
    with pytest.raises(CircuitBreakerOpenException) as caught:
        await chain.process(context(direction), final)
    assert caught.value.retry_after == 30
    assert len(final.at_s) == 2
    await asyncio.sleep(30)
    assert await chain.process(context(direction), final) == "done"


async def test_a_rejected_delivery_comes_again_when_the_breaker_admits_calls() -> None:
    now = asyncio.get_running_loop().time
    called_s: list[float] = []

    async def handle(event: TelemetryEvent) -> None:
        called_s.append(now())
        if len(called_s) == 1:
            raise StoreConnectionError("no store")

    guard = breaker(failures=1)
    policy = RedeliveryPolicy(base_delay_s=0.1, max_delay_s=0.1)
    async with running_bus(middlewares=[CircuitBreakerMiddleware(guard)], redelivery=policy) as bus:
        subscription = await bus.subscribe("polaris.telemetry.*", handle)
        await bus.publish_telemetry(telemetry())
        await eventually(lambda: subscription.stats.handled == 1)
    assert guard.state is CircuitBreakerState.CLOSED
    assert called_s[1] - called_s[0] == pytest.approx(30, abs=0.5)
    # Failed, rejected once, handled: no hot loop against the open breaker.
    assert subscription.stats.received == 3


async def test_errors_of_the_sender_do_not_open_a_breaker() -> None:
    guard = breaker(failures=1)
    with pytest.raises(InvalidValueError):
        await run(CircuitBreakerMiddleware(guard), Script(InvalidValueError("n", "less")))
    assert guard.state is CircuitBreakerState.CLOSED


async def test_a_breaker_for_each_subscription_leaves_the_others_alone() -> None:
    made: list[str] = []

    def make(name: str) -> CircuitBreaker:
        made.append(name)
        return breaker(name, failures=1)

    chain = MiddlewareChain([CircuitBreakerMiddleware(make)])
    with pytest.raises(StoreConnectionError):
        await chain.process(context(subscription="bad"), Script(StoreConnectionError("x")))
    with pytest.raises(CircuitBreakerOpenException):
        await chain.process(context(subscription="bad"), Script())
    assert await chain.process(context(subscription="good"), Script()) == "done"
    for topic in ("polaris.health.a", "polaris.health.b", TOPIC):
        assert await chain.process(context(PUBLISH, topic=topic), Script()) == "done"
    assert made == ["bad", "good", "polaris.health.*", "polaris.telemetry.*"]


async def test_policies_that_are_made_are_bounded_and_the_unused_go_first() -> None:
    made: list[str] = []

    def make(name: str) -> CircuitBreaker:
        made.append(name)
        return breaker(name)

    chain = MiddlewareChain([CircuitBreakerMiddleware(make)])
    await chain.process(context(subscription="kept"), Script())
    for number in range(1_200):
        await chain.process(context(subscription=f"s{number}"), Script())
        await chain.process(context(subscription="kept"), Script())
    assert made.count("kept") == 1
    await chain.process(context(subscription="s0"), Script())
    assert made.count("s0") == 2


# Rate limit.


async def test_messages_over_the_rate_are_rejected_or_wait_for_their_turn() -> None:
    limiter = RateLimiter("r", RateLimiterConfig(max_calls=1, period=1.0, max_queued_calls=1))
    chain, final = MiddlewareChain([RateLimitMiddleware(limiter)]), Script()
    outcomes = await asyncio.gather(*(chain.process(context(PUBLISH), final) for _ in range(3)), return_exceptions=True)
    assert outcomes[:2] == ["done", "done"]
    assert final.waits_s == [1.0]
    rejection = outcomes[2]
    assert isinstance(rejection, RateLimitExceededError)
    assert rejection.retry_after == pytest.approx(2.0)


async def test_a_batch_is_one_message_to_a_limiter() -> None:
    limiter = RateLimiter("r", RateLimiterConfig(max_calls=1, period=60.0))
    async with running_bus(middlewares=[RateLimitMiddleware(limiter, direction=PUBLISH)]) as bus:
        await bus.publish_many([telemetry(number) for number in range(50)])
        with pytest.raises(RateLimitExceededError):
            await bus.publish_telemetry(telemetry())


async def test_deliveries_that_queue_come_at_the_rate_and_none_is_lost() -> None:
    at_s: list[float] = []

    async def handle(event: TelemetryEvent) -> None:
        at_s.append(asyncio.get_running_loop().time())

    limiter = RateLimiter("r", RateLimiterConfig(max_calls=2, period=1.0, burst=1, max_queued_calls=1))
    async with running_bus(middlewares=[RateLimitMiddleware(limiter, direction=DELIVER)]) as bus:
        subscription = await bus.subscribe("polaris.telemetry.*", handle)
        for number in range(10):
            await bus.publish(TOPIC, telemetry(number))
        await eventually(lambda: len(at_s) == 10)
    assert at_s[-1] - at_s[0] == pytest.approx(4.5, abs=0.1)
    assert subscription.stats.retried == 0


async def test_retry_waits_for_what_breaker_and_limiter_ask_for() -> None:
    limiter = RateLimiter("r", RateLimiterConfig(max_calls=1, period=5.0))
    chain = MiddlewareChain(
        [RetryMiddleware(retry(3)), CircuitBreakerMiddleware(breaker()), RateLimitMiddleware(limiter)]
    )
    final = Script()
    assert [await chain.process(context(PUBLISH), final) for _ in range(2)] == ["done", "done"]
    assert final.waits_s[0] == pytest.approx(5.0, abs=2.0)
    assert final.waits_s[0] >= 5.0


# Direction and construction.

MADE: list[Any] = [
    lambda **options: RetryMiddleware(retry(), **options),
    lambda **options: CircuitBreakerMiddleware(breaker(failures=1), **options),
    lambda **options: RateLimitMiddleware(RateLimiter("r", RateLimiterConfig(max_calls=1, period=60.0)), **options),
]


@pytest.mark.parametrize("make", MADE, ids=["retry", "breaker", "limiter"])
@pytest.mark.parametrize("direction", MessageDirection)
async def test_each_acts_in_its_direction_only(make: Any, direction: MessageDirection) -> None:
    middleware = make(direction=direction)
    (other,) = set(MessageDirection) - {direction}
    for _ in range(3):
        error = StoreConnectionError("x")
        with pytest.raises(StoreConnectionError) as caught:
            await run(middleware, Script(error), context(other))
        assert caught.value is error
    final = Script(StoreConnectionError("x"))
    try:
        await run(middleware, final, context(direction))
        assert len(final.at_s) == 2, "retried"
    except StoreConnectionError:
        with pytest.raises((CircuitBreakerOpenException, RateLimitExceededError)):
            await run(middleware, Script(), context(direction))


@pytest.mark.parametrize(
    "make",
    [
        lambda: RetryMiddleware(RetryConfig()),  # type: ignore[arg-type]
        lambda: RetryMiddleware(None),  # type: ignore[arg-type]
        lambda: CircuitBreakerMiddleware(CircuitBreakerConfig()),  # type: ignore[arg-type]
        lambda: CircuitBreakerMiddleware(CircuitBreaker),
        lambda: CircuitBreakerMiddleware("name"),  # type: ignore[arg-type]
        lambda: RateLimitMiddleware(breaker()),  # type: ignore[arg-type]
        lambda: RateLimitMiddleware(7),  # type: ignore[arg-type]
        lambda: RetryMiddleware(retry(), direction="publish"),  # type: ignore[arg-type]
        lambda: CircuitBreakerMiddleware(breaker(), direction="in"),  # type: ignore[arg-type]
        lambda: RateLimitMiddleware(RateLimiter("r"), direction=True),  # type: ignore[arg-type]
    ],
)
async def test_what_makes_no_sense_is_refused_at_construction(make: Any) -> None:
    with pytest.raises(InvalidValueError):
        make()


async def test_a_function_that_makes_no_policy_is_refused_when_it_is_asked() -> None:
    async def handle(event: HealthEvent) -> None: ...

    with pytest.raises(InvalidValueError):
        await run(CircuitBreakerMiddleware(lambda name: None), Script())  # type: ignore[arg-type, return-value]
