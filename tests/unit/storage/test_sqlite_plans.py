"""The queries of the embedded engine use their indexes: SQLite's own plans say so."""

from __future__ import annotations

from typing import Any

import pytest
from tests.sqlite_sessions import new_session
from tests.unit.storage.sqlite_plans import plans

from polaris.storage._graph_view import GraphView
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
