"""What the embedded engine does beside its work: compaction, checkpoints, grouping, counting."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import apsw
import pytest
from tests.awake import PATIENCE_S, within

from polaris.exceptions import ConflictError, QueryError
from polaris.storage import PolarisDataStore, RetentionPolicy, RollupPolicy, SqliteEngine, TimeRange, TimeSeriesPoint
from polaris.storage.backends.sqlite import _checkpoint, _writer
from polaris.storage.backends.sqlite._session import SqliteSession
from polaris.storage.backends.sqlite._sql import scalar

T0 = datetime(2030, 1, 1, tzinfo=UTC)


def batch(start: int, count: int) -> list[TimeSeriesPoint]:
    return [
        TimeSeriesPoint(T0 + timedelta(seconds=n), {"h": str(n % 5)}, {"v": n}) for n in range(start, start + count)
    ]


async def test_compaction_keeps_the_hot_table_small_and_loses_nothing(tmp_path: Path) -> None:
    engine = SqliteEngine(tmp_path / "store.db", hot_rows_max=1_000, slice_rows=400)
    async with PolarisDataStore(engine) as store:
        for start in range(0, 6_000, 300):
            await store.time_series.store_many("m", batch(start, 300))
        await store.time_series.store_many("m", batch(0, 700))  # late, and again: it replaces what is cold
        for _ in range(8):
            await store.graph.add_node("n")  # each commit lets one slice go
        assert engine._readers is not None
        hot = await engine._readers.run(lambda session: scalar(session.connection, "SELECT count(*) FROM ts_hot"))
        assert hot <= 1_000
        found = await store.time_series.query_time_series("m", TimeRange.all())
        assert [point.fields["v"] for point in found] == list(range(6_000))
        stats = await engine.stats()
        assert stats["compacted_rows"] >= 5_000
        assert stats["compaction_slices"] >= 12


@pytest.mark.parametrize(
    ("rows", "waiting", "moved"), [(1_200, 0, 400), (1_200, 1, 200), (1_300, 1, 400), (2_500, 1, 800)]
)
async def test_who_waits_to_write_waits_for_half_a_slice_unless_the_hot_table_is_much_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int, waiting: int, moved: int
) -> None:
    monkeypatch.setattr(_writer, "GROUP_JOBS_MAX", 1)
    monkeypatch.setattr(_writer, "IDLE_S", 3_600.0)  # nothing is moved for lack of anything else to do
    engine = SqliteEngine(tmp_path / "store.db", hot_rows_max=1_000, slice_rows=400)
    found: list[int] = []

    def look(session: SqliteSession) -> None:
        found.append(int(scalar(session.connection, "SELECT count(*) FROM ts_hot")))

    async with engine:
        writes = [engine._write(lambda session: session.time_series.store_many("m", batch(0, rows)))]
        writes += [engine._write(look, keep=False) for _ in range(waiting)]
        await asyncio.gather(*writes)
        if not waiting:
            async with within(PATIENCE_S):
                while not (await engine.stats())["compacted_rows"]:
                    await asyncio.sleep(0.01)
            await engine._write(look, keep=False)
    assert found == [rows - moved]


async def test_what_cannot_be_moved_yet_keeps_nothing_else_waiting(tmp_path: Path) -> None:
    # More rows are hot than should be, and fewer than a slice takes.
    async with PolarisDataStore(SqliteEngine(tmp_path / "store.db", hot_rows_max=100, slice_rows=500)) as store:
        await store.time_series.set_retention("m", RetentionPolicy(None, [RollupPolicy(timedelta(minutes=1))]))
        await store.time_series.store_many("m", batch(0, 700))
        async with within(PATIENCE_S):
            while not (await store.stats())["sqlite"]["rollup_slices"]:
                await asyncio.sleep(0.01)


async def test_the_log_stays_short_while_nobody_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_checkpoint, "PAGES_SOFT", 50)
    engine = SqliteEngine(tmp_path / "store.db")
    async with PolarisDataStore(engine) as store:
        for start in range(0, 20_000, 400):
            await store.time_series.store_many("m", batch(start, 400))
        stats = await engine.stats()
    assert stats["checkpoints"] >= 5
    assert stats["wal_bytes"] < 150 * 4_200


async def test_large_batches_leave_neither_the_hot_table_nor_the_log_growing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_checkpoint, "PAGES_SOFT", 50)
    engine = SqliteEngine(tmp_path / "store.db", hot_rows_max=1_000, slice_rows=400)
    async with PolarisDataStore(engine) as store:
        for start in range(0, 40_000, 1_000):  # each brings more than a slice takes
            await store.time_series.store_many("m", batch(start, 1_000))
            stats = await engine.stats()
            assert stats["wal_pages"] < 50 * 10, stats
        assert engine._readers is not None
        hot = await engine._readers.run(lambda session: scalar(session.connection, "SELECT count(*) FROM ts_hot"))
        assert hot <= 2 * 1_000 + 1_000
        assert len(await store.time_series.query_time_series("m", TimeRange.all())) == 40_000


async def test_a_reader_that_stays_cannot_stop_writers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, pages in (("PAGES_SOFT", 20), ("PAGES_HARD", 60), ("GROWTH_PAGES", 20), ("WAIT_MS", 1)):
        monkeypatch.setattr(_checkpoint, name, pages)
    path = tmp_path / "store.db"
    async with PolarisDataStore.sqlite(path) as store:
        await store.time_series.store_many("m", batch(0, 10))
        other = SqliteEngine(path, read_only=True)
        async with other:
            assert other._readers is not None
            session = other._readers._free[0]
            session.connection.execute("BEGIN")
            assert scalar(session.connection, "SELECT count(*) FROM ts_hot") == 10
            for start in range(0, 8_000, 200):
                await store.time_series.store_many("m", batch(start, 200))
            assert scalar(session.connection, "SELECT count(*) FROM ts_hot") == 10
            stats = (await store.stats())["sqlite"]
            assert stats["checkpoints_blocked"] > 10
            # Waiting for it is what costs writers: the longer it stays, the less often they do.
            assert 0 < stats["checkpoints_insisted"] < 10
            session.connection.execute("ROLLBACK")
        assert len(await store.time_series.query_time_series("m", TimeRange.all())) == 8_000


async def test_writers_that_wait_together_share_a_commit(tmp_path: Path) -> None:
    async with PolarisDataStore.sqlite(tmp_path / "store.db") as store:
        before = (await store.stats())["sqlite"]
        await asyncio.gather(*[store.graph.add_node(f"n-{n}") for n in range(300)])
        after = (await store.stats())["sqlite"]
        assert after["jobs"] - before["jobs"] == 300
        assert after["groups"] - before["groups"] < 100


async def test_of_a_group_only_the_writer_that_fails_is_told_so(tmp_path: Path) -> None:
    async with PolarisDataStore.sqlite(tmp_path / "store.db") as store:
        await store.documents.insert_document("d", {"_id": "7"})
        writes = [store.documents.insert_document("d", {"_id": str(n)}) for n in range(20)]
        outcomes = await asyncio.gather(*writes, return_exceptions=True)
        failed = [n for n, outcome in enumerate(outcomes) if isinstance(outcome, BaseException)]
        assert failed == [7]
        assert isinstance(outcomes[7], ConflictError)
        assert await store.documents.count("d") == 20


async def test_what_a_rolled_back_writer_had_made_is_not_taken_for_there_by_the_next_of_its_group(
    tmp_path: Path,
) -> None:
    engine = SqliteEngine(tmp_path / "store.db")
    async with PolarisDataStore(engine) as store:
        gate, running = threading.Event(), threading.Event()

        def hold(_session: object) -> None:
            running.set()
            gate.wait(20)

        holding = asyncio.create_task(engine._write(hold, keep=True))
        while not running.is_set():
            await asyncio.sleep(0.001)

        async def rehearse() -> None:
            async with store.unit_of_work() as work:
                await work.time_series.store_many("m", batch(0, 1))
                await work.documents.put_document("new", "x", {})
                await work.documents.count("new")

        rehearsing = asyncio.create_task(rehearse())
        await asyncio.sleep(0)
        others = [
            asyncio.create_task(store.time_series.store_many("m", batch(0, 1))),
            asyncio.create_task(store.documents.put_document("new", "y", {})),
        ]
        while len(engine._writer.queue) < 3:  # type: ignore[union-attr] # it is connected
            await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(holding, rehearsing, *others)
        assert await store.time_series.query_time_series("m", TimeRange.all()) == batch(0, 1)
        assert [one["_id"] for one in await store.documents.find_documents("new")] == ["y"]


async def test_every_commit_is_synced(tmp_path: Path) -> None:
    engine = SqliteEngine(tmp_path / "store.db")
    async with engine:
        settings = await engine._write(
            lambda session: [session.connection.pragma(name) for name in ("synchronous", "journal_mode")], keep=False
        )
    assert settings == [2, "wal"]


@pytest.mark.parametrize("fails", [False, True])
async def test_only_the_summaries_that_nobody_awaits_are_not_synced(tmp_path: Path, fails: bool) -> None:
    relaxed, was = list[str](), [False, fails]

    def trace(_: object, sql: str, __: object) -> bool:
        if sql.startswith("PRAGMA synchronous"):
            was[0] = sql.endswith("NORMAL")
        elif was[0]:
            if was[1] and "ts_windows" in sql:
                was[1] = False
                raise apsw.IOError("sabotage")
            relaxed.append(sql)
        return True

    def watch(connection: apsw.Connection) -> None:
        if not connection.open_flags & apsw.SQLITE_OPEN_READONLY:
            connection.exec_trace = trace

    apsw.connection_hooks.append(watch)
    try:
        engine = SqliteEngine(tmp_path / "store.db", hot_rows_max=100, slice_rows=100)
        async with PolarisDataStore(engine) as store:
            await store.time_series.set_retention("m", RetentionPolicy(None, [RollupPolicy(timedelta(minutes=1))]))
            for start in range(0, 2_000, 200):
                await store.time_series.store_many("m", batch(start, 200))
            async with within(PATIENCE_S):
                while was[1] or not any("ts_windows" in sql for sql in relaxed):
                    await asyncio.sleep(0.01)
            read = ("synchronous", "journal_mode")
            settings = await engine._write(lambda session: list(map(session.connection.pragma, read)), keep=False)
            assert settings == [2, "wal"]
            assert (await store.time_series.query_time_series("m", TimeRange.all())) == batch(0, 2_000)
    finally:
        apsw.connection_hooks.remove(watch)
    # Of what writers await nothing is among it: neither points nor jobs, which have savepoints or are rolled back.
    assert not [sql for sql in relaxed if "INTO ts_hot" in sql or sql.startswith(("SAVEPOINT", "INSERT INTO graph"))]


async def test_the_event_loop_goes_on_while_the_store_works(tmp_path: Path) -> None:
    async with PolarisDataStore.sqlite(tmp_path / "store.db") as store:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        await store.time_series.store_many("m", batch(0, 20_000))
        await store.time_series.query_time_series("m", TimeRange.all())
        counting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await counting
        assert turns > 100


async def test_an_error_that_somebody_keeps_keeps_no_snapshot(tmp_path: Path) -> None:
    engine = SqliteEngine(tmp_path / "store.db", readers=1)
    async with PolarisDataStore(engine) as store:
        await store.time_series.store_many("m", batch(0, 100))

        def cut_short(session: SqliteSession) -> None:
            found = session.connection.execute("SELECT ts FROM ts_hot")
            raise QueryError(f"met {next(found)}")

        assert engine._readers is not None
        with pytest.raises(QueryError) as kept_by_the_reader:
            await engine._readers.run(cut_short)
        with pytest.raises(QueryError) as kept_by_the_writer:
            await engine._write(cut_short, keep=True)
        await store.time_series.store_many("m", batch(100, 100))
        assert len(await store.time_series.query_time_series("m", TimeRange.all())) == 200
        log = await engine._write(lambda session: session.connection, keep=False)
        assert log.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_RESTART) is not None
        assert kept_by_the_reader.value.message == kept_by_the_writer.value.message
