"""Documents of 500 bytes: POLARIS on SQLite and PostgreSQL beside aiosqlite, and both engines driven by hand.

    python benchmarks/documents.py [--rounds 3] [--documents 20000]

Batches of 1 000 in one durable transaction each; single durable writes of 64 tasks; an indexed find of 200. Every
contender has a file of its own in a new folder, WAL and synchronous=FULL; the rounds are interleaved, medians count.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiosqlite
import apsw
import msgspec
from _harness import print_table
from _store_servers import CONNECTIONS, DSN, emptied, postgresql, postgresql_store

from polaris.storage import PolarisDataStore

BATCH = 1_000
TASKS = 64
GROUPS = 100
"""Values of the indexed key: a find of 200 meets one of them."""
FINDS = 200

Figures = dict[str, float]


def documents(count: int, prefix: str = "d") -> list[dict[str, Any]]:
    """Documents of about 500 bytes as JSON, in 100 groups."""
    return [
        {
            "_id": f"{prefix}{n:08}",
            "group": n % GROUPS,
            "name": f"system-{n:06}",
            "status": "running",
            "load": n / 7,
            "tags": ["blue", "eu-west", f"rack-{n % 40}"],
            "owner": {"team": "platform", "contact": "on-call@example.org", "level": n % 5},
            "note": "x" * 303,
        }
        for n in range(count)
    ]


async def rate_of_tasks(write: Callable[[dict[str, Any]], Awaitable[Any]], content: list[dict[str, Any]]) -> float:
    """Writes per second of 64 tasks that each write one document at a time."""
    waiting = iter(content)

    async def work() -> None:
        for document in waiting:
            await write(document)

    begun = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(TASKS)))
    return len(content) / (time.perf_counter() - begun)


async def ms_of_find(find: Callable[[int], Awaitable[Any]]) -> tuple[float, float]:
    """Median and 99th percentile of finds, in milliseconds."""
    taken = []
    for number in range(FINDS):
        begun = time.perf_counter()
        found = await find(number % GROUPS)
        taken.append((time.perf_counter() - begun) * 1e3)
        assert len(found) == 200, len(found)
    return statistics.median(taken), sorted(taken)[int(FINDS * 0.99)]


async def measured(store: PolarisDataStore, content: list[dict[str, Any]], singles: list[dict[str, Any]]) -> Figures:
    port = store.documents
    await port.create_index("d", "group")
    begun = time.perf_counter()
    for place in range(0, len(content), BATCH):
        await port.insert_documents("d", content[place : place + BATCH])
    batched = len(content) / (time.perf_counter() - begun)
    single = await rate_of_tasks(lambda one: port.insert_document("s", one), singles)
    median_ms, p99_ms = await ms_of_find(lambda group: port.find_documents("d", {"group": group}, 200))
    return {"batch": batched, "single": single, "find_ms": median_ms, "find_p99_ms": p99_ms}


async def with_polaris(folder: Path, content: list[dict[str, Any]], singles: list[dict[str, Any]]) -> Figures:
    async with PolarisDataStore.sqlite(folder / "polaris.db") as store:
        return await measured(store, content, singles)


async def with_polaris_postgresql(
    folder: Path, content: list[dict[str, Any]], singles: list[dict[str, Any]]
) -> Figures:
    await emptied("documents")
    async with postgresql_store("documents") as store:
        return await measured(store, content, singles[: len(singles) // 4])


async def with_asyncpg(folder: Path, content: list[dict[str, Any]], singles: list[dict[str, Any]]) -> Figures:
    """A table of jsonb with an expression index; batches by COPY, single documents over a pool of connections."""
    import asyncpg  # type: ignore[import-untyped]

    pool = await asyncpg.create_pool(os.environ[DSN], min_size=1, max_size=CONNECTIONS)
    for name in "ds":
        await pool.execute(f"DROP TABLE IF EXISTS {name}")
        await pool.execute(f"CREATE TABLE {name} (id text PRIMARY KEY, body jsonb NOT NULL)")
    await pool.execute("CREATE INDEX d_group ON d ((body -> 'group'), id)")
    begun = time.perf_counter()
    for place in range(0, len(content), BATCH):
        records = [as_row(document) for document in content[place : place + BATCH]]
        await pool.copy_records_to_table("d", records=records)
    batched = len(content) / (time.perf_counter() - begun)

    async def write(document: dict[str, Any]) -> None:
        await pool.execute("INSERT INTO s VALUES ($1, $2)", *as_row(document))

    async def find(group: int) -> list[Any]:
        sql = "SELECT id, body FROM d WHERE body -> 'group' = $1::jsonb ORDER BY id LIMIT 200"
        return [json.loads(body) for _, body in await pool.fetch(sql, str(group))]

    single = await rate_of_tasks(write, singles[: len(singles) // 4])
    median_ms, p99_ms = await ms_of_find(find)
    await pool.close()
    return {"batch": batched, "single": single, "find_ms": median_ms, "find_p99_ms": p99_ms}


SCHEMA = (
    "CREATE TABLE {name} (id TEXT NOT NULL UNIQUE, body TEXT NOT NULL)",
    "CREATE INDEX {name}_group ON {name} (json_extract(body, '$.group'), id)",
)
INSERT = "INSERT INTO {name} VALUES (?, ?)"
FIND = "SELECT id, body FROM d WHERE json_extract(body, '$.group') = ? ORDER BY id LIMIT 200"


def as_row(document: dict[str, Any]) -> tuple[str, str]:
    return document["_id"], json.dumps(document)


async def with_aiosqlite(folder: Path, content: list[dict[str, Any]], singles: list[dict[str, Any]]) -> Figures:
    async with aiosqlite.connect(folder / "aiosqlite.db") as db:
        for sql in ("PRAGMA journal_mode=wal", "PRAGMA synchronous=full"):
            await db.execute(sql)
        for name in "ds":
            await db.execute(SCHEMA[0].format(name=name))
        await db.execute(SCHEMA[1].format(name="d"))
        begun = time.perf_counter()
        for place in range(0, len(content), BATCH):
            rows = [as_row(document) for document in content[place : place + BATCH]]
            await db.executemany(INSERT.format(name="d"), rows)
            await db.commit()
        batched = len(content) / (time.perf_counter() - begun)

        async def write(document: dict[str, Any]) -> None:
            await db.execute(INSERT.format(name="s"), as_row(document))
            await db.commit()

        async def find(group: int) -> list[Any]:
            async with db.execute(FIND, (group,)) as cursor:
                return [json.loads(body) for _, body in await cursor.fetchall()]

        single = await rate_of_tasks(write, singles[: len(singles) // 4])
        median_ms, p99_ms = await ms_of_find(find)
    return {"batch": batched, "single": single, "find_ms": median_ms, "find_p99_ms": p99_ms}


async def by_hand(folder: Path, content: list[dict[str, Any]], singles: list[dict[str, Any]]) -> Figures:
    """The driver alone, without an event loop or a thread: what the file can do."""
    db = apsw.Connection(str(folder / "apsw.db"))
    db.pragma("journal_mode", "wal")
    db.pragma("synchronous", "full")
    for name in "ds":
        db.execute(SCHEMA[0].format(name=name))
    db.execute(SCHEMA[1].format(name="d"))
    encode = msgspec.json.Encoder().encode
    begun = time.perf_counter()
    for place in range(0, len(content), BATCH):
        with db:
            rows = [(one["_id"], encode(one).decode()) for one in content[place : place + BATCH]]
            db.executemany(INSERT.format(name="d"), rows)
    batched = len(content) / (time.perf_counter() - begun)
    chosen = singles[: len(singles) // 4]
    begun = time.perf_counter()
    for one in chosen:
        db.execute(INSERT.format(name="s"), (one["_id"], encode(one).decode()))
    single = len(chosen) / (time.perf_counter() - begun)

    async def find(group: int) -> list[Any]:
        return [msgspec.json.decode(body) for _, body in db.execute(FIND, (group,))]

    median_ms, p99_ms = await ms_of_find(find)
    db.close()
    return {"batch": batched, "single": single, "find_ms": median_ms, "find_p99_ms": p99_ms}


CONTENDERS = {
    "POLARIS, SQLite": with_polaris,
    "aiosqlite, tasks share transactions": with_aiosqlite,
    "apsw by hand": by_hand,
}
ON_A_SERVER = {"POLARIS, PostgreSQL": with_polaris_postgresql, "asyncpg by hand": with_asyncpg}


def measure_documents(rounds: int, count: int) -> None:
    """Print the table of the documents."""
    content, singles = documents(count), documents(count, "s")
    size = len(msgspec.json.encode(content[0]))
    contenders = {**CONTENDERS, **(ON_A_SERVER if DSN in os.environ else {})}
    found: dict[str, list[Figures]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            with tempfile.TemporaryDirectory() as folder:
                found[name].append(asyncio.run(contender(Path(folder), content, singles)))
    rows = []
    for name, figures in found.items():
        middle = {key: statistics.median(one[key] for one in figures) for key in figures[0]}
        cells = (f"{middle['batch']:,.0f}", f"{middle['single']:,.0f}")
        rows.append([name, *cells, f"{middle['find_ms']:.2f}", f"{middle['find_p99_ms']:.2f}"])
    print_table(
        f"{count:,} documents of {size} bytes (median of {rounds})",
        ["contender", "batch/s", "single/s, 64 tasks", "find of 200, ms", "p99, ms"],
        rows,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--documents", type=int, default=20_000)
    options = parser.parse_args()
    with postgresql():
        measure_documents(options.rounds, options.documents)


if __name__ == "__main__":
    main()
