"""Which connectors are installed: plugins by entry point, loaded only when asked for."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points

from polaris.connectors._connector import ConnectorType
from polaris.connectors._options import near
from polaris.exceptions import ConfigurationError

CONNECTOR_GROUP = "polaris.connectors"


def connector_names() -> Sequence[str]:
    """The names of all installed connectors, sorted; none of them is imported."""
    return sorted({point.name for point in entry_points(group=CONNECTOR_GROUP)})


def find_connector(name: str) -> ConnectorType:
    """The connector class installed under `name`, importing its module.

    Raises `ConfigurationError` when there is none (with a near name), when two packages offer different ones under the
    name, when its module cannot be imported, or when what it leads to cannot make connectors.
    """
    points: dict[str, EntryPoint] = {point.value: point for point in entry_points(group=CONNECTOR_GROUP, name=name)}
    if not points:
        known = connector_names()
        message = f"no connector {name!r} is installed{near(name, known)}; installed: {', '.join(known) or 'none'}"
        raise ConfigurationError(message, {"connector": name, "installed": list(known)})
    if len(points) > 1:
        message = f"several packages offer a connector {name!r}: {', '.join(sorted(points))}"
        raise ConfigurationError(message, {"connector": name})
    (point,) = points.values()
    try:
        found = point.load()
    except (ImportError, AttributeError) as error:
        message = f"connector {name!r} ({point.value}) cannot be loaded: {error}"
        raise ConfigurationError(message, {"connector": name, "target": point.value}) from error
    if not isinstance(found, ConnectorType):
        message = f"connector {name!r} ({point.value}) has no from_options, options_type or summary"
        raise ConfigurationError(message, {"connector": name, "target": point.value})
    return found
