"""`polaris systems` and `polaris query`: what the store knows, read beside a running node or without one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click
import msgspec

from polaris.cli import _exit
from polaris.cli._near import hint
from polaris.cli._output import ago, moment_text, print_json, print_table, value_text
from polaris.cli._store import ask
from polaris.domain import SystemState

if TYPE_CHECKING:
    from polaris.runtime import Settings
    from polaris.storage import AggregationType, PolarisDataStore

BUCKETS_DEFAULT = 60


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What `polaris query` asks for. `start` and `end` win over `last`."""

    system_id: str
    metric: str | None
    last: timedelta
    start: datetime | None
    end: datetime | None
    aggregation: str | None
    bucket: timedelta | None
    limit: int

    def check(self) -> None:
        """Raise `click.BadParameter` for options that make no sense together."""
        if self.metric is None and (self.aggregation or self.bucket):
            raise click.BadParameter("names no metric to aggregate: polaris query SYSTEM METRIC", param_hint="--agg")
        if self.start is not None and self.start >= (self.end or datetime.now(UTC)):
            message = f"{moment_text(self.start)} is not before the end of the range"
            raise click.BadParameter(message, param_hint="--start")

    def bounds(self) -> tuple[datetime, datetime]:
        """Start and end of the range; samples of a clock that runs ahead are within an open end."""
        end = self.end or datetime.now(UTC) + timedelta(days=1)
        return self.start or (self.end or datetime.now(UTC)) - self.last, end

    def bucket_length(self) -> timedelta:
        """The bucket asked for, else one that makes about sixty of the range."""
        if self.bucket is not None:
            return self.bucket
        span = self.last if self.start is None else (self.end or datetime.now(UTC)) - self.start
        return timedelta(seconds=max(1, round(span.total_seconds() / BUCKETS_DEFAULT)))

    def aggregation_type(self) -> AggregationType:
        """How a bucket becomes one value; the average unless said otherwise."""
        from polaris.storage import AggregationType

        name = self.aggregation or "avg"
        try:
            return AggregationType(name)
        except ValueError as error:
            known = [str(kind) for kind in AggregationType]
            message = f"there is no {name!r}; one of {', '.join(known)}"
            raise click.BadParameter(message, param_hint="--agg") from error


def show_systems(settings: Settings, *, as_json: bool) -> int:
    """Every system of the store with its latest state."""
    states = ask(settings, lambda store: store.states.get_current_states())
    if as_json:
        print_json({"systems": states})
    elif not states and not settings.systems:
        _exit.complain("no system has reported yet")
    else:
        rows = [
            (state.system_id, state.health_status.value, ago(state.timestamp), str(len(state.metrics)))
            for state in states
        ]
        silent = settings.systems.keys() - {state.system_id for state in states}
        rows += [(system_id, "unknown", "never", "0") for system_id in sorted(silent)]
        print_table(("SYSTEM", "HEALTH", "LAST SAMPLE", "METRICS"), rows, status_column=1)
    return _exit.OK if states or as_json else _exit.NOTHING_FOUND


def show_series(settings: Settings, question: Question, *, as_json: bool) -> int:
    """The latest state, the points, or the aggregates that were asked for."""
    question.check()
    if question.metric is None:
        return _show_state(settings, question.system_id, as_json=as_json)
    if question.aggregation or question.bucket:
        return _show_aggregates(settings, question, question.metric, as_json=as_json)
    return _show_points(settings, question, question.metric, as_json=as_json)


def _show_state(settings: Settings, system_id: str, *, as_json: bool) -> int:
    state = ask(settings, lambda store: store.states.get_current_state(system_id))
    if state is None:
        return _unknown_system(settings, system_id)
    if as_json:
        print_json(state)
        return _exit.OK
    print(f"{state.system_id}  {state.health_status}  {moment_text(state.timestamp)} ({ago(state.timestamp)})")
    rows = [
        (name, value_text(metric.value, metric.unit), metric.quality.value) for name, metric in state.metrics.items()
    ]
    print_table(("METRIC", "VALUE", "QUALITY"), rows)
    return _exit.OK


def _unknown_system(settings: Settings, system_id: str) -> int:
    known = [summary.system_id for summary in ask(settings, lambda store: store.states.systems())]
    _exit.complain(f"no system {system_id!r} has reported{hint(system_id, known, 'known:')}")
    return _exit.NOTHING_FOUND


def _show_points(settings: Settings, question: Question, metric: str, *, as_json: bool) -> int:
    from polaris.storage import TimeRange

    start, end = question.bounds()

    async def read(store: PolarisDataStore) -> Any:
        # One more than asked for tells whether there are more.
        points = await store.states.series(
            question.system_id, metric, TimeRange(start, end), limit=question.limit + 1, order="desc"
        )
        return points[::-1], await store.states.get_current_state(question.system_id)

    found, state = ask(settings, read)
    if not found:
        return _nothing(settings, question, metric, state)
    points = found[-question.limit :]
    truncated = len(found) > len(points)
    unit = _unit(state, metric)
    if as_json:
        listed = [{"timestamp": timestamp, "value": value} for timestamp, value in points]
        facts = {"system_id": question.system_id, "metric": metric, "unit": unit, "truncated": truncated}
        print_json({**facts, "points": listed})
    else:
        print_table(
            ("TIME", metric), [(moment_text(timestamp), value_text(value, unit)) for timestamp, value in points]
        )
        _say_truncated(question, truncated)
    return _exit.OK


def _show_aggregates(settings: Settings, question: Question, metric: str, *, as_json: bool) -> int:
    from polaris.storage import TimeRange

    start, end = question.bounds()
    aggregation, bucket = question.aggregation_type(), question.bucket_length()

    async def read(store: PolarisDataStore) -> Any:
        points = await store.states.aggregate(
            question.system_id, metric, TimeRange(start, end), aggregation, bucket=bucket
        )
        return points, await store.states.get_current_state(question.system_id)

    found, state = ask(settings, read)
    if not found:
        return _nothing(settings, question, metric, state)
    points = found[-question.limit :]
    truncated = len(found) > len(points)
    unit = aggregation.unit_of(_unit(state, metric))
    if as_json:
        listed = [{"start": point.timestamp, "value": point.value, "count": point.count} for point in points]
        facts = {"system_id": question.system_id, "metric": metric, "unit": unit, "aggregation": aggregation}
        print_json({**facts, "bucket_s": bucket.total_seconds(), "truncated": truncated, "buckets": listed})
    else:
        rows = [(moment_text(point.timestamp), value_text(point.value, unit), str(point.count)) for point in points]
        print_table(("FROM", f"{aggregation}({metric})", "COUNT"), rows)
        _say_truncated(question, truncated)
    return _exit.OK


def _say_truncated(question: Question, truncated: bool) -> None:
    if truncated:
        _exit.complain(f"there are more in the range; these are the newest {question.limit}, see --limit")


def _unit(state: SystemState | None, metric: str) -> str | None:
    reading = None if state is None else state.metrics.get(metric)
    return None if reading is None else reading.unit


def _nothing(settings: Settings, question: Question, metric: str, state: SystemState | None) -> int:
    if state is None:
        return _unknown_system(settings, question.system_id)
    if metric not in state.metrics:
        _exit.complain(
            f"{question.system_id} has no metric {metric!r}{hint(metric, list(state.metrics), 'it reports')}"
        )
    else:
        newest = f"its newest state is of {moment_text(state.timestamp)} ({ago(state.timestamp)})"
        _exit.complain(f"{question.system_id} has no values of {metric} in that range; {newest}")
    return _exit.NOTHING_FOUND
