"""The host connector keeps the contract of connectors."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from polaris.connectors import ManagedSystemConnector
from polaris.connectors.host import HostConnector
from polaris.testing.connector_suite import ConnectorSuite, MakeConnector


class TestHostConnector(ConnectorSuite):
    @pytest.fixture
    async def make_connector(self) -> AsyncIterator[MakeConnector]:
        made: list[ManagedSystemConnector] = []

        def make() -> ManagedSystemConnector:
            made.append(HostConnector.from_options("machine", {"processes": ["1"]}))
            return made[-1]

        yield make
        for connector in made:
            await connector.disconnect()
