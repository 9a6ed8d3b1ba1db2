"""The broker on NATS keeps every promise of the port, on a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from polaris.messaging._broker import MessageBroker
from polaris.messaging.brokers._embedded import EmbeddedNATSServer
from polaris.messaging.brokers._nats import NATSMessageBroker
from polaris.testing.broker_suite import BrokerSuite, MakeBroker


class TestNATSMessageBroker(BrokerSuite):
    @pytest.fixture
    async def make_broker(self, nats_server: EmbeddedNATSServer) -> AsyncIterator[MakeBroker]:
        brokers: list[NATSMessageBroker] = []

        async def make() -> MessageBroker:
            broker = NATSMessageBroker(nats_server.client_config(f"suite-{len(brokers)}"))
            await broker.connect()
            brokers.append(broker)
            return broker

        yield make
        for broker in brokers:
            await broker.disconnect()
