"""What the tables of a store hold, beside what its ports tell of them."""

from __future__ import annotations

from typing import Any

from polaris.storage import SqliteEngine, StorageEngine
from polaris.storage.backends.postgresql import PostgresEngine
from polaris.storage.backends.sqlite._sql import rows


async def asked(engine: StorageEngine, sql: str) -> list[Any]:
    """The rows of an answer, read outside of any transaction; none of an engine in memory, which has no tables."""
    if isinstance(engine, SqliteEngine):
        readers = engine._readers
        assert readers is not None
        return await readers.run(lambda session: list(rows(session.connection, sql)))
    if isinstance(engine, PostgresEngine):
        async with engine._pool.link() as link:
            return await link.rows(sql)
    return []


async def documents_kept(engine: StorageEngine, collection: str) -> int:
    """How many documents the table of a collection has, with those that have expired."""
    for number, name in await asked(engine, "SELECT id, name FROM doc_collections"):
        if name == collection:
            return int((await asked(engine, f"SELECT count(*) FROM doc_{int(number)}"))[0][0])
    return 0
