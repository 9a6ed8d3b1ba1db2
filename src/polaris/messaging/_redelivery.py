"""When a message whose handler failed comes again, and when it is put aside."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import msgspec

from polaris.exceptions import (
    BulkheadError,
    CircuitBreakerError,
    InvalidValueError,
    PolarisException,
    RateLimitExceededError,
)
from polaris.messaging._guard import ProbeFailed
from polaris.resilience import Backoff

DELIVERIES_PER_FAILURE = 4


def is_rejection(error: BaseException) -> bool:
    """Whether nothing was learnt about the message: a policy on this side turned it away, or it was a probe."""
    return isinstance(error, (BulkheadError, CircuitBreakerError, RateLimitExceededError, ProbeFailed))


class RedeliveryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Delayed redelivery with exponential backoff and full jitter (Brooker 2015), then the dead letters.

    `max_deliveries`: how often the handler may fail on one message before it is put aside. A delivery that ended
    otherwise (the subscription was stopped, the connection was lost, the process died) is not held against the message,
    until it was delivered four times that often. Failures are counted by each process for itself, so members of a group
    may see a message more often together, within the same bound.

    The delay after failure n is drawn between `jitter` times and once `min(max_delay_s, base_delay_s *
    multiplier**(n-1))`: jitter comes after the clamp, so that its spread does not vanish at the cap. An error that
    carries `retry_after` (seconds) is not tried again before that. A rejection by a policy on this side (a breaker, a
    bulkhead, a rate limiter) is no failure of the message: it is not counted, within the bound on deliveries.
    """

    max_deliveries: int = 5
    base_delay_s: float = 0.5
    max_delay_s: float = 60.0
    multiplier: float = 2.0
    jitter: float = 0.5

    def __post_init__(self) -> None:
        if self.max_deliveries < 1:
            raise InvalidValueError("max_deliveries", "an integer of at least 1", self.max_deliveries)
        if not 0 <= self.base_delay_s <= self.max_delay_s < math.inf:
            raise InvalidValueError("base_delay_s", "seconds from 0 to max_delay_s", self.base_delay_s)
        if not 1 <= self.multiplier < math.inf:
            raise InvalidValueError("multiplier", "a number of at least 1", self.multiplier)
        if not 0 <= self.jitter <= 1:
            raise InvalidValueError("jitter", "a number from 0 to 1", self.jitter)

    @property
    def deliveries_max(self) -> int:
        """After this many deliveries a message is put aside, whatever they ended by."""
        return DELIVERIES_PER_FAILURE * self.max_deliveries

    def delay_s(
        self, failures: int, error: BaseException | None = None, *, draw: Callable[[], float] = random.random
    ) -> float:
        """How long to wait after the failure number `failures`."""
        ceiling_s = Backoff(self.base_delay_s, self.max_delay_s, multiplier=self.multiplier).ceiling_s(failures)
        delay_s = ceiling_s * (self.jitter + (1 - self.jitter) * draw())
        retry_after = getattr(error, "retry_after", None)
        if isinstance(retry_after, (int, float)) and not isinstance(retry_after, bool) and 0 < retry_after < math.inf:
            delay_s = max(delay_s, float(retry_after))
        return delay_s

    def gives_up(self, failures: int, attempt: int, error: BaseException) -> bool:
        """Whether the failure number `failures`, at the delivery number `attempt`, was the last one."""
        if isinstance(error, PolarisException) and error.retryable is False:
            return True
        return failures >= self.max_deliveries or attempt >= self.deliveries_max
