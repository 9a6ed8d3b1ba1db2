"""The faces that all engines show: arguments are checked once, for all of them alike; what is done is theirs."""

from polaris.storage.backends.shared._documents import DocumentPort
from polaris.storage.backends.shared._engine import RecordingEngine, SharedEngine
from polaris.storage.backends.shared._graph import GraphPort
from polaris.storage.backends.shared._outbox import OutboxPort
from polaris.storage.backends.shared._recorded import RecordedTransaction, replay
from polaris.storage.backends.shared._timeseries import TimeSeriesPort
from polaris.storage.backends.shared._transaction import SharedTransaction, Step

__all__ = [
    "DocumentPort",
    "GraphPort",
    "OutboxPort",
    "RecordedTransaction",
    "RecordingEngine",
    "SharedEngine",
    "SharedTransaction",
    "Step",
    "TimeSeriesPort",
    "replay",
]
