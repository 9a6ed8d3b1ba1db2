"""The queries of the embedded engine use their indexes: SQLite's own plans say so."""

from __future__ import annotations

from typing import Any

import apsw
import pytest
from tests.sqlite_sessions import new_session
from tests.unit.storage.sqlite_plans import plans

from polaris.storage import TimeSeriesPoint
from polaris.storage._graph_view import GraphView
from polaris.storage._ranges import EPOCH
from polaris.storage._tag_filter import parse_tags
from polaris.storage.backends.sqlite._session import SqliteSession


@pytest.fixture
def session() -> SqliteSession:
    return new_session()


@pytest.mark.parametrize("direction", ["out", "in", "both"])
@pytest.mark.parametrize("kind", [None, "needs"])
def test_neighbors_are_looked_up_from_either_end(session: SqliteSession, direction: Any, kind: str | None) -> None:
    with plans(session) as found:
        session.graph.neighbors("n", GraphView(direction, None if kind is None else (kind,)), 100, None)
    assert any("SEARCH graph_edges USING" in line for line in found), found
    assert not any("SCAN graph_edges" in line for line in found), found


def test_a_statement_is_not_prepared_anew_for_other_values(session: SqliteSession) -> None:
    systems = [{"system": str(number)} for number in range(3)]
    session.time_series.store_many("load", [TimeSeriesPoint(EPOCH, tags, {"cpu": 1.0}) for tags in systems])
    prepared: list[int] = []

    def authorize(operation: int, *_: object) -> int:
        prepared.append(operation)
        return apsw.SQLITE_OK

    session.connection.authorizer = authorize  # asked when a statement is prepared
    session.time_series.latest("load", parse_tags(systems[0]), None)
    session.graph.neighbors("n", GraphView("out", ("needs",)), 100, None)
    assert prepared
    prepared.clear()
    for limit, tags in enumerate(systems, 1):
        assert len(session.time_series.latest("load", parse_tags(tags), None)) == 1
        session.graph.neighbors(f"n{limit}", GraphView("out", ("needs",)), limit, None)
    assert not prepared
