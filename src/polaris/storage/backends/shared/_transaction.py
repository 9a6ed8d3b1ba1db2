"""A transaction that holds nothing while its owner thinks: recorded, rehearsed for reads, applied at the commit.

Why, and what it means for isolation: docs/adr/0002-unit-of-work.md.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

import msgspec

from polaris.exceptions import TransactionConflictError, UnitOfWorkError
from polaris.storage._operation import UNKNOWN, Operation, Session
from polaris.storage.backends.shared._documents import DocumentPort
from polaris.storage.backends.shared._graph import GraphPort
from polaris.storage.backends.shared._outbox import OutboxPort
from polaris.storage.backends.shared._timeseries import TimeSeriesPort

if TYPE_CHECKING:
    from polaris.storage.backends.shared._engine import RecordingEngine

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


def replay(session: Session, steps: Sequence[Step]) -> Any:
    """Run the steps in order and give the last result.

    Raises `TransactionConflictError` when a step no longer gives what the owner was told: others changed what it was
    based on.
    """
    result: Any = None
    for step in steps:
        result = step.operation.run(session)
        if step.mark is not None and step.mark != _fingerprint(result):
            raise TransactionConflictError(
                "what this transaction had read was changed by another; repeat it from the beginning"
            )
    return result


class RecordedTransaction:
    """One ACID transaction over all models of an engine.

    Nothing is locked between two awaits: writes are recorded; a read runs the recorded writes, itself, and takes all
    back; `commit` runs everything in one short transaction. If an operation then gives another result than the owner
    was told, because others committed in between, the commit is refused with `TransactionConflictError` and nothing is
    written: the outcome is always as if the transaction had run alone at the moment of its commit (serializable). So
    errors of writes, such as a broken unique index, may come at the next read, savepoint or at the commit.

    At most 10 000 operations with 200 000 points and documents. Used by one task at a time. After its end every use is
    a `UnitOfWorkError`. Leaving it uncommitted, an error, and cancellation undo everything. A commit that is cancelled
    before the store took it is undone; one that the store has taken is waited for (a commit takes milliseconds), and
    `is_committed` then tells how it ended.
    """

    def __init__(self, engine: RecordingEngine) -> None:
        self.engine = engine
        self._steps: list[Step] = []
        self._weight = 0
        self._ended = ""
        self._busy = False
        self._savepoints = 0
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

    async def execute(self, operation: Operation[T]) -> T:
        """Run an operation as a part of this transaction."""
        self._check_open()
        step = Step(operation)
        if len(self._steps) >= STEPS_MAX or self._weight + operation.weight > WEIGHT_MAX:
            raise UnitOfWorkError(
                f"a unit of work has at most {STEPS_MAX} operations and {WEIGHT_MAX} points and documents",
                {"operations": len(self._steps), "weight": self._weight + operation.weight},
            )
        if operation.known is not UNKNOWN:
            self._record(step)
            return cast(T, operation.known)
        result: T = await self._rehearse([*self._steps, step])
        step.mark = _fingerprint(result)
        self._record(step)
        return result

    async def _rehearse(self, steps: Sequence[Step]) -> Any:
        self._busy = True
        try:
            result = await self.engine.rehearse(steps)
        finally:
            self._busy = False
        self._check_open()
        return result

    def _record(self, step: Step) -> None:
        self._steps.append(step)
        self._weight += step.operation.weight

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        self._check_open()
        mark = len(self._steps)
        self._savepoints += 1
        try:
            yield
            if any(step.operation.mutates and step.mark is None for step in self._steps[mark:]):
                # What was only recorded may fail: here, where its owner can still do without it.
                await self._rehearse(self._steps)
        except BaseException:  # boundary: taken back, then raised again
            self._take_back(mark)
            raise
        finally:
            self._savepoints -= 1

    def _take_back(self, mark: int) -> None:
        """Forget the steps since the mark, but for the reads before the first write: they told of what others did."""
        inside, self._steps = self._steps[mark:], self._steps[:mark]
        for step in inside:
            if step.operation.mutates:
                break
            self._steps.append(step)
        self._weight = sum(step.operation.weight for step in self._steps)

    async def commit(self) -> None:
        """Make everything durable at once; afterwards the transaction has ended.

        Raises `ConflictError`, `StoreFullError` and other `DataStoreError`s with nothing written. Within a savepoint it
        is a `UnitOfWorkError`, and nothing is done.
        """
        self._check_open()
        if self._savepoints:
            raise UnitOfWorkError("a savepoint is open: leave it before the commit")
        steps, self._steps = self._steps, []
        self._ended = "rolled back"
        if any(step.operation.mutates or step.mark is not None for step in steps):
            await self.engine.apply(steps, self._committed)
        self._ended = "committed"

    def _committed(self) -> None:
        self._ended = "committed"

    async def rollback(self) -> None:
        """Forget everything. Idempotent; does nothing after a commit."""
        self._steps = []
        if not self._ended:
            self._ended = "rolled back"

    def _check_open(self) -> None:
        if self._ended:
            raise UnitOfWorkError(f"the unit of work has ended: it was {self._ended}")
        if self._busy:
            raise UnitOfWorkError("a unit of work is used by one task at a time, and another is using it")

    async def __aenter__(self) -> Self:
        self._check_open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.rollback()
