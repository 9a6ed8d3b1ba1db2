"""The runtime: settings, the assembly of a node, and the services that carry telemetry in and actions out."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from polaris.runtime._configuration import effective_settings, load_settings, settings_schema
    from polaris.runtime._data_folder import DataFolder, NodeFile
    from polaris.runtime._node import Node
    from polaris.runtime._settings import Settings

__all__ = ["Node", "Settings", "load_settings", "effective_settings", "settings_schema", "DataFolder", "NodeFile"]

_HOMES = {
    "Node": "_node",
    "Settings": "_settings",
    "load_settings": "_configuration",
    "effective_settings": "_configuration",
    "settings_schema": "_configuration",
    "DataFolder": "_data_folder",
    "NodeFile": "_data_folder",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    from importlib import import_module

    return getattr(import_module(f"polaris.runtime.{home}"), name)
