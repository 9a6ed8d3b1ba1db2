"""The asynchronous faces of engines that run in this process: arguments checked once, for all of them alike."""

from polaris.storage.backends.local._documents import LocalDocuments
from polaris.storage.backends.local._engine import LocalEngine
from polaris.storage.backends.local._graph import LocalGraph
from polaris.storage.backends.local._outbox import LocalOutbox
from polaris.storage.backends.local._timeseries import LocalTimeSeries
from polaris.storage.backends.local._transaction import Step, Transaction, replay

__all__ = [
    "LocalDocuments",
    "LocalEngine",
    "LocalGraph",
    "LocalOutbox",
    "LocalTimeSeries",
    "Step",
    "Transaction",
    "replay",
]
