"""The queue between a source and its workers."""

from __future__ import annotations

import asyncio

import pytest

from polaris.messaging._backlog import Backlog


async def test_items_come_in_the_order_they_were_put() -> None:
    backlog: Backlog[int] = Backlog()
    for item in range(3):
        backlog.put(item)
    assert len(backlog) == 3
    assert [backlog.take(), await backlog.wait_and_take(), backlog.take()] == [0, 1, 2]
    with pytest.raises(IndexError):
        backlog.take()


async def test_each_item_wakes_one_worker_that_waits() -> None:
    backlog: Backlog[int] = Backlog()
    workers = [asyncio.create_task(backlog.wait_and_take()) for _ in range(3)]
    await asyncio.sleep(0)
    backlog.put(1)
    backlog.put(2)
    done, waiting = await asyncio.wait(workers, timeout=0.01)
    assert sorted(task.result() for task in done) == [1, 2]
    backlog.put(3)
    assert [await task for task in waiting] == [3]


async def test_a_worker_whose_item_was_taken_by_another_waits_on() -> None:
    backlog: Backlog[int] = Backlog()
    worker = asyncio.create_task(backlog.wait_and_take())
    await asyncio.sleep(0)
    backlog.put(1)
    assert backlog.take() == 1
    await asyncio.sleep(0)
    assert not worker.done()
    backlog.put(2)
    assert await worker == 2


@pytest.mark.parametrize("put_first", [True, False])
async def test_a_worker_that_is_woken_and_cancelled_at_once_leaves_the_item_to_another(put_first: bool) -> None:
    backlog: Backlog[int] = Backlog()
    first, second = (asyncio.create_task(backlog.wait_and_take()) for _ in range(2))
    await asyncio.sleep(0)
    for act in (lambda: backlog.put(1), first.cancel)[:: 1 if put_first else -1]:
        act()
    assert await asyncio.wait_for(second, 1) == 1
    assert first.cancelled()
    assert not backlog


async def test_a_cancelled_worker_is_not_woken_any_more() -> None:
    backlog: Backlog[int] = Backlog()
    worker = asyncio.create_task(backlog.wait_and_take())
    await asyncio.sleep(0)
    worker.cancel()
    with pytest.raises(asyncio.CancelledError):
        await worker
    backlog.put(1)
    assert backlog.take() == 1
