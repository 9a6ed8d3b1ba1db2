"""Refuses events that contradict their topic or a rule of the application."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ClassVar

from polaris.domain import AdaptationEvent, HealthEvent, PolarisEvent, TelemetryBatch, TelemetryEvent
from polaris.exceptions import InvalidValueError
from polaris.messaging._chain import MessageMiddleware, NextHandler
from polaris.messaging._context import MessageContext
from polaris.messaging._subjects import ADAPTATION_PREFIX, HEALTH_PREFIX, TELEMETRY_PREFIX, topic_of

_PREFIX: dict[type[PolarisEvent], str] = {
    TelemetryEvent: TELEMETRY_PREFIX,
    TelemetryBatch: TELEMETRY_PREFIX,
    AdaptationEvent: ADAPTATION_PREFIX,
    HealthEvent: HEALTH_PREFIX,
}

Check = Callable[[MessageContext, PolarisEvent], None]


def check_topic_agrees(context: MessageContext, event: PolarisEvent) -> None:
    """Refuse an event on the topic of another system: nobody speaks for a system but on its own topic."""
    prefix = _PREFIX.get(type(event))
    if prefix is not None and context.topic.startswith(prefix) and context.topic != topic_of(event):
        raise InvalidValueError("topic", f"the event's own topic {topic_of(event)!r}", context.topic)


class ValidationMiddleware(MessageMiddleware):
    """Runs checks on every event: on publish a refusal reaches the publisher, on delivery it makes a dead letter.

    A check is a function of the context and one event that raises `InvalidValueError` (or another `PolarisException`).
    Types and bounds of fields are checked when events are made and decoded; the checks here are for what only the
    application knows. The one that is always there: the event belongs on its topic (`check_topic_agrees`).
    """

    order: ClassVar[int | None] = 40
    order_reason: ClassVar[str] = "nothing is spent on an event that will be refused, nor is it remembered as handled"

    def __init__(self, *checks: Check) -> None:
        for check in checks:
            if not callable(check) or inspect.iscoroutinefunction(check):
                raise InvalidValueError("checks", "functions of a context and an event, not async", check)
        self._checks = (check_topic_agrees, *checks)

    async def process(self, context: MessageContext, next_handler: NextHandler) -> Any:
        for event in context.events:
            for check in self._checks:
                check(context, event)
        return await next_handler(context)
