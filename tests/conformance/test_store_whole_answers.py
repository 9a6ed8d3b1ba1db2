"""A read without a limit gives all that there is or refuses: on every engine, of every model, by every repository."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.postgres_servers import VERSIONS
from tests.routed_stores import T0, memory_stores, state

from polaris.domain import AdaptationAction, ExecutionResult, ExecutionStatus, LearnedPattern, SystemDependency
from polaris.exceptions import QueryError
from polaris.storage import GraphEdge, PolarisDataStore, TimeRange, TimeSeriesPoint
from polaris.storage._limits import LIMIT_MAX, rows_wanted
from polaris.storage._routing import RoutedDataStore
from polaris.storage.backends.postgresql import PostgresEngine

ALL = TimeRange.all()
MOST = 3
NAMES = [f"n{n}" for n in range(MOST + 1)]

Read = Callable[..., Awaitable[list[Any]]]

one_engine = pytest.mark.parametrize("store", ["memory"], indirect=True)
"""For what does not depend on the engine."""


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
async def store(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[PolarisDataStore]:
    """Has one more of everything than an answer may have."""
    if request.param == "memory":
        made = PolarisDataStore.memory()
    elif request.param == "sqlite":
        made = PolarisDataStore.sqlite(tmp_path / "store.db")
    else:
        dsn, schema = request.getfixturevalue("empty_schemas")(max(VERSIONS))
        made = PolarisDataStore(PostgresEngine(dsn, schema=schema, pool_max=2))
    async with made:
        await fill(made)
        monkeypatch.setattr("polaris.storage._limits.LIMIT_MAX", MOST)
        monkeypatch.setattr("polaris.storage.repositories._patterns.PAGE_PATTERNS", 2)
        yield made


async def fill(store: PolarisDataStore) -> None:
    await store.time_series.store_many("m", [TimeSeriesPoint(T0, {"host": name}, {"v": 1}) for name in NAMES])
    await store.documents.put_documents("d", [{"_id": name} for name in NAMES])
    await store.states.save_many([state("web", second) for second in range(len(NAMES))])
    async with store.unit_of_work() as work:
        for name in NAMES:
            stamp = T0 + timedelta(seconds=NAMES.index(name))
            await work.actions.save(AdaptationAction(name, "scale", "web", created_at=stamp))
            await work.results.save(ExecutionResult(name, ExecutionStatus.SUCCESS, completed_at=stamp))
            await work.patterns.save(LearnedPattern(name, "load", {"cpu": {"$gt": 1}}, {}, 0.5, T0))
            await work.dependencies.save(SystemDependency("web", name, "needs"))
        await work.commit()


def reads(store: PolarisDataStore) -> dict[str, tuple[str, Read]]:
    """Every read that takes a limit and may go without, and what its answer is made of."""
    series, graph = store.time_series, store.graph
    prefix, behind = {"host": {"$prefix": "n"}}, {"_id": {"$gte": "n"}}
    return {
        "points": ("points", partial(series.query_time_series, "m", ALL)),
        "newest points": ("points", partial(series.query_time_series, "m", ALL, order="desc")),
        "points of a field": ("points", partial(series.query_time_series, "m", ALL, prefix, fields=["v"])),
        "series": ("series", partial(series.list_series, "m")),
        "documents": ("documents", partial(store.documents.find_documents, "d")),
        "matching documents": ("documents", partial(store.documents.find_documents, "d", behind, sort="-_id")),
        "nodes": ("nodes", graph.find_nodes),
        "matching nodes": ("nodes", partial(graph.find_nodes, behind)),
        "edges": ("edges", graph.get_edges),
        "edges of a node": ("edges", partial(graph.get_edges, "web", "out", "needs")),
        "neighbours": ("neighbours", partial(graph.get_neighbors, "web")),
        "matching neighbours": ("neighbours", partial(graph.get_neighbors, "web", node_query=behind)),
        "history": ("points", partial(store.states.get_state_history, "web", ALL)),
        "metric": ("points", partial(store.states.series, "web", "x", ALL)),
        "actions": ("documents", store.actions.find_all),
        "results": ("documents", partial(store.results.find, {"status": "success"}, sort="-ended_us")),
        "patterns of a type": ("documents", partial(store.patterns.find_by_type, "load")),
        "patterns of a situation": ("patterns", partial(store.patterns.find_matching, {"cpu": 2})),
        "dependencies": ("edges", store.dependencies.find_all),
    }


async def outcome(read: Read, **options: Any) -> int | str:
    """How many rows came, or why none did."""
    try:
        return len(await read(**options))
    except QueryError as error:
        return error.message.partition(":")[0]


async def test_what_would_be_cut_is_refused(store: PolarisDataStore) -> None:
    asked = reads(store)
    found = {name: await outcome(read) for name, (_, read) in asked.items()}
    assert found == {name: f"the answer has more than {MOST} {kind}" for name, (kind, _) in asked.items()}


@one_engine
async def test_the_refusal_names_what_to_use_instead(store: PolarisDataStore) -> None:
    with pytest.raises(QueryError, match=r"limit.*shorter range.*`after`.*iterate_time_series"):
        await store.time_series.query_time_series("m", ALL)
    with pytest.raises(QueryError, match=r"limit.*`after`"):
        await store.documents.find_documents("d")
    with pytest.raises(QueryError, match=r"limit.*confidence_min"):
        await store.patterns.find_matching({"cpu": 2})


async def test_a_limit_gives_the_first_ones(store: PolarisDataStore) -> None:
    for limit in (0, 1, MOST):
        found = {name: await outcome(read, limit=limit) for name, (_, read) in reads(store).items()}
        assert found == dict.fromkeys(found, limit)


async def test_an_answer_as_large_as_may_be_needs_no_limit(store: PolarisDataStore) -> None:
    points = await store.time_series.query_time_series("m", ALL, limit=1)
    rest: dict[str, list[Any]] = {
        "points": await store.time_series.query_time_series("m", ALL, after=points[0]),
        "series": await store.time_series.list_series("m", after=points[0].tags),
        "documents": await store.documents.find_documents("d", after=NAMES[0]),
        "nodes": await store.graph.find_nodes({"_id": {"$lt": "web"}}, after=NAMES[0]),
        "edges": await store.graph.get_edges(after=GraphEdge("web", NAMES[0], "needs")),
        "neighbours": await store.graph.get_neighbors("web", after=NAMES[0]),
        "neighbours that match": await store.graph.get_neighbors("web", node_query={"_id": {"$gte": NAMES[1]}}),
        "patterns": await store.patterns.find_matching({"cpu": 2}, limit=MOST),
    }
    assert {name: len(rows) for name, rows in rest.items()} == dict.fromkeys(rest, MOST)
    assert [
        point.tags["host"] async for point in store.time_series.iterate_time_series("m", ALL, page_points=2)
    ] == NAMES


async def test_a_transaction_goes_on_after_a_refusal(store: PolarisDataStore) -> None:
    async with store.unit_of_work() as work:
        await work.documents.put_document("d", "more", {})
        with pytest.raises(QueryError, match="more than 3 documents"):
            await work.documents.find_documents("d")
        assert len(await work.documents.find_documents("d", limit=2)) == 2
        await work.commit()
    assert await store.documents.count("d") == len(NAMES) + 1


@one_engine
async def test_the_states_of_all_systems_are_not_cut_at_the_end(store: PolarisDataStore) -> None:
    assert len(await store.states.find_all()) == len(await store.states.find_all(limit=1)) == 1
    assert await store.states.find_all(limit=0) == []
    with pytest.raises(QueryError, match="limit"):
        await store.states.find_all(limit=-1)


@one_engine
async def test_the_outbox_has_a_limit_of_its_own(store: PolarisDataStore) -> None:
    with pytest.raises(QueryError, match="limit"):
        await store.outbox.pending(limit=None)  # type: ignore[arg-type] # what is refused


async def test_several_stores_refuse_as_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    async with RoutedDataStore(memory_stores()) as routed:
        await routed.save_many([state("web", second) for second in range(MOST + 1)])
        monkeypatch.setattr("polaris.storage._limits.LIMIT_MAX", MOST)
        assert len(await routed.get_state_history("web", ALL, limit=MOST)) == MOST
        with pytest.raises(QueryError, match="more than 3 points"):
            await routed.get_state_history("web", ALL)


def test_a_read_looks_for_one_row_more_than_an_answer_may_have() -> None:
    assert rows_wanted(None) == LIMIT_MAX + 1
    assert rows_wanted(LIMIT_MAX) == LIMIT_MAX
    for limit in (-1, LIMIT_MAX + 1, True, 1.0, "1"):
        with pytest.raises(QueryError, match="limit: an integer from 0 to 1000000"):
            rows_wanted(limit)
