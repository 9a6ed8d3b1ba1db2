"""Schemas of a PostgreSQL server that are as new, without the cost of making them: emptied after each use."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

import asyncpg  # type: ignore[import-untyped]

from polaris.storage import PolarisDataStore
from polaris.storage.backends.postgresql import PostgresEngine

PATIENCE_S = 30.0

T = TypeVar("T")

# All that came later goes: partitions, indexes, rows. What the schema had from the beginning is there again.
EMPTY = """
DO $$
DECLARE
    made record;
    found boolean;
BEGIN
    SET LOCAL client_min_messages = warning;
    SET LOCAL session_replication_role = replica;  -- rows may go in any order
    FOR made IN
        SELECT relname, relkind FROM pg_class
        WHERE relnamespace = '{schema}'::regnamespace AND relkind IN ('r', 'p', 'i', 'I', 'S', 'v')
          AND relname <> ALL ('{{{known}}}'::text[])
        ORDER BY relkind IN ('i', 'I')
    LOOP
        CONTINUE WHEN to_regclass(format('%I.%I', '{schema}', made.relname)) IS NULL;
        EXECUTE format(
            'DROP %s %I.%I CASCADE',
            CASE WHEN made.relkind IN ('i', 'I') THEN 'INDEX' WHEN made.relkind = 'S' THEN 'SEQUENCE'
                 WHEN made.relkind = 'v' THEN 'VIEW' ELSE 'TABLE' END,
            '{schema}', made.relname);
    END LOOP;
    FOREACH made.relname IN ARRAY '{{{tables}}}'::text[] LOOP
        EXECUTE format(
            'SELECT EXISTS (SELECT FROM %1$I.%2$I t WHERE NOT EXISTS (SELECT FROM %3$I.%2$I k WHERE k::text = t::text))
                    OR (SELECT count(*) FROM %1$I.%2$I) <> (SELECT count(*) FROM %3$I.%2$I)',
            '{schema}', made.relname, '{schema}_kept') INTO found;
        IF found THEN
            EXECUTE format('DELETE FROM %I.%I', '{schema}', made.relname);
            EXECUTE format(
                'INSERT INTO %1$I.%2$I OVERRIDING SYSTEM VALUE SELECT * FROM %3$I.%2$I',
                '{schema}', made.relname, '{schema}_kept');
        END IF;
    END LOOP;
END $$
"""


class EmptySchema:
    """One schema of a server, with a connection on a thread of its own, as tests come with loops of theirs."""

    def __init__(self, dsn: str, name: str) -> None:
        self.name = name
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._connection, self._statement = self._run(self._made(dsn))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE_S)

    async def _made(self, dsn: str) -> tuple[asyncpg.Connection, str]:
        async with PolarisDataStore(PostgresEngine(dsn, schema=self.name, pool_max=1)):
            pass
        connection = await asyncpg.connect(dsn)
        found = await connection.fetch(
            "SELECT relname, relkind IN ('r', 'p') AND NOT relispartition FROM pg_class "
            "WHERE relnamespace = $1::regnamespace",
            self.name,
        )
        tables = [name for name, is_table in found if is_table]
        await connection.execute(f'CREATE SCHEMA "{self.name}_kept"')
        for table in tables:
            await connection.execute(f'CREATE TABLE "{self.name}_kept"."{table}" AS TABLE "{self.name}"."{table}"')
        known = ",".join(name for name, _ in found)
        return connection, EMPTY.format(schema=self.name, known=known, tables=",".join(tables))

    def empty(self) -> None:
        """Make it as new. Nobody may use it meanwhile."""
        self._run(self._connection.execute(self._statement))

    def close(self) -> None:
        self._run(self._connection.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
