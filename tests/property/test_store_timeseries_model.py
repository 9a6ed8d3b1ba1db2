"""Whatever is stored, compacted, deleted and retained in whatever order: both engines hold what a plain model holds."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.sqlite_sessions import compact, new_session, scratch

from polaris.storage._operation import TimeSeriesSession
from polaris.storage._ranges import from_micros, to_micros
from polaris.storage._timeseries import FieldValue, TimeSeriesPoint
from polaris.storage.backends.memory._journal import Journal
from polaris.storage.backends.memory._timeseries import MemoryTimeSeries

SESSION = new_session()
ALL = (-(2**62), 2**62)

TAGS = st.sampled_from([{"h": "a"}, {"h": "b"}, {"h": "a", "z": "1"}, {}])
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
    st.tuples(st.just("delete"), st.tuples(TIMES, TIMES).map(sorted), TAGS),
    st.tuples(st.just("retain"), TIMES),
)
Key = tuple[tuple[tuple[str, str], ...], int]


class Model:
    """A dictionary of points by series and time."""

    def __init__(self) -> None:
        self.points: dict[Key, dict[str, FieldValue]] = {}
        self.series: set[tuple[tuple[str, str], ...]] = set()

    def store(self, points: list[TimeSeriesPoint]) -> None:
        for point in points:
            series = tuple(sorted(point.tags.items()))
            self.series.add(series)
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

    def chosen(self, tags: dict[str, str], start: int = ALL[0], end: int = ALL[1]) -> list[Key]:
        wanted = set(tags.items())
        keys = (key for key in self.points if wanted <= set(key[0]) and start <= key[1] < end)
        return sorted(keys, key=lambda key: (key[1], key[0]))


def run(model: Model, engine: TimeSeriesSession, step: tuple[Any, ...], *, hot: bool) -> None:
    kind = step[0]
    if kind == "store":
        engine.store_many("m", step[1])
    elif kind == "compact" and hot:
        compact(SESSION, step[1])
    elif kind == "delete":
        start, end = step[1]
        assert engine.delete_range("m", (start, end), step[2]) == len(model.chosen(step[2], start, end))
    elif kind == "retain":
        newest = model.newest()
        expected = sum(time < min(step[1], newest[series]) for series, time in model.points)
        assert engine.retain("m", step[1], 1_000) == expected


def run_model(model: Model, step: tuple[Any, ...]) -> None:
    if step[0] == "store":
        model.store(step[1])
    elif step[0] == "delete":
        model.drop(model.chosen(step[2], *step[1]))
    elif step[0] == "retain":
        newest = model.newest()
        model.drop([key for key in model.points if key[1] < min(step[1], newest[key[0]])])


def typed(fields: dict[str, FieldValue]) -> dict[str, str]:
    return {name: repr(value) for name, value in fields.items()}


def check(model: Model, engine: TimeSeriesSession, tags: dict[str, str], start: int, end: int, limit: int) -> None:
    options: dict[str, Any] = {"limit": 10_000, "descending": False, "fields": None}
    found = engine.query("m", (start, end), tags, **options)
    told = [((tuple(sorted(one.tags.items())), to_micros(one.timestamp)), typed(one.fields)) for one in found]
    assert told == [(key, typed(model.points[key])) for key in model.chosen(tags, start, end)]
    cut = engine.query("m", (start, end), tags, **(options | {"limit": limit}))
    assert cut == found[:limit]
    wanted = frozenset({"x", "w3", "w20"})
    some = engine.query("m", (start, end), tags, **(options | {"limit": limit, "fields": wanted}))
    left = [{name: value for name, value in one.fields.items() if name in wanted} for one in found]
    assert [typed(one.fields) for one in some] == [typed(fields) for fields in left if fields][:limit]
    newest = model.newest()
    latest = engine.latest("m", tags)
    chosen = sorted(series for series in newest if set(tags.items()) <= set(series))
    assert [(tuple(sorted(one.tags.items())), to_micros(one.timestamp)) for one in latest] == [
        (series, newest[series]) for series in chosen
    ]
    assert [typed(one.fields) for one in latest] == [typed(model.points[series, newest[series]]) for series in chosen]
    assert sorted(tuple(sorted(one.items())) for one in engine.list_series("m", {})) == sorted(model.series)


@settings(max_examples=300, deadline=None)
@given(st.lists(STEPS, max_size=12), TAGS, st.tuples(TIMES, TIMES).map(sorted), st.integers(1, 5))
def test_both_engines_hold_what_the_model_holds(
    steps: list[tuple[Any, ...]], tags: dict[str, str], span: list[int], limit: int
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
            check(model, engine, {}, *ALL, limit)


@settings(max_examples=150, deadline=None)
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
    future.points, future.series = dict(model.points), set(model.series)
    for step in undone:
        run(future, memory, step, hot=False)
        run_model(future, step)
    journal.undo()
    check(model, memory, {}, *ALL, 3)
