"""A rate limiter round publishing or handling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from polaris.messaging._chain import MessageMiddleware, NextHandler
from polaris.messaging._context import MessageContext, MessageDirection
from polaris.messaging.middleware._policies import PolicyChoice, direction_of, operation_of
from polaris.resilience import RateLimiter


class RateLimitMiddleware(MessageMiddleware):
    """Lets messages pass at the rate of a limiter; a batch is one message.

    With `max_queued_calls`, a message waits for its turn: a publisher is slowed down, a subscription takes less from
    the broker. One that may not wait is rejected, `RateLimitExceededError` with `retry_after`: a publish was not sent;
    a delivery comes again, not before that, and counts. So a limiter on deliveries wants a queue at least as long as
    the handlers that run at once.

    Args:
        limiter: one for all messages that pass; or a function that makes one for each subscription and each topic
            pattern published on, by its name.
        direction: None acts on both, whose messages then share the turns.
    """

    order: ClassVar[int | None] = 80

    def __init__(
        self, limiter: RateLimiter | Callable[[str], RateLimiter], *, direction: MessageDirection | None = None
    ) -> None:
        self._directions = direction_of(direction)
        self._limiters = PolicyChoice("limiter", RateLimiter, limiter)

    async def process(self, context: MessageContext, next_handler: NextHandler) -> Any:
        if context.direction not in self._directions:
            return await next_handler(context)
        limiter = self._limiters.of(context)
        return await limiter.execute(lambda: next_handler(context), operation_of(context))
