"""The queries of the embedded engine use their indexes: SQLite's own plans say so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.sqlite_sessions import new_session

from polaris.storage._filter import parse_query
from polaris.storage._operation import AggregateRequest
from polaris.storage._sorting import parse_after, parse_sort
from polaris.storage._timeseries import AggregationType, TimeSeriesPoint
from polaris.storage.backends.sqlite._compaction import Compaction
from polaris.storage.backends.sqlite._session import SqliteSession

T0 = datetime(2030, 1, 1, tzinfo=UTC)
ALL = (-(2**62), 2**62)


@contextmanager
def plans(session: SqliteSession) -> Iterator[list[str]]:
    """The plan of every statement that runs meanwhile."""
    statements: list[tuple[str, Any]] = []

    def trace(_: object, sql: str, bindings: Any) -> bool:
        statements.append((sql, bindings))
        return True

    found: list[str] = []
    session.connection.exec_trace = trace
    try:
        yield found
    finally:
        session.connection.exec_trace = None
        for sql, bindings in statements:
            rows = session.connection.execute("EXPLAIN QUERY PLAN " + sql, bindings).fetchall()
            found.extend(str(row[3]) for row in rows)


@pytest.fixture
def session() -> SqliteSession:
    made = new_session()
    documents = [(f"{n:04}", {"a": n, "b": {"c": str(n % 10)}, "t": n}) for n in range(500)]
    made.documents.insert_many("d", documents)
    for paths in ((("a",),), (("b", "c"), ("t",))):
        made.documents.create_index("d", paths, unique=False)
    points = [TimeSeriesPoint(T0 + timedelta(seconds=n), {"h": str(n % 20)}, {"v": n}) for n in range(2_000)]
    made.time_series.store_many("m", points)
    Compaction(made, hot_rows_max=1, slice_rows=1_500).move_slice()
    return made


@pytest.mark.parametrize(
    "condition",
    [
        7,
        "x",
        {"$eq": 7},
        {"$gt": 480},
        {"$gte": 480},
        {"$lt": 9},
        {"$lte": 9.5},
        {"$gt": "x"},
        {"$in": [1, 2]},
        {"$in": ["1", 2]},
        {"$gte": 3, "$lt": 9},
        None,
    ],
)
def test_every_operator_that_can_uses_the_index(session: SqliteSession, condition: Any) -> None:
    with plans(session) as found:
        session.documents.find("d", parse_query({"a": condition}), limit=10, order=(), page=None)
    assert any("USING INDEX doc_1_" in line for line in found), found
    assert not any(line.startswith("SCAN doc_1") for line in found), found


def test_a_page_of_the_newest_of_a_group_reads_no_more_than_the_page(session: SqliteSession) -> None:
    order = parse_sort("-t")
    query = parse_query({"b.c": "3"})
    first = session.documents.find("d", query, limit=5, order=order, page=None)
    with plans(session) as found:
        session.documents.find("d", query, limit=5, order=order, page=parse_after(first[-1], order))
    assert any("SEARCH doc_1 USING INDEX doc_1_" in line for line in found), found
    assert not any(line == "USE TEMP B-TREE FOR ORDER BY" for line in found), found


def test_a_document_is_found_by_its_id_at_once(session: SqliteSession) -> None:
    with plans(session) as found:
        session.documents.get("d", "0007")
    assert any("SEARCH doc_1 USING INDEX sqlite_autoindex_doc_1_1 (id=?)" in line for line in found), found


@pytest.mark.parametrize(
    "read",
    [
        lambda session: session.time_series.query("m", ALL, {"h": "3"}, limit=5, descending=True, fields=None),
        lambda session: session.time_series.query("m", ALL, {}, limit=5, descending=False, fields=frozenset("v")),
        lambda session: session.time_series.latest("m", {"h": "3"}),
        lambda session: session.time_series.latest("m", {}),
        lambda session: session.time_series.aggregate(
            "m", AggregateRequest(ALL, AggregationType.AVG, ("h",), 60_000_000, {"h": "3"}, ("v",))
        ),
    ],
)
def test_the_cold_table_is_never_read_as_a_whole(session: SqliteSession, read: Callable[[SqliteSession], Any]) -> None:
    with plans(session) as found:
        read(session)
    assert any("SEARCH" in line and ("ts_cold" in line or " p " in line) and "series=?" in line for line in found), (
        found
    )
    assert not any(line in ("SCAN ts_cold", "SCAN ts_series") for line in found), found


def test_one_series_comes_sorted_from_both_tables(session: SqliteSession) -> None:
    with plans(session) as found:
        session.time_series.query("m", ALL, {"h": "3"}, limit=5, descending=True, fields=None)
    reading = found[found.index("MERGE (UNION ALL)") :]
    # Within one instant the few parts of a point may be sorted; the instants themselves never are.
    assert not any(line == "USE TEMP B-TREE FOR ORDER BY" for line in reading), found


@pytest.mark.parametrize("direction", ["out", "in", "both"])
@pytest.mark.parametrize("kind", [None, "needs"])
def test_neighbors_are_looked_up_from_either_end(session: SqliteSession, direction: Any, kind: str | None) -> None:
    with plans(session) as found:
        session.graph.neighbors("n", direction, kind)
    assert any("SEARCH graph_edges USING" in line for line in found), found
    assert not any("SCAN graph_edges" in line for line in found), found
