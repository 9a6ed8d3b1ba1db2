"""Documents on a server: JSON text, a table for each collection, expression indexes."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import msgspec

from polaris.exceptions import ConflictError, QueryError
from polaris.storage._document_changes import Changes, carried_out
from polaris.storage._documents import Document, DocumentIndex
from polaris.storage._filter import Filter, Path
from polaris.storage._limits import INDEXES_MAX
from polaris.storage._projection import Wanted, projected
from polaris.storage._rows import check_reach, check_version, document_of, reach
from polaris.storage._sorting import Page, SortBy, stretches
from polaris.storage._turns import in_turns
from polaris.storage.backends.postgresql._document_writes import DocumentWrites
from polaris.storage.backends.postgresql._driver import driver_errors
from polaris.storage.backends.postgresql._filter_sql import Where, index_columns, order_by, unique_column
from polaris.storage.backends.postgresql._link import SNAPSHOT, Row

_THERE = "(expires_us IS NULL OR expires_us > $1)"
_ROW = "id, version, coalesce(exact, body::text) AS body"


class PostgresDocuments(DocumentWrites):
    """Collections as tables `doc_<number>`; the name of a collection is only ever a value."""

    async def get(self, collection: str, document_id: str, *, fields: Wanted | None, now_us: int) -> Document | None:
        table = await self._table(collection)
        if table is None:
            return None
        row = await self._link.row(
            f"SELECT {_ROW} FROM {table} WHERE {_THERE} AND id = $2",  # noqa: S608
            now_us,
            document_id,
        )
        return None if row is None else projected(document_of(*row), fields)

    async def find(
        self,
        collection: str,
        term: Filter,
        *,
        limit: int,
        order: tuple[SortBy, ...],
        page: Page | None,
        fields: Wanted | None,
        now_us: int,
    ) -> list[Document]:
        table = await self._table(collection)
        if table is None:
            return []
        found: list[Row] = []
        async with self._link.atomic(SNAPSHOT):
            for stretch in stretches(order, page):
                if len(found) >= limit:
                    break
                where = Where(term, now_us)
                condition = f"{_THERE} AND {where.sql} AND {where.within(stretch)}"
                found += await self._link.rows(
                    f"SELECT {_ROW} FROM {table} WHERE {condition}"  # noqa: S608 - parameters and checked paths
                    f" ORDER BY {order_by(stretch.order)} LIMIT {where.bind(limit - len(found), 'bigint')}",
                    *where.parameters,
                )
        return [projected(document_of(*row), fields) async for row in in_turns(found)]

    async def count(self, collection: str, term: Filter, *, now_us: int) -> int:
        table = await self._table(collection)
        if table is None:
            return 0
        where = Where(term, now_us)
        return int(
            await self._link.value(
                f"SELECT count(*) FROM {table} WHERE {_THERE} AND {where.sql}",  # noqa: S608
                *where.parameters,
            )
        )

    async def update(
        self,
        collection: str,
        document_id: str,
        changes: Changes,
        *,
        expected_version: int | None,
        now_us: int,
        expires_us: int | None,
    ) -> bool:
        table = await self._table(collection)
        if table is None:
            return False
        async with self._link.atomic():
            rows = await self._locked(table, f"{_THERE} AND id = $2", now_us, document_id)
            if not rows:
                return False
            check_version(document_id, rows[0][1], expected_version)
            await self._change(collection, table, rows, changes, now_us, expires_us)
        return True

    async def update_where(
        self,
        collection: str,
        term: Filter,
        changes: Changes,
        *,
        limit: int | None,
        now_us: int,
        expires_us: int | None,
    ) -> int:
        table = await self._table(collection)
        if table is None:
            return 0
        async with self._link.atomic():
            rows = await self._chosen(table, term, limit, now_us)
            await self._change(collection, table, rows, changes, now_us, expires_us)
        return len(rows)

    async def _chosen(self, table: str, term: Filter, limit: int | None, now_us: int) -> list[Row]:
        """The documents that a write by query is about, in order of their ids."""
        where = Where(term, now_us)
        tail = f" ORDER BY id LIMIT {where.bind(reach(limit), 'bigint')}"
        rows = await self._locked(table, f"{_THERE} AND {where.sql}{tail}", *where.parameters)
        check_reach(len(rows))
        return rows

    async def _locked(self, table: str, condition: str, *parameters: Any) -> list[Row]:
        return await self._link.rows(
            f"SELECT {_ROW} FROM {table} WHERE {condition} FOR NO KEY UPDATE",  # noqa: S608
            *parameters,
        )

    async def _change(
        self,
        collection: str,
        table: str,
        rows: Sequence[Row],
        changes: Changes,
        now_us: int,
        expires_us: int | None,
    ) -> None:
        changed = [(row[0], carried_out(changes, row[2])) async for row in in_turns(rows)]
        await self._replace(collection, table, changed, now_us=now_us, expires_us=expires_us)

    async def delete(self, collection: str, document_id: str, *, expected_version: int | None, now_us: int) -> bool:
        table = await self._table(collection)
        if table is None:
            return False
        if expected_version is None:
            sql = f"DELETE FROM {table} WHERE {_THERE} AND id = $2"  # noqa: S608
            return await self._link.run(sql, now_us, document_id) > 0
        async with self._link.atomic():
            rows = await self._locked(table, f"{_THERE} AND id = $2", now_us, document_id)
            if not rows:
                return False
            check_version(document_id, rows[0][1], expected_version)
            await self._link.run(f"DELETE FROM {table} WHERE id = $1", document_id)  # noqa: S608
        return True

    async def delete_where(self, collection: str, term: Filter, *, limit: int | None, now_us: int) -> int:
        table = await self._table(collection)
        if table is None:
            return 0
        async with self._link.atomic():
            ids = [row[0] for row in await self._chosen(table, term, limit, now_us)]
            return await self._link.run(f"DELETE FROM {table} WHERE id = ANY($1::text[])", ids)  # noqa: S608

    async def purge(self, collection: str | None, *, limit: int, now_us: int) -> int:
        if collection is None:
            rows = await self._link.rows("SELECT id FROM doc_collections ORDER BY id")
            tables = [f"doc_{int(row[0])}" for row in rows]
        else:
            table = await self._table(collection)
            tables = [] if table is None else [table]
        purged = 0
        async with self._link.atomic():
            for table in tables:
                if purged < limit:
                    purged += await self._link.run(
                        f"DELETE FROM {table} WHERE id IN"  # noqa: S608
                        f" (SELECT id FROM {table} WHERE expires_us <= $1 LIMIT $2 FOR UPDATE SKIP LOCKED)",
                        now_us,
                        limit - purged,
                    )
        return purged

    async def create_index(self, collection: str, paths: tuple[Path, ...], *, unique: bool) -> None:
        table = await self._home(collection)
        number, key = int(table.removeprefix("doc_")), msgspec.json.encode(paths).decode()
        if await self._is_indexed(number, key, unique=unique):
            return
        name = f"{table}_{blake2b(key.encode(), digest_size=12).hexdigest()}"
        async with self._link.atomic():
            await self._link.rows("SELECT 1 FROM doc_collections WHERE id = $1 FOR UPDATE", number)
            if await self._is_indexed(number, key, unique=unique):
                return
            there = await self._is_indexed(number, key, unique=False)
            if not there:
                count = await self._link.value("SELECT count(*) FROM doc_indexes WHERE collection = $1", number)
                if count >= INDEXES_MAX:
                    raise QueryError(f"a collection has at most {INDEXES_MAX} indexes")
                await self._link.run_long(f"CREATE INDEX {name} ON {table} ({index_columns(paths)})")
            if unique:
                try:
                    await self._link.run_long(f"CREATE UNIQUE INDEX {name}_u ON {table} ({unique_column(paths)})")
                except driver_errors.UniqueViolationError as error:
                    raise ConflictError(
                        f"documents of {collection} break the unique index that was asked for"
                    ) from error
            await self._link.run(
                "INSERT INTO doc_indexes VALUES ($1, $2, $3, $4)"
                " ON CONFLICT (collection, paths) DO UPDATE SET is_unique = excluded.is_unique",
                number,
                key,
                unique,
                name,
            )

    async def _is_indexed(self, number: int, key: str, *, unique: bool) -> bool:
        row = await self._link.row(
            "SELECT is_unique FROM doc_indexes WHERE collection = $1 AND paths = $2", number, key
        )
        return row is not None and (row[0] or not unique)

    async def drop_index(self, collection: str, paths: tuple[Path, ...]) -> bool:
        table = await self._table(collection)
        if table is None:
            return False
        async with self._link.atomic():
            row = await self._link.row(
                "DELETE FROM doc_indexes WHERE collection = $1 AND paths = $2 RETURNING name",
                int(table.removeprefix("doc_")),
                msgspec.json.encode(paths).decode(),
            )
            if row is None:
                return False
            await self._link.run(f"DROP INDEX {row[0]}")
            await self._link.run(f"DROP INDEX IF EXISTS {row[0]}_u")
        return True

    async def list_indexes(self, collection: str) -> list[DocumentIndex]:
        rows = await self._link.rows(
            "SELECT i.paths, i.is_unique FROM doc_indexes i JOIN doc_collections c ON c.id = i.collection"
            " WHERE c.name = $1",
            collection,
        )
        return sorted(
            DocumentIndex(tuple(".".join(path) for path in msgspec.json.decode(row[0])), row[1]) for row in rows
        )
