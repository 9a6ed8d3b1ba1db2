"""The questions of walks use the indexes of the edges: SQLite's own plans say so."""

from __future__ import annotations

from typing import Any

import pytest
from tests.sqlite_sessions import new_session

from polaris.storage import GraphEdge
from polaris.storage._graph_view import parse_view
from polaris.storage.backends.sqlite._session import SqliteSession


@pytest.fixture(scope="module")
def session() -> SqliteSession:
    made = new_session()
    made.graph.add_edges([GraphEdge(f"n{n % 50}", f"n{n * 7 % 50}", f"t{n % 3}", {"w": n}) for n in range(300)])
    made.connection.execute("ANALYZE")
    return made


@pytest.mark.parametrize("direction", ["out", "in", "both"])
@pytest.mark.parametrize("types", [None, "t1", ["t1", "t2"]])
@pytest.mark.parametrize("edge_query", [None, {"w": {"$gt": 5}}])
def test_no_question_about_some_nodes_looks_at_all_edges(
    session: SqliteSession, direction: str, types: Any, edge_query: Any
) -> None:
    view = parse_view(direction, types, edge_query)
    statements: list[tuple[str, Any]] = []

    def trace(_: object, sql: str, bindings: Any) -> bool:
        statements.append((sql, bindings))
        return True

    session.connection.exec_trace = trace
    try:
        session.graph.expand(["n1", "n2"], view)
        session.graph.weigh(["n1"], view, ("w",))
        session.graph.edge_rows(["n1"], view)
        session.graph.neighbors("n1", view, 10, None)
        session.graph.neighbors("n1", view, 10, "n2")
        session.graph.edges("n1", view, 10, None)
        session.graph.count_edges("n1", view)
        session.graph.present(["n1"], view.nodes)
    finally:
        session.connection.exec_trace = None
    assert len(statements) == 8
    for sql, bindings in statements:
        plan = [str(row[3]) for row in session.connection.execute("EXPLAIN QUERY PLAN " + sql, bindings).fetchall()]
        assert not any(line.startswith(("SCAN graph", "SCAN edge")) for line in plan), (sql, plan)
        assert any(line.startswith("SEARCH graph_") for line in plan), (sql, plan)
