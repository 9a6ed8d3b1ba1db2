"""Every version of the schema there ever was is opened by the present code, with all of its content."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import apsw
import pytest
from tests.faults.retention_acts import MovedClock
from tests.sqlite_versions import (
    BROUGHT,
    EXPIRES,
    FOLDER,
    HOUR,
    NUMBERS,
    PAST,
    SPAN,
    VERSIONS,
    dump_of,
    expected_of,
    later_content_of,
)
from tests.store_content import SMALL, content_of, points

from polaris.domain import HealthEvent, HealthStatus
from polaris.exceptions import MigrationError
from polaris.storage import PolarisDataStore, RetentionPolicy, RollupPolicy, SqliteEngine, TimeRange, TimeSeriesPoint
from polaris.storage.backends.sqlite._migrate import Migration, check_schema, known_migrations, migrate

MINUTE = timedelta(minutes=1)
GROWING = ("outbox", "patterns", "systems", "actions", "results", "dependencies")
"""What is made of structs: a later release may show more of them, never less."""


def made(version: int, path: Path) -> Path:
    """The database of that version as a file."""
    connection = apsw.Connection(str(path))
    connection.execute((FOLDER / f"version-{version}.sql").read_text("utf-8"))
    connection.pragma("journal_mode", "wal")
    connection.close()
    return path


def opened(path: Path, at: datetime = PAST) -> SqliteEngine:
    """An engine whose policies find nothing old, unless the clock says so."""
    return SqliteEngine(path, clock=MovedClock(at), **SMALL)


def holds(found: Any, expected: Any) -> bool:
    """Whether all of `expected` is in `found`, in the same order."""
    if isinstance(expected, dict) and isinstance(found, dict):
        return all(key in found and holds(found[key], value) for key, value in expected.items())
    if isinstance(expected, list) and isinstance(found, list):
        return len(expected) == len(found) and all(map(holds, found, expected))
    return bool(found == expected)


def compare(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() >= expected.keys()
    for name, content in expected.items():
        if name in GROWING:
            assert holds(found[name], content), name
        else:
            assert found[name] == content, name


async def all_of(store: PolarisDataStore, version: int) -> dict[str, Any]:
    return await content_of(store) | await later_content_of(store, version)


def test_a_store_of_every_version_is_kept() -> None:
    assert list(range(1, len(known_migrations()) + 1)) == VERSIONS
    for version in VERSIONS:
        for since, parts in BROUGHT.items():
            for part in parts:
                assert (part in expected_of(version)) is (since <= version)


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_store_of_an_earlier_version_is_opened_with_all_its_content(version: int, tmp_path: Path) -> None:
    path = made(version, tmp_path / "store.db")
    expected = expected_of(version)
    engine = opened(path)
    async with PolarisDataStore(engine) as store:
        compare(await all_of(store, version), expected)
        assert await engine.verify() == []
    async with PolarisDataStore.sqlite(path, read_only=True) as store:
        compare(await all_of(store, version), expected)


@pytest.mark.parametrize("version", [version for version in VERSIONS if version >= 3])
async def test_documents_of_an_earlier_version_expire_when_they_were_to(version: int, tmp_path: Path) -> None:
    clock = MovedClock(EXPIRES - timedelta(seconds=1))
    async with PolarisDataStore(SqliteEngine(made(version, tmp_path / "store.db"), clock=clock)) as store:
        assert await store.documents.count("expiring") == 2
        clock.time = EXPIRES
        assert [document["_id"] for document in await store.documents.find_documents("expiring")] == ["long"]


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_store_of_an_earlier_version_takes_a_policy(version: int, tmp_path: Path) -> None:
    async def sums() -> list[Any]:
        asked = ["count", "sum", "increase"]
        rows = await series.aggregate_many("m", TimeRange.all(), asked, bucket=MINUTE, fields=["load", "users", "n"])
        return [(row.timestamp, row.field, row.values) for row in rows]

    engine = opened(made(version, tmp_path / "store.db"), EXPIRES)
    async with PolarisDataStore(engine) as store:
        series = store.time_series
        before = await sums()
        await series.set_retention("m", RetentionPolicy(MINUTE, [RollupPolicy(MINUTE)]))
        await series.apply_retention("m")
        assert len(await series.query_time_series("m", TimeRange.all())) < len(expected_of(version)["points m"]) - 40
        assert await sums() == before
        assert await engine.verify() == []


@pytest.mark.parametrize("version", [version for version in VERSIONS if version >= 4])
async def test_rollups_of_an_earlier_version_take_late_points_and_go_when_they_are_due(
    version: int, tmp_path: Path
) -> None:
    async def count(name: str) -> int:
        rows = await store.time_series.aggregate_time_series(name, SPAN, "count", fields=NUMBERS)
        return sum(int(row.value) for row in rows if isinstance(row.value, int))

    engine = opened(made(version, tmp_path / "store.db"), PAST + timedelta(days=400))
    async with PolarisDataStore(engine) as store:
        assert await count("hours") == 240
        late = [TimeSeriesPoint(PAST + timedelta(seconds=n), {"host": "b"}, {"load": n}) for n in range(1, 60)]
        await store.time_series.store_many("hours", late)
        await store.time_series.apply_retention("hours")
        assert len(await store.time_series.query_time_series("hours", TimeRange.all())) == 6
        assert await count("hours") == 240 + 59
        assert await engine.verify() == []
        await store.time_series.set_retention("tens", RetentionPolicy(HOUR))
        await store.time_series.apply_retention("tens")
        assert len(await store.time_series.query_time_series("tens", TimeRange.all())) == 2
        assert await engine.verify() == []


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_store_of_an_earlier_version_takes_what_a_new_one_takes(version: int, tmp_path: Path) -> None:
    engine = opened(made(version, tmp_path / "store.db"))
    async with PolarisDataStore(engine) as store:
        before = await all_of(store, version)
        await store.time_series.store_many("m", points())
        await store.documents.put_document("d", "d0", {"n": 0, "new": True})
        await store.graph.remove_node("a")
        async with store.unit_of_work() as work:
            await work.publish("t", HealthEvent(component="late", status=HealthStatus.HEALTHY))
            await work.commit()
        after = await all_of(store, version)
        assert await engine.verify() == []
    assert len(after["points m"]) == len(before["points m"]) + 10
    assert len(after["outbox"]) == len(before["outbox"]) + 1
    assert after["outbox"][-1]["sequence"] > before["outbox"][-1]["sequence"]
    for name in (part for since, parts in BROUGHT.items() if since <= version for part in parts):
        assert after[name] == before[name], name


@pytest.mark.parametrize("version", VERSIONS)
async def test_an_upgraded_store_has_the_schema_of_a_new_one(version: int, tmp_path: Path) -> None:
    def schema(path: Path) -> list[Any]:
        connection = apsw.Connection(str(path))
        found = connection.execute("SELECT name, sql FROM sqlite_schema WHERE tbl_name NOT GLOB 'doc_[0-9]*'")
        rows = sorted(found.fetchall())
        connection.close()
        return rows

    async with SqliteEngine(made(version, tmp_path / "old.db")), SqliteEngine(tmp_path / "new.db"):
        pass
    assert schema(tmp_path / "old.db") == schema(tmp_path / "new.db")


@pytest.mark.parametrize("version", VERSIONS)
async def test_an_older_store_is_not_changed_by_a_reader(version: int, tmp_path: Path) -> None:
    path = made(version, tmp_path / "store.db")
    before = path.read_bytes()
    if version < len(known_migrations()):
        with pytest.raises(MigrationError, match="open it for writing once"):
            await SqliteEngine(path, read_only=True).connect()
    assert path.read_bytes() == before


def test_an_applied_migration_whose_text_was_altered_is_refused(tmp_path: Path) -> None:
    migrations = known_migrations()
    connection = apsw.Connection(":memory:")
    migrate(connection, migrations)
    assert check_schema(connection, migrations) == len(migrations)
    for place, migration in enumerate(migrations):
        altered = list(migrations)
        altered[place] = Migration(migration.number, migration.name, migration.sql + "-- once more\n")
        with pytest.raises(MigrationError, match=migration.name):
            migrate(connection, altered)


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM polaris_migrations WHERE number = 1",
        "DELETE FROM polaris_migrations",
        "UPDATE polaris_migrations SET number = number + 1000",
        "INSERT INTO polaris_migrations SELECT max(number) + 1, 'more', 'x', 0 FROM polaris_migrations",
    ],
)
def test_a_list_of_applied_migrations_that_is_not_of_the_version_is_refused(damage: str) -> None:
    connection = apsw.Connection(":memory:")
    migrate(connection, known_migrations())
    connection.execute(damage)
    with pytest.raises(MigrationError, match="list of applied migrations"):
        check_schema(connection, known_migrations())


def test_a_migration_that_fails_leaves_the_version_before_it(tmp_path: Path) -> None:
    path = made(1, tmp_path / "store.db")
    before = dump_of(path)
    broken = Migration(2, "broken", "CREATE TABLE half (x); UPDATE graph_nodes SET properties = '{}'; SELECT nonsense;")
    connection = apsw.Connection(str(path))
    with pytest.raises(apsw.SQLError):
        migrate(connection, [known_migrations()[0], broken])
    assert not connection.in_transaction
    connection.close()
    assert dump_of(path) == before


def test_a_migration_stopped_at_any_statement_is_done_by_the_next_attempt(tmp_path: Path) -> None:
    """Statement n fails, n = 1, 2, 3 ... until all pass."""
    migrations = known_migrations()
    for n in range(1, 1_000):
        connection = apsw.Connection(str(made(1, tmp_path / f"{n}.db")))
        left = n

        def fail_later(_cursor: apsw.Cursor, _sql: str, _bindings: object) -> bool:
            nonlocal left
            left -= 1
            return left != 0

        connection.exec_trace = fail_later
        try:
            migrate(connection, migrations)
            stopped = False
        except apsw.ExecTraceAbort:
            stopped = True
        connection.exec_trace = None
        assert not connection.in_transaction
        version = check_schema(connection, migrations)
        assert migrate(connection, migrations) == len(migrations) - version
        assert check_schema(connection, migrations) == len(migrations)
        connection.close()
        if not stopped:
            assert n > len(migrations)
            return
    pytest.fail("it never passed")
