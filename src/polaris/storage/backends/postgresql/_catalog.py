"""The tables of collections and their partitions: made when first needed, apart from whatever needs them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager

import msgspec

from polaris.exceptions import InvalidValueError, StoreConnectionError
from polaris.storage._limits import COLLECTIONS_MAX
from polaris.storage.backends.postgresql._drop_pauses import DropPauses
from polaris.storage.backends.postgresql._link import Link, UnknownOutcomeError
from polaris.storage.backends.postgresql._memory import Memory
from polaris.storage.backends.postgresql._migrate import SCHEMA_LOCK, lock_number
from polaris.storage.backends.postgresql._pool import ConnectionPool

PARTITIONS_FINE = 500
"""Partitions of the chosen width; over them new ones become wider, so that no data makes more than some thousand."""
_WIDER = ((PARTITIONS_FINE, 1), (750, 16), (1_000, 256))
TS_MIN, TS_MAX = -(2**62), 2**62
"""Beyond every datetime."""

Span = tuple[int, int]


class Partitions(msgspec.Struct, frozen=True):
    """A collection's table and the times for which it has partitions: disjoint spans in order."""

    number: int
    width_us: int
    starts: tuple[int, ...]
    ends: tuple[int, ...]

    @property
    def table(self) -> str:
        return f"ts_{self.number}"

    def missing(self, times: Iterable[int]) -> list[int]:
        """One time of each bucket that has no partition yet."""
        found: dict[int, int] = {}
        for time_us in times:
            place = bisect_right(self.starts, time_us) - 1
            if place < 0 or self.ends[place] <= time_us:
                found.setdefault(time_us // self.width_us, time_us)
        return list(found.values())

    def span_for(self, time_us: int) -> Span:
        """The span of a new partition that holds the time: a bucket, cut where a neighbour begins."""
        place = bisect_right(self.starts, time_us)
        low = self.ends[place - 1] if place else TS_MIN
        high = self.starts[place] if place < len(self.starts) else TS_MAX
        factor = next((factor for count, factor in _WIDER if len(self.starts) < count), None)
        if factor is None:
            return low, high
        width = self.width_us * factor
        start = time_us - time_us % width
        return max(low, start), min(high, start + width)

    def with_span(self, span: Span) -> Partitions:
        place = bisect_right(self.starts, span[0])
        return Partitions(
            self.number,
            self.width_us,
            (*self.starts[:place], span[0], *self.starts[place:]),
            (*self.ends[:place], span[1], *self.ends[place:]),
        )


def partition_name(number: int, start_us: int) -> str:
    """The table of a partition; made of integers only."""
    return f"ts_{number}_{'m' if start_us < 0 else 'p'}{abs(start_us)}"


class Catalog:
    """Finds and makes tables. It works on a connection of its own and commits at once.

    So an open transaction never holds a lock that others need for a new collection or partition. What an undone
    transaction leaves behind is an empty table, which nobody sees.
    """

    def __init__(self, pool: ConnectionPool, schema: str, width_us: int, *, read_only: bool) -> None:
        self._pool = pool
        self._schema = schema
        self._width_us = width_us
        self._read_only = read_only
        self.memory = Memory()
        self.drop_pauses = DropPauses()

    def forget_partitions(self) -> None:
        """Another process has changed them."""
        self.memory.clear()

    async def find_series_home(self, link: Link, collection: str) -> Partitions | None:
        """The table of a collection of time series, or None; what is known of its partitions may be old."""
        known: Partitions | None = self.memory.get(("ts", collection))
        if known is None:
            row = await link.row("SELECT id, partition_us FROM ts_collections WHERE name = $1", collection)
            if row is None:
                return None
            known = Partitions(row[0], row[1], (), ())
            self.memory.learn(("ts", collection), known)
        return known

    async def require_series_home(self, collection: str, times: Sequence[int]) -> Partitions:
        """The table of a collection of time series, with a partition for each of the times."""
        known: Partitions | None = self.memory.get(("ts", collection))
        if known is not None and not known.missing(times):
            return known
        async with self._changing() as link:
            home = await self._series_home(link, collection)
            for time_us in home.missing(times):
                if home.missing((time_us,)):
                    home = await self._add_partition(link, home, time_us)
        self.memory.learn(("ts", collection), home)
        return home

    async def _series_home(self, link: Link, collection: str) -> Partitions:
        row = await link.row("SELECT id, partition_us FROM ts_collections WHERE name = $1", collection)
        if row is None:
            row = await link.row(
                "INSERT INTO ts_collections (name, partition_us) VALUES ($1, $2) RETURNING id, partition_us",
                collection,
                self._width_us,
            )
            assert row is not None  # noqa: S101 # it was just inserted
            await link.run(
                f"CREATE TABLE ts_{int(row[0])} (series bigint NOT NULL, ts bigint NOT NULL, f float8[], i bigint[],"
                " x jsonb, PRIMARY KEY (series, ts)) PARTITION BY RANGE (ts)"
            )
        spans = await link.rows(
            "SELECT start_us, end_us FROM ts_partitions WHERE collection = $1 ORDER BY start_us", row[0]
        )
        return Partitions(row[0], row[1], tuple(span[0] for span in spans), tuple(span[1] for span in spans))

    async def _add_partition(self, link: Link, home: Partitions, time_us: int) -> Partitions:
        start, end = home.span_for(time_us)
        name = partition_name(home.number, start)
        # Attaching what is there hinders nobody who reads or writes; making it in place would stop them all.
        await link.run(f"CREATE TABLE {name} (LIKE {home.table} INCLUDING ALL)")
        await link.run(f"ALTER TABLE {home.table} ATTACH PARTITION {name} FOR VALUES FROM ({start}) TO ({end})")
        await link.run("INSERT INTO ts_partitions VALUES ($1, $2, $3)", home.number, start, end)
        return home.with_span((start, end))

    async def find_document_home(self, link: Link, collection: str) -> str | None:
        """The table of a collection of documents, or None."""
        table: str | None = self.memory.get(("doc", collection))
        if table is None:
            number = await link.value("SELECT id FROM doc_collections WHERE name = $1", collection)
            if number is None:
                return None
            table = f"doc_{int(number)}"
            self.memory.learn(("doc", collection), table)
        return table

    async def require_document_home(self, collection: str) -> str:
        """The table of a collection of documents, made if need be. Raises `InvalidValueError` beyond 1 000 of them."""
        table: str | None = self.memory.get(("doc", collection))
        if table is not None:
            return table
        async with self._changing() as link:
            number = await link.value("SELECT id FROM doc_collections WHERE name = $1", collection)
            if number is None:
                if await link.value("SELECT count(*) FROM doc_collections") >= COLLECTIONS_MAX:
                    raise InvalidValueError("collection", f"at most {COLLECTIONS_MAX} document collections", collection)
                number = await link.value("INSERT INTO doc_collections (name) VALUES ($1) RETURNING id", collection)
                await link.run(
                    f'CREATE TABLE doc_{int(number)} (id text COLLATE "C" PRIMARY KEY, version bigint NOT NULL,'
                    " body json NOT NULL, exact text, expires_us bigint)"
                )
                await link.run(f"CREATE INDEX ON doc_{int(number)} (expires_us) WHERE expires_us IS NOT NULL")
        table = f"doc_{int(number)}"
        self.memory.learn(("doc", collection), table)
        return table

    @asynccontextmanager
    async def _changing(self) -> AsyncIterator[Link]:
        """A transaction of its own, one at a time in the whole store."""
        if self._read_only:
            raise StoreConnectionError("the store is open for reading only")
        try:
            async with self._pool.alone() as link, link.atomic():
                await self._lock(link)
                yield link
        except UnknownOutcomeError as error:
            # Perhaps there is an empty table now; what it was made for is not done.
            raise StoreConnectionError("the connection to the server was lost while a table was made") from error

    async def _lock(self, link: Link) -> None:
        await link.rows("SELECT pg_advisory_xact_lock($1, $2)", SCHEMA_LOCK, lock_number(self._schema))
