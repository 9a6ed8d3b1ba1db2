"""Whatever is stored, compacted, deleted and retained in whatever order: both engines hold what a plain model holds."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.faults.sizes import size
from tests.sqlite_sessions import compact, new_session, scratch

from polaris.storage._operation import TimeSeriesSession
from polaris.storage._points import FieldValue, TimeSeriesPoint
from polaris.storage._ranges import from_micros, to_micros
from polaris.storage._tag_filter import ALL_SERIES, TagFilter, parse_tags
from polaris.storage._timeseries_requests import PointCursor, PointQuery, SeriesKey
from polaris.storage.backends.memory._journal import Journal
from polaris.storage.backends.memory._timeseries import MemoryTimeSeries

SESSION = new_session()
ALL = (-(2**62), 2**62)

TAGS = st.sampled_from(
    [{"h": "a"}, {"h": "b"}, {"h": "a", "z": "1"}, {}, {"h": "a", "z": "12"}, {"h": "\ud7ff"}, {"h": "\ue000", "z": ""},
     {"h": "\U0010ffff"}, {"z": "\U0010ffff\U0010ffff"}]
)  # fmt: skip
VALUES = st.sampled_from(["a", "b", "1", "12", "", "\ud7ff", "\ue000", "\U0010ffff", "\U0010ffff\U0010ffff", "none"])
CONDITIONS = st.one_of(
    VALUES,
    st.dictionaries(st.sampled_from(["$eq", "$ne", "$prefix"]), VALUES, min_size=1),
    st.fixed_dictionaries({"$exists": st.booleans()}),
    st.dictionaries(st.sampled_from(["$in", "$nin"]), st.lists(VALUES, max_size=12), min_size=1),
)
FILTERS = st.dictionaries(st.sampled_from(["h", "z", "none"]), CONDITIONS, max_size=2).map(parse_tags)
TIMES = st.integers(-3, 6)
NAMES = st.sampled_from(["x", "y", *(f"w{n}" for n in range(26))])
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=3),
)  # fmt: skip
POINTS = st.builds(
    lambda time, tags, fields: TimeSeriesPoint(from_micros(time), tags, fields),
    TIMES,
    TAGS,
    st.dictionaries(NAMES, SCALARS, min_size=1, max_size=4),
)
STEPS = st.one_of(
    st.tuples(st.just("store"), st.lists(POINTS, min_size=1, max_size=8)),
    st.tuples(st.just("compact"), st.integers(1, 20)),
    st.tuples(st.just("delete"), st.tuples(TIMES, TIMES).map(sorted), FILTERS),
    st.tuples(st.just("delete series"), FILTERS, st.integers(1, 8)),
    st.tuples(st.just("retain"), TIMES),
)
Key = tuple[SeriesKey, int]


class Model:
    """A dictionary of points by series and time."""

    def __init__(self) -> None:
        self.points: dict[Key, dict[str, FieldValue]] = {}
        self.series: dict[SeriesKey, set[str]] = {}

    def store(self, points: list[TimeSeriesPoint]) -> None:
        for point in points:
            series = tuple(sorted(point.tags.items()))
            self.series.setdefault(series, set()).update(point.fields)
            self.points[series, to_micros(point.timestamp)] = point.fields

    def newest(self) -> dict[Any, int]:
        newest: dict[Any, int] = {}
        for series, time in self.points:
            newest[series] = max(time, newest.get(series, time))
        return newest

    def drop(self, keys: list[Key]) -> int:
        for key in keys:
            del self.points[key]
        return len(keys)

    def chosen(self, tags: TagFilter, start: int = ALL[0], end: int = ALL[1]) -> list[Key]:
        keys = (key for key in self.points if tags.matches(dict(key[0])) and start <= key[1] < end)
        return sorted(keys, key=lambda key: (key[1], key[0]))

    def chosen_series(self, tags: TagFilter) -> list[SeriesKey]:
        return sorted(series for series in self.series if tags.matches(dict(series)))


def run(model: Model, engine: TimeSeriesSession, step: tuple[Any, ...], *, hot: bool) -> None:
    kind = step[0]
    if kind == "store":
        engine.store_many("m", step[1])
    elif kind == "compact" and hot:
        compact(SESSION, step[1])
    elif kind == "delete":
        start, end = step[1]
        assert engine.delete_range("m", (start, end), step[2]) == len(model.chosen(step[2], start, end))
    elif kind == "delete series":
        deleted, is_done = 0, False
        while not is_done:
            part, is_done = engine.delete_series("m", step[1], step[2])
            deleted += part
        assert deleted == len(model.chosen_series(step[1]))
    elif kind == "retain":
        newest = model.newest()
        expected = sum(time < min(step[1], newest[series]) for series, time in model.points)
        assert engine.retain("m", step[1], 1_000) == expected


def run_model(model: Model, step: tuple[Any, ...]) -> None:
    if step[0] == "store":
        model.store(step[1])
    elif step[0] == "delete":
        model.drop(model.chosen(step[2], *step[1]))
    elif step[0] == "delete series":
        model.drop(model.chosen(step[1]))
        for series in model.chosen_series(step[1]):
            del model.series[series]
    elif step[0] == "retain":
        newest = model.newest()
        model.drop([key for key in model.points if key[1] < min(step[1], newest[key[0]])])


def typed(fields: dict[str, FieldValue]) -> dict[str, str]:
    return {name: repr(value) for name, value in fields.items()}


def key_of(point: TimeSeriesPoint) -> SeriesKey:
    return tuple(sorted(point.tags.items()))


def check(model: Model, engine: TimeSeriesSession, tags: TagFilter, start: int, end: int, limit: int) -> None:
    everything = PointQuery((start, end), 10_000, tags)
    found = engine.query("m", everything)
    told = [((key_of(one), to_micros(one.timestamp)), typed(one.fields)) for one in found]
    assert told == [(key, typed(model.points[key])) for key in model.chosen(tags, start, end)]
    assert engine.query("m", replace(everything, limit=limit)) == found[:limit]
    wanted = frozenset({"x", "w3", "w20"})
    some = engine.query("m", replace(everything, limit=limit, fields=wanted))
    left = [{name: value for name, value in one.fields.items() if name in wanted} for one in found]
    assert [typed(one.fields) for one in some] == [typed(fields) for fields in left if fields][:limit]
    for descending in (False, True):
        for fields in (None, wanted):
            query = replace(everything, descending=descending, fields=fields)
            assert paged(engine, query, limit) == engine.query("m", query)
    newest = model.newest()
    latest = engine.latest("m", tags, None)
    chosen = [series for series in model.chosen_series(tags) if series in newest]
    assert [(key_of(one), to_micros(one.timestamp)) for one in latest] == [
        (series, newest[series]) for series in chosen
    ]
    assert [typed(one.fields) for one in latest] == [typed(model.points[series, newest[series]]) for series in chosen]
    partly = [typed({name: value for name, value in one.fields.items() if name in wanted}) for one in latest]
    assert [typed(one.fields) for one in engine.latest("m", tags, wanted)] == [fields for fields in partly if fields]


def paged(engine: TimeSeriesSession, query: PointQuery, limit: int) -> list[TimeSeriesPoint]:
    """All points, page by page."""
    found: list[TimeSeriesPoint] = []
    while True:
        after = PointCursor(to_micros(found[-1].timestamp), key_of(found[-1])) if found else None
        page = engine.query("m", replace(query, limit=limit, after=after))
        found += page
        if len(page) < limit:
            return found


def check_lists(model: Model, engine: TimeSeriesSession, tags: TagFilter, limit: int) -> None:
    chosen = model.chosen_series(tags)
    listed = [tuple(sorted(one.items())) for one in engine.list_series("m", tags, 1_000, None)]
    assert listed == chosen
    for place in range(0, len(chosen), limit):
        after = chosen[place - 1] if place else None
        page = engine.list_series("m", tags, limit, after)
        assert [tuple(sorted(one.items())) for one in page] == chosen[place : place + limit]
    assert engine.count_series("m", tags) == len(chosen)
    assert engine.count_series(None, ALL_SERIES) == len(model.series)
    assert engine.list_collections() == (["m"] if model.series else [])
    assert engine.list_fields("m", tags) == sorted({name for series in chosen for name in model.series[series]})
    assert engine.list_tag_keys("m") == sorted({key for series in model.series for key, _ in series})
    for key in ("h", "z"):
        values = sorted({dict(series)[key] for series in chosen if key in dict(series)})
        assert engine.list_tag_values("m", key, tags) == values


@settings(max_examples=size(150, 1200), deadline=None)
@given(st.lists(STEPS, max_size=12), FILTERS, st.tuples(TIMES, TIMES).map(sorted), st.integers(1, 5))
def test_both_engines_hold_what_the_model_holds(
    steps: list[tuple[Any, ...]], tags: TagFilter, span: list[int], limit: int
) -> None:
    with scratch(SESSION) as session:
        memory = MemoryTimeSeries(Journal())
        model = Model()
        for step in steps:
            run(model, memory, step, hot=False)
            run(model, session.time_series, step, hot=True)
            run_model(model, step)
        for engine in (memory, session.time_series):
            check(model, engine, tags, span[0], span[1], limit)
            check(model, engine, ALL_SERIES, *ALL, limit)
            check_lists(model, engine, tags, limit)
            check_lists(model, engine, ALL_SERIES, limit)


@settings(max_examples=size(70, 600), deadline=None)
@given(st.lists(STEPS, max_size=8), st.lists(STEPS, max_size=8))
def test_what_the_engine_in_memory_takes_back_is_as_if_it_had_never_been(
    kept: list[tuple[Any, ...]], undone: list[tuple[Any, ...]]
) -> None:
    journal = Journal()
    memory, model, future = MemoryTimeSeries(journal), Model(), Model()
    for step in kept:
        run(model, memory, step, hot=False)
        run_model(model, step)
    journal.forget()
    future.points = dict(model.points)
    future.series = {series: set(fields) for series, fields in model.series.items()}
    for step in undone:
        run(future, memory, step, hot=False)
        run_model(future, step)
    journal.undo()
    check(model, memory, ALL_SERIES, *ALL, 3)
    check_lists(model, memory, ALL_SERIES, 3)
