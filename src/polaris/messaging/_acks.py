"""Which ack policy a subscription gets: the one it asks for, or what the bus says for the kind of its events."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from polaris.domain import EventKind, EventRegistry, PolarisEvent
from polaris.exceptions import ConfigurationError, InvalidValueError, SubscriptionError
from polaris.messaging._broker import AckPolicy, DeliveryClass
from polaris.messaging._subscription import SubscriptionOptions


class AckPolicies:
    """The ack policy for each kind of events; `AckPolicy.EACH` for a kind that is not mentioned.

    Raises `ConfigurationError` for what is no kind or policy, and for `AckPolicy.NONE` for control events: none of them
    is lost because nobody said anything.
    """

    def __init__(self, by_kind: Mapping[EventKind, AckPolicy] | None, registry: EventRegistry) -> None:
        self._by_kind = dict.fromkeys(EventKind, AckPolicy.EACH)
        self._registry = registry
        for kind, policy in (by_kind or {}).items():
            if not isinstance(kind, EventKind) or not isinstance(policy, AckPolicy):
                raise ConfigurationError(f"ack_policies: {kind!r}: {policy!r} is not of EventKind: AckPolicy")
            self._by_kind[kind] = policy
        if self._by_kind[EventKind.CONTROL] is AckPolicy.NONE:
            raise ConfigurationError(
                "ack_policies: control events are never lost silently; a subscription may ask for AckPolicy.NONE itself"
            )

    def wish(self, asked: AckPolicy | None, types: Iterable[type[PolarisEvent]]) -> AckWish:
        """What a subscription to events of these types wants that asked for `asked`."""
        if asked is None:
            return AckWish(self._by_kind[self._kind(types)], explicit=False)
        if not isinstance(asked, AckPolicy):
            raise InvalidValueError("ack", "an AckPolicy or None", asked)
        return AckWish(asked, explicit=True)

    def _kind(self, types: Iterable[type[PolarisEvent]]) -> EventKind:
        """Telemetry, if nothing else can come."""
        for wanted in types:
            kinds = {entry.kind for entry in self._registry if issubclass(entry.event_class, wanted)}
            if kinds != {EventKind.TELEMETRY}:
                return EventKind.CONTROL
        return EventKind.TELEMETRY


class AckWish(NamedTuple):
    """The policy that a subscription is to have."""

    policy: AckPolicy
    explicit: bool
    """Whether it was asked for, so that another one will not do."""

    def granted(
        self, options: SubscriptionOptions, *, core: bool, group: str | None, delivery: DeliveryClass | None
    ) -> AckPolicy:
        """The policy itself, or `AckPolicy.EACH` in its place. Raises `SubscriptionError` when that will not do."""
        obstacle = self._obstacle(options, core, group, delivery)
        if obstacle is None:
            return self.policy
        if self.explicit:
            raise SubscriptionError(f"the ack policy {self.policy.value!r} cannot be had: {obstacle}")
        return AckPolicy.EACH

    def _obstacle(
        self, options: SubscriptionOptions, core: bool, group: str | None, delivery: DeliveryClass | None
    ) -> str | None:
        if core:
            return "nothing of a core subscription is acknowledged"
        if self.policy is AckPolicy.NONE and delivery is DeliveryClass.AT_LEAST_ONCE:
            return "what is not acknowledged is delivered at most once"
        if self.policy is not AckPolicy.ALL:
            return None
        if group is not None:
            return "the members of a group share a position, and one would settle what others have"
        if options.concurrency > 1:
            return "of handlers that run at once, one would settle what others have"
        if options.ordered_by is not None:
            return "everything is in order as it is"
        if options.conflate:
            return "what is passed over cannot be settled before what came earlier"
        return None
