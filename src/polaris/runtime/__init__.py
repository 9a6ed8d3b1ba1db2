"""The runtime: settings, the assembly of a node, and the services that carry telemetry in and actions out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polaris._lazy import lazy_names

if TYPE_CHECKING:
    from polaris.runtime._configuration import effective_settings, load_settings, settings_schema
    from polaris.runtime._data_folder import DataFolder, NodeFile
    from polaris.runtime._node import Node
    from polaris.runtime._node_bus import bus_of_node
    from polaris.runtime._seen_ids import StoredSeenIds
    from polaris.runtime._settings import Settings
    from polaris.runtime._store import open_routed_store

__all__ = [
    "Node",
    "Settings",
    "load_settings",
    "effective_settings",
    "settings_schema",
    "DataFolder",
    "NodeFile",
    "bus_of_node",
    "open_routed_store",
    "StoredSeenIds",
]

_HOMES = {
    "Node": "_node",
    "Settings": "_settings",
    "load_settings": "_configuration",
    "effective_settings": "_configuration",
    "settings_schema": "_configuration",
    "DataFolder": "_data_folder",
    "NodeFile": "_data_folder",
    "bus_of_node": "_node_bus",
    "open_routed_store": "_store",
    "StoredSeenIds": "_seen_ids",
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
