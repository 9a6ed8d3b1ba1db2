"""Stores of former versions of the schema on servers.

`python -m tests.postgres_versions` writes two stores of the schema's version with what they have to hold to
`tests/fixtures/postgresql`, by the code of whatever revision of `polaris` is imported: `version-N` holds content of
every kind, `retained-N` what cannot be made again (rollups of points that are gone) and what is to be done later
(policies, documents that expire, events of a registry's later versions). Once a version is released its files are never
written again.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg  # type: ignore[import-untyped] # it ships no types
import msgspec
from tests.postgres_servers import DEBIAN_BIN, QUICK, SUPERUSER, PostgresServer
from tests.sqlite_versions import fill_later, later_content_of
from tests.store_content import content_of, fill

from polaris.storage import PolarisDataStore
from polaris.storage.backends.postgresql._migrate import known_migrations

FOLDER = Path(__file__).parent / "fixtures" / "postgresql"
SCHEMA = "former"
"""What the schema of the dumps is called, so that a test can give it another name."""
LATER = 4
"""Of the parts that `fill_later` puts in, every version of a server's schema holds those of the file's version 4."""


def versions_of(name: str) -> list[int]:
    """The versions that a store of that name is kept of."""
    return sorted(int(path.stem.removeprefix(f"{name}-")) for path in FOLDER.glob(f"{name}-*.sql"))


VERSIONS, RETAINED = versions_of("version"), versions_of("retained")


def dump_of(server: PostgresServer) -> str:
    """The schema and its content as SQL for any version of the server."""
    done = subprocess.run(
        [
            str(DEBIAN_BIN / "pg_dump"), "--host=127.0.0.1", f"--port={server.port}", f"--username={SUPERUSER}",
            f"--schema={SCHEMA}", "--no-owner", "--no-privileges", "--rows-per-insert=100", "postgres",
        ],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PGPASSWORD": "hidden"},
    )  # fmt: skip
    # What is for psql alone, comments, and settings that a connection should not be left with.
    lines = [
        line
        for line in done.stdout.splitlines()
        if line and not line.startswith(("--", "\\", "SET ", "SELECT pg_catalog.set_config"))
    ]
    return "\n".join(lines) + "\n"


async def restored(server: PostgresServer, version: int, schema: str, name: str = "version") -> None:
    """Make the store of a former version on the server."""
    dump = (FOLDER / f"{name}-{version}.sql").read_text("utf-8")
    sql = dump.replace(f"{SCHEMA}.", f"{schema}.").replace(f"SCHEMA {SCHEMA}", f"SCHEMA {schema}")
    connection = await asyncpg.connect(server.dsn)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


def content_for(version: int, name: str = "version") -> dict[str, Any]:
    """What the store of the version holds."""
    found: dict[str, Any] = msgspec.json.decode((FOLDER / f"{name}-{version}.json").read_bytes())
    return found


async def fill_retained(store: PolarisDataStore) -> None:
    """Put in what an upgrade has to carry, because nothing could make it again."""
    await fill_later(store, LATER)


async def retained_of(store: PolarisDataStore) -> dict[str, Any]:
    """Everything that `fill_retained` put in, as plain JSON values."""
    return await later_content_of(store, LATER)


async def write_fixture(
    name: str,
    put_in: Callable[[PolarisDataStore], Awaitable[None]],
    told_of: Callable[[PolarisDataStore], Awaitable[dict[str, Any]]],
) -> None:
    """The store of the schema's version and what it tells, as files."""
    version = len(known_migrations())
    with PostgresServer(15, QUICK) as server:
        async with PolarisDataStore.postgresql(server.dsn, schema=SCHEMA) as store:
            await put_in(store)
            content = await told_of(store)
        FOLDER.mkdir(parents=True, exist_ok=True)
        (FOLDER / f"{name}-{version}.sql").write_text(dump_of(server), "utf-8")
    text = msgspec.json.format(msgspec.json.encode(content), indent=1)
    (FOLDER / f"{name}-{version}.json").write_bytes(text + b"\n")


if __name__ == "__main__":
    asyncio.run(write_fixture("version", fill, content_of))
    asyncio.run(write_fixture("retained", fill_retained, retained_of))
