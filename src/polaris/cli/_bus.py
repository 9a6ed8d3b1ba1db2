"""The command line's own connection to the bus of the node."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from polaris.exceptions import BusConnectionError
from polaris.runtime import DataFolder
from polaris.runtime._assembly import nats_config

if TYPE_CHECKING:
    from polaris.messaging import PolarisMessageBus
    from polaris.runtime import Settings

CONNECT_TIMEOUT_S = 5.0


@asynccontextmanager
async def connected_bus(settings: Settings) -> AsyncIterator[PolarisMessageBus]:
    """A started bus: the configured servers, or the embedded one of the running node; stopped at the end.

    Raises `BusConnectionError` when there is none to connect to.
    """
    from polaris.messaging import NATSConfig, NATSMessageBroker, PolarisMessageBus

    if settings.nats.servers:
        config = nats_config(settings.nats, name="polaris-cli")
    else:
        running = DataFolder(settings.data_dir).running_node()
        if running is None or running.bus_url is None:
            raise BusConnectionError(f"no node runs on {settings.data_dir}; start one with: polaris run")
        config = NATSConfig(servers=(running.bus_url,), token=running.bus_token, name="polaris-cli")
    bus = PolarisMessageBus(NATSMessageBroker(config))
    await bus.start()
    try:
        yield bus
    finally:
        await bus.stop()
