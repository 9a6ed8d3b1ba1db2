"""What checks and figures are read with: one snapshot of a part of the store, for longer than an operation may take."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from polaris.storage.backends.postgresql._link import SNAPSHOT, Link, Row
from polaris.storage.backends.postgresql._pool import ConnectionPool

ROWS_A_TIME = 500
"""Rows of a long answer that are in memory together."""
LARGE_ROWS_A_TIME = 16
"""The same of rows that may have megabytes: documents, events, and what nodes and edges have."""


class SnapshotReader:
    """Answers from one moment. Each statement may take `timeout_s` on the server."""

    def __init__(self, link: Link, timeout_s: float) -> None:
        self.link = link
        self._client_timeout_s = timeout_s + 2.0

    async def rows(self, sql: str, *values: object) -> list[Row]:
        return await self.link.connection.fetch(sql, *values, timeout=self._client_timeout_s)  # type: ignore[no-any-return]

    async def streamed(self, sql: str, *, rows_a_time: int = ROWS_A_TIME) -> AsyncIterator[Row]:
        """The rows of a long answer, `rows_a_time` of them in memory."""
        asked = self.link.connection.cursor(sql, prefetch=rows_a_time, timeout=self._client_timeout_s)
        async for row in asked:
            yield row


@asynccontextmanager
async def snapshot(pool: ConnectionPool, timeout_s: float, tables: Sequence[str] = ()) -> AsyncIterator[SnapshotReader]:
    """One moment of the store. `tables` are kept as they are to its end: none of their partitions is dropped.

    What was committed is seen as a whole: the tables are locked, against being dropped only, before the moment.
    """
    async with pool.link() as link, link.atomic(SNAPSHOT):
        await link.run(f"SET LOCAL statement_timeout = {round(timeout_s * 1000)}")
        if tables:
            await link.run(f"LOCK TABLE {', '.join(tables)} IN ACCESS SHARE MODE")
        yield SnapshotReader(link, timeout_s)
