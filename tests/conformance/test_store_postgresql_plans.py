"""The queries of a server use the indexes that the ports promise: its own plans say so."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
import pytest_asyncio
from tests.conformance.conftest import QuickPostgres, schema_numbers
from tests.conformance.postgres_plans import analyze, plans
from tests.indexed_documents import (
    COUNT,
    INDEXES,
    SERVED,
    SERVED_BY_POSTGRESQL,
    SERVED_BY_SQLITE,
    UNSERVED,
    document,
)
from tests.postgres_servers import VERSIONS

from polaris.storage import GraphEdge, PolarisDataStore, TimeSeriesPoint

T0 = datetime(2030, 1, 1, tzinfo=UTC)
INDEX = re.compile(r"\bdoc_\d+_[0-9a-f]{24}\b")

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=VERSIONS)
async def store(request: pytest.FixtureRequest, quick_postgres: QuickPostgres) -> AsyncIterator[PolarisDataStore]:
    """A store with something of everything, which no test changes."""
    dsn, schema = quick_postgres(request.param).dsn, f"plans_{next(schema_numbers)}"
    async with PolarisDataStore.postgresql(dsn, schema=schema, pool_max=2) as made:
        await made.documents.insert_documents("d", [document(n) for n in range(COUNT)])
        for fields in INDEXES:
            await made.documents.create_index("d", fields)
        points = [TimeSeriesPoint(T0, tags_of(n), {"v": n}) for n in range(COUNT)]
        await made.time_series.store_many("m", points)
        await made.time_series.store_many("other", points)
        await made.graph.add_edges(
            [GraphEdge(f"n{n % 997}", f"n{n * 7 % 997}", f"t{n % 3}", {"w": n}) for n in range(2 * COUNT)]
        )
        await analyze(made)
        yield made


def tags_of(number: int) -> dict[str, str]:
    tags = {"host": f"h{number:04}", "zone": str(number % 3)}
    return tags if number % 150 else {**tags, "rack": "r1"}


def about(table: str, told: list[str]) -> str:
    """The plans that read the table or one whose name begins so."""
    found = [plan for plan in told if re.search(rf"\bon {table}", plan)]
    assert found, told
    return "\n".join(found)


@pytest.mark.parametrize("query", [*SERVED, *SERVED_BY_POSTGRESQL], ids=str)
async def test_every_operator_that_can_uses_the_index(store: PolarisDataStore, query: dict[str, Any]) -> None:
    documents = store.documents
    for ask in (partial(documents.find_documents, "d", query, 10), partial(documents.count, "d", query)):
        plan = about("doc_[0-9]", await plans(store, ask))
        assert INDEX.search(plan), plan
        assert "Seq Scan" not in plan, plan


@pytest.mark.parametrize("query", [*SERVED_BY_SQLITE, *UNSERVED], ids=str)
async def test_what_no_index_serves_is_checked_for_what_the_other_conditions_leave(
    store: PolarisDataStore, query: dict[str, Any]
) -> None:
    plan = about("doc_[0-9]", await plans(store, partial(store.documents.count, "d", query)))
    assert not INDEX.search(plan), plan
    together = {"$and": [query, {"b.c": "3", "t": {"$gte": 2900}}]}
    plan = about("doc_[0-9]", await plans(store, partial(store.documents.find_documents, "d", together)))
    assert INDEX.search(plan), plan
    assert "Seq Scan" not in plan, plan


async def test_whatever_the_plan_the_answers_are_those_of_the_memory(store: PolarisDataStore) -> None:
    async with PolarisDataStore.memory() as model:
        await model.documents.insert_documents("d", [document(n) for n in range(COUNT)])
        for query in [*SERVED, *SERVED_BY_SQLITE, *SERVED_BY_POSTGRESQL, *UNSERVED]:
            found = await store.documents.find_documents("d", query)
            assert found, query
            assert found == await model.documents.find_documents("d", query), query
            assert len(found) == await store.documents.count("d", query), query


async def test_an_index_serves_a_range_behind_an_equality(store: PolarisDataStore) -> None:
    query = {"b.c": "3", "t": {"$gt": 2900}}
    plan = about("doc_[0-9]", await plans(store, partial(store.documents.count, "d", query)))
    assert re.search(r"Index Cond: .*\{b,c\}.*\{t\}.* > '2900'", plan), plan


@pytest.mark.parametrize("sort", ["a", "-a", ["b.c", "t"], ["-b.c", "-t"]], ids=str)
async def test_a_sorted_page_is_read_from_the_index(store: PolarisDataStore, sort: Any) -> None:
    first = await store.documents.find_documents("d", limit=100, sort=sort)
    for after in (None, first[-1]):
        page = partial(store.documents.find_documents, "d", limit=5, sort=sort, after=after)
        plan = about("doc_[0-9]", await plans(store, page))
        assert re.search(rf"Index Scan (Backward )?using {INDEX.pattern}", plan), plan
        assert "Seq Scan" not in plan, plan


@pytest.mark.parametrize("condition", ["0007", {"$in": ["0007", "0008"]}, {"$prefix": "000"}, {"$gt": "2990"}], ids=str)
async def test_a_document_is_found_by_its_id(store: PolarisDataStore, condition: Any) -> None:
    for ask in (store.documents.find_documents, store.documents.count):
        plan = about("doc_[0-9]", await plans(store, partial(ask, "d", {"_id": condition})))
        assert re.search(r"doc_\d+_pkey", plan), plan
        assert "Seq Scan" not in plan, plan


async def test_what_has_expired_is_found_by_its_instant(store: PolarisDataStore) -> None:
    plan = about("doc_[0-9]", await plans(store, partial(store.documents.purge_expired, "d")))
    assert re.search(r"doc_\d+_expires_us_idx", plan), plan
    assert "Seq Scan" not in plan, plan


@pytest.mark.parametrize(
    "tags",
    [
        {"host": "h0077"},
        {"host": {"$eq": "h0077"}},
        {"host": {"$in": ["h0077", "h0078"]}},
        {"host": {"$in": [f"h{n:04}" for n in range(0, 60, 2)]}},
        {"host": {"$prefix": "h007"}},
        {"rack": {"$exists": True}},
        {"host": "h0077", "zone": "2"},
        {"host": {"$prefix": "h007", "$ne": "h0077"}, "rack": {"$exists": False}},
    ],
    ids=lambda tags: str(tags)[:60],
)
async def test_the_index_of_the_tags_finds_series(store: PolarisDataStore, tags: Any) -> None:
    series = store.time_series
    for ask in (series.list_series, series.count_series, series.latest):
        plan = about("ts_tags", await plans(store, partial(ask, "m", tags)))
        assert re.search(r"using ts_tags_pkey|Bitmap Index Scan on ts_tags_pkey", plan), plan
        assert "Seq Scan on ts_" not in plan, plan
        assert not [count for count in re.findall(r"Rows Removed by Filter: (\d+)", plan) if int(count) > 100], plan


@pytest.mark.parametrize("direction", ["out", "in", "both"])
@pytest.mark.parametrize("types", [None, "t1", ["t1", "t2"]], ids=str)
async def test_no_question_about_some_nodes_looks_at_all_edges(
    store: PolarisDataStore, direction: Any, types: Any
) -> None:
    view = {"direction": direction, "relationship_type": types}
    graph = store.graph
    for ask in (
        partial(graph.get_neighbors, "n1", **view),
        partial(graph.get_edges, "n1", **view),
        partial(graph.count_edges, "n1", **view),
        partial(graph.find_path, "n1", "n5", max_depth=2, **view),
    ):
        plan = about("graph_edges", await plans(store, ask))
        assert "Seq Scan on graph_edges" not in plan, plan
        ends = {"out": ["graph_edges_pkey"], "in": ["graph_edges_in"], "both": ["graph_edges_pkey", "graph_edges_in"]}
        assert all(index in plan for index in ends[direction]), plan
