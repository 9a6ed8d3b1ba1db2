"""No instance is raised twice: its traceback would grow, and one context would serve two calls."""

from __future__ import annotations

import ast
import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.unit.messaging.doubles import telemetry

import polaris
from polaris.di import DIContainer
from polaris.exceptions import (
    BulkheadRejectedException,
    CircuitBreakerOpenException,
    DeadlineExceededError,
    DependencyResolutionException,
    ErrorContext,
    PolarisException,
    PublishError,
    RateLimitExceededError,
    ServiceNotRegisteredException,
)
from polaris.messaging import InMemoryMessageBroker, OutgoingMessage, PolarisMessageBus, Receipt
from polaris.resilience import (
    Bulkhead,
    BulkheadConfig,
    CircuitBreaker,
    CircuitBreakerConfig,
    RateLimiter,
    RateLimiterConfig,
    Timeout,
)
from polaris.testing import running_clock

SOURCE = Path(polaris.__file__).parent


async def fail() -> None:
    raise OSError("no")


async def hang() -> None:
    await asyncio.Event().wait()


async def raised_by(call: Callable[[], Awaitable[object]]) -> PolarisException:
    with pytest.raises(PolarisException) as caught:
        await call()
    return caught.value


async def rejecting_breaker() -> Callable[[], Awaitable[object]]:
    breaker = CircuitBreaker("orders", CircuitBreakerConfig(failure_threshold=1, timeout=timedelta(hours=1)))
    with pytest.raises(OSError):
        await breaker.call(fail)
    return lambda: breaker.call(hang)


async def rejecting_bulkhead() -> Callable[[], Awaitable[object]]:
    bulkhead = Bulkhead("orders", BulkheadConfig(max_concurrent_calls=1))
    OCCUPANTS.append(asyncio.create_task(bulkhead.execute(hang)))
    await asyncio.sleep(0)
    return lambda: bulkhead.execute(hang)


async def rejecting_limiter() -> Callable[[], Awaitable[object]]:
    limiter = RateLimiter("orders", RateLimiterConfig(1, period=10**6))
    with pytest.raises(OSError):
        await limiter.execute(fail)
    return lambda: limiter.execute(hang)


async def timeout() -> Callable[[], Awaitable[object]]:
    policy = Timeout(0.01)
    return lambda: policy.execute(hang)


class Unbuildable:
    def __init__(self) -> None:
        raise OSError("no")


async def unregistered_service() -> Callable[[], Awaitable[object]]:
    container = DIContainer()
    return lambda: container.aresolve(Unbuildable)


async def unbuildable_service() -> Callable[[], Awaitable[object]]:
    container = DIContainer()
    container.register_singleton(Unbuildable)
    return lambda: container.aresolve(Unbuildable)


async def wrapped_function() -> Callable[[], Awaitable[object]]:
    foreign = OSError("no")

    async def call() -> None:
        raise foreign

    return ErrorContext.wrap_exception("call")(call)


OCCUPANTS: list[asyncio.Task[Any]] = []
WAYS: dict[Callable[[], Awaitable[Callable[[], Awaitable[object]]]], type[PolarisException]] = {
    rejecting_breaker: CircuitBreakerOpenException,
    rejecting_bulkhead: BulkheadRejectedException,
    rejecting_limiter: RateLimitExceededError,
    timeout: DeadlineExceededError,
    unregistered_service: ServiceNotRegisteredException,
    unbuildable_service: DependencyResolutionException,
    wrapped_function: PolarisException,
}


@pytest.mark.parametrize("way", WAYS, ids=lambda way: str(way.__name__))
async def test_each_call_that_fails_gets_an_error_of_its_own(
    way: Callable[[], Awaitable[Callable[[], Awaitable[object]]]],
) -> None:
    call = await way()
    errors = [await raised_by(call) for _ in range(3)]
    for task in OCCUPANTS:
        task.cancel()
    await asyncio.gather(*OCCUPANTS, return_exceptions=True)
    OCCUPANTS.clear()
    assert [type(error) for error in errors] == [WAYS[way]] * 3
    assert len({id(error) for error in errors}) == 3
    assert len({id(error.context) for error in errors}) == 3


class RefusingBroker(InMemoryMessageBroker):
    """Takes the first message, and refuses all that gathered meanwhile."""

    sent = 0

    async def publish(self, message: OutgoingMessage, **options: Any) -> Receipt:
        await asyncio.sleep(0.01)
        self.sent += 1
        if self.sent > 1:
            raise PublishError("not stored", {"nth": self.sent})
        return await super().publish(message, **options)


async def test_publishers_whose_events_left_together_get_an_error_each() -> None:
    clock = running_clock()
    async with PolarisMessageBus(RefusingBroker(clock=clock), clock=clock) as bus:
        outcomes = await asyncio.gather(
            *(bus.publish_telemetry(telemetry(number)) for number in range(4)), return_exceptions=True
        )
    errors = [outcome for outcome in outcomes if isinstance(outcome, PublishError)]
    assert len(errors) == 3
    assert len({id(error) for error in errors}) == 3
    assert len({str(error.to_dict()) for error in errors}) == 1


def kept_errors(source: str) -> list[int]:
    """The lines on which an error is made once for all calls, or raised from where it is kept."""
    tree = ast.parse(source)
    kept: list[int] = []
    bodies = [tree.body, *(node.body for node in ast.walk(tree) if isinstance(node, ast.ClassDef))]
    for statement in (statement for body in bodies for statement in body):
        value = getattr(statement, "value", None)
        if isinstance(value, ast.Call) and ast.unparse(value.func).endswith(("Error", "Exception")):
            kept.append(statement.lineno)
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and isinstance(node.exc, (ast.Attribute, ast.Subscript)):
            name = ast.unparse(node.exc)
            if name.startswith(("self.", "cls.")):
                kept.append(node.lineno)
    return kept


def test_no_error_is_kept_to_be_raised_again() -> None:
    kept = {
        str(path.relative_to(SOURCE)): lines
        for path in sorted(SOURCE.rglob("*.py"))
        if (lines := kept_errors(path.read_text()))
    }
    assert kept == {}


@pytest.mark.parametrize(
    "source",
    [
        "FULL = PublishError('full')",
        "FULL: PublishError = errors.PublishError('full')",
        "class A:\n    full = PublishError('full')",
        "class A:\n    def f(self):\n        raise self._failure",
        "class A:\n    def f(self):\n        raise self._failures[0] from None",
    ],
)
def test_the_search_for_kept_errors_finds_one(source: str) -> None:
    assert len(kept_errors(source)) == 1


def test_the_search_for_kept_errors_takes_no_other_for_one() -> None:
    assert kept_errors("class A:\n    kind = PublishError\n    def f(self):\n        raise self.kind_of('x')") == []
