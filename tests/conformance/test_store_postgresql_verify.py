"""The check of a store on PostgreSQL: what was done by the rules is found whole, and each broken law is found."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress

import pytest
from tests.conformance.conftest import QuickPostgres, schema_numbers
from tests.conformance.small_server_store import FOR_EVER, HOUR, ROLLED_UP, SECOND, T0, filled
from tests.faults.retention_acts import MovedClock
from tests.postgres_servers import VERSIONS
from tests.store_content import fill

from polaris.exceptions import QueryError
from polaris.storage import (
    FieldValue,
    PolarisDataStore,
    RetentionPolicy,
    RollupPolicy,
    TimeRange,
    TimeSeriesPoint,
)
from polaris.storage.backends.postgresql import PostgresEngine, _verify_points
from polaris.storage.backends.postgresql._link import Link
from polaris.storage.backends.postgresql._verify import Check, StoreCheck
from polaris.storage.backends.postgresql._verify_reader import (
    SnapshotReader,
    snapshot,
)
from polaris.storage.backends.postgresql._verify_rules import (
    SERIES_RULES,
    limited,
)

ALONG = RetentionPolicy(2 * HOUR, [RollupPolicy(10 * SECOND, 2 * HOUR)])
VALUES: list[FieldValue] = [None, True, "text", 0, 3, -7, 2.5, 1e9 + 0.25, 2**62, -1e300, 1e300, 5e-324, -0.0, "\x01"]

POINT = "(SELECT series, ts FROM ts_{m} WHERE f IS NOT NULL ORDER BY ts DESC LIMIT 1)"
TEXT = "(SELECT series, ts FROM ts_{m} WHERE x IS NOT NULL ORDER BY ts DESC LIMIT 1)"
WINDOW = (
    "(series, slot, start_us) = (SELECT series, slot, start_us FROM ts_windows WHERE slot > 0 ORDER BY 1, 2, 3 LIMIT 1)"
)
ROLLUP = "(series, width_us, start_us) = (SELECT series, width_us, start_us FROM ts_rollups ORDER BY 1, 3 LIMIT 1)"
EVENT = (
    "INSERT INTO outbox OVERRIDING SYSTEM VALUE"
    " SELECT 4711, o.topic, o.event_type, 1, o.payload, 0 FROM outbox o LIMIT 1"
)
BREAKS = [
    ("collections of points have a table", "INSERT INTO ts_collections (name, partition_us) VALUES ('lost', 1)"),
    ("tables of points have a collection", "CREATE TABLE ts_4711 (ts bigint) PARTITION BY RANGE (ts)"),
    ("partitions are those that are noted", "UPDATE ts_partitions SET end_us = end_us + 1 WHERE collection = {m}"),
    ("partitions are those that are noted", "DELETE FROM ts_partitions WHERE collection = {m} AND start_us < 0"),
    ("partitions are those that are noted", "INSERT INTO ts_partitions VALUES ({m}, 1, 2)"),
    ("series belong to a collection", "UPDATE ts_series SET collection = 4711 WHERE id = 2"),
    ("series have a shape", "UPDATE ts_series SET shape = 4711 WHERE id = 2"),
    ("series are found by their tags", "DELETE FROM ts_tags WHERE series = 2 AND key = 'host'"),
    ("series are found by their tags", "INSERT INTO ts_tags VALUES ({m}, 'zone', 'x', 2)"),
    ("series are found by their tags", "UPDATE ts_tags SET collection = 4711 WHERE series = 2"),
    ("newest points are of a series", "INSERT INTO ts_latest VALUES (4711, 0)"),
    ("policies are of a collection", "UPDATE ts_policies SET collection = 4711 WHERE collection = {m}"),
    ("policies are of a collection", "UPDATE ts_frontiers SET collection = 4711 WHERE collection = {m}"),
    ("policies are of a collection", "UPDATE ts_summaries SET collection = 4711 WHERE collection = {m}"),
    ("summaries are those that policies ask for", "DELETE FROM ts_policies WHERE collection = {m}"),
    ("summaries are those that policies ask for", "UPDATE ts_policies SET window_us = 7 WHERE collection = {m}"),
    ("readers and writers know one frontier", "UPDATE ts_frontiers SET frontier_us = 0 WHERE collection = {m}"),
    ("readers and writers know one frontier", "UPDATE ts_summaries SET done_us = 2^62 WHERE collection = {m}"),
    ("readers and writers know one frontier", "UPDATE ts_frontiers SET raised = 4711 WHERE collection = {m}"),
    ("marks of what was written to have a series and an end", "INSERT INTO ts_marks VALUES (DEFAULT, {m}, 4711, 0, 1)"),
    ("marks of what was written to have a series and an end", "INSERT INTO ts_marks VALUES (DEFAULT, {m}, 2, 1, 1)"),
    ("rollups are of windows of a series", f"UPDATE ts_rollups SET start_us = start_us + 1 WHERE {ROLLUP}"),
    ("rollups are of windows of a series", f"UPDATE ts_rollups SET series = 4711 WHERE {ROLLUP}"),
    ("rollups are of windows of a series", f"UPDATE ts_rollups SET width_us = 0 WHERE {ROLLUP}"),
    ("summaries are of windows that are done", f"UPDATE ts_windows SET series = 4711 WHERE {WINDOW}"),
    ("summaries are of windows that are done", f"UPDATE ts_windows SET start_us = start_us + 1 WHERE {WINDOW}"),
    ("summaries are of windows that are done", f"UPDATE ts_windows SET start_us = 2^61 WHERE {WINDOW}"),
    ("summaries are of windows that are done", f"UPDATE ts_windows SET count = 0 WHERE {WINDOW}"),
    ("shapes of series", "UPDATE ts_shapes SET fields = '[[\"load\",\"z\"]]' WHERE id = 1"),
    ("shapes of series", "UPDATE ts_shapes SET fields = '[[' WHERE id = 1"),
    ("shapes of series", "UPDATE ts_shapes SET digest = '' WHERE id = 1"),
    ("tags of series", "UPDATE ts_series SET tags = tags || 'x' WHERE id = 2"),
    ("tags of series", "UPDATE ts_series SET digest = '' WHERE id = 2"),
    ("policies are what they say", "UPDATE ts_policies SET policy = '[' WHERE collection = {m}"),
    ("policies are what they say", "UPDATE ts_policies SET policy = '[-1,[]]' WHERE collection = {m}"),
    ("rollups do not contradict themselves", f"UPDATE ts_rollups SET summary = '' WHERE {ROLLUP}"),
    ("rollups do not contradict themselves", f"UPDATE ts_rollups SET start_us = start_us - 10000000 WHERE {ROLLUP}"),
    ("rollups belong to a field", f"UPDATE ts_rollups SET field = 'nobody' WHERE {ROLLUP}"),
    ("summaries belong to a field", f"UPDATE ts_windows SET slot = 4711 WHERE {WINDOW}"),
    ("summaries belong to a field", f"UPDATE ts_windows SET slot = -4711 WHERE {WINDOW}"),
    ("points of m belong to a series", f"UPDATE ts_{{m}} SET series = 4711 WHERE (series, ts) = {POINT}"),
    ("the newest point of each series of m is known", "UPDATE ts_latest SET ts = ts + 1 WHERE series = 2"),
    ("the newest point of each series of m is known", "DELETE FROM ts_latest WHERE series = 2"),
    ("the newest point of each series of m is known", f"DELETE FROM ts_{{m}} WHERE (series, ts) = {POINT}"),
    *(
        ("points and summaries of m", f"UPDATE ts_{{m}} SET {change} WHERE (series, ts) = {chosen}")
        for chosen, change in (
            (POINT, "f = f || 1::float8"),
            (POINT, "f = ARRAY[f]"),
            (POINT, "f[0] = 1"),
            (POINT, "f = ARRAY['NaN'::float8]"),
            (POINT, "f = ARRAY['-Infinity'::float8]"),
            (POINT, "i = array_fill(1::bigint, ARRAY[99])"),
            (TEXT, "x = '[1]'"),
            (TEXT, """x = '{{"99": "x"}}'"""),
            (TEXT, """x = '{{"a": "x"}}'"""),
            (TEXT, """x = '{{"0": 7}}'"""),
        )
    ),
    *(
        ("points and summaries of m", f"UPDATE ts_windows SET {change} WHERE {WINDOW}")
        for change in (
            "count = count + 1", "total = total + 1", "size = 'Infinity'", "low = low - 1", "high = high + 1",
            "first_us = first_us + 1", "first = first + 1", "first_whole = 7", "last_us = NULL", "last = NULL",
            "spread = spread + 1", "rise = rise + 1", "climb = 1", "whole = 1", "least = 1", "greatest = 1",
        )
    ),
    ("points and summaries of m", f"DELETE FROM ts_windows WHERE {WINDOW}"),
    (
        "points and summaries of m",
        "INSERT INTO ts_windows (series, slot, start_us, count, spread) VALUES (2, 1, 0, 1, 0)",
    ),
    ("points and summaries of other", "UPDATE ts_{other} SET i = array_fill(1::bigint, ARRAY[99])"),
    ("collections of documents have a table", "INSERT INTO doc_collections (name) VALUES ('lost')"),
    ("tables of documents have a collection", "CREATE TABLE doc_4711 (id text)"),
    ("indexes of documents exist", "UPDATE doc_indexes SET name = name || 'x' WHERE is_unique"),
    ("indexes of documents exist", "UPDATE doc_indexes SET is_unique = TRUE WHERE NOT is_unique"),
    ("indexes of documents exist", "UPDATE doc_indexes SET collection = 4711 WHERE is_unique"),
    ("documents of d", "UPDATE doc_{d} SET body = '[1]' WHERE id = 'd1'"),
    ("documents of d", """UPDATE doc_{d} SET body = '{{"a": 1e999}}' WHERE id = 'd1'"""),
    ("documents of d", "UPDATE doc_{d} SET version = 0 WHERE id = 'd1'"),
    ("documents of d", "UPDATE doc_{d} SET exact = '{{}}' WHERE id = 'd1'"),
    ("documents of d", "UPDATE doc_{d} SET exact = '{{' WHERE id = 'd1'"),
    ("edges have both ends", "DELETE FROM graph_nodes WHERE id = 'a'"),
    ("properties of nodes", "UPDATE graph_nodes SET properties = '1' WHERE id = 'a'"),
    ("properties of nodes", "UPDATE graph_nodes SET exact = '[' WHERE id = 'a'"),
    ("properties of edges", "UPDATE graph_edges SET properties = 'null' WHERE target = 'a'"),
    ("properties of edges", "UPDATE graph_edges SET type = 'x' WHERE target = 'a'"),
    ("sequences of the outbox are not used twice", EVENT),
    ("events in the outbox can be published", "UPDATE outbox SET topic = '' WHERE sequence = 2"),
    ("events in the outbox can be published", "UPDATE outbox SET payload = 'x' WHERE sequence = 2"),
    ("schema", "UPDATE polaris_migrations SET checksum = 'x' WHERE number = 2"),
]  # fmt: skip
POINTS_GONE = f"DELETE FROM ts_{{m}} WHERE (series, ts) = {POINT.replace('DESC', '')}"
PER_COLLECTION = ("points", "the newest point", "documents of")


class OneLink:
    """A pool of one connection, in a transaction that is undone."""

    def __init__(self, link: Link) -> None:
        self._link = link

    @asynccontextmanager
    async def link(self) -> AsyncIterator[Link]:
        yield self._link


class OneLaw(StoreCheck):
    """Of the check of a store the checks of one name, or all of them."""

    law: str | None = None

    async def _run(self, reader: SnapshotReader, checks: Iterable[Check]) -> None:
        await super()._run(reader, [check for check in checks if self.law in (None, check[0])])


@pytest.fixture(scope="module")
def whole(quick_postgres: QuickPostgres) -> tuple[str, str]:
    """The DSN and the schema of a whole store."""
    dsn, schema = quick_postgres(15).dsn, f"test_{next(schema_numbers)}"
    asyncio.run(filled(dsn, schema))
    return dsn, schema


async def broken(link: Link, schema: str, sql: str | None, law: str | None = None) -> dict[str, list[str]]:
    """What is found after a statement, by the check that found it, or by that of `law` alone; it is undone."""
    began: list[tuple[str, int]] = []
    await link.begin("BEGIN; SET LOCAL session_replication_role = replica")
    check = OneLaw(
        OneLink(link),  # type: ignore[arg-type] # what it needs of a pool
        schema,
        timeout_s=30.0,
        on_check=lambda name: began.append((name, len(check._found))),
    )
    check.law = law
    if sql is not None:
        numbers = dict(
            await link.rows("SELECT name, id FROM ts_collections UNION SELECT name, id FROM doc_collections")
        )
        await link.run(sql.format(**{name: numbers[name] for name in ("m", "other", "d")}))
    found = await check.findings()
    await link.undo()
    ends = [count for _, count in began[1:]] + [len(found)]
    by_check: defaultdict[str, list[str]] = defaultdict(list)
    for (name, first), end in zip(began, ends, strict=True):
        by_check[name] += found[first:end]
    return dict(by_check)


async def test_every_check_has_a_break(whole: tuple[str, str]) -> None:
    async with PostgresEngine(whole[0], schema=whole[1]) as engine, engine._pool.link() as link:
        checks = await broken(link, engine.schema, None)
    assert all(found == [] for found in checks.values()), checks
    tried = {law for law, _ in BREAKS}
    assert {name for name in checks if name not in tried and not name.startswith(PER_COLLECTION)} == set()
    assert tried <= set(checks)


async def test_a_broken_law_is_found_by_its_check(whole: tuple[str, str]) -> None:
    missed: list[tuple[str, str]] = []
    async with PostgresEngine(whole[0], schema=whole[1]) as engine, engine._pool.link() as link:
        for law, sql in BREAKS:
            found = await broken(link, engine.schema, sql, law)
            if not found[law] or any("{" in one for one in found[law]):
                missed.append((law, sql))
    assert missed == []


def any_point(chance: random.Random, turn: int) -> TimeSeriesPoint:
    """Of few series and fields, so that they meet; new fields come with the turns."""
    fields = {f"f{chance.randrange(3 + turn)}": chance.choice(VALUES) for _ in range(3)}
    time = T0 + turn * HOUR - chance.randrange(10_000) * SECOND
    return TimeSeriesPoint(time, {"host": f"h{chance.randrange(4)}"}, fields)


@pytest.mark.parametrize(("series", "points"), [(1, 7), (256, 60)])
async def test_in_slices_the_same_is_found(
    series: int, points: int, whole: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_verify_points, "SERIES_A_SLICE", series)
    monkeypatch.setattr(_verify_points, "POINTS_A_SLICE", points)
    last = WINDOW.replace("ORDER BY 1, 2, 3", "ORDER BY 1 DESC, 2 DESC, 3 DESC")
    async with PostgresEngine(whole[0], schema=whole[1], read_only=True) as engine:
        assert await engine.verify() == []
    async with PostgresEngine(whole[0], schema=whole[1]) as engine, engine._pool.link() as link:
        for sql in (f"UPDATE ts_windows SET low = low - 1 WHERE {last}", POINTS_GONE):
            assert (await broken(link, engine.schema, sql, law := "points and summaries of m"))[law]


@pytest.mark.parametrize("version", VERSIONS)
async def test_whatever_was_done_to_it_a_store_is_whole(version: int, quick_postgres: QuickPostgres) -> None:
    chance, clock = random.Random(version), MovedClock()
    schema = f"test_{next(schema_numbers)}"
    engine = PostgresEngine(quick_postgres(version).dsn, schema=schema, clock=clock, partition_hours=1)
    async with PolarisDataStore(engine) as store:
        await fill(store)
        for turn in range(3):
            policy = chance.choice([FOR_EVER, ROLLED_UP, ALONG, RetentionPolicy()])
            for name in ("m", "n"):
                await store.time_series.set_retention(name, policy)
                await store.time_series.store_many(name, [any_point(chance, turn) for _ in range(200)])
            begin = T0 + chance.randrange(600) * HOUR / 60
            with suppress(QueryError):  # a rollup cannot be taken apart
                await store.time_series.delete_range("n", TimeRange(begin, begin + HOUR / 3))
            if turn == 2:
                await store.time_series.delete_series("n", {"host": "h1"})
            async with store.unit_of_work() as work:
                await work.time_series.store_many("m", [any_point(chance, turn) for _ in range(50)])
                await work.commit()
            assert await engine.verify() == []
            clock.time = T0 + turn * HOUR
            for name in ("m", "n"):
                await store.time_series.apply_retention(name)
            assert await engine.verify() == []


async def test_beside_writers_nothing_is_found(quick_postgres: QuickPostgres) -> None:
    clock, schema = MovedClock(), f"test_{next(schema_numbers)}"
    engine = PostgresEngine(quick_postgres(15).dsn, schema=schema, clock=clock, partition_hours=1)
    chance = random.Random(1)
    looks: list[list[str]] = []

    async def look() -> None:
        while len(looks) < 4:
            looks.append(await engine.verify())

    async with PolarisDataStore(engine) as store:
        await store.time_series.set_retention("m", ALONG)
        looking = asyncio.create_task(look())
        turn = 0
        while not looking.done():
            await store.time_series.store_many("m", [any_point(chance, turn) for _ in range(100)])
            clock.time += HOUR / 4
            await store.time_series.apply_retention("m")
            await store.documents.put_document(f"d{turn % 50}", "one", {"n": turn})
            await store.graph.add_edge(f"a{turn}", f"b{turn}", "needs")
            await store.graph.remove_node(f"a{turn - 1}")
            turn += 1
        await looking
    assert looks == [[]] * 4


async def test_partitions_stay_while_their_points_are_looked_at(quick_postgres: QuickPostgres) -> None:
    clock, schema = MovedClock(), f"test_{next(schema_numbers)}"
    engine = PostgresEngine(quick_postgres(15).dsn, schema=schema, clock=clock, partition_hours=1)
    async with PolarisDataStore(engine) as store, engine._pool.link() as link:
        points = [TimeSeriesPoint(T0 + n * HOUR, {}, {"v": n}) for n in range(4)]
        await store.time_series.store_many("m", points)
        async with snapshot(engine._pool, 30.0, ["ts_1"]) as reader:
            assert [row[0] for row in await reader.rows("SELECT count(*) FROM ts_series")] == [1]
            assert await store.time_series.apply_retention("m", keep_since=T0 + 2 * HOUR) == 2
            assert await link.value("SELECT count(*) FROM ts_partitions") == 4
            assert [row[0] for row in await reader.rows("SELECT count(*) FROM ts_1")] == [4]


async def test_a_partition_that_is_dropped_meanwhile_is_no_finding(quick_postgres: QuickPostgres) -> None:
    schema = f"test_{next(schema_numbers)}"
    engine = PostgresEngine(quick_postgres(15).dsn, schema=schema, clock=MovedClock(), partition_hours=1)
    async with PolarisDataStore(engine) as store, engine._pool.link() as link:
        points = [TimeSeriesPoint(T0 + n * HOUR, {}, {"v": n}) for n in range(4)]
        await store.time_series.store_many("m", points)
        async with snapshot(engine._pool, 30.0) as reader:
            assert len(await reader.rows("SELECT FROM ts_partitions")) == 4
            await store.time_series.apply_retention("m", keep_since=T0 + 2 * HOUR)
            assert await link.value("SELECT count(*) FROM ts_partitions") == 2
            for rule in SERIES_RULES:
                assert await reader.rows(limited(rule)) == [], rule.name
