"""Repeats publishing or handling where that may help."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from polaris.exceptions import InvalidValueError, RetryExhaustedError, UnconfirmedPublishError
from polaris.messaging._chain import MessageMiddleware, NextHandler
from polaris.messaging._context import MessageContext, MessageDirection
from polaris.messaging.middleware._policies import direction_of, operation_of
from polaris.resilience import RetryPolicy

_PUBLISH = MessageDirection.PUBLISH


class RetryMiddleware(MessageMiddleware):
    """Runs what stands inside it under a `RetryPolicy`: attempts without a new delivery, or beyond those of the bus.

    When the policy gives up, the last error is raised as it is, not `RetryExhaustedError`, which may not be retried: so
    the publisher learns what became of the event, and the bus delivers the message again as that error says. A publish
    that any attempt may have stored, or that the policy's time limit cut off, ends as `UnconfirmedPublishError`,
    whatever became of the last attempt. Each publish tries for its `timeout_s` anyway; more attempts multiply that.

    On delivery, a message that is tried again holds its place, and its handler's time limit covers all attempts. A
    handler must take being called twice, which the bus may do at any rate.

    Args:
        policy: decides which errors, how often and how soon.
        direction: None acts on both.
    """

    order: ClassVar[int | None] = 60
    order_reason: ClassVar[str] = "each attempt asks breaker and limiter anew, and what they ask for is waited for"

    def __init__(self, policy: RetryPolicy, *, direction: MessageDirection | None = None) -> None:
        if not isinstance(policy, RetryPolicy):
            raise InvalidValueError("policy", "a RetryPolicy", policy)
        self._policy = policy
        self._directions = direction_of(direction)

    async def process(self, context: MessageContext, next_handler: NextHandler) -> Any:
        if context.direction not in self._directions:
            return await next_handler(context)
        attempts = _Attempts(context, next_handler)
        try:
            return await self._policy.execute(attempts.run, operation_of(context))
        except Exception as error:  # boundary: whatever ended it, what became of the message is told
            verdict = attempts.verdict(error)
            if verdict is error:
                raise
        # Outside the handler: its own causes stay what they were.
        raise verdict


class _Attempts:
    """The attempts for one message, and what is to be said of them at the end."""

    def __init__(self, context: MessageContext, next_handler: NextHandler) -> None:
        self._context = context
        self._next_handler = next_handler
        self._last: Exception | None = None
        self._doubt: UnconfirmedPublishError | None = None
        self._cut_off = False

    async def run(self) -> Any:
        self._context.result = self._last = None
        try:
            return await self._next_handler(self._context)
        except asyncio.CancelledError:
            self._cut_off = True
            raise
        except Exception as error:  # boundary: noted, and raised again
            self._last = error
            if isinstance(error, UnconfirmedPublishError):
                self._doubt = error
            raise

    def verdict(self, error: Exception) -> Exception:
        """What to raise where the last attempt, or the policy after it, raised `error`."""
        if self._context.direction is _PUBLISH:
            if self._doubt is not None:
                return self._doubt
            if self._cut_off:
                topic = self._context.topic
                message = f"the time for publishing on {topic!r} was up"
                return UnconfirmedPublishError(message, {"topic": topic}, cause=error)
        if (
            isinstance(error, RetryExhaustedError)
            and error is not self._last
            and isinstance(error.__cause__, Exception)
        ):
            return error.__cause__
        return error
