"""The registry that gives each event type its name and version on the wire, and the way from older versions."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from polaris.domain._versions import SCHEMA_PREFIX, OlderVersion, Upcaster
from polaris.exceptions import ConfigurationError, InvalidValueError, UnknownEventTypeError

if TYPE_CHECKING:
    from polaris.domain._events import PolarisEvent

E = TypeVar("E", bound="PolarisEvent")

EVENT_TYPE_NAME = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)+")
VERSION_MAX = 999_999


class EventKind(enum.StrEnum):
    """What losing an event means; the bus chooses by it where it must choose."""

    CONTROL = "control"
    """Every single one counts: it is never dropped for another, and who publishes it learns what became of it."""
    TELEMETRY = "telemetry"
    """A reading of the present: when there is no room for all, the newest are worth most."""


class EventType(msgspec.Struct, frozen=True):
    """The name and version under which an event class travels, and its kind."""

    name: str
    version: int
    event_class: type[PolarisEvent]
    kind: EventKind = EventKind.CONTROL

    @property
    def schema_uri(self) -> str:
        """The `dataschema` of the event on the wire; it carries the version."""
        return f"{SCHEMA_PREFIX}{self.name}:{self.version}"


class EventRegistry:
    """Names to event classes and back. Registering the same pair twice is harmless; a clash is refused.

    A name has one class, that of the current version. Data of older versions come to it through the functions given to
    `upcast`; data of newer ones are read as they are, and their unknown fields are read over.
    """

    def __init__(self, *, parent: EventRegistry | None = None) -> None:
        self._parent = parent
        self._by_name: dict[str, EventType] = {}
        self._by_class: dict[type[PolarisEvent], EventType] = {}
        self._older: dict[tuple[str, int], OlderVersion] = {}

    def register(
        self,
        event_class: type[PolarisEvent],
        name: str,
        *,
        version: int = 1,
        kind: EventKind = EventKind.CONTROL,
    ) -> EventType:
        """Let `event_class` travel as `name`, a dotted lower-case name such as `acme.order.shipped`.

        Raises `ConfigurationError` when the name or the class is taken by another; nothing is registered then.
        """
        _check_name(name)
        _check_version("version", version)
        entry = EventType(name, version, event_class, EventKind(kind))
        for known in (self.find(name), self._by_class.get(event_class)):
            if known is not None and known != entry:
                message = f"event type {name!r} for {event_class.__qualname__} clashes with {known.name!r} for "
                raise ConfigurationError(message + known.event_class.__qualname__)
        self._by_name[name] = entry
        self._by_class[event_class] = entry
        return entry

    def find(self, name: str) -> EventType | None:
        """The entry of that name, or None."""
        found = self._by_name.get(name)
        return found if found is not None or self._parent is None else self._parent.find(name)

    def require(self, event_class: type[PolarisEvent]) -> EventType:
        """The entry of that class. Raises `UnknownEventTypeError` when it was never registered."""
        found = self._by_class.get(event_class)
        if found is not None:
            return found
        if self._parent is not None:
            return self._parent.require(event_class)
        raise UnknownEventTypeError(
            f"{event_class.__qualname__} is not a registered event type; decorate it with @event_type('...')",
            {"class": event_class.__qualname__},
        )

    def upcast(self, name: str, from_version: int, function: Upcaster, *, data_type: type[Any] | None = None) -> None:
        """Let `function` turn the data of `from_version` into those of the next version, before they are decoded.

        It gets a dictionary of its own, the `data` of the event as JSON gives them, which it may change, and returns
        the next version's. Functions chain: from version 1 to 3 takes one for 1 and one for 2. One that raises, or
        whose outcome does not fit, makes the message undecodable, nothing worse. It runs in the event loop, once a
        decoding, so it must be quick and free of side effects.

        `data_type`, a msgspec struct or anything else that msgspec decodes into, describes the data of `from_version`:
        they are checked against it before the function gets them, and its schema is published.

        The type itself may be registered before or after. The same pair twice is harmless; raises `ConfigurationError`
        for another function for the same version, or a version that is not older than the type's.
        """
        _check_name(name)
        _check_version("from_version", from_version)
        step = OlderVersion(name, from_version, function, data_type)
        known = self.find(name)
        if known is not None and known.version <= from_version:
            raise ConfigurationError(f"{name!r} is at version {known.version}; nothing leads on from {from_version}")
        if (self.older(name, from_version) or step) != step:
            raise ConfigurationError(f"{name!r} has another function for the data of version {from_version}")
        self._older[name, from_version] = step

    def older(self, name: str, version: int) -> OlderVersion | None:
        """What leads on from that version of the name, or None."""
        found = self._older.get((name, version))
        return found if found is not None or self._parent is None else self._parent.older(name, version)

    def older_versions(self, name: str) -> tuple[OlderVersion, ...]:
        """All that lead on from an older version of the name, the oldest first."""
        mine = {version: step for (of, version), step in self._older.items() if of == name}
        if self._parent is not None:
            mine = {**{step.version: step for step in self._parent.older_versions(name)}, **mine}
        return tuple(mine[version] for version in sorted(mine))

    def path(self, entry: EventType, version: int) -> tuple[OlderVersion, ...]:
        """The steps from the data of `version` to those of the current version; none when there is nothing to do.

        Raises `UnknownEventTypeError` when one of them is missing.
        """
        steps: list[OlderVersion] = []
        for number in range(version, entry.version):
            step = self.older(entry.name, number)
            if step is None:
                raise UnknownEventTypeError(
                    f"{entry.name!r} of version {version} cannot be read: the current version is {entry.version}, and "
                    f"no upcaster leads on from {number}",
                    {"type": entry.name, "version": version, "current": entry.version, "missing": number},
                )
            steps.append(step)
        return tuple(steps)

    def __iter__(self) -> Iterator[EventType]:
        """All entries, the parent's first."""
        if self._parent is not None:
            yield from self._parent
        yield from self._by_name.values()


def _check_name(name: str) -> None:
    if not isinstance(name, str) or not EVENT_TYPE_NAME.fullmatch(name) or len(name) > 128:
        raise InvalidValueError("name", "a dotted lower-case name of at most 128 characters", name)


def _check_version(field: str, version: int) -> None:
    if type(version) is not int or not 1 <= version <= VERSION_MAX:
        raise InvalidValueError(field, f"an integer from 1 to {VERSION_MAX}", version)


EVENTS = EventRegistry()
"""The default registry: the events of POLARIS and everything decorated with `event_type`."""


def event_type(
    name: str, *, version: int = 1, kind: EventKind = EventKind.CONTROL, registry: EventRegistry | None = None
) -> Callable[[type[E]], type[E]]:
    """Class decorator: register an event class under its name and version on the wire, with its kind."""

    def register(event_class: type[E]) -> type[E]:
        (EVENTS if registry is None else registry).register(event_class, name, version=version, kind=kind)
        return event_class

    return register
