"""What all engines share: the ports that check arguments, over an executor of operations."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from polaris.clock import SYSTEM_CLOCK, Clock
from polaris.storage._backend import StorageEngine
from polaris.storage._operation import Operation
from polaris.storage.backends.shared._documents import DocumentPort
from polaris.storage.backends.shared._graph import GraphPort
from polaris.storage.backends.shared._outbox import OutboxPort
from polaris.storage.backends.shared._recorded import RecordedTransaction
from polaris.storage.backends.shared._timeseries import TimeSeriesPort
from polaris.storage.backends.shared._transaction import Step

T = TypeVar("T")


class SharedEngine(StorageEngine):
    """An engine that executes operations; its ports are the same as everybody's."""

    def __init__(self, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self.clock = clock
        self.outbox_changed = asyncio.Event()
        """Set when this process has committed an event to the outbox."""
        self._time_series = TimeSeriesPort(self, self)
        self._documents = DocumentPort(self, self)
        self._graph = GraphPort(self, self)
        self._outbox = OutboxPort(self, self)

    @property
    def time_series(self) -> TimeSeriesPort:
        return self._time_series

    @property
    def documents(self) -> DocumentPort:
        return self._documents

    @property
    def graph(self) -> GraphPort:
        return self._graph

    @property
    def outbox(self) -> OutboxPort:
        return self._outbox

    @abstractmethod
    async def execute(self, operation: Operation[T]) -> T:
        """Run one operation in a transaction of its own."""

    async def summarise(self, collection: str, now_us: int) -> None:
        """Make summaries of the points of a collection, where the engine has any and does not do so by itself."""


class RecordingEngine(SharedEngine):
    """An engine of this process: its transactions are recorded, rehearsed and applied at once."""

    def transaction(self) -> RecordedTransaction:
        return RecordedTransaction(self)

    @abstractmethod
    async def rehearse(self, steps: Sequence[Step]) -> Any:
        """Run the steps, take everything back, and give the result of the last one."""

    @abstractmethod
    async def apply(self, steps: Sequence[Step], on_commit: Callable[[], None]) -> None:
        """Run the steps in one transaction and commit it; `on_commit` is called as soon as it is durable."""
