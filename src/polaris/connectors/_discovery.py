"""Which connectors are installed: plugins by entry point, loaded only when asked for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points

from polaris.connectors._connector import ConnectorType
from polaris.connectors._options import near
from polaris.exceptions import ConfigurationError

CONNECTOR_GROUP = "polaris.connectors"
_REFERENCE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def connector_names() -> Sequence[str]:
    """The names of all installed connectors, sorted; none of them is imported."""
    return sorted({point.name for point in entry_points(group=CONNECTOR_GROUP)})


def find_connector(name: str) -> ConnectorType:
    """The connector class installed under `name`, importing its module.

    A name with a colon, `package.module:Class`, leads straight to a class that can be imported but that no package
    offers as an entry point, such as one that is still being written.

    Raises `ConfigurationError` when there is none (with a near name), when two packages offer different ones under the
    name, when its module cannot be imported, or when what it leads to cannot make connectors.
    """
    if ":" in name:
        return _load(name, _reference(name))
    points: dict[str, EntryPoint] = {point.value: point for point in entry_points(group=CONNECTOR_GROUP, name=name)}
    if not points:
        known = connector_names()
        message = f"no connector {name!r} is installed{near(name, known)}; installed: {', '.join(known) or 'none'}"
        raise ConfigurationError(message, {"connector": name, "installed": list(known)})
    if len(points) > 1:
        message = f"several packages offer a connector {name!r}: {', '.join(sorted(points))}"
        raise ConfigurationError(message, {"connector": name})
    (point,) = points.values()
    return _load(name, point)


def _reference(name: str) -> EntryPoint:
    if _REFERENCE.fullmatch(name) is None:
        raise ConfigurationError(f"connector {name!r} is no reference to a class; write package.module:Class")
    return EntryPoint(name, name, CONNECTOR_GROUP)


def _load(name: str, point: EntryPoint) -> ConnectorType:
    try:
        found = point.load()
    except (ImportError, AttributeError) as error:
        where = "" if point.value == name else f" ({point.value})"
        hint = "; is its folder on PYTHONPATH?" if point.value == name else ""
        message = f"connector {name!r}{where} cannot be loaded: {error}{hint}"
        raise ConfigurationError(message, {"connector": name, "target": point.value}) from error
    if not isinstance(found, ConnectorType):
        message = f"connector {name!r} ({point.value}) has no from_options, options_type or summary"
        raise ConfigurationError(message, {"connector": name, "target": point.value})
    return found
