"""Two runtimes never own one file, by whatever name they call it and however the other one ended."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Self

import pytest

from polaris.exceptions import StoreConnectionError, StoreLockedError
from polaris.storage import PolarisDataStore

OWN = """
import asyncio, sys
from polaris.storage import PolarisDataStore

async def own():
    async with PolarisDataStore.sqlite(sys.argv[1]) as store:
        await store.graph.add_node("theirs")
        print("owned", flush=True)
        await asyncio.Event().wait()

asyncio.run(own())
"""


class Owner:
    """Another process that owns the store."""

    def __init__(self, path: Path, cwd: Path | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", OWN, str(path)], stdout=subprocess.PIPE, text=True, cwd=cwd
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "owned\n"

    def __enter__(self) -> Self:
        return self

    def kill(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
            self.process.communicate()

    def __exit__(self, *_: object) -> None:
        self.kill()


async def refused(path: Path | str) -> StoreLockedError:
    with pytest.raises(StoreLockedError) as caught:
        await PolarisDataStore.sqlite(path).connect()
    return caught.value


async def owned(path: Path | str) -> None:
    async with PolarisDataStore.sqlite(path) as store:
        assert await store.graph.get_node("theirs") is not None


async def test_another_process_is_refused_and_told_who_owns_the_store_until_that_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with Owner(path) as owner:
        assert str(owner.process.pid) in (await refused(path)).message
        owner.kill()
        await owned(path)


async def test_the_lock_holds_when_its_file_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with Owner(path) as owner:
        (tmp_path / "store.db.lock").unlink()
        await refused(path)
        await refused(path)
        owner.kill()
        await owned(path)


async def test_the_lock_holds_when_its_file_is_removed_within_one_process(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with PolarisDataStore.sqlite(path) as store:
        await store.graph.add_node("theirs")
        (tmp_path / "store.db.lock").unlink()
        await refused(path)
    await owned(path)


async def test_a_symbolic_link_leads_to_the_same_lock(tmp_path: Path) -> None:
    path = tmp_path / "here" / "store.db"
    path.parent.mkdir()
    (tmp_path / "there").symlink_to(path.parent)
    (tmp_path / "link.db").symlink_to(path)
    with Owner(path):
        for name in (tmp_path / "there" / "store.db", tmp_path / "link.db"):
            await refused(name)
    assert not (tmp_path / "link.db.lock").exists()
    with Owner(tmp_path / "link.db"):
        await refused(path)
    await owned(tmp_path / "link.db")


async def test_a_file_with_two_names_is_refused_until_it_has_one(tmp_path: Path) -> None:
    path, other = tmp_path / "store.db", tmp_path / "other.db"
    with Owner(path):
        os.link(path, other)
        for read_only in (False, True):
            with pytest.raises(StoreConnectionError, match="2 names"):
                await PolarisDataStore.sqlite(other, read_only=read_only).connect()
    with pytest.raises(StoreConnectionError, match="2 names"):
        await PolarisDataStore.sqlite(path).connect()
    other.unlink()
    await owned(path)


async def test_a_relative_path_is_the_same_store_and_stays_it_when_the_process_goes_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    with Owner(Path("store.db"), cwd=tmp_path):
        await refused(tmp_path / "store.db")
    monkeypatch.chdir(tmp_path)
    async with PolarisDataStore.sqlite("store.db") as store:
        await refused("elsewhere/../store.db")
        monkeypatch.chdir(tmp_path / "elsewhere")
        found = await asyncio.gather(*[store.graph.get_node("theirs") for _ in range(20)])
        assert None not in found
        await store.graph.add_node("mine")
    assert list((tmp_path / "elsewhere").iterdir()) == []


async def test_a_child_by_fork_neither_holds_the_lock_nor_gives_it_back(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    fork = OWN.replace("import asyncio, sys", "import asyncio, os, signal, sys").replace(
        '        print("owned", flush=True)',
        """
        if not os.fork():
            print(os.getpid(), flush=True)  # by the child: what it does after a fork is done then
            signal.pause()
            os._exit(0)
        """,
    )
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", fork, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    child = int(process.stdout.readline())
    try:
        await refused(path)
        process.kill()
        process.wait()
        os.kill(child, 0)
        await owned(path)
    finally:
        process.kill()
        os.kill(child, signal.SIGKILL)
        process.communicate()


async def test_of_many_that_start_at_once_one_becomes_the_owner(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    stores = [PolarisDataStore.sqlite(path) for _ in range(8)]
    outcomes = await asyncio.gather(*[store.connect() for store in stores], return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["NoneType"] + ["StoreLockedError"] * 7
    for store in stores:
        await store.disconnect()
    async with PolarisDataStore.sqlite(path):
        pass
