"""The envelopes in which the JSON API sends the values of the view."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec

from polaris.api._view import ActionRecord, AggregationName, Check, ComponentView, SystemView
from polaris.domain import MetricScalar, SystemDependency

Timestamp = Annotated[datetime, msgspec.Meta(tz=True)]


class HealthAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A verdict, with every check that went into it."""

    status: str
    """`ok` or `failing`."""
    failing: tuple[str, ...]
    """The components that fail, each with its reason."""
    checks: tuple[Check, ...]


class SchemaEntry(msgspec.Struct, frozen=True, kw_only=True):
    """Where the JSON Schema of one version of an event type is; `id` is the `dataschema` of its events."""

    id: str
    event_type: str
    version: int
    path: str


class SchemasAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Every event type that travels on the bus; of older versions those whose shape is known."""

    schemas: tuple[SchemaEntry, ...]


class SystemsAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Systems by id; `next_cursor` goes on after the last one, None at the end."""

    systems: tuple[SystemView, ...]
    next_cursor: str | None


class SeriesAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Raw points, ascending in time: the newest ones of `[start, end)`; None is missing.

    When `truncated`, ask again with `end` set to the first timestamp for the ones before.
    """

    system_id: str
    metric: str
    unit: str | None
    start: Timestamp
    end: Timestamp
    timestamps: tuple[Timestamp, ...]
    values: tuple[MetricScalar, ...]
    truncated: bool


class AggregatesAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One value a bucket, ascending; a bucket without data is absent or None, never 0."""

    system_id: str
    metric: str
    unit: str | None
    aggregation: AggregationName
    bucket_s: float
    start: Timestamp
    end: Timestamp
    starts: tuple[Timestamp, ...]
    values: tuple[float | None, ...]


class ActionsAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Actions, newest first; `next_cursor` goes on with older ones, None at the end."""

    actions: tuple[ActionRecord, ...]
    next_cursor: str | None


class ComponentsAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of the node."""

    components: tuple[ComponentView, ...]


class DependenciesAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Edges of the dependency graph, by source, target and type; `truncated` when there are more.

    `next_cursor` goes on after the last one, None at the end.
    """

    dependencies: tuple[SystemDependency, ...]
    truncated: bool
    next_cursor: str | None
