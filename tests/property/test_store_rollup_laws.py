"""Whatever is done to series with rollups, in parts as well: what is kept in the file obeys the laws of `verify`."""

from __future__ import annotations

import operator
from contextlib import suppress
from typing import Any

from hypothesis import event, given, settings
from hypothesis import strategies as st
from tests.property.test_store_rollups import ALONG, LATER, POINTS, SECOND, SPANS, WIDTHS, policy
from tests.sqlite_sessions import compact, new_session, roll_up, scratch

from polaris.exceptions import QueryError
from polaris.storage._points import TimeSeriesPoint
from polaris.storage._ranges import from_micros
from polaris.storage._tag_filter import parse_tags
from polaris.storage.backends.sqlite._session import SqliteSession
from polaris.storage.backends.sqlite._sql import rows, scalar
from polaris.storage.backends.sqlite._verify import findings
from polaris.storage.backends.sqlite._verify_rollups import ROLLUP_RULES

SESSION = new_session()
ROWS = st.sampled_from([1, 2, 3, 6, 100])
TAGS = st.sampled_from([{}, {"h": "a"}])
STEPS = st.one_of(
    st.tuples(st.just("store"), POINTS),
    st.tuples(st.just("retain"), LATER, ROWS),
    st.tuples(st.just("compact"), st.integers(1, 6)),
    st.tuples(st.just("roll up"), st.integers(1, 20)),
    st.tuples(st.just("store"), POINTS),
    st.tuples(st.just("thin"), LATER, st.sampled_from([4 * SECOND, None]), ROWS),
    st.tuples(st.just("roll up all"), st.sampled_from([1, 8, 1_000])),
    st.tuples(st.just("policy"), WIDTHS, ALONG),
    st.tuples(st.just("delete"), SPANS, TAGS),
    st.tuples(st.just("delete series"), TAGS, ROWS),
)
EVENTS = st.one_of(STEPS, STEPS, STEPS, st.tuples(st.just("undone"), STEPS))


def run(session: SqliteSession, step: tuple[Any, ...]) -> None:
    """One transaction's worth of a step."""
    series = session.time_series
    match step:
        case "store", points:
            series.store_many(
                "m", [TimeSeriesPoint(from_micros(at), {"h": host}, {"v": value, "w": 1}) for at, host, value in points]
            )
        case "retain", since_us, rows_max:
            series.retain("m", since_us, rows_max)
        case "thin", since_us, into_us, rows_max:
            series.thin("m", since_us, into_us, rows_max)
        case "policy", width, goes_along:
            series.set_policy("m", policy(width, goes_along=goes_along))
        case "delete", span, tags:
            with suppress(QueryError):  # it cuts a rollup
                series.delete_range("m", tuple(span), parse_tags(tags))
        case "delete series", tags, rows_max:
            series.delete_series("m", parse_tags(tags), rows_max)
        case "compact", rows_max:
            compact(session, rows_max)
        case "roll up", rows_max:
            roll_up(session, rows_max)
        case "roll up all", rows_max:
            while roll_up(session, rows_max):
                pass
        case "undone", what:
            session.connection.execute("SAVEPOINT undone")
            mark = session.memory.mark()
            run(session, what)
            session.connection.execute("ROLLBACK TO undone")
            session.memory.rolled_back(mark)


@settings(max_examples=100, deadline=None)
@given(width=WIDTHS, points=st.builds(operator.add, POINTS, POINTS), steps=st.lists(EVENTS, min_size=3, max_size=16))
def test_rollups_and_summaries_obey_the_laws_after_every_step(
    width: int, points: list[Any], steps: list[tuple[Any, ...]]
) -> None:
    with scratch(SESSION) as session:
        begin = [("policy", width, False), ("store", points), *[("compact", 3)] * 3, ("roll up", 1_000)]
        for step in [*begin, *steps, ("roll up", 1_000)]:
            run(session, step)
            broken = [rule.name for rule in ROLLUP_RULES if rows(session.connection, rule.sql)]
            assert not broken, step
        assert findings(session.connection) == []
        kept = [scalar(session.connection, f"SELECT count(*) > 0 FROM ts_{name}") for name in ("rollups", "windows")]
        event(f"rollups: {bool(kept[0])}, summaries: {bool(kept[1])}")
