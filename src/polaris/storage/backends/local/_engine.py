"""What the engines of this process share: their ports, and what they owe a transaction."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from polaris.clock import SYSTEM_CLOCK, Clock
from polaris.storage._backend import StorageEngine
from polaris.storage._operation import Operation
from polaris.storage.backends.local._documents import LocalDocuments
from polaris.storage.backends.local._graph import LocalGraph
from polaris.storage.backends.local._outbox import LocalOutbox
from polaris.storage.backends.local._timeseries import LocalTimeSeries
from polaris.storage.backends.local._transaction import Step, Transaction

T = TypeVar("T")


class LocalEngine(StorageEngine):
    """An engine that executes operations on sessions of its own."""

    def __init__(self, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self.clock = clock
        self.outbox_changed = asyncio.Event()
        self._time_series = LocalTimeSeries(self, self)
        self._documents = LocalDocuments(self, self)
        self._graph = LocalGraph(self, self)
        self._outbox = LocalOutbox(self, self)

    @property
    def time_series(self) -> LocalTimeSeries:
        return self._time_series

    @property
    def documents(self) -> LocalDocuments:
        return self._documents

    @property
    def graph(self) -> LocalGraph:
        return self._graph

    @property
    def outbox(self) -> LocalOutbox:
        return self._outbox

    def transaction(self) -> Transaction:
        return Transaction(self)

    @abstractmethod
    async def execute(self, operation: Operation[T]) -> T:
        """Run one operation in a transaction of its own."""

    @abstractmethod
    async def rehearse(self, steps: Sequence[Step]) -> Any:
        """Run the steps, take everything back, and give the result of the last one."""

    @abstractmethod
    async def apply(self, steps: Sequence[Step], on_commit: Callable[[], None]) -> None:
        """Run the steps in one transaction and commit it; `on_commit` is called as soon as it is durable."""
