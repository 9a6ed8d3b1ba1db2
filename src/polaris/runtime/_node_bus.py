"""The bus of a node that runs on this machine, for programs beside it: controllers, scripts, the command line."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from polaris.exceptions import BusConnectionError
from polaris.messaging import NATSConfig, NATSMessageBroker, PolarisMessageBus
from polaris.runtime._data_folder import DataFolder


def bus_of_node(data_dir: str | PathLike[str] = "polaris-data", *, name: str = "polaris-program") -> PolarisMessageBus:
    """A bus of the node that owns `data_dir`, not started: `async with bus_of_node() as bus`.

    It finds the node again after a restart, which keeps port and token. The token is read from the folder, so the
    program must be its user's. For servers that the node was configured with, and that ask for more than a token, use
    `NATSMessageBroker`. `name` is what the server calls the connection. Raises `BusConnectionError` when no node runs.
    """
    return PolarisMessageBus(broker_of_node(Path(data_dir), name=name))


def broker_of_node(data_dir: Path, *, name: str) -> NATSMessageBroker:
    """A broker, not connected. Raises as `bus_of_node` does."""
    running = DataFolder(data_dir).running_node()
    if running is None or running.bus_url is None:
        raise BusConnectionError(f"no node runs on {data_dir}; start one with: polaris run")
    return NATSMessageBroker(NATSConfig(servers=(running.bus_url,), token=running.bus_token, name=name))
