"""The check of a whole store on a server, part by part, each on one read-only snapshot beside everybody's work."""

# ruff: noqa: S608 - statements are made of constants

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager

from polaris.exceptions import MigrationError, StoreCorruptError
from polaris.storage.backends.postgresql import _verify_texts as texts
from polaris.storage.backends.postgresql._catalog import Partitions
from polaris.storage.backends.postgresql._driver import driver_errors
from polaris.storage.backends.postgresql._errors import SERIALIZATION, sqlstate, translated
from polaris.storage.backends.postgresql._link import Row
from polaris.storage.backends.postgresql._migrate import check_schema, known_migrations
from polaris.storage.backends.postgresql._pool import ConnectionPool
from polaris.storage.backends.postgresql._verify_points import PointsCheck
from polaris.storage.backends.postgresql._verify_reader import SnapshotReader, snapshot
from polaris.storage.backends.postgresql._verify_rules import (
    DOCUMENT_RULES,
    GRAPH_RULES,
    OUTBOX_RULES,
    SERIES_RULES,
    limited,
    rules_of_points,
)
from polaris.storage.backends.shared._verify_rule import FINDINGS_MAX, NOT_CHECKED, Rule

OnCheck = Callable[[str], None]
_STOPPED = frozenset({"57014", "55P03"}) | SERIALIZATION
"""The server ended one statement: it took too long, or was in the way of others, or they in its."""
Check = tuple[str, Callable[[SnapshotReader], AsyncIterator[str]]]
"""The name of a check, and what finds what is wrong."""


class StoreCheck:
    """Looks at everything in one schema and changes nothing.

    What belongs together is looked at in one snapshot; no snapshot and no lock outlasts its part: all that is small of
    the time series, the points of each collection, the documents of each, the graph, the outbox. `timeout_s`: how long
    the server may work on one statement. `on_check` is called with the name of each check before it begins.
    """

    def __init__(self, pool: ConnectionPool, schema: str, *, timeout_s: float, on_check: OnCheck | None = None) -> None:
        self._pool = pool
        self._schema = schema
        self._timeout_s = timeout_s
        self._say = on_check or _silent
        self._current = ""
        self._found: list[str] = []

    async def findings(self) -> list[str]:
        """What is wrong with the store, an empty list when nothing is; of each check at most 20.

        Where the server itself meets damage, or stops a statement, that is found as well: the rest of the part is not
        looked at, the other parts are. Raises the errors of the store and of the driver where the server cannot be
        asked, or a privilege is missing.
        """
        self._say("schema")
        try:
            async with self._pool.link() as link:
                await check_schema(link, self._schema, known_migrations())
        except MigrationError as error:
            return [error.message]
        await self._check_series()
        await self._check_documents()
        async with self._part("graph") as reader:
            await self._run(reader, [*_by_rules(GRAPH_RULES), *_GRAPH_TEXTS])
        async with self._part("outbox") as reader:
            await self._run(reader, [*_by_rules(OUTBOX_RULES), *_OUTBOX_TEXTS])
        return self._found

    async def _check_series(self) -> None:
        collections: list[Row] = []
        async with self._part("time series") as reader:
            collections = await reader.rows(_SERIES_TABLES)
            await self._run(reader, [*_by_rules(SERIES_RULES), *_SERIES_TEXTS])
        for number, name, width_us in collections:
            home = Partitions(number, width_us, (), ())
            async with self._part(f"points of {name}", tables=[home.table]) as reader:
                await self._run(reader, [*_by_rules(rules_of_points(home, name)), _points_of(home, name)])

    async def _check_documents(self) -> None:
        collections: list[Row] = []
        async with self._part("documents") as reader:
            collections = await reader.rows(_DOCUMENT_TABLES)
            await self._run(reader, _by_rules(DOCUMENT_RULES))
        for number, name in collections:
            async with self._part(f"documents of {name}") as reader:
                await self._run(reader, [(f"documents of {name}", texts.documents(number, name))])

    @asynccontextmanager
    async def _part(self, part: str, *, tables: Sequence[str] = ()) -> AsyncIterator[SnapshotReader]:
        """One moment of a part of the store. Damage the server meets, or a statement it stops, is found and ends it."""
        self._current = part
        try:
            async with snapshot(self._pool, self._timeout_s, tables) as reader:
                yield reader
        except driver_errors.PostgresError as error:
            known = translated(error)
            if sqlstate(error) in _STOPPED:
                limit = f"a statement may take {self._timeout_s:g} s"
                self._found.append(f"{part}: {NOT_CHECKED} {self._current!r} on ({limit}): {known.message}")
            elif isinstance(known, StoreCorruptError):
                self._found.append(f"{part}: {known.message}")
            else:
                raise

    async def _run(self, reader: SnapshotReader, checks: Iterable[Check]) -> None:
        for name, check in checks:
            self._say(name)
            self._current = name
            told = 0
            async for finding in check(reader):
                self._found.append(finding)
                told += 1
                if told == FINDINGS_MAX:
                    break


_SERIES_TEXTS: list[Check] = [
    ("shapes of series", texts.shapes),
    ("tags of series", texts.tags),
    ("policies are what they say", texts.policies),
    ("rollups do not contradict themselves", texts.rollups),
    ("rollups belong to a field", texts.fields_of_rollups),
    ("summaries belong to a field", texts.slots_of_summaries),
]
_GRAPH_TEXTS: list[Check] = [("properties of nodes", texts.nodes), ("properties of edges", texts.edges)]
_OUTBOX_TEXTS: list[Check] = [("events in the outbox can be published", texts.events)]
_OF_TABLES = " JOIN pg_class t ON t.relnamespace = current_schema()::regnamespace AND t.relname = "
_SERIES_TABLES = f"SELECT c.id, c.name, c.partition_us FROM ts_collections c{_OF_TABLES}'ts_' || c.id ORDER BY c.id"
_DOCUMENT_TABLES = f"SELECT c.id, c.name FROM doc_collections c{_OF_TABLES}'doc_' || c.id ORDER BY c.id"


def _by_rules(rules: Iterable[Rule]) -> list[Check]:
    return [(rule.name, _by_rule(rule)) for rule in rules]


def _by_rule(rule: Rule) -> Callable[[SnapshotReader], AsyncIterator[str]]:
    async def check(reader: SnapshotReader) -> AsyncIterator[str]:
        for row in await reader.rows(limited(rule)):
            yield rule.text.format(*row)

    return check


def _points_of(home: Partitions, name: str) -> Check:
    return f"points and summaries of {name}", lambda reader: PointsCheck(reader, home).findings()


def _silent(_: str) -> None:
    """Nobody wants to know."""
