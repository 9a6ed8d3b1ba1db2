"""The command line's own connection to the bus of the node."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from polaris.runtime._brokers import nats_config

if TYPE_CHECKING:
    from polaris.messaging import NATSMessageBroker, PolarisMessageBus
    from polaris.runtime import Settings

CLIENT_NAME = "polaris-cli"


def broker_of(settings: Settings) -> NATSMessageBroker:
    """A broker, not connected: for the configured servers, or for the embedded one of the running node.

    Raises `BusConnectionError` when there is none to connect to.
    """
    from polaris.messaging import NATSMessageBroker
    from polaris.runtime._node_bus import broker_of_node

    if settings.nats.servers:
        return NATSMessageBroker(nats_config(settings.nats, name=CLIENT_NAME))
    return broker_of_node(settings.data_dir, name=CLIENT_NAME)


@asynccontextmanager
async def connected_bus(settings: Settings) -> AsyncIterator[PolarisMessageBus]:
    """A started bus, stopped at the end. Raises `BusConnectionError` when there is none to connect to."""
    from polaris.messaging import PolarisMessageBus

    bus = PolarisMessageBus(broker_of(settings))
    await bus.start()
    try:
        yield bus
    finally:
        await bus.stop()


@asynccontextmanager
async def connected_broker(settings: Settings) -> AsyncIterator[NATSMessageBroker]:
    """A connected broker for those who only look on, disconnected at the end. Raises as `connected_bus` does."""
    broker = broker_of(settings)
    await broker.connect()
    try:
        yield broker
    finally:
        await broker.disconnect()
