"""The writer of the embedded engine: what is written at the same time shares a commit, and failures stay alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import apsw
import pytest

from polaris.exceptions import ConflictError, QueryError, StoreConnectionError
from polaris.storage import (
    RetentionPolicy,
    RollupPolicy,
    SqliteEngine,
    TimeRange,
    TimeSeriesPoint,
    TimeSeriesStorageBackend,
)
from polaris.storage._ranges import to_micros
from polaris.storage._tag_filter import ALL_SERIES
from polaris.storage._timeseries_requests import PointQuery
from polaris.storage.backends.shared import RecordedTransaction
from polaris.storage.backends.sqlite._jobs import Job, JobQueue
from polaris.storage.backends.sqlite._session import SqliteSession
from polaris.storage.backends.sqlite._writer import GUARDED_GROUPS

T0 = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[SqliteEngine]:
    async with SqliteEngine(tmp_path / "store.db") as made:
        yield made


def insert(engine: SqliteEngine, document_id: str) -> Any:
    return engine.documents.insert_document("d", {"_id": document_id})


async def together(*writes: Any) -> list[str]:
    """The names of the errors, empty for a write that succeeded."""
    outcomes = await asyncio.gather(*writes, return_exceptions=True)
    return [type(one).__name__ if isinstance(one, BaseException) else "" for one in outcomes]


async def ids(engine: SqliteEngine) -> list[str]:
    return [one["_id"] for one in await engine.documents.find_documents("d")]


async def test_all_that_is_written_in_one_turn_of_the_loop_shares_a_commit(engine: SqliteEngine) -> None:
    before = await engine.stats()
    await asyncio.gather(*(insert(engine, f"{n:03}") for n in range(100)))
    after = await engine.stats()
    assert (after["groups"] - before["groups"], after["jobs"] - before["jobs"]) == (1, 100)


async def test_a_write_that_fails_takes_no_other_of_its_group_with_it(engine: SqliteEngine) -> None:
    await insert(engine, "b")
    assert await together(*(insert(engine, name) for name in "abcd")) == ["", "ConflictError", "", ""]
    assert await ids(engine) == ["a", "b", "c", "d"]
    stats = await engine.stats()
    assert (stats["groups_guarded"], stats["groups_retried"], stats["jobs_failed"]) == (1, 0, 1)


async def test_what_a_failed_write_had_done_is_taken_back_and_forgotten(engine: SqliteEngine) -> None:
    def half(session: SqliteSession) -> None:
        session.documents.insert_many("new", [("x", "{}")], now_us=0, expires_us=None)
        session.graph.add_nodes([])
        raise QueryError("half-way")

    assert await together(insert(engine, "a"), engine._write(half, keep=True), insert(engine, "b")) == [
        "",
        "QueryError",
        "",
    ]
    assert await together(engine._write(half, keep=True)) == ["QueryError"]  # alone in its group
    assert await ids(engine) == ["a", "b"]
    assert await engine.documents.get_document("new", "x") is None
    await engine.documents.insert_document("new", {"_id": "x"})  # its collection is made anew
    assert await engine.documents.count("new") == 1


async def test_groups_behind_a_spoilt_one_are_guarded_and_then_trusted_again(engine: SqliteEngine) -> None:
    async def failing_group(name: str) -> int | float:
        before = (await engine.stats())["groups_guarded"]
        assert await together(insert(engine, name), insert(engine, "taken")) == ["", "ConflictError"]
        return (await engine.stats())["groups_guarded"] - before

    await insert(engine, "taken")
    assert await failing_group("first") == 1
    assert await failing_group("second") == 0
    for number in range(GUARDED_GROUPS):
        await insert(engine, str(number))
    assert await failing_group("third") == 1


async def test_a_rehearsal_leaves_nothing_behind_in_a_group_that_is_kept(engine: SqliteEngine) -> None:
    def rehearse(session: SqliteSession) -> None:
        session.documents.insert_many("d", [("r", "{}")], now_us=0, expires_us=None)

    assert await together(insert(engine, "a"), engine._write(rehearse, keep=False), insert(engine, "b")) == [""] * 3
    assert await ids(engine) == ["a", "b"]


async def test_a_unit_of_work_that_conflicts_fails_alone(engine: SqliteEngine) -> None:
    async def conflict() -> None:
        work = engine.transaction()
        await work.documents.insert_document("d", {"_id": "new"})
        await work.documents.insert_document("d", {"_id": "old"})
        await work.commit()

    await insert(engine, "old")
    assert await together(insert(engine, "a"), conflict(), insert(engine, "b")) == ["", ConflictError.__name__, ""]
    assert await ids(engine) == ["a", "b", "old"]


def store(owner: SqliteEngine | RecordedTransaction, second: int, **fields: Any) -> Any:
    return owner.time_series.store_time_series("m", T0 + timedelta(seconds=second), {"h": "a"}, fields)


async def stored(engine: SqliteEngine) -> list[tuple[int, dict[str, Any]]]:
    found = await engine.time_series.query_time_series("m", TimeRange.all())
    latest = await engine.time_series.latest("m")
    assert [point.timestamp for point in latest] == [found[-1].timestamp]
    return [((point.timestamp - T0).seconds, dict(point.fields)) for point in found]


@pytest.fixture
def statements() -> Iterator[list[str]]:
    """What the writing connection is told to do, in order."""
    told: list[str] = []

    def watch(connection: apsw.Connection) -> None:
        def trace(_: object, sql: str, __: object) -> bool:
            told.append(sql)
            return True

        if not connection.open_flags & apsw.SQLITE_OPEN_READONLY:
            connection.exec_trace = trace

    apsw.connection_hooks.append(watch)
    yield told
    apsw.connection_hooks.remove(watch)


async def test_points_of_many_writers_go_into_one_statement(statements: list[str], tmp_path: Path) -> None:
    async with SqliteEngine(tmp_path / "traced.db") as engine:
        await store(engine, 0, v=0)
        statements.clear()
        await together(*(store(engine, second, v=second) for second in range(1, 65)))
        for table in ("ts_hot", "ts_latest"):
            assert len([sql for sql in statements if sql.startswith("INSERT") and f"INTO {table} " in sql]) == 1
        assert await stored(engine) == [(second, {"v": second}) for second in range(65)]


async def test_a_reader_in_a_group_sees_the_points_that_came_before_it(engine: SqliteEngine) -> None:
    def count(session: SqliteSession) -> tuple[int, int]:
        found = session.time_series.query("m", PointQuery(TimeRange.all().micros, 100))
        return len(found), len(session.time_series.latest("m", ALL_SERIES, None))

    counted = await asyncio.gather(
        store(engine, 0, v=0),
        engine._write(count, keep=True),
        store(engine, 1, v=1),
        engine._write(count, keep=False),
        store(engine, 2, v=2),
    )
    assert (counted[1], counted[3]) == ((1, 1), (2, 1))
    assert await stored(engine) == [(0, {"v": 0}), (1, {"v": 1}), (2, {"v": 2})]


async def test_a_deletion_in_a_group_takes_what_came_before_it(engine: SqliteEngine) -> None:
    await asyncio.gather(
        store(engine, 0, v=0), engine.time_series.delete_range("m", TimeRange.all()), store(engine, 1, v=1)
    )
    assert await stored(engine) == [(1, {"v": 1})]


ASKING: dict[str, Callable[[TimeSeriesStorageBackend], Awaitable[object]]] = {
    "query": lambda port: port.query_time_series("m", TimeRange.all()),
    "latest": lambda port: port.latest("m"),
    "aggregate": lambda port: port.aggregate_time_series("m", TimeRange.all(), "sum"),
    "delete_range": lambda port: port.delete_range("m", TimeRange.all()),
    "delete_series": lambda port: port.delete_series("m", {"h": "a"}),
    "apply_retention": lambda port: port.apply_retention("m", T0 + timedelta(seconds=3)),
}


@pytest.mark.parametrize("ask", ASKING.values(), ids=ASKING)
async def test_what_a_unit_of_work_asks_of_its_points_is_told_the_same_at_its_commit(
    engine: SqliteEngine, ask: Callable[[TimeSeriesStorageBackend], Awaitable[object]]
) -> None:
    work = engine.transaction()
    for second in range(3):
        await store(work, second, v=second)
    told = await ask(work.time_series)
    assert told not in (0, [])
    await asyncio.gather(insert(engine, "other"), work.commit())
    assert (await engine.stats())["groups_guarded"] == 0  # told otherwise, it would have been begun anew
    assert await engine.verify() == []


async def test_a_policy_set_in_the_group_of_points_knows_of_them(engine: SqliteEngine) -> None:
    """Windows that are not marked count as summarised."""
    day_s = 86_400
    await store(engine, 0, v=1)
    policy = RetentionPolicy(None, (RollupPolicy(timedelta(minutes=1)),))

    def marked_until(session: SqliteSession) -> Any:
        session.time_series.set_policy("m", policy)
        return session.connection.execute("SELECT max(until) FROM ts_dirty").fetchall()[0][0]

    outcomes = await asyncio.gather(store(engine, day_s, v=2), engine._write(marked_until, keep=True))
    assert outcomes[1] > to_micros(T0) + day_s * 1_000_000


async def test_of_points_with_one_key_in_a_group_the_last_wins_also_when_the_series_grew(engine: SqliteEngine) -> None:
    wide = {f"w{place}": place for place in range(20)}
    await asyncio.gather(store(engine, 0, v=0), store(engine, 0, **wide), store(engine, 0, v=1, x=2))
    assert await stored(engine) == [(0, {"v": 1, "x": 2})]


@pytest.mark.parametrize("guarded", [False, True], ids=["trusted", "guarded"])
async def test_points_of_a_write_that_fails_are_not_left_over_for_the_next_one(
    engine: SqliteEngine, guarded: bool
) -> None:
    def half(session: SqliteSession) -> None:
        session.time_series.store_many("m", [TimeSeriesPoint(T0, {"h": "a"}, {"v": "half"})])
        raise QueryError("half-way")

    def rehearse(session: SqliteSession) -> None:
        session.time_series.store_many("m", [TimeSeriesPoint(T0, {"h": "a"}, {"v": "rehearsed"})])

    if guarded:
        await together(insert(engine, "a"), engine._write(half, keep=True))
    assert await together(
        store(engine, 1, v=1),
        engine._write(half, keep=True),
        engine._write(rehearse, keep=False),
        store(engine, 2, v=2),
    ) == ["", "QueryError", "", ""]
    assert await together(engine._write(half, keep=True)) == ["QueryError"]  # alone in its group
    assert await stored(engine) == [(1, {"v": 1}), (2, {"v": 2})]


async def test_what_is_handed_over_when_the_writer_has_ended_is_refused() -> None:
    refused: list[Job] = []
    queue = JobQueue(refused.extend)
    job = Job(lambda _: None, keep=True)
    assert queue.put(job)
    assert len(queue) == 1
    assert queue.abandon() == []
    await asyncio.sleep(0)
    assert refused == [job]
    assert not queue.put(Job(lambda _: None, keep=True))


async def test_a_job_may_be_withdrawn_before_it_is_handed_over() -> None:
    queue = JobQueue(lambda _: None)
    first, second = Job(lambda _: None, keep=True), Job(lambda _: None, keep=True)
    assert queue.put(first)
    assert queue.put(second)
    assert queue.withdraw(first)
    await asyncio.sleep(0)
    assert queue.take() is second
    assert queue.take() is None
    assert not queue.withdraw(second)


async def test_a_writer_whose_thread_has_ended_refuses_what_comes_later(engine: SqliteEngine) -> None:
    writer = engine._require_writer()
    write = asyncio.create_task(insert(engine, "late"))
    await asyncio.sleep(0)  # it is put, and not handed over yet
    writer._refuse_rest()
    with pytest.raises(StoreConnectionError):
        await write
    assert engine._places is not None
    assert engine._places.free == engine.options.writes_queued_max
