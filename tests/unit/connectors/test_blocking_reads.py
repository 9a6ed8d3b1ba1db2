"""Blocking reads leave the loop free, come one at a time, and a hanging one holds nobody up."""

from __future__ import annotations

import asyncio
import threading

import pytest

from polaris.connectors import BlockingReads, _blocking
from polaris.exceptions import ConnectorError


async def test_the_loop_goes_on_while_a_read_blocks() -> None:
    reads, release = BlockingReads("test"), threading.Event()
    reading = asyncio.ensure_future(reads.run(lambda: release.wait(10)))
    for _ in range(100):
        await asyncio.sleep(0)
    assert not reading.done()
    release.set()
    assert await reading


async def test_reads_never_overlap() -> None:
    reads, inside, seen = BlockingReads("test"), threading.Lock(), []

    def read(number: int) -> int:
        assert inside.acquire(blocking=False), "two reads at once"
        seen.append(number)
        inside.release()
        return number

    assert await asyncio.gather(*(reads.run(lambda n=n: read(n)) for n in range(20))) == list(range(20))  # type: ignore[misc]
    assert sorted(seen) == list(range(20))


async def test_what_a_read_raises_reaches_its_caller() -> None:
    def read() -> None:
        raise PermissionError("no")

    reads = BlockingReads("test")
    with pytest.raises(PermissionError):
        await reads.run(read)
    assert await reads.run(lambda: 1) == 1


async def test_the_read_after_a_cancelled_one_waits_for_it() -> None:
    reads, release, begun = BlockingReads("test"), threading.Event(), threading.Event()

    def hang() -> None:
        begun.set()
        release.wait(10)

    hanging = asyncio.ensure_future(reads.run(hang))
    await asyncio.sleep(0)
    hanging.cancel()
    await asyncio.wait([hanging])
    assert begun.wait(5)
    following = asyncio.ensure_future(reads.run(lambda: "read"))
    for _ in range(100):
        await asyncio.sleep(0)
    assert not following.done()
    release.set()
    assert await following == "read"


async def test_a_read_that_hangs_makes_later_ones_fail_not_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_blocking, "BUSY_S_MAX", 0.01)
    reads, release = BlockingReads("disk"), threading.Event()
    hanging = asyncio.ensure_future(reads.run(lambda: release.wait(10)))
    await asyncio.sleep(0)
    with pytest.raises(ConnectorError, match="has not come back"):
        await reads.run(lambda: None)
    release.set()
    await hanging
