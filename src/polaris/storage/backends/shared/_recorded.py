"""A transaction that holds nothing while its owner thinks: recorded, rehearsed for reads, applied at the commit.

Why, and what it means for isolation: docs/adr/0002-unit-of-work.md.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from polaris.storage._operation import UNKNOWN, Operation, Session
from polaris.storage.backends.shared._transaction import STEPS_MAX, WEIGHT_MAX, SharedTransaction, Step

if TYPE_CHECKING:
    from polaris.storage.backends.shared._engine import RecordingEngine

T = TypeVar("T")


def replay(session: Session, steps: Sequence[Step]) -> Any:
    """Run the steps in order and give the last result.

    Raises `TransactionConflictError` when a step no longer gives what the owner was told: others changed what it was
    based on.
    """
    result: Any = None
    for step in steps:
        result = step.operation.run(session)
        if step.mark is not None:
            step.check(result)
    return result


class RecordedTransaction(SharedTransaction):
    """One ACID transaction over all models of an engine.

    Nothing is locked between two awaits: writes are recorded; a read runs the recorded writes, itself, and takes all
    back; `commit` runs everything in one short transaction. If an operation then gives another result than the owner
    was told, because others committed in between, the commit is refused with `TransactionConflictError` and nothing is
    written: the outcome is always as if the transaction had run alone at the moment of its commit (serializable). So
    errors of writes, such as a broken unique index, may come at the next read, savepoint or at the commit.

    The bounds and the end are those of all transactions: see `SharedTransaction`. A commit that is cancelled before the
    store took it is undone; one that the store has taken is waited for (a commit takes milliseconds), and
    `is_committed` then tells how it ended.
    """

    def __init__(self, engine: RecordingEngine) -> None:
        super().__init__(engine)
        self.engine = engine
        self._steps: list[Step] = []

    async def execute(self, operation: Operation[T]) -> T:
        # A unit of work comes through here for all that it does, so what every step needs is in one place.
        if self._ended or self._busy:
            self._check_open()
        weight = self._weight + operation.weight
        if self._count >= STEPS_MAX or weight > WEIGHT_MAX:
            self._check_room(operation)
        step = Step(operation)
        result: Any = operation.known
        if result is UNKNOWN:
            result = await self._rehearse([*self._steps, step])
            step.tell(result)
        self._steps.append(step)
        self._count += 1
        self._weight = weight
        told: T = result
        return told

    async def _rehearse(self, steps: Sequence[Step]) -> Any:
        self._busy = True
        try:
            result = await self.engine.rehearse(steps)
        finally:
            self._busy = False
        self._check_open()
        return result

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
        self._count, self._weight = len(self._steps), sum(step.operation.weight for step in self._steps)

    async def commit(self) -> None:
        """Make everything durable at once; afterwards the transaction has ended.

        Raises `ConflictError`, `StoreFullError` and other `DataStoreError`s with nothing written. Within a savepoint it
        is a `UnitOfWorkError`, and nothing is done.
        """
        self._check_commit()
        steps, self._steps = self._steps, []
        self._ended = "rolled back"
        if any(step.operation.mutates or step.mark is not None for step in steps):
            await self.engine.apply(steps, self._committed)
        self._ended = "committed"

    def _committed(self) -> None:
        self._ended = "committed"

    async def rollback(self) -> None:
        self._steps = []
        self._end("rolled back")
