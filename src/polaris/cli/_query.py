"""`polaris systems` and `polaris query`: what the store knows, read beside a running node or without one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from polaris.cli import _exit
from polaris.cli._output import ago, print_json, print_table, value_text
from polaris.domain import SystemState
from polaris.exceptions import InvalidValueError, StoreConnectionError

if TYPE_CHECKING:
    from polaris.runtime import Settings
    from polaris.storage import PolarisDataStore

T = TypeVar("T")

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

    def bounds(self) -> tuple[datetime, datetime]:
        """Start and end of the range; samples of a clock that runs ahead are within an open end."""
        end = self.end or datetime.now(UTC) + timedelta(days=1)
        return self.start or (self.end or datetime.now(UTC)) - self.last, end


def ask(settings: Settings, question: Callable[[PolarisDataStore], Awaitable[T]]) -> T:
    """The answer of the store, opened read-only. Raises `StoreConnectionError` when there is no store yet."""
    from polaris.storage import PolarisDataStore

    if not settings.store_path.exists():
        raise StoreConnectionError(f"there is no store at {settings.store_path} yet; start a node with: polaris run")

    async def answer() -> T:
        store = PolarisDataStore.sqlite(settings.store_path, read_only=True)
        await store.connect()
        try:
            return await question(store)
        finally:
            await store.disconnect()

    return asyncio.run(answer())


def show_systems(settings: Settings, *, as_json: bool) -> int:
    """Every system of the store with its latest state."""
    states = ask(settings, lambda store: store.states.get_current_states())
    if as_json:
        print_json({"systems": states})
    elif not states:
        _exit.complain("no system has reported yet")
    else:
        rows = [
            (state.system_id, state.health_status.value, ago(state.timestamp), str(len(state.metrics)))
            for state in states
        ]
        print_table(("SYSTEM", "HEALTH", "LAST SAMPLE", "METRICS"), rows, status_column=1)
    return _exit.OK if states or as_json else _exit.NOTHING_FOUND


def show_series(settings: Settings, question: Question, *, as_json: bool) -> int:
    """The latest state, the points, or the aggregates that were asked for."""
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
    print(f"{state.system_id}  {state.health_status}  {state.timestamp.isoformat()} ({ago(state.timestamp)})")
    rows = [
        (name, value_text(metric.value, metric.unit), metric.quality.value) for name, metric in state.metrics.items()
    ]
    print_table(("METRIC", "VALUE", "QUALITY"), rows)
    return _exit.OK


def _unknown_system(settings: Settings, system_id: str) -> int:
    from difflib import get_close_matches

    known = [summary.system_id for summary in ask(settings, lambda store: store.states.systems())]
    near = get_close_matches(system_id, known, n=1)
    hint = f"; did you mean {near[0]}?" if near else f"; known: {', '.join(known[:20]) or 'none'}"
    _exit.complain(f"no system {system_id!r} has reported{hint}")
    return _exit.NOTHING_FOUND


def _show_points(settings: Settings, question: Question, metric: str, *, as_json: bool) -> int:
    from polaris.storage import TimeRange

    start, end = question.bounds()

    async def read(store: PolarisDataStore) -> Any:
        points = await store.states.series(
            question.system_id, metric, TimeRange(start, end), limit=question.limit, order="desc"
        )
        return points[::-1], await store.states.get_current_state(question.system_id)

    points, state = ask(settings, read)
    if not points:
        return _nothing(settings, question, metric, state)
    unit = _unit(state, metric)
    if as_json:
        listed = [{"timestamp": timestamp, "value": value} for timestamp, value in points]
        print_json({"system_id": question.system_id, "metric": metric, "unit": unit, "points": listed})
    else:
        print_table(("TIME", metric), [(timestamp.isoformat(), value_text(value, unit)) for timestamp, value in points])
    return _exit.OK


def _show_aggregates(settings: Settings, question: Question, metric: str, *, as_json: bool) -> int:
    from polaris.storage import AggregationType, TimeRange

    start, end = question.bounds()
    try:
        aggregation = AggregationType(question.aggregation or "avg")
    except ValueError as error:
        raise InvalidValueError("--agg", "one of " + ", ".join(AggregationType), question.aggregation) from error
    bucket = question.bucket or max(timedelta(seconds=1), question.last / BUCKETS_DEFAULT)

    async def read(store: PolarisDataStore) -> Any:
        points = await store.states.aggregate(
            question.system_id, metric, TimeRange(start, end), aggregation, bucket=bucket
        )
        return points[-question.limit :], await store.states.get_current_state(question.system_id)

    points, state = ask(settings, read)
    if not points:
        return _nothing(settings, question, metric, state)
    unit = None if aggregation is AggregationType.COUNT else _unit(state, metric)
    if as_json:
        listed = [{"start": point.timestamp, "value": point.value, "count": point.count} for point in points]
        facts = {"system_id": question.system_id, "metric": metric, "unit": unit, "aggregation": aggregation}
        print_json({**facts, "bucket_s": bucket.total_seconds(), "buckets": listed})
    else:
        rows = [(point.timestamp.isoformat(), value_text(point.value, unit), str(point.count)) for point in points]
        print_table(("FROM", f"{aggregation}({metric})", "COUNT"), rows)
    return _exit.OK


def _unit(state: SystemState | None, metric: str) -> str | None:
    reading = None if state is None else state.metrics.get(metric)
    return None if reading is None else reading.unit


def _nothing(settings: Settings, question: Question, metric: str, state: SystemState | None) -> int:
    if state is None:
        return _unknown_system(settings, question.system_id)
    if metric not in state.metrics:
        from difflib import get_close_matches

        near = get_close_matches(metric, state.metrics, n=3)
        hint = f"; did you mean {' or '.join(near)}?" if near else f"; it reports {', '.join(list(state.metrics)[:20])}"
        _exit.complain(f"{question.system_id} has no metric {metric!r}{hint}")
    else:
        _exit.complain(f"{question.system_id} has no values of {metric} in that range")
    return _exit.NOTHING_FOUND
