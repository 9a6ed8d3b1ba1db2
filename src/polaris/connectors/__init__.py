"""The ways to managed systems: the port, how connectors are found and configured, and what they share.

The connectors themselves (`polaris.connectors.host`, `polaris.connectors.gunicorn`) are found by name through their
entry points and imported only then.
"""

from polaris.connectors._blocking import BlockingReads
from polaris.connectors._connector import (
    ActionDescription,
    ConnectorHealth,
    ConnectorOptions,
    ConnectorSpec,
    ConnectorType,
    ManagedSystemConnector,
    RecallsActions,
)
from polaris.connectors._discovery import CONNECTOR_GROUP, connector_names, find_connector
from polaris.connectors._journal import ActionJournal
from polaris.connectors._options import describe_action, read_options, read_parameters

__all__ = [
    "ManagedSystemConnector",
    "RecallsActions",
    "ActionDescription",
    "ConnectorHealth",
    "ConnectorOptions",
    "ConnectorType",
    "ConnectorSpec",
    "CONNECTOR_GROUP",
    "connector_names",
    "find_connector",
    "read_options",
    "read_parameters",
    "describe_action",
    "BlockingReads",
    "ActionJournal",
]
