"""The servers that the suites of the storage engines run on."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest
from tests.empty_schemas import EmptySchema
from tests.postgres_servers import QUICK, PostgresServer

QuickPostgres = Callable[[int], PostgresServer]

EmptySchemas = Callable[[int], tuple[str, str]]
"""Gives the DSN of a server of the version, and the name of a schema that is as new."""

schema_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def quick_postgres() -> Iterator[QuickPostgres]:
    """A server of a version for this worker's whole session, started when first asked for. Use a schema of your own."""
    servers: dict[int, PostgresServer] = {}

    def server(version: int) -> PostgresServer:
        if version not in servers:
            servers[version] = PostgresServer(version, QUICK)
            servers[version].start()
        return servers[version]

    yield server
    for started in servers.values():
        started.close()


@pytest.fixture(scope="session")
def empty_schemas(quick_postgres: QuickPostgres) -> Iterator[EmptySchemas]:
    """Of each server one schema that is emptied before each use: making one takes longer than most tests."""
    made: dict[int, EmptySchema] = {}

    def empty_schema(version: int) -> tuple[str, str]:
        dsn = quick_postgres(version).dsn
        if version not in made:
            made[version] = EmptySchema(dsn, "emptied")
        made[version].empty()
        return dsn, made[version].name

    yield empty_schema
    for schema in made.values():
        schema.close()
