"""The writer of the embedded engine: what is written at the same time shares a commit, and failures stay alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from polaris.exceptions import ConflictError, QueryError, StoreConnectionError
from polaris.storage import SqliteEngine
from polaris.storage.backends.sqlite._jobs import Job, JobQueue
from polaris.storage.backends.sqlite._session import SqliteSession
from polaris.storage.backends.sqlite._writer import GUARDED_GROUPS


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
    assert engine._places._value == engine.options.writes_queued_max
