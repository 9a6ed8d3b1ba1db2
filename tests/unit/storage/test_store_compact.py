"""Compaction on demand: everything cold, no free pages, an empty log, and nobody else held up but by the rewriting."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import apsw
import pytest
from tests.store_content import SMALL, T0, content_of, fill

from polaris.exceptions import StoreConnectionError
from polaris.storage import PolarisDataStore, SqliteEngine, TimeRange, TimeSeriesPoint
from polaris.storage.backends.sqlite._upkeep import CompactProgress


async def test_compaction_moves_rows_gives_room_back_and_changes_no_content(tmp_path: Path) -> None:
    engine = SqliteEngine(tmp_path / "store.db", slice_rows=50)
    async with PolarisDataStore(engine) as store:
        await fill(store)
        big = [{"_id": f"b{n}", "text": "x" * 5_000} for n in range(500)]
        await store.documents.insert_documents("big", big)
        for document in big:
            await store.documents.delete_document("big", document["_id"])
        before = await engine.figures()
        expected = await content_of(store)
        told: list[CompactProgress] = []
        done = await engine.compact(on_progress=told.append)
        after = await engine.figures()
        assert await content_of(store) == expected
        assert await engine.verify() == []
    assert before.bytes_free > 2_000_000
    assert (after.bytes_free, after.log_bytes) == (0, 0)
    assert done.rewritten
    assert done.rows_moved == before.hot_rows - after.hot_rows > 0
    assert after.hot_rows <= 50
    assert done.bytes_before - done.bytes_after > 2_000_000
    assert {one.doing for one in told} == {"moving rows", "rewriting the file", "emptying the log"}


async def test_a_dense_file_is_not_written_anew_unless_it_is_asked_for(tmp_path: Path) -> None:
    engine = SqliteEngine(tmp_path / "store.db")
    async with PolarisDataStore(engine) as store:
        await fill(store)
        assert not (await engine.compact()).rewritten
        assert (await engine.compact(rewrite_file=True)).rewritten
        assert not (await engine.compact(rewrite_file=False)).rewritten
        await store.graph.add_node("goes on")


async def test_writers_and_readers_go_on_while_it_compacts(tmp_path: Path) -> None:
    engine = SqliteEngine(tmp_path / "store.db", slice_rows=20)
    async with PolarisDataStore(engine) as store:
        points = [TimeSeriesPoint(T0 + timedelta(seconds=n), {"h": str(n % 7)}, {"v": n}) for n in range(2_000)]
        await store.time_series.store_many("m", points)
        compacting = asyncio.create_task(engine.compact(rewrite_file=True))
        written = 0
        while not compacting.done():
            written += 1
            await store.graph.add_node(f"n{written}")
            assert await store.time_series.query_time_series("m", TimeRange.all()) == points
        assert (await compacting).rows_moved >= 1_900
        assert written > 3
        assert await engine.verify() == []


async def test_a_cancelled_compaction_leaves_a_whole_store_that_goes_on(tmp_path: Path) -> None:
    engine = SqliteEngine(tmp_path / "store.db", **SMALL)
    async with PolarisDataStore(engine) as store:
        await fill(store)
        expected = await content_of(store)
        for turns in range(0, 30, 3):
            compacting = asyncio.create_task(engine.compact(rewrite_file=True))
            for _ in range(turns):
                await asyncio.sleep(0)
            compacting.cancel()
            await asyncio.gather(compacting, return_exceptions=True)
            await store.graph.add_node(f"n{turns}")
        assert await content_of(store) == expected
        assert await engine.verify() == []
        await engine.compact()


async def test_a_rewriting_is_stopped_in_the_middle(tmp_path: Path) -> None:
    engine = SqliteEngine(tmp_path / "store.db")
    async with PolarisDataStore(engine) as store:
        documents = [{"_id": f"d{n}", "n": n, "text": "y" * 400} for n in range(20_000)]
        await store.documents.insert_documents("d", documents)
        points = [TimeSeriesPoint(T0 + timedelta(seconds=n), {}, {"v": n}) for n in range(20_000)]
        await store.time_series.store_many("m", points)
        await store.time_series.delete_range("m", TimeRange.all())
        begun = asyncio.Event()

        def told(progress: CompactProgress) -> None:
            if progress.doing == "rewriting the file":
                begun.set()

        before = await engine.figures()
        compacting = asyncio.create_task(engine.compact(rewrite_file=True, on_progress=told))
        await begun.wait()
        await asyncio.sleep(0.005)
        compacting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await compacting
        assert (await engine.figures()).bytes_free == before.bytes_free > 0
        await store.graph.add_node("goes on")
        assert await store.documents.count("d") == 20_000


async def test_only_who_owns_the_store_compacts_it(tmp_path: Path) -> None:
    async with PolarisDataStore.sqlite(tmp_path / "store.db"):
        reader = SqliteEngine(tmp_path / "store.db", read_only=True)
        async with reader:
            with pytest.raises(StoreConnectionError, match="reading only"):
                await reader.compact()


async def test_a_reader_that_stays_keeps_the_log_but_not_the_compaction(tmp_path: Path) -> None:
    engine = SqliteEngine(tmp_path / "store.db")
    async with PolarisDataStore(engine) as store:
        await fill(store)
        other = apsw.Connection(str(tmp_path / "store.db"), flags=apsw.SQLITE_OPEN_READONLY)
        other.execute("BEGIN")
        count = other.execute("SELECT count(*) FROM ts_hot").fetchone()
        compacting = engine.compact(rewrite_file=True)
        assert (await compacting).rewritten
        assert other.execute("SELECT count(*) FROM ts_hot").fetchone() == count
        other.close()
        await engine.compact()
        assert (await engine.figures()).log_bytes == 0


async def test_the_figures_count_what_is_there(tmp_path: Path) -> None:
    engine = SqliteEngine(tmp_path / "store.db", **SMALL)
    async with PolarisDataStore(engine) as store:
        await fill(store)
        found = await engine.figures(count_points=True)
        quick = await engine.figures()
        points = {
            name: len(await store.time_series.query_time_series(name, TimeRange.all())) for name in ("m", "other")
        }
        newest = max(point.timestamp for point in await store.time_series.latest("m"))
    by_name = {one.name: one for one in found.time_series}
    assert {name: by_name[name].points for name in points} == points
    assert (by_name["m"].series, by_name["m"].newest) == (6, newest)
    assert {one.points for one in quick.time_series} == {None}
    assert {one.name: (one.documents, one.indexes) for one in found.documents}["d"] == (19, 2)
    assert (found.nodes, found.edges, found.outbox) == (5, 4, 2)
    assert found.bytes_used > 0
    assert found.log_bytes > 0
