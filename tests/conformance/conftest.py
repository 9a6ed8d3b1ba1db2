"""The servers that the suites of the storage engines run on."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest
from tests.postgres_servers import QUICK, PostgresServer

QuickPostgres = Callable[[int], PostgresServer]

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
