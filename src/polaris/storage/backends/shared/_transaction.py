"""What the transactions of all engines share: their ports, their bounds, and how they end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import msgspec

from polaris.exceptions import TransactionConflictError, UnitOfWorkError
from polaris.storage._operation import Operation
from polaris.storage.backends.shared._documents import DocumentPort
from polaris.storage.backends.shared._graph import GraphPort
from polaris.storage.backends.shared._outbox import OutboxPort
from polaris.storage.backends.shared._timeseries import TimeSeriesPort

if TYPE_CHECKING:
    from polaris.storage.backends.shared._engine import SharedEngine

T = TypeVar("T")

STEPS_MAX = 10_000
WEIGHT_MAX = 200_000

_fingerprint = msgspec.msgpack.Encoder().encode


class Step:
    """An operation of a transaction, and the mark of the result that its owner was told, if any."""

    __slots__ = ("mark", "operation")

    def __init__(self, operation: Operation[Any]) -> None:
        self.operation = operation
        self.mark: bytes | None = None

    def tell(self, result: Any) -> None:
        """The owner is told this. Only a digest is kept: what he does to it changes nothing."""
        self.mark = _fingerprint(result)

    def check(self, result: Any) -> None:
        """Done again, it gave this. Raises `TransactionConflictError` when its owner was told something else."""
        if self.mark is not None and self.mark != _fingerprint(result):
            raise TransactionConflictError(
                "what this transaction had read was changed by another; repeat it from the beginning"
            )


class SharedTransaction(ABC):
    """A transaction over all models of an engine; how its operations are run is the engine's.

    At most 10 000 operations with 200 000 points and documents. Used by one task at a time. After its end every use is
    a `UnitOfWorkError`. Leaving it uncommitted, an error, and cancellation undo everything.
    """

    def __init__(self, engine: SharedEngine) -> None:
        self._ended = ""
        """How; empty while it is open."""
        self._busy = False
        self._savepoints = 0
        self._count = 0
        self._weight = 0
        self._time_series = TimeSeriesPort(engine, self)
        self._documents = DocumentPort(engine, self)
        self._graph = GraphPort(engine, self)
        self._outbox = OutboxPort(engine, self)

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

    @property
    def is_open(self) -> bool:
        return not self._ended

    @property
    def is_committed(self) -> bool:
        return self._ended == "committed"

    @abstractmethod
    async def execute(self, operation: Operation[T]) -> T:
        """Run an operation as a part of this transaction, or note it when its result is known."""

    @abstractmethod
    async def rollback(self) -> None:
        """Undo everything. Idempotent; does nothing after a commit."""

    def _check_room(self, operation: Operation[Any]) -> None:
        """Refuse what would be too much for one transaction."""
        if self._count >= STEPS_MAX or self._weight + operation.weight > WEIGHT_MAX:
            raise UnitOfWorkError(
                f"a unit of work has at most {STEPS_MAX} operations and {WEIGHT_MAX} points and documents",
                {"operations": self._count, "weight": self._weight + operation.weight},
            )

    def _note_size(self, operation: Operation[Any]) -> None:
        self._count += 1
        self._weight += operation.weight

    def _check_open(self) -> None:
        if self._ended:
            raise UnitOfWorkError(f"the unit of work has ended: it was {self._ended}")
        if self._busy:
            raise UnitOfWorkError("a unit of work is used by one task at a time, and another is using it")

    def _check_commit(self) -> None:
        """Refuse a commit that nobody can make now."""
        self._check_open()
        if self._savepoints:
            raise UnitOfWorkError("a savepoint is open: leave it before the commit")

    def _end(self, how: str) -> None:
        """It has ended, unless it had before."""
        self._ended = self._ended or how

    async def __aenter__(self) -> Self:
        self._check_open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.rollback()
