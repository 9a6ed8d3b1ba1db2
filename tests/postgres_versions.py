"""Stores of former versions of the schema on servers.

`python -m tests.postgres_versions` writes the store of the present schema's version with what it has to hold to
`tests/fixtures/postgresql`. Once a version is released its two files are never written again.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path
from typing import Any

import asyncpg  # type: ignore[import-untyped] # it ships no types
import msgspec
from tests.postgres_servers import DEBIAN_BIN, QUICK, SUPERUSER, PostgresServer
from tests.store_content import content_of, fill

from polaris.storage import PolarisDataStore
from polaris.storage.backends.postgresql._migrate import known_migrations

FOLDER = Path(__file__).parent / "fixtures" / "postgresql"
SCHEMA = "former"
"""What the schema of the dumps is called, so that a test can give it another name."""
VERSIONS = sorted(int(path.stem.removeprefix("version-")) for path in FOLDER.glob("version-*.sql"))


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


async def restored(server: PostgresServer, version: int, schema: str) -> None:
    """Make the store of a former version on the server."""
    dump = (FOLDER / f"version-{version}.sql").read_text("utf-8")
    sql = dump.replace(f"{SCHEMA}.", f"{schema}.").replace(f"SCHEMA {SCHEMA}", f"SCHEMA {schema}")
    connection = await asyncpg.connect(server.dsn)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


def content_for(version: int) -> dict[str, Any]:
    """What the store of the version holds."""
    found: dict[str, Any] = msgspec.json.decode((FOLDER / f"version-{version}.json").read_bytes())
    return found


async def write_fixture() -> None:
    """The store of the present version and its content, as files."""
    version = len(known_migrations())
    with PostgresServer(15, QUICK) as server:
        async with PolarisDataStore.postgresql(server.dsn, schema=SCHEMA) as store:
            await fill(store)
            content = await content_of(store)
        FOLDER.mkdir(parents=True, exist_ok=True)
        (FOLDER / f"version-{version}.sql").write_text(dump_of(server), "utf-8")
    text = msgspec.json.format(msgspec.json.encode(content), indent=1)
    (FOLDER / f"version-{version}.json").write_bytes(text + b"\n")


if __name__ == "__main__":
    asyncio.run(write_fixture())
