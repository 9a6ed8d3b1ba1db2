"""Every storage engine keeps every promise of the ports, of the repositories and of the unit of work."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from polaris.storage import (
    DocumentStorageBackend,
    GraphStorageBackend,
    PolarisDataStore,
    TimeSeriesStorageBackend,
)
from polaris.storage.backends.postgresql import PostgresEngine
from polaris.testing.document_suite import DocumentSuite
from polaris.testing.graph_suite import GraphSuite
from polaris.testing.repository_suite import RepositorySuite
from polaris.testing.timeseries_suite import TimeSeriesSuite
from polaris.testing.unit_of_work_suite import UnitOfWorkSuite


@pytest.fixture(params=["memory", "sqlite", "sqlite_compacting", "postgresql15", "postgresql18"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[PolarisDataStore]:
    """A store of each engine; of SQLite also one that compacts after every write: its reads meet both tables.

    Those of PostgreSQL share a server and a schema, which is emptied between the tests.
    """
    if request.param == "memory":
        made = PolarisDataStore.memory()
    elif request.param == "sqlite":
        made = PolarisDataStore.sqlite(tmp_path / "store.db")
    elif request.param.startswith("postgresql"):
        dsn, schema = request.getfixturevalue("empty_schemas")(int(request.param.removeprefix("postgresql")))
        made = PolarisDataStore(PostgresEngine(dsn, schema=schema, pool_max=4))
    else:
        made = PolarisDataStore.sqlite(tmp_path / "store.db", hot_rows_max=1, slice_rows=1)
    async with made:
        yield made


class TestTimeSeries(TimeSeriesSuite):
    @pytest.fixture
    def backend(self, store: PolarisDataStore) -> TimeSeriesStorageBackend:
        return store.time_series


class TestDocuments(DocumentSuite):
    @pytest.fixture
    def backend(self, store: PolarisDataStore) -> DocumentStorageBackend:
        return store.documents


class TestGraph(GraphSuite):
    @pytest.fixture
    def backend(self, store: PolarisDataStore) -> GraphStorageBackend:
        return store.graph


class TestRepositories(RepositorySuite):
    pass


class TestUnitOfWork(UnitOfWorkSuite):
    pass
