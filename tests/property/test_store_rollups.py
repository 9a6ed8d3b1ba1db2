"""Whatever is stored, replaced, deleted, compacted, summarised and retired: aggregates are those of all the points."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from tests.sqlite_sessions import compact, new_session, roll_up, scratch

from polaris.exceptions import QueryError
from polaris.storage._aggregates import aggregate, rise
from polaris.storage._aggregation import AggregatedRow, AggregationType, percent_of
from polaris.storage._buckets import CalendarBuckets, Edges, FixedBuckets
from polaris.storage._points import TimeSeriesPoint
from polaris.storage._ranges import from_micros, to_micros
from polaris.storage._rollups import RetentionPolicy, RollupPolicy, floor
from polaris.storage._tag_filter import parse_tags
from polaris.storage._timeseries_requests import AggregateRequest
from polaris.storage.backends.memory._journal import Journal
from polaris.storage.backends.memory._timeseries import MemoryTimeSeries

SESSION = new_session()
SECOND = 1_000_000
UNIT = 100_000
HOSTS = ("a", "b")
NAMES = [str(name) for name in AggregationType] + ["p0", "p100", "p33.3"]
ASKED = [tuple(NAMES), tuple(NAMES), ("avg",), ("max", "count"), ("min",), ("sum", "avg"), ("rate",), ("p95", "avg")]
EXACT = [name for name in NAMES if percent_of(name) is None]

TIMES = st.integers(-30, 130).map(lambda unit: unit * UNIT)
LATER = st.integers(20, 140).map(lambda unit: unit * UNIT)
NUMBERS = st.one_of(
    st.integers(-50, 50), st.floats(-1e3, 1e3).map(lambda value: round(value, 3)), st.sampled_from([0, 1e9, 1e9 + 0.25])
)
VALUES = st.one_of(NUMBERS, NUMBERS, NUMBERS, st.sampled_from([None, True, "text"]))
POINTS = st.lists(st.tuples(TIMES, st.sampled_from(HOSTS), VALUES), min_size=1, max_size=12)
SPANS = st.tuples(TIMES, TIMES).map(sorted)
WIDTHS = st.sampled_from([1, 2])
ALONG = st.sampled_from([False, False, False, True])
STEPS = st.one_of(
    st.tuples(st.just("store"), POINTS),
    st.tuples(st.just("store"), POINTS),
    st.tuples(st.just("retain"), LATER, st.integers(1, 6)),
    st.tuples(st.just("policy"), WIDTHS, ALONG),
    st.tuples(st.just("delete"), SPANS, st.sampled_from([{}, {"h": "a"}])),
    st.tuples(st.just("retain"), LATER, st.integers(1, 6)),
    st.tuples(st.just("thin"), LATER, st.sampled_from([4 * SECOND, None]), st.integers(1, 6)),
    st.tuples(st.just("compact"), st.integers(1, 30)),
    st.tuples(st.just("roll up"), st.integers(1, 20)),
    st.tuples(st.just("roll up all"), st.sampled_from([1, 8, 1_000])),
)
BUCKETS = st.one_of(
    st.none(),
    st.builds(
        FixedBuckets,
        st.sampled_from([SECOND, 2 * SECOND, 4 * SECOND, 1_500_000, 2_500_000, 5_100_000]),
        st.sampled_from([0, SECOND, 300_000]),
    ),
    st.just(CalendarBuckets("day", "UTC", datetime(1970, 1, 1))),  # noqa: DTZ001 - a time on the wall
)
Key = tuple[str, int]


class Model:
    """The points that are there, and of each window that was retired the points that it had."""

    def __init__(self) -> None:
        self.points: dict[Key, Any] = {}
        self.windows: dict[tuple[str, int, int], list[tuple[int, Any]]] = {}  # each point has a number besides "v"
        self.policy: int | None = None
        self.goes_along = False
        self.overlaps = False
        """Whether a point came into a window after points beside it were gone: then rises are not exact any more."""

    def is_gone(self, host: str, time: int) -> bool:
        return any(key[0] == host and time == ts for key, known in self.windows.items() for ts, _ in known)

    def free(self, host: str, time: int) -> int:
        """The time, or a later one: a point that comes again after it is gone is another point, and not tested here."""
        while self.is_gone(host, time):
            time += 7
        return time

    def store(self, points: list[tuple[int, str, Any]]) -> None:
        for time, host, value in points:
            self.points[host, time] = value
            self.overlaps |= any(key[0] == host and key[1] <= time < key[1] + key[2] for key in self.windows)

    def delete(self, span: list[int], hosts: list[str]) -> int | None:
        """How many points are to go, None when the span cuts a window."""
        start, end = span
        for host, first, width in self.windows:
            if host in hosts and first < end and first + width > start and not start <= first <= end - width:
                return None
        self.windows = {
            key: known
            for key, known in self.windows.items()
            if not (key[0] in hosts and start <= key[1] and key[1] + key[2] <= end)
        }
        gone = [key for key in self.points if key[0] in hosts and start <= key[1] < end]
        for key in gone:
            del self.points[key]
        return len(gone)

    def retain(self, since: int) -> int:
        gone = 0
        for host in HOSTS:
            times = sorted(time for name, time in self.points if name == host)
            if not times:
                continue
            width = self.policy
            bound = min(since, times[-1]) if width is None else min(floor(since, width), floor(times[-1], width))
            for time in times:
                if time < bound:
                    value = self.points.pop((host, time))
                    gone += 1
                    if width is not None:
                        self.windows.setdefault((host, floor(time, width), width), []).append((time, value))
        return gone

    def thin(self, since: int, into: int | None) -> int:
        gone = 0
        for host, start, width in sorted(self.windows):
            if into is None:
                due = start + width <= since
            else:
                due = width < into and into % width == 0 and floor(start, into) + into <= since
            if due:
                known = self.windows.pop((host, start, width))
                gone += 1
                if into is not None:
                    self.windows.setdefault((host, floor(start, into), into), []).extend(known)
        return gone

    def rows(self, request: AggregateRequest) -> dict[tuple[int, str], dict[str, Any]]:
        """What the aggregates of all the numbers are, where none of them was lost."""
        start, end = request.micros
        numbers = [(time, host, time, value) for (host, time), value in self.points.items() if is_number(value)]
        numbers += [
            (first, host, t, v) for (host, first, _), known in self.windows.items() for t, v in known if is_number(v)
        ]
        chosen = (one for one in numbers if start <= one[0] < end and request.tags.matches({"h": one[1]}))
        numbers = sorted(chosen, key=lambda one: (one[1], one[2]))
        bucket_of = buckets_of(request, [place for place, *_ in numbers])
        cells: dict[tuple[int, str], list[tuple[int, int, Any]]] = {}
        rises: dict[tuple[int, str], float] = {}
        earlier: dict[str, Any] = {}
        for place, host, time, value in numbers:
            cell = (bucket_of(place), host if request.group_by else "")
            cells.setdefault(cell, []).append((time, HOSTS.index(host), value))
            if host in earlier:
                rises[cell] = rises.get(cell, 0.0) + rise(earlier[host], value)
            earlier[host] = value
        return {
            cell: {
                "n": len(samples),
                **{name: aggregate(name, samples) for name in NAMES if name != "increase"},
                "increase": rises.get(cell),
            }
            for cell, samples in cells.items()
        }

    def gone_in(self, request: AggregateRequest) -> bool:
        return any(request.micros[0] <= first < request.micros[1] for _, first, _ in self.windows)


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def buckets_of(request: AggregateRequest, times: list[int]) -> Any:
    if request.buckets is None:
        return lambda _: request.micros[0]
    if isinstance(request.buckets, FixedBuckets):
        return request.buckets.start_of
    return Edges(request.buckets.starts(min(times), max(times))).start_of if times else None


def policy(width: int, *, goes_along: bool = False) -> RetentionPolicy:
    """Points go after a day: into windows of this width and of 4 s, or for good."""
    raw_kept = timedelta(days=1)
    first = RollupPolicy(timedelta(seconds=width), raw_kept if goes_along else timedelta(days=2))
    wider = [] if goes_along else [RollupPolicy(timedelta(seconds=4), timedelta(days=3))]
    return RetentionPolicy(raw_kept, [first, *wider])


class Pair:
    """Both engines and the model, doing the same."""

    def __init__(self, session: Any) -> None:
        self.session = session
        self.journal = Journal()
        self.memory = MemoryTimeSeries(self.journal)
        self.engines = (self.memory, session.time_series)
        self.model = Model()
        self.is_parted = False
        """Whether a late point was retired in slices: which points go together is each engine's own matter."""

    def run(self, step: tuple[Any, ...]) -> None:
        kind = step[0]
        if kind == "store":
            rows = [(self.model.free(host, time), host, value) for time, host, value in step[1]]
            points = [
                TimeSeriesPoint(from_micros(time), {"h": host}, {"v": value, "w": 1}) for time, host, value in rows
            ]
            for engine in self.engines:
                engine.store_many("m", points)
            self.model.store(rows)
        elif kind == "policy":
            chosen = policy(step[1], goes_along=step[2])
            for engine in self.engines:
                engine.set_policy("m", chosen)
                assert engine.policy("m") == chosen
            self.model.policy, self.model.goes_along = step[1] * SECOND, step[2]
        elif kind == "delete":
            expected = self.model.delete(step[1], [step[2]["h"]] if step[2] else list(HOSTS))
            for engine in self.engines:
                if expected is None:
                    with pytest.raises(QueryError):
                        engine.delete_range("m", tuple(step[1]), parse_tags(step[2]))
                else:
                    assert engine.delete_range("m", tuple(step[1]), parse_tags(step[2])) == expected
        elif kind == "retain":
            self.slices([engine.retain for engine in self.engines], self.model.retain(step[1]), step[1], step[2])
            if self.model.goes_along:  # an engine may leave out what the next step would take away
                self.thin(step[1], None, step[2], is_told=False)
        elif kind == "thin":
            self.thin(*step[1:])
        elif kind == "compact":
            compact(self.session, step[1])
        else:
            while roll_up(self.session, step[1]) and kind == "roll up all":
                pass

    def thin(self, since: int, into: int | None, rows_max: int, *, is_told: bool = True) -> None:
        went = self.model.thin(since, into)
        for engine in self.engines:
            parts = 0
            while engine.thin("m", since, into, rows_max):
                parts += 1
            assert bool(parts) >= (is_told and bool(went))

    def slices(self, retains: list[Any], expected: int, since: int, rows_max: int) -> None:
        for retain in retains:
            went = 0
            while part := retain("m", since, rows_max):
                self.is_parted |= self.model.overlaps and went > 0
                went += part
            assert went == expected

    def check(self, request: AggregateRequest) -> None:
        expected = self.model.rows(request)
        answers = [rows_by_cell(engine.aggregate("m", request)) for engine in self.engines]
        for found in answers:
            assert sorted(found) == sorted(expected)
        scale = max(
            [1.0, *(abs(value["max"]) for value in expected.values()), *(abs(v["min"]) for v in expected.values())]
        )
        for cell, values in expected.items():
            for found in answers:
                row = found[cell]
                assert row.count == values["n"]
                for name in request.aggregations:
                    if self.model.overlaps and name in ("rate", "increase"):
                        continue
                    if percent_of(name) is not None and row.approximate:
                        low, high = sorted((values["min"], values["max"]))
                        assert low <= row.values[name] <= high
                        continue
                    assert close(row.values[name], values[name], scale, name), (name, cell, row, values)
            first, second = (found[cell] for found in answers)
            assert first.approximate == second.approximate
            for name in request.aggregations:
                if self.is_parted and name in ("rate", "increase"):
                    continue
                assert close(first.values[name], second.values[name], scale, name), (name, first, second)


def close(found: Any, wanted: Any, scale: float, name: str) -> bool:
    if found is None or wanted is None:
        return found is wanted
    tolerance = 1e-9 * scale * (1e2 if name in ("rate", "stddev") else 10)
    return bool(found == pytest.approx(wanted, rel=1e-9, abs=tolerance))


def rows_by_cell(rows: list[AggregatedRow]) -> dict[tuple[int, str], AggregatedRow]:
    return {(to_micros(row.timestamp), row.tags.get("h", "")): row for row in rows}


@settings(max_examples=400, deadline=None)
@given(
    steps=st.lists(STEPS, min_size=3, max_size=16),
    width=WIDTHS,
    span=SPANS,
    buckets=BUCKETS,
    grouped=st.booleans(),
    tags=st.sampled_from([{}, {"h": "a"}]),
    names=st.sampled_from(ASKED),
)
def test_both_engines_answer_as_if_all_points_were_there_still(
    steps: list[tuple[Any, ...]],
    width: int,
    span: list[int],
    buckets: Any,
    grouped: bool,
    tags: dict[str, str],
    names: tuple[str, ...],
) -> None:
    with scratch(SESSION) as session:
        pair = Pair(session)
        for step in [("policy", width, False), *steps]:
            pair.run(step)
        group_by = ("h",) if grouped else ()
        for micros in ((span[0], span[1]), (-10 * SECOND, 20 * SECOND)):
            request = AggregateRequest(micros, names, group_by, buckets, parse_tags(tags), fields=("v",))
            event("rollups" if pair.model.gone_in(request) else "points only")
            pair.check(request)
