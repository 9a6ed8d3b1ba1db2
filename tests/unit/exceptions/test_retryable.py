"""`retryable` is the one source: what retry, breaker and redelivery make of an error, they read there and agree."""

from __future__ import annotations

from datetime import timedelta

import pytest

from polaris import exceptions as errors
from polaris.exceptions import PolarisException
from polaris.messaging import RedeliveryPolicy
from polaris.resilience import CircuitBreaker, CircuitBreakerConfig, CircuitBreakerState, RetryConfig, RetryPolicy


class YesError(PolarisException):
    retryable = True


class NoError(PolarisException):
    retryable = False


class OpenError(PolarisException):
    retryable = None


class NoForThisOneError(YesError):
    """The instance decides, where it says otherwise than its class."""

    def __init__(self) -> None:
        super().__init__("x")
        self.retryable = False  # type: ignore[misc] # as some errors learn it only when they are made


async def attempts_of(error: PolarisException, config: RetryConfig) -> int:
    attempts = 0
    again = type(error)

    async def fail() -> None:
        nonlocal attempts
        attempts += 1
        raise again

    with pytest.raises(PolarisException):
        await RetryPolicy(config).execute(fail, "work")
    return attempts


async def state_after(error: PolarisException) -> CircuitBreakerState:
    breaker = CircuitBreaker("work", CircuitBreakerConfig(failure_threshold=1, timeout=timedelta(hours=1)))

    async def fail() -> None:
        raise error

    with pytest.raises(PolarisException):
        await breaker.call(fail)
    return breaker.state


@pytest.mark.parametrize(
    ("error", "attempts", "state", "comes_again"),
    [
        (YesError(), 3, CircuitBreakerState.OPEN, True),
        (OpenError(), 3, CircuitBreakerState.OPEN, True),
        (NoError(), 1, CircuitBreakerState.CLOSED, False),
        (NoForThisOneError(), 1, CircuitBreakerState.CLOSED, False),
    ],
    ids=["yes", "open", "no", "no_for_this_one"],
)
async def test_retry_breaker_and_redelivery_agree_on_an_error(
    error: PolarisException, attempts: int, state: CircuitBreakerState, comes_again: bool
) -> None:
    assert await attempts_of(error, RetryConfig(max_attempts=3)) == attempts
    assert await state_after(error) is state
    assert RedeliveryPolicy(max_deliveries=4).gives_up(1, 1, error) is not comes_again


async def test_the_policy_decides_only_where_the_error_leaves_it_open() -> None:
    only_os_errors = RetryConfig(max_attempts=3, retryable=(OSError,))
    everything = RetryConfig(max_attempts=3, retryable=lambda _: True)
    assert await attempts_of(OpenError(), only_os_errors) == 1
    assert await attempts_of(OpenError(), everything) == 3
    assert await attempts_of(YesError(), only_os_errors) == 3
    assert await attempts_of(NoError(), everything) == 1


def test_an_error_that_lies_with_the_caller_is_never_repeated_and_one_of_the_moment_is() -> None:
    never: list[type[PolarisException]] = [
        errors.InvalidValueError, errors.ConfigurationError, errors.ActionNotSupportedError, errors.RequestError,
        errors.PayloadTooLargeError, errors.MessageDecodeError, errors.InvalidTopicError, errors.SubscriptionError,
        errors.ConflictError, errors.QueryError, errors.MigrationError, errors.UnitOfWorkError,
        errors.StoreCorruptError, errors.DependencyInjectionError, errors.RetryExhaustedError,
    ]  # fmt: skip
    always: list[type[PolarisException]] = [
        errors.CircuitBreakerOpenException, errors.BulkheadRejectedException, errors.RateLimitExceededError,
        errors.BusConnectionError, errors.PublishError, errors.UnconfirmedPublishError, errors.StoreConnectionError,
        errors.StoreFullError,
    ]  # fmt: skip
    # What was running when the time was up, or when no reply came, may or may not have happened.
    either: list[type[PolarisException]] = [
        errors.DeadlineExceededError, errors.RequestTimeoutError, errors.AdaptationError, errors.ConnectorError,
    ]  # fmt: skip
    assert {cls.retryable for cls in never} == {False}
    assert {cls.retryable for cls in always} == {True}
    assert {cls.retryable for cls in either} == {None}
