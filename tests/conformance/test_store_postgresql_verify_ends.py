"""Where the check of a store on PostgreSQL ends: damage the server meets, limits of time and memory, privileges."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg  # type: ignore[import-untyped] # it ships no types
import pytest
from tests.conformance.conftest import QuickPostgres, schema_numbers
from tests.conformance.small_server_store import T0, filled
from tests.postgres_servers import VERSIONS

from polaris.domain import HealthStatus
from polaris.exceptions import StoreConnectionError
from polaris.storage import PolarisDataStore, TimeRange, TimeSeriesPoint
from polaris.storage._limits import DOCUMENT_BYTES_MAX
from polaris.storage.backends.postgresql import PostgresEngine
from polaris.storage.backends.postgresql._catalog import Partitions
from polaris.storage.backends.postgresql._driver import driver_errors
from polaris.storage.backends.postgresql._verify_reader import LARGE_ROWS_A_TIME, ROWS_A_TIME, SnapshotReader
from polaris.storage.backends.postgresql._verify_rules import (
    DOCUMENT_RULES,
    GRAPH_RULES,
    OUTBOX_RULES,
    SERIES_RULES,
    rules_of_points,
)

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "operate-the-store.md"


@pytest.fixture(scope="module")
def whole(quick_postgres: QuickPostgres) -> tuple[str, str]:
    """The DSN and the schema of a whole store."""
    dsn, schema = quick_postgres(15).dsn, f"test_{next(schema_numbers)}"
    asyncio.run(filled(dsn, schema))
    return dsn, schema


@pytest.mark.parametrize(
    ("error", "finding"),
    [
        ("DataCorruptedError", "documents: the server found damage"),
        ("LockNotAvailableError", "documents: not checked from 'indexes of documents exist' on"),
        ("SerializationError", "documents: not checked from 'indexes of documents exist' on"),
    ],
    ids=["damage", "lock", "conflict"],
)
async def test_what_the_server_meets_in_one_part_is_found_beside_the_rest(
    error: str, finding: str, whole: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = SnapshotReader.rows

    async def rows(self: SnapshotReader, sql: str, *values: object) -> list[Any]:
        if "doc_indexes" in sql:
            raise getattr(driver_errors, error)("invalid page in block 7")
        return await answered(self, sql, *values)

    monkeypatch.setattr(SnapshotReader, "rows", rows)
    async with PostgresEngine(whole[0], schema=whole[1]) as engine:
        began: list[str] = []
        (found,) = await engine.verify(began.append)
        assert found.startswith(finding)
        assert {"documents of d", "edges have both ends"} <= set(began)
        assert (await engine.health()).status is HealthStatus.HEALTHY


async def test_a_statement_that_takes_too_long_is_found_beside_the_rest(
    whole: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = SnapshotReader.rows

    async def rows(self: SnapshotReader, sql: str, *values: object) -> list[Any]:
        if sql.startswith("SELECT d.name FROM doc_collections"):
            return [("lost",)]
        if "doc_indexes" in sql:
            await self.link.run("SET LOCAL statement_timeout = 1")
            sql = "SELECT pg_sleep(60)"
        return await answered(self, sql, *values)

    monkeypatch.setattr(SnapshotReader, "rows", rows)
    async with PostgresEngine(whole[0], schema=whole[1], schema_timeout_s=7) as engine:
        began: list[str] = []
        before, stopped = await engine.verify(began.append)
    assert before == "the collection lost of documents has no table"
    assert stopped.startswith("documents: not checked from 'indexes of documents exist' on (a statement may take 7 s)")
    assert "time limit" in stopped
    assert {"documents of d", "edges have both ends", "events in the outbox can be published"} <= set(began)


async def test_what_a_stopped_check_has_found_is_told(whole: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    answered = SnapshotReader.streamed
    # All rows are no events; the one after the first batch takes a minute.
    no_events = (
        "SELECT n, '', '', CASE WHEN n > {0} THEN pg_sleep(60)::text::bytea END FROM generate_series(1, {0} + 1) n"
    )

    async def streamed(self: SnapshotReader, sql: str, *, rows_a_time: int = ROWS_A_TIME) -> AsyncIterator[Any]:
        if "FROM outbox" in sql:
            await self.link.run("SET LOCAL statement_timeout = 100")
            sql = no_events.format(LARGE_ROWS_A_TIME)
        async for row in answered(self, sql, rows_a_time=rows_a_time):
            yield row

    monkeypatch.setattr(SnapshotReader, "streamed", streamed)
    async with PostgresEngine(whole[0], schema=whole[1]) as engine:
        *before, stopped = await engine.verify()
    assert before == [
        f"the event {n} of the outbox has no topic, no type or no JSON object" for n in range(1, LARGE_ROWS_A_TIME + 1)
    ]
    assert stopped.startswith("outbox: not checked from 'events in the outbox can be published' on")


async def test_of_rows_that_may_be_large_few_are_in_memory(
    whole: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, int] = {}
    answered = SnapshotReader.streamed

    def streamed(self: SnapshotReader, sql: str, *, rows_a_time: int = ROWS_A_TIME) -> AsyncIterator[Any]:
        asked[sql.rpartition(" FROM ")[2]] = rows_a_time
        return answered(self, sql, rows_a_time=rows_a_time)

    monkeypatch.setattr(SnapshotReader, "streamed", streamed)
    async with PostgresEngine(whole[0], schema=whole[1]) as engine:
        await engine.verify()
    few = {table for table, rows in asked.items() if rows * DOCUMENT_BYTES_MAX <= 32 << 20}
    assert few == {"graph_nodes", "graph_edges", "outbox", *(one for one in asked if one.startswith("doc_"))}
    assert len(few) >= 4


def test_no_rule_compares_each_row_with_each() -> None:
    rules = [
        *SERIES_RULES,
        *DOCUMENT_RULES,
        *GRAPH_RULES,
        *OUTBOX_RULES,
        *rules_of_points(Partitions(1, 1, (), ()), "m"),
    ]
    assert [rule.name for rule in rules if re.search(r"NOT IN\s*\(\s*SELECT|<>\s*ALL", rule.sql)] == []


async def test_a_server_that_cannot_be_asked_is_no_finding(
    whole: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = PostgresEngine(whole[0], schema=whole[1])
    with pytest.raises(StoreConnectionError):
        await engine.verify()

    async def rows(_: SnapshotReader, sql: str, *values: object) -> list[Any]:
        raise driver_errors.AdminShutdownError("terminating connection due to administrator command")

    monkeypatch.setattr(SnapshotReader, "rows", rows)
    async with engine:
        with pytest.raises(StoreConnectionError, match="shutting down"):
            await engine.verify()


def statements_of_the_page(schema: str) -> list[str]:
    """The SQL of the page about operating a store, for a schema and users `node_<schema>` and `looker_<schema>`."""
    sql = "".join(re.findall(r"```sql\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL))
    sql = sql.replace("SCHEMA polaris", f"SCHEMA {schema}").replace("looker", f"looker_{schema}")
    sql = re.sub(r"(AUTHORIZATION|ROLE) polaris", rf"\1 node_{schema}", sql)
    return [one.strip() for one in sql.split(";") if one.strip()]


async def look_at_all(dsn: str, schema: str) -> list[str]:
    """Read a little of everything, and check it."""
    async with PolarisDataStore.postgresql(dsn, schema=schema, read_only=True) as store:
        assert await store.time_series.query_time_series("m", TimeRange.all(), limit=1)
        assert await store.time_series.aggregate_time_series("m", TimeRange.all(), "avg", fields=["v"])
        assert await store.documents.count("d", {"n": {"$gte": 0}}) == 3
        assert await store.graph.get_neighbors("a")
        (engine,) = store.engines
        assert isinstance(engine, PostgresEngine)
        assert (await engine.figures(count_points=True)).outbox == 2
        return await engine.verify()


@pytest.mark.parametrize("version", VERSIONS)
async def test_the_privileges_of_the_page_are_enough_and_each_is_needed(
    version: int, quick_postgres: QuickPostgres
) -> None:
    dsn, schema = quick_postgres(version).dsn, f"test_{next(schema_numbers)}"
    node, looker = (dsn.replace("polaris:", f"{name}_{schema}:") for name in ("node", "looker"))
    make, *grants = statements_of_the_page(schema)
    assert [grant.split()[0] for grant in grants] == ["GRANT", "GRANT", "GRANT", "ALTER"]
    superuser = await asyncpg.connect(dsn)
    for name in ("node", "looker"):
        await superuser.execute(f"CREATE ROLE {name}_{schema} LOGIN PASSWORD 'hidden'")
    await superuser.execute(make)
    await superuser.close()

    await filled(node, schema)
    async with PolarisDataStore.postgresql(node, schema=schema) as store:
        (engine,) = store.engines
        assert isinstance(engine, PostgresEngine)
        async with engine._pool.link() as link:
            for grant in grants:
                await link.run(grant)
            await store.time_series.store_many("late", [TimeSeriesPoint(T0, {}, {"v": 1.0})])
            assert await look_at_all(looker, schema) == []

            await link.run(f"REVOKE SELECT ON outbox_sequence_seq FROM looker_{schema}")
            with pytest.raises(StoreConnectionError, match="outbox_sequence_seq"):
                await look_at_all(looker, schema)

            for turn, grant in enumerate(grants):
                await link.run(grant.replace("GRANT ", "REVOKE ").replace(" TO ", " FROM "))
                await store.documents.put_document(f"late{turn}", "one", {})
                with pytest.raises(StoreConnectionError, match="may not do this"):
                    await look_at_all(looker, schema)
                await link.run(grant)
