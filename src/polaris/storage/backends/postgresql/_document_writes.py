"""Putting documents into their table: new ones, replaced ones, and room for those whose place has expired."""

# ruff: noqa: S608 - statements are made of constants, names of own tables and marks of parameters

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from polaris.exceptions import ConflictError
from polaris.storage._rows import check_version
from polaris.storage._turns import in_turns
from polaris.storage.backends.postgresql._catalog import Catalog
from polaris.storage.backends.postgresql._driver import driver_errors
from polaris.storage.backends.postgresql._errors import RepeatError
from polaris.storage.backends.postgresql._json import searchable
from polaris.storage.backends.postgresql._link import Link
from polaris.storage.backends.postgresql._memory import Lessons

_GIVEN = "unnest($1::text[], $2::text[], $3::text[], $4::int[]) AS n (id, body, exact, times)"
_INSERT = (
    "INSERT INTO {table} AS d (id, version, body, exact, expires_us)"
    f" SELECT n.id, n.times, n.body::json, n.exact, $5::bigint FROM {_GIVEN} ORDER BY n.id"
    " ON CONFLICT (id) DO UPDATE SET"
)
_CONTENT = " body = excluded.body, exact = excluded.exact, expires_us = excluded.expires_us"
_EXPIRED = "d.expires_us IS NOT NULL AND d.expires_us <= $6"
_INSERT_NEW = f"{_INSERT} version = excluded.version,{_CONTENT} WHERE {_EXPIRED}"
_PUT = f"{_INSERT} version = CASE WHEN {_EXPIRED} THEN 0 ELSE d.version END + excluded.version,{_CONTENT}"
_REPLACE = (
    "UPDATE {table} AS d SET version = d.version + 1, body = n.body::json, exact = n.exact,"
    f" expires_us = coalesce($5, d.expires_us) FROM {_GIVEN} WHERE d.id = n.id"
)


class DocumentWrites:
    """The writing half of the documents of one session."""

    def __init__(self, link: Link, catalog: Catalog, lessons: Lessons) -> None:
        self._link = link
        self._catalog = catalog
        self._lessons = lessons

    async def insert_many(
        self, collection: str, documents: Sequence[tuple[str, str]], *, now_us: int, expires_us: int | None
    ) -> None:
        if len({document_id for document_id, _ in documents}) < len(documents):
            raise ConflictError(f"two of the documents for {collection} have the same id")
        table = await self._home(collection)
        # One new document is there or not; of several all must be there, or none.
        async with self._together(table, needed=len(documents) > 1):
            await self._make_room(table, now_us)
            written = await self._write(collection, table, _INSERT_NEW, documents, expires_us, now_us)
            if written < len(documents):
                raise ConflictError(f"a document with one of these ids exists already in {collection}")

    async def put_many(
        self,
        collection: str,
        documents: Sequence[tuple[str, str]],
        *,
        expected_version: int | None,
        now_us: int,
        expires_us: int | None,
    ) -> None:
        table = await self._home(collection)
        async with self._together(table, needed=expected_version is not None):
            if expected_version is not None:
                await self._check_versions(table, documents, expected_version, now_us)
            await self._make_room(table, now_us)
            sql = _INSERT_NEW if expected_version == 0 else _PUT
            written = await self._write(collection, table, sql, documents, expires_us, now_us)
            if written < len(dict(documents)):
                raise ConflictError(f"a document with one of these ids exists already in {collection}")

    async def _check_versions(
        self, table: str, documents: Sequence[tuple[str, str]], expected_version: int, now_us: int
    ) -> None:
        rows = await self._link.rows(
            f"SELECT id, version FROM {table} WHERE id = ANY($1::text[])"
            " AND (expires_us IS NULL OR expires_us > $2) ORDER BY id FOR NO KEY UPDATE",
            [document_id for document_id, _ in documents],
            now_us,
        )
        versions = {row[0]: row[1] for row in rows}
        for document_id, _ in documents:
            check_version(document_id, versions.get(document_id, 0), expected_version)

    async def _replace(
        self,
        collection: str,
        table: str,
        documents: Sequence[tuple[str, str]],
        *,
        now_us: int,
        expires_us: int | None,
    ) -> None:
        """New content for documents that are there and locked."""
        if documents:
            await self._make_room(table, now_us)
            await self._write(collection, table, _REPLACE, documents, expires_us)

    async def _write(
        self,
        collection: str,
        table: str,
        sql: str,
        documents: Sequence[tuple[str, str]],
        expires_us: int | None,
        *more: int,
    ) -> int:
        times = Counter(document_id for document_id, _ in documents)
        bodies: list[str] = []
        exact: list[str | None] = []
        async for body in in_turns(dict(documents).values()):
            found, original = searchable(body)
            bodies.append(found)
            exact.append(original)
        try:
            return await self._link.run(
                sql.format(table=table), list(times), bodies, exact, list(times.values()), expires_us, *more
            )
        except driver_errors.UniqueViolationError as error:
            if not self._lessons.get(("unique", table)):
                # Another process has made the index, and the place that is taken may be that of an expired document.
                self._catalog.memory.learn(("unique", table), True)
                raise RepeatError from error
            raise ConflictError(f"a document with this unique value exists already in {collection}") from error

    @asynccontextmanager
    async def _together(self, table: str, *, needed: bool) -> AsyncIterator[None]:
        """One transaction, where one statement is not enough."""
        if needed or self._lessons.get(("unique", table)):
            async with self._link.atomic():
                yield
        else:
            yield

    async def _make_room(self, table: str, now_us: int) -> None:
        """Remove what has expired, whose unique values are free; a look into an index when there is nothing."""
        if self._lessons.get(("unique", table)):
            await self._link.run(
                f"DELETE FROM {table} WHERE id IN"
                f" (SELECT id FROM {table} WHERE expires_us <= $1 FOR UPDATE SKIP LOCKED)",
                now_us,
            )

    async def _table(self, collection: str) -> str | None:
        """The table of the collection; None while it has none."""
        return await self._catalog.find_document_home(self._link, collection)

    async def _home(self, collection: str) -> str:
        """The table of the collection, made if need be."""
        return await self._catalog.require_document_home(collection)
