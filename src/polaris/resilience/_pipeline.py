"""Several policies as one, built once."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Self, TypeVar

from polaris.resilience._breaker import CircuitBreaker
from polaris.resilience._bulkhead import Bulkhead
from polaris.resilience._chaos import Chaos
from polaris.resilience._durations import Duration
from polaris.resilience._fallback import Fallback
from polaris.resilience._hedge import Hedge
from polaris.resilience._rate_limiter import RateLimiter
from polaris.resilience._retry import RetryPolicy
from polaris.resilience._step import Operation, Policy, PolicyStep, Step, invoke
from polaris.resilience._throttle import AdaptiveThrottle
from polaris.resilience._timeout import Timeout

T = TypeVar("T")


class Pipeline:
    """Runs operations under several policies, nested in the order that fits nearly always.

        pipeline = Pipeline(deadline=5.0, retry=RetryPolicy(), breaker=CircuitBreaker("db"), attempt_timeout=1.0)
        row = await pipeline.execute(lambda: store.get_document("rules", "r1"), "load rule")

    The order, outermost first, is fallback, deadline, retry, hedge, breaker, rate_limiter, bulkhead, attempt_timeout,
    chaos: the deadline bounds all attempts and waits together; each attempt asks the breaker, so an open breaker ends
    the attempt before it takes a permit; a rejection by rate limiter or bulkhead is seen, but not counted, by the
    breaker; time spent waiting for a permit does not count against the attempt's limit; hedged calls are admitted one
    by one. `Pipeline.in_order` nests in another order. Every attempt passes every policy inside the retry: nothing
    bypasses admission.

    The policies keep their own state and may be shared between pipelines. A pipeline has none, may be used by many
    tasks at once, and is itself a policy.
    """

    def __init__(
        self,
        *,
        name: str = "",
        fallback: Fallback | None = None,
        deadline: Timeout | Duration | None = None,
        retry: RetryPolicy | None = None,
        hedge: Hedge | None = None,
        breaker: CircuitBreaker | None = None,
        rate_limiter: RateLimiter | AdaptiveThrottle | None = None,
        bulkhead: Bulkhead | None = None,
        attempt_timeout: Timeout | Duration | None = None,
        chaos: Chaos | None = None,
    ) -> None:
        """Compose the given policies; `deadline` and `attempt_timeout` also take seconds or a timedelta."""
        chosen: tuple[Policy | None, ...] = (
            fallback,
            _limit(deadline),
            retry,
            hedge,
            breaker,
            rate_limiter,
            bulkhead,
            _limit(attempt_timeout),
            chaos,
        )
        self._compose(name, tuple(policy for policy in chosen if policy is not None))

    @classmethod
    def in_order(cls, *policies: Policy, name: str = "") -> Self:
        """A pipeline of any policies, nested exactly as given, outermost first."""
        pipeline = cls.__new__(cls)
        pipeline._compose(name, policies)  # noqa: SLF001 # of the same class
        return pipeline

    def execute(self, func: Operation[T], operation_name: str = "") -> Coroutine[Any, Any, T]:
        """Run `func` under all policies and return its result."""
        return self._run(func, operation_name or self.name)

    def bind(self, inner: Step, /) -> PolicyStep:
        """The whole pipeline round `inner`; see `Policy`."""
        step = inner
        for policy in reversed(self.policies):
            step = policy.bind(step)
        if not self.policies:
            return _await_only(inner)
        return step  # type: ignore[return-value] # the outermost policy made it

    def _compose(self, name: str, policies: tuple[Policy, ...]) -> None:
        self.name = name
        self.policies = policies
        """Outermost first."""
        self._run = self.bind(invoke)


def _limit(limit: Timeout | Duration | None) -> Timeout | None:
    return limit if limit is None or isinstance(limit, Timeout) else Timeout(limit)


def _await_only(inner: Step) -> PolicyStep:
    async def run(func: Operation[Any], operation: str) -> Any:
        return await inner(func, operation)

    return run
