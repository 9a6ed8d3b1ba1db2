"""The events that travel on the bus."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import repeat
from math import isfinite
from typing import Annotated, Any

import msgspec
from msgspec.structs import force_setattr

from polaris._correlation import _correlation_id as correlation_variable
from polaris.domain._actions import AdaptationAction, ExecutionResult
from polaris.domain._checks import METRICS_MAX, check_id, check_text, check_tree, utc
from polaris.domain._frozen import EMPTY, FrozenDict, frozen
from polaris.domain._registry import EventKind, event_type
from polaris.domain._states import UNIT_CHARS_MAX, HealthStatus, Id, MetricValue, Quality, SystemState, Timestamp, Unit
from polaris.exceptions import InvalidValueError
from polaris.ids import new_id

SOURCE_DEFAULT = "polaris"
CORRELATION_CHARS_MAX = 256
BATCH_SAMPLES_MAX = 10_000
# Limits that the published schema tells; what enforces them are the checks of the class.
_SAMPLES = msgspec.Meta(extra_json_schema={"maxItems": BATCH_SAMPLES_MAX})
_COLUMNS = msgspec.Meta(extra_json_schema={"maxProperties": METRICS_MAX})
_STALE = Quality.STALE
# `utc_now`, without a call in Python: every event that is made asks it.
_now = partial(datetime.now, UTC)


class PolarisEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The envelope of every event. Derive from it and decorate with `event_type` to make an event of your own.

    `event_id` is unique for ever and the key of deduplication. `correlation_id` ties a causal chain together; it
    defaults to the id of the running scope. `source` names the producer, a URI reference (CloudEvents 1.0.2).

    Raises `InvalidValueError` naming the field.
    """

    event_id: Id = msgspec.field(default_factory=new_id)
    timestamp: Timestamp = msgspec.field(default_factory=_now)
    correlation_id: str | None = msgspec.field(default_factory=correlation_variable.get)
    source: Id = SOURCE_DEFAULT

    def __post_init__(self) -> None:
        event_id, timestamp = self.event_id, self.timestamp
        if not (type(event_id) is str and len(event_id) == 36 and event_id.isascii() and event_id.isprintable()):
            check_id("event_id", event_id)
        if type(timestamp) is not datetime or timestamp.tzinfo is not UTC:
            force_setattr(self, "timestamp", utc("timestamp", timestamp))
        correlation_id = self.correlation_id
        if correlation_id is not None and not (
            type(correlation_id) is str and correlation_id.isascii() and len(correlation_id) <= CORRELATION_CHARS_MAX
        ):
            check_text("correlation_id", correlation_id, chars_max=CORRELATION_CHARS_MAX)
        if self.source != SOURCE_DEFAULT:
            check_id("source", self.source)


@event_type("polaris.telemetry", kind=EventKind.TELEMETRY)
class TelemetryEvent(PolarisEvent, frozen=True, omit_defaults=True):
    """A managed system reports its state."""

    system_state: SystemState


@event_type("polaris.telemetry.batch", kind=EventKind.TELEMETRY)
class TelemetryBatch(PolarisEvent, frozen=True, omit_defaults=True):
    """Many samples of one managed system in columns: `metrics[name][i]` was read at `timestamps[i]`; None is missing.

    All columns have the length of `timestamps`, at most 10 000. `units` gives the unit of a column. What a column
    cannot express (tags, own timestamps, the quality `stale`, metadata) travels as single telemetry events instead.
    """

    system_id: Id
    timestamps: Annotated[tuple[Timestamp, ...], _SAMPLES]
    metrics: Annotated[dict[str, Annotated[tuple[float | None, ...], _SAMPLES]], _COLUMNS]
    units: dict[str, Unit] = EMPTY
    health_status: HealthStatus = HealthStatus.UNKNOWN

    def __post_init__(self) -> None:
        PolarisEvent.__post_init__(self)
        check_id("system_id", self.system_id)
        if len(self.timestamps) > BATCH_SAMPLES_MAX:
            raise InvalidValueError("timestamps", f"at most {BATCH_SAMPLES_MAX} samples", self.timestamps)
        force_setattr(self, "timestamps", tuple(utc("timestamps", stamp) for stamp in self.timestamps))
        if len(self.metrics) > METRICS_MAX:
            raise InvalidValueError(
                "metrics", f"at most {METRICS_MAX} columns (found {len(self.metrics)})", self.metrics
            )
        count = len(self.timestamps)
        force_setattr(
            self, "metrics", frozen({name: _column(name, column, count) for name, column in self.metrics.items()})
        )
        for name, unit in self.units.items():
            check_text(f"units.{name}", unit, chars_max=UNIT_CHARS_MAX)
        force_setattr(self, "units", frozen(self.units))

    def states(self) -> Iterator[SystemState]:
        """The samples as states, in the order of `timestamps`."""
        names = tuple(self.metrics)
        units = tuple(self.units.get(name) for name in names)
        rows: Iterable[tuple[float | None, ...]] = zip(*self.metrics.values(), strict=True) if names else repeat(())
        for stamp, row in zip(self.timestamps, rows, strict=False):
            readings = FrozenDict(zip(names, map(MetricValue, names, row, units), strict=True))
            yield SystemState(self.system_id, stamp, readings, self.health_status)

    @classmethod
    def from_states(cls, states: Sequence[SystemState], **envelope: Any) -> TelemetryBatch:
        """One batch of numeric states of one system. Raises `InvalidValueError` when columns cannot express them."""
        if not states:
            raise InvalidValueError("states", "at least one state", states)
        first = states[0]
        columns: dict[str, list[float | None]] = {}
        units: dict[str, str] = {}
        for index, state in enumerate(states):
            if state.system_id != first.system_id or state.health_status is not first.health_status or state.metadata:
                raise InvalidValueError("states", "states of one system and one health, without metadata", state)
            for name, metric in state.metrics.items():
                column = columns.get(name)
                if column is None:
                    column = columns[name] = [None] * len(states)
                column[index] = _plain_value(name, metric)
                if metric.unit is not None:
                    units[name] = metric.unit
        return cls(
            first.system_id,
            tuple([state.timestamp for state in states]),
            {name: tuple(column) for name, column in columns.items()},
            units,
            first.health_status,
            **envelope,
        )


_FLOATS = frozenset({float})
_COLUMN_TYPES = frozenset({float, type(None)})


def _column(name: str, column: Sequence[float | None], count: int) -> tuple[float | None, ...]:
    """One column as it is kept: finite floats and None. What is none is refused: None says what is missing."""
    check_id("metrics", name)
    if len(column) != count:
        raise InvalidValueError(f"metrics.{name}", f"{count} values, one a timestamp", column)
    types = set(map(type, column))
    # Of finite numbers the sum is finite too, unless they are huge.
    if types <= _COLUMN_TYPES and isfinite(sum(column if types == _FLOATS else filter(None, column))):  # type: ignore[arg-type]
        return tuple(column)
    return tuple([None if value is None else _finite(name, value) for value in column])


def _finite(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidValueError(f"metrics.{name}", "numbers and None", value)
    try:
        number = float(value)
    except OverflowError as error:
        raise InvalidValueError(f"metrics.{name}", "numbers that a float can express", value) from error
    if not isfinite(number):
        raise InvalidValueError(f"metrics.{name}", "finite numbers and None", value)
    return number


def _plain_value(name: str, metric: MetricValue) -> float | None:
    """The value of a reading that a column can express. Raises `InvalidValueError` for any other."""
    value = metric.value
    if (
        (value is None or isinstance(value, float))
        and metric.name == name
        and not metric.tags
        and metric.timestamp is None
        and metric.quality is not _STALE
    ):
        return value if value is None or type(value) is float else float(value)
    raise InvalidValueError(f"metrics.{name}", "a plain float reading", metric)


@event_type("polaris.adaptation")
class AdaptationEvent(PolarisEvent, frozen=True, omit_defaults=True):
    """A controller asks for a change."""

    action: AdaptationAction


@event_type("polaris.execution")
class ExecutionResultEvent(PolarisEvent, frozen=True, omit_defaults=True):
    """What came of an action."""

    result: ExecutionResult


@event_type("polaris.health")
class HealthEvent(PolarisEvent, frozen=True, omit_defaults=True):
    """A component's health changed."""

    component: Id
    status: HealthStatus
    message: str = ""


@event_type("polaris.config.changed")
class ConfigChangedEvent(PolarisEvent, frozen=True, omit_defaults=True):
    """Configuration values changed: dotted key to new value; secrets never travel."""

    changes: dict[str, Any] = EMPTY

    def __post_init__(self) -> None:
        PolarisEvent.__post_init__(self)
        check_tree("changes", self.changes)
        force_setattr(self, "changes", frozen(self.changes))
