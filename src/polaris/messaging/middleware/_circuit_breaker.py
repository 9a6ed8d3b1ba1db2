"""A circuit breaker round publishing or handling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from polaris.messaging._chain import MessageMiddleware, NextHandler
from polaris.messaging._context import MessageContext, MessageDirection
from polaris.messaging.middleware._policies import PolicyChoice, direction_of, operation_of
from polaris.resilience import CircuitBreaker


class CircuitBreakerMiddleware(MessageMiddleware):
    """Rejects messages while what they need is known to fail: `CircuitBreakerOpenException`, with `retry_after`.

    A publish that is rejected was not sent. A delivery that is rejected was not handled and comes again, not before
    `retry_after`; as every delivery counts, a long outage ends in dead letters. Where messages are to wait for it
    instead, give the breaker to `subscribe(breaker=...)`.

    Args:
        breaker: one for all messages that pass; or a function that makes one for each subscription and each topic
            pattern published on, by its name, so that one failing handler does not stop the others.
        direction: None acts on both. A breaker should watch one thing: the way out or what handlers depend on.
    """

    order: ClassVar[int | None] = 70
    order_reason: ClassVar[str] = "a rejected message takes no turn of the limiter"

    def __init__(
        self,
        breaker: CircuitBreaker | Callable[[str], CircuitBreaker],
        *,
        direction: MessageDirection | None = None,
    ) -> None:
        self._directions = direction_of(direction)
        self._breakers = PolicyChoice("breaker", CircuitBreaker, breaker)

    async def process(self, context: MessageContext, next_handler: NextHandler) -> Any:
        if context.direction not in self._directions:
            return await next_handler(context)
        breaker = self._breakers.of(context)
        return await breaker.execute(lambda: next_handler(context), operation_of(context))
