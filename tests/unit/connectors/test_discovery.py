"""Finding connectors: by the name of an entry point, or by a reference to a class."""

from __future__ import annotations

import pytest

from polaris.connectors import connector_names, find_connector
from polaris.exceptions import ConfigurationError


def test_the_shipped_connectors_are_found_by_name() -> None:
    assert {"host", "gunicorn"} <= set(connector_names())
    assert find_connector("host").summary


def test_a_near_name_is_suggested() -> None:
    with pytest.raises(ConfigurationError, match="gunicorn"):
        find_connector("gunicron")


def test_a_reference_leads_to_a_class_that_nobody_installed() -> None:
    assert find_connector("polaris.connectors.host:HostConnector") is find_connector("host")


@pytest.mark.parametrize(
    "reference",
    [
        "polaris.nowhere:X",
        "polaris.connectors.host:Nothing",
        "polaris.clock:SystemClock",
        "x:",
        ":x",
        "a b:c",
        "os:system",
    ],
)
def test_a_reference_to_no_connector_is_a_configuration_error(reference: str) -> None:
    with pytest.raises(ConfigurationError, match="connector"):
        find_connector(reference)
