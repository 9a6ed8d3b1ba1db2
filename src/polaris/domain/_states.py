"""What a managed system reports about itself: readings with their quality, and the state they make up."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from msgspec.structs import force_setattr

from polaris.domain._checks import (
    ID_CHARS_MAX,
    INTEGER_MAX,
    METRICS_MAX,
    NAME_CHARS_MAX,
    TAGS_MAX,
    TEXT_CHARS_MAX,
    check_id,
    check_text,
    check_tree,
    utc,
)
from polaris.domain._frozen import EMPTY, FrozenDict, frozen
from polaris.exceptions import InvalidValueError

Timestamp = Annotated[datetime, msgspec.Meta(tz=True)]
Id = Annotated[
    str,
    msgspec.Meta(
        min_length=1,
        max_length=256,
        extra_json_schema={"not": {"pattern": r"[\u0000-\u001f\u007f-\u009f]"}},
    ),
]
MetricScalar = bool | int | float | str | None

UNIT_CHARS_MAX = 64

# Limits that the published schema tells; what enforces them are the checks below.
_Text = Annotated[str, msgspec.Meta(extra_json_schema={"maxLength": TEXT_CHARS_MAX})]
_Tag = Annotated[str, msgspec.Meta(extra_json_schema={"maxLength": NAME_CHARS_MAX})]
Unit = Annotated[str, msgspec.Meta(extra_json_schema={"maxLength": UNIT_CHARS_MAX})]
Tags = Annotated[dict[str, _Tag], msgspec.Meta(extra_json_schema={"maxProperties": TAGS_MAX})]

_FLOAT_MAX = 1.7976931348623157e308
_UNITS_KNOWN_MAX = 4_096
# The unit with which a name of a reading was last checked and found good.
_units_known: dict[str, str | None] = {}


class HealthStatus(enum.StrEnum):
    """How a managed system or a component is doing; `unknown` is the honest answer when nobody measured."""

    HEALTHY = "healthy"
    WARNING = "warning"
    CRITICAL = "critical"
    UNHEALTHY = "unhealthy"
    UNKNOWN = "unknown"


class Quality(enum.StrEnum):
    """What a reading is worth: measured now (ok), carried over from earlier (stale), or not there (missing)."""

    OK = "ok"
    STALE = "stale"
    MISSING = "missing"


_OK = Quality.OK


class MetricValue(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One reading. Missing is not zero: a reading that could not be taken has the value None and the quality `missing`.

    `value`: a finite float, a 64-bit integer, a bool, a string of at most 8 192 characters, or None. NaN and infinities
    are kept as missing. `unit`: a UCUM or Prometheus unit such as `s`, `By`, `1` (ratio), `1/s`; None when unknown.
    `timestamp`: when it was read, timezone-aware; None means the timestamp of the state it belongs to. `tags`: at most
    64 string pairs that set readings of one name apart. Times are kept as UTC.

    Raises `InvalidValueError` naming the field.
    """

    name: Id
    value: bool | int | float | _Text | None = None
    unit: Unit | None = None
    timestamp: Timestamp | None = None
    tags: Tags = EMPTY
    quality: Quality = Quality.OK

    def __post_init__(self) -> None:
        # Decoding runs this for each reading. Nearly all are plain, and their name came with this unit before: a few
        # comparisons settle those. What is not finite differs from 0.0 when it is taken from itself.
        value, name = self.value, self.name
        try:
            if (
                type(value) is float
                and value - value == 0.0
                and self.timestamp is None
                and self.tags is EMPTY
                and self.quality is _OK
                and _units_known[name] == self.unit
            ):
                return
        except (KeyError, TypeError):  # it was never seen, or is nothing that could be
            pass
        self._check()
        if type(name) is str:
            if len(_units_known) >= _UNITS_KNOWN_MAX:
                _units_known.clear()
            _units_known[name] = self.unit

    def _check(self) -> None:
        check_id("name", self.name)
        value = self.value
        if isinstance(value, float):
            if not -_FLOAT_MAX <= value <= _FLOAT_MAX:
                force_setattr(self, "value", None)
                value = None
        elif isinstance(value, int):
            if not -INTEGER_MAX - 1 <= value <= INTEGER_MAX:
                raise InvalidValueError("value", "an integer of at most 64 bits", value)
        elif isinstance(value, str):
            check_text("value", value)
        elif value is not None:
            raise InvalidValueError("value", "a number, bool, string or None", value)
        self._check_quality(value)
        if self.unit is not None:
            check_text("unit", self.unit, chars_max=UNIT_CHARS_MAX)
        if self.timestamp is not None:
            force_setattr(self, "timestamp", utc("timestamp", self.timestamp))
        if self.tags is not EMPTY:
            force_setattr(self, "tags", _checked_tags(self.tags))

    def _check_quality(self, value: MetricScalar) -> None:
        try:
            quality = Quality(self.quality)
        except ValueError as error:
            raise InvalidValueError("quality", "ok, stale or missing", self.quality) from error
        if value is None:
            quality = Quality.MISSING
        elif quality is Quality.MISSING:
            raise InvalidValueError("value", "None for a reading of quality missing", value)
        force_setattr(self, "quality", quality)


def _checked_tags(tags: object) -> FrozenDict[str, str]:
    if not isinstance(tags, Mapping):
        raise InvalidValueError("tags", "a mapping of strings", tags)
    if len(tags) > TAGS_MAX:
        raise InvalidValueError("tags", f"at most {TAGS_MAX} tags (found {len(tags)})", tags)
    for key, text in tags.items():
        check_id("tags", key)
        check_text(f"tags.{key}", text, chars_max=NAME_CHARS_MAX)
    return frozen(tags) if tags else EMPTY


class SystemState(msgspec.Struct, frozen=True, omit_defaults=True):
    """The state of one managed system at one instant.

    `metrics` maps a name of the caller's choice, usually the metric's own, to its reading (at most 10 000); a list of
    `MetricValue` is accepted and keyed by name. `metadata` is a JSON tree (at most 16 levels and 10 000 nodes). Two
    states of one system with the same timestamp are the same state: stores keep the last one written.

    Raises `InvalidValueError` naming the field.
    """

    system_id: Id
    timestamp: Timestamp
    metrics: Annotated[dict[str, MetricValue], msgspec.Meta(extra_json_schema={"maxProperties": METRICS_MAX})] = EMPTY
    health_status: HealthStatus = HealthStatus.UNKNOWN
    metadata: dict[str, Any] = EMPTY

    def __post_init__(self) -> None:
        # `check_id` and `_checked_metrics`, written out for what nearly every state is: decoding runs this for each.
        system_id, timestamp, metrics = self.system_id, self.timestamp, self.metrics
        if not (
            type(system_id) is str
            and system_id.isascii()
            and system_id.isprintable()
            and 0 < len(system_id) <= ID_CHARS_MAX
        ):
            check_id("system_id", system_id)
        if type(timestamp) is not datetime or timestamp.tzinfo is not UTC:
            force_setattr(self, "timestamp", utc("timestamp", timestamp))
        if type(metrics) is dict and 0 < len(metrics) <= METRICS_MAX:
            for name, metric in metrics.items():
                if type(metric) is not MetricValue or name != metric.name:
                    force_setattr(self, "metrics", _checked_metrics(metrics))
                    break
            else:
                force_setattr(self, "metrics", FrozenDict(metrics))
        elif metrics is not EMPTY:
            force_setattr(self, "metrics", _checked_metrics(metrics))
        if type(self.health_status) is not HealthStatus:
            force_setattr(self, "health_status", _health(self.health_status))
        if self.metadata is not EMPTY:
            if not isinstance(self.metadata, Mapping):
                raise InvalidValueError("metadata", "a mapping", self.metadata)
            check_tree("metadata", self.metadata)
            force_setattr(self, "metadata", frozen(self.metadata) if self.metadata else EMPTY)

    def value(self, name: str) -> MetricScalar:
        """The value of the metric, or None when it is missing: absent, unreadable and None are all missing, never 0."""
        metric = self.metrics.get(name)
        return None if metric is None else metric.value


def _health(status: object) -> HealthStatus:
    try:
        return HealthStatus(status)  # type: ignore[arg-type]
    except ValueError as error:
        raise InvalidValueError("health_status", "one of " + ", ".join(HealthStatus), status) from error


def _checked_metrics(metrics: object) -> FrozenDict[str, MetricValue]:
    if type(metrics) is not dict and isinstance(metrics, (list, tuple)):
        keyed = {metric.name: metric for metric in metrics if isinstance(metric, MetricValue)}
        if len(keyed) != len(metrics):
            raise InvalidValueError("metrics", "metric values with distinct names", metrics)
        metrics = keyed
    if type(metrics) is not dict and not isinstance(metrics, Mapping):
        raise InvalidValueError("metrics", "a mapping of name to MetricValue", metrics)
    if len(metrics) > METRICS_MAX:
        raise InvalidValueError("metrics", f"at most {METRICS_MAX} metrics (found {len(metrics)})", metrics)
    for name, metric in metrics.items():
        if metric.__class__ is not MetricValue:
            raise InvalidValueError(f"metrics.{name}", "a MetricValue", metric)
        if name != metric.name:
            check_id("metrics", name)
    return frozen(metrics) if metrics else EMPTY
