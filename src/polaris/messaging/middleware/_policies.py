"""What the middlewares on policies of `polaris.resilience` share: which direction, and whose policy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from polaris.exceptions import InvalidValueError
from polaris.messaging._context import MessageContext, MessageDirection
from polaris.messaging._subjects import topic_pattern

PolicyT = TypeVar("PolicyT")

POLICIES_MAX = 1_024
"""Policies that one middleware keeps, each for a subscription or topic pattern."""


def direction_of(direction: object) -> tuple[MessageDirection, ...]:
    """The directions in which to act: the one given, both for None."""
    if direction is None:
        return tuple(MessageDirection)
    if not isinstance(direction, MessageDirection):
        raise InvalidValueError("direction", "a MessageDirection, or None for both", direction)
    return (direction,)


def operation_of(context: MessageContext) -> str:
    """The name of the operation for metrics and errors, of which there are few: "publish polaris.telemetry.*"."""
    return f"{context.direction.value} {topic_pattern(context.topic)}"


class PolicyChoice(Generic[PolicyT]):
    """One policy for all messages, or one for each subscription and each topic pattern that is published on.

    Of those, the least recently used goes, with its state, when there are more than 1 024.
    """

    def __init__(self, name: str, kind: type[PolicyT], given: PolicyT | Callable[[str], PolicyT]) -> None:
        self._kind = kind
        self._name = name
        self._one: PolicyT | None = None
        self._make: Callable[[str], PolicyT] | None = None
        if isinstance(given, kind):
            self._one = given
        elif callable(given) and not isinstance(given, type):
            self._make = given
        else:
            raise InvalidValueError(name, f"a {kind.__name__}, or a function from a name to one", given)
        self._made: dict[str, PolicyT] = {}

    def of(self, context: MessageContext) -> PolicyT:
        """The policy for a message; its maker is called with the subscription's name or the topic pattern."""
        if self._one is not None:
            return self._one
        key = context.subscription or topic_pattern(context.topic)
        policy = self._made.pop(key, None)
        if policy is None:
            policy = self._new(key)
        self._made[key] = policy
        while len(self._made) > POLICIES_MAX:
            del self._made[next(iter(self._made))]
        return policy

    def _new(self, key: str) -> PolicyT:
        made = None if self._make is None else self._make(key)
        if not isinstance(made, self._kind):
            raise InvalidValueError(self._name, f"a function that gives a {self._kind.__name__}", made)
        return made
