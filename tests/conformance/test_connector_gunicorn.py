"""The gunicorn connector keeps the contract of connectors, on a real gunicorn."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.gunicorns import Gunicorn, running_gunicorn

from polaris.connectors import ManagedSystemConnector
from polaris.connectors.gunicorn import GunicornConnector
from polaris.testing.connector_suite import ConnectorSuite, MakeConnector


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gunicorn]:
    with running_gunicorn(tmp_path_factory.mktemp("gunicorn")) as running:
        yield running


class TestGunicornConnector(ConnectorSuite):
    def actions(self) -> Sequence[tuple[str, Mapping[str, Any]]]:
        return [("set_workers", {"workers": 1}), ("add_worker", {}), ("remove_worker", {})]

    @pytest.fixture
    async def make_connector(self, service: Gunicorn, tmp_path: Path) -> AsyncIterator[MakeConnector]:
        made: list[ManagedSystemConnector] = []
        options = {"pidfile": str(service.pidfile), "statsd_port": 0, "journal": str(tmp_path / "journal.jsonl")}

        def make() -> ManagedSystemConnector:
            made.append(GunicornConnector.from_options("web", options))
            return made[-1]

        yield make
        for connector in made:
            await connector.disconnect()
