"""A damaged file: told as such by whoever meets the damage, and never a foreign error or a hang."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.store_content import SMALL, content_of, fill

from polaris.domain import HealthStatus
from polaris.exceptions import MigrationError, StoreCorruptError
from polaris.storage import PolarisDataStore, SqliteEngine, TimeRange

FLIPS = 200
TOLD = (StoreCorruptError, MigrationError)
"""What a damaged file may be called; the latter when it is the version or the list of migrations that is damaged."""

OF_STATES = ("the form ", "the health of a stored state ", "the rest of a stored state ")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, dict[str, Any]]:
    """A closed store and its content."""
    path = tmp_path_factory.mktemp("whole") / "store.db"

    async def make() -> dict[str, Any]:
        async with PolarisDataStore.sqlite(path, **SMALL) as store:
            await fill(store)
            return await content_of(store)

    content = asyncio.run(make())
    return path.read_bytes(), content


async def outcome_of(path: Path, expected: dict[str, Any]) -> str:
    """What a runtime that opens the file and reads all of it is told."""
    engine = SqliteEngine(path, **SMALL)
    store = PolarisDataStore(engine)
    try:
        await store.connect()
    except TOLD:
        return "refused"
    try:
        wrong = await engine.verify()
        assert ((await engine.health()).status is HealthStatus.UNHEALTHY) == bool(wrong)
        try:
            found = await content_of(store)
        except TOLD as error:
            # What only a repository can tell is whole for the engine.
            assert wrong or error.message.startswith(OF_STATES), "a read met damage that verify does not know"
            return "told by reads"
        if wrong:
            return "told by verify"
        return "the same" if found == expected else "another value"
    finally:
        await store.disconnect()


async def test_two_hundred_files_with_flipped_bytes_are_refused_told_or_the_same(
    whole: tuple[bytes, dict[str, Any]], tmp_path: Path
) -> None:
    content, expected = whole
    chance = random.Random(20300101)
    outcomes: Counter[str] = Counter()
    path = tmp_path / "store.db"
    for number in range(FLIPS):
        damaged = bytearray(content)
        # Half of the file is room for more: only a few of the flips go there.
        start = chance.randrange(len(damaged))
        while not damaged[start] and chance.random() < 0.95:
            start = chance.randrange(len(damaged))
        for place in range(start, min(start + chance.choice([1, 1, 4, 64, 512]), len(damaged))):
            damaged[place] ^= chance.randrange(1, 256)
        path.write_bytes(damaged)
        try:
            outcomes[await outcome_of(path, expected)] += 1
        except Exception as error:
            raise AssertionError(f"round {number}, byte {start}: {type(error).__name__}: {error}") from error
        for end in ("-wal", "-shm"):
            path.with_name(path.name + end).unlink(missing_ok=True)
    assert outcomes["refused"] + outcomes["told by reads"] + outcomes["told by verify"] > FLIPS / 3
    # What is a value of its kind still: no check can tell, as long as the file keeps no sums of its pages.
    assert outcomes["another value"] < FLIPS / 3


async def test_damage_that_a_read_met_is_shown_by_the_health_until_the_store_is_whole(
    whole: tuple[bytes, dict[str, Any]], tmp_path: Path
) -> None:
    path = tmp_path / "store.db"
    path.write_bytes(whole[0].replace(b"h\xc3\xb6he", b"h\xff\xffhe"))
    engine = SqliteEngine(path)
    async with PolarisDataStore(engine) as store:
        assert (await engine.health()).status is HealthStatus.HEALTHY
        with pytest.raises(StoreCorruptError, match="decoded"):
            await store.time_series.query_time_series("m", TimeRange.all())
        await store.graph.add_node("what is whole can be used")
        health = await engine.health()
        assert health.status is HealthStatus.UNHEALTHY
        assert "polaris store verify" in health.message
        assert len(await engine.verify()) == 1
        await store.time_series.delete_range("m", TimeRange.all(), {})
        assert await engine.verify() == []
        assert (await engine.health()).status is HealthStatus.HEALTHY


async def test_a_truncated_file_is_refused_or_told(whole: tuple[bytes, dict[str, Any]], tmp_path: Path) -> None:
    content, expected = whole
    path = tmp_path / "store.db"
    for share in range(1, 20):
        path.write_bytes(content[: len(content) * share // 20])
        assert await outcome_of(path, expected) in ("refused", "told by reads", "told by verify")


async def test_every_byte_of_the_text_of_an_index_may_be_damaged(
    whole: tuple[bytes, dict[str, Any]], tmp_path: Path
) -> None:
    content, expected = whole
    path = tmp_path / "store.db"
    text = b'json_extract(body, \'$."deep"."path"\')'
    start = content.index(text)
    for place in range(start, start + len(text)):
        damaged = bytearray(content)
        damaged[place] ^= 0x7C
        path.write_bytes(damaged)
        assert await outcome_of(path, expected) in ("refused", "told by reads", "told by verify"), place - start
        for end in ("-wal", "-shm"):
            path.with_name(path.name + end).unlink(missing_ok=True)
