"""A real transaction of the server: serializable, begun at its first question, its known writes sent as late as may be.

Why, and what differs from the engines of this process: docs/adr/0007-postgresql.md.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import takewhile
from typing import TYPE_CHECKING, Any, TypeVar, cast

from polaris.exceptions import PolarisException, TransactionConflictError
from polaris.storage._operation import UNKNOWN, Operation
from polaris.storage.backends.postgresql._errors import RepeatError, is_of_no_use, translated
from polaris.storage.backends.postgresql._link import READ_COMMITTED, SERIALIZABLE, UnknownOutcomeError
from polaris.storage.backends.postgresql._session import PostgresSession, run_on
from polaris.storage.backends.postgresql._targets import Target, overlap, target_of
from polaris.storage.backends.shared import SharedTransaction, Step

if TYPE_CHECKING:
    from polaris.storage.backends.postgresql._engine import PostgresEngine

T = TypeVar("T")

ATTEMPTS_MAX = 10


class _Step(Step):
    """A step, and what it is about."""

    __slots__ = ("target",)

    def __init__(self, operation: Operation[Any]) -> None:
        super().__init__(operation)
        self.target: Target = target_of(operation)

    async def run(self, session: PostgresSession) -> Any:
        return await run_on(session, self.operation)

    async def run_again(self, session: PostgresSession) -> None:
        """Do it anew. Raises `TransactionConflictError` when its owner was told something else."""
        self.check(await self.run(session))


class PostgresTransaction(SharedTransaction):
    """One ACID transaction over all models of an engine.

    It takes a connection with its first operation whose result is not known beforehand, or with `savepoint` or
    `commit`, and holds it to its end: leave it soon. Writes whose results are known are sent before an operation that
    may see them, and with the commit; so errors of writes may come there. Rows that were sent are locked to its end.

    Isolation is that of SERIALIZABLE. When the server cannot order the transaction among others, ends it because it
    stood idle for longer than the engine's `idle_timeout_s`, or goes away, then all of it is done anew in another one;
    when an operation then gives something else than its owner was told, it is a `TransactionConflictError`, and nothing
    is written. Inside a savepoint nothing is done anew. One that was told nothing before its commit only waits for the
    locks of what it writes. The bounds and the end are those of all transactions: see `SharedTransaction`.

    A commit that is cancelled before the server was asked to commit is undone; later it is waited for, and
    `is_committed` tells how it ended. When the connection is lost in between, nobody knows: `UnconfirmedWriteError`.
    """

    def __init__(self, engine: PostgresEngine) -> None:
        super().__init__(engine)
        self.engine = engine
        self._session: PostgresSession | None = None
        self._history: list[_Step] = []
        """What the server has been asked, in order."""
        self._pending: list[_Step] = []
        """Writes that it has not been told of."""
        self._has_conflict = False

    async def execute(self, operation: Operation[T]) -> T:
        self._check_open()
        self._check_room(operation)
        if operation.known is not UNKNOWN:
            self._note(operation)
            return cast(T, operation.known)
        async with self._working():
            result = await self._ask(operation)
        self._note_size(operation)
        return result

    def _note(self, operation: Operation[Any]) -> None:
        self._note_size(operation)
        if operation.mutates:
            self._pending.append(_Step(operation))

    async def _ask(self, operation: Operation[T]) -> T:
        """Run the operation and what it may see; what fails leaves the transaction as it was before."""
        step = _Step(operation)

        async def attempt() -> T:
            due = [one for one in self._pending if overlap(one.target, step.target)]
            session = await self._begun()
            if not due and not operation.mutates:
                return cast(T, await step.run(session))
            async with self._guarded(session):
                await self._send(session, due)
                result = cast(T, await step.run(session))
            self._settle(due)
            return result

        result = await self._repeated(attempt)
        step.tell(result)
        self._history.append(step)
        return result

    async def _repeated(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Do it, if need be several times, each in a new transaction in which all that was done is done anew."""

        async def once() -> T:
            try:
                return await attempt()
            except PolarisException:
                raise
            except BaseException as error:  # boundary: given up, then raised again
                if self._session is not None and is_of_no_use(error):
                    self._session.link.throw_away()
                await self._release()
                raise

        return await self.engine.repeated(once, attempts_max=1 if self._savepoints else ATTEMPTS_MAX, repeats_lost=True)

    async def _begun(self, how: str = SERIALIZABLE) -> PostgresSession:
        """The session, in a transaction that has done all that was done."""
        if self._session is None:
            self._session = await self.engine.begin(how)
            for step in self._history:
                await step.run_again(self._session)
        return self._session

    async def _send(self, session: PostgresSession, steps: Sequence[_Step]) -> None:
        for step in steps:
            await step.run(session)

    def _settle(self, steps: Sequence[_Step]) -> None:
        """These are done: the commit need not send them."""
        gone = set(map(id, steps))
        self._pending = [step for step in self._pending if id(step) not in gone]
        self._history += steps

    @asynccontextmanager
    async def _guarded(self, session: PostgresSession) -> AsyncIterator[None]:
        """A savepoint of the server: an error of the store inside takes back what was done inside."""
        await session.link.run("SAVEPOINT step")
        try:
            yield
        except PolarisException:
            session.lessons.forget()
            await session.link.run("ROLLBACK TO SAVEPOINT step")
            raise
        await session.link.run("RELEASE SAVEPOINT step")

    @asynccontextmanager
    async def _working(self) -> AsyncIterator[None]:
        """One task at a time; errors of the driver become the store's."""
        self._busy = True
        try:
            yield
        except TransactionConflictError:
            await self._conflict()
            raise
        except PolarisException:
            raise
        except RepeatError as error:
            await self._conflict()
            raise TransactionConflictError("what was known of the store was outdated; repeat it") from error
        except Exception as error:  # boundary: translated
            known = translated(error)
            if isinstance(known, TransactionConflictError):
                await self._conflict()
            raise known from error
        finally:
            self._busy = False

    async def _conflict(self) -> None:
        """From now on it can only be left."""
        self._has_conflict = True
        await self._release()

    async def _release(self) -> None:
        """Undo what is not committed and give the connection back."""
        session, self._session = self._session, None
        if session is not None:
            await self.engine.give_back(session)

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        self._check_open()
        before, mark, size = list(self._pending), len(self._history), (self._count, self._weight)
        name = f"part_{self._savepoints}"
        async with self._working():
            await self._repeated(lambda: self._mark(name))
        self._savepoints += 1
        try:
            yield
            self._check_open()
            async with self._working():
                await self._repeated(lambda: self._keep(name))
        except BaseException:  # boundary: taken back, then raised again
            inside, self._history = self._history[mark:], self._history[:mark]
            # The reads before the first write told of what others did, and stay.
            self._history += takewhile(lambda step: not step.operation.mutates, inside)
            self._pending, (self._count, self._weight) = before, size
            await self._take_back(name)
            raise
        finally:
            self._savepoints -= 1

    async def _mark(self, name: str) -> None:
        session = await self._begun()
        await session.link.run(f"SAVEPOINT {name}")

    async def _keep(self, name: str) -> None:
        """End a savepoint; what was only noted may fail: here, where its owner can still do without it."""
        due = [step for step in self._pending if step.target[0] != "outbox"]
        session = self._session
        if session is None:
            raise TransactionConflictError("the server undid the transaction while a savepoint was open; repeat it")
        await self._send(session, due)
        await session.link.run(f"RELEASE SAVEPOINT {name}")
        self._settle(due)

    async def _take_back(self, name: str) -> None:
        """Undo what the server has done since the savepoint; where it cannot, undo all and do the rest anew later."""
        session = self._session
        if session is None or self._ended:
            return
        session.lessons.forget()
        try:
            await session.link.run(f"ROLLBACK TO SAVEPOINT {name}")
        except Exception:  # boundary: whatever it was, the transaction is undone and begun anew
            await self._release()

    async def commit(self) -> None:
        """Make everything durable at once; afterwards the transaction has ended.

        Raises `ConflictError`, `StoreFullError` and other `DataStoreError`s with nothing written, and
        `UnconfirmedWriteError` when it may have been written. Within a savepoint it is a `UnitOfWorkError`, and nothing
        is done.
        """
        self._check_commit()
        self._ended = "rolled back"
        try:
            async with self._working():
                if self._session is not None or self._history or self._pending:
                    await self._repeated(self._commit_once)
            self._ended = "committed"
        finally:
            await self._release()

    async def _commit_once(self) -> None:
        # Who was told nothing depends on nothing: the locks of what is written are order enough, and nobody is refused.
        session = await self._begun(SERIALIZABLE if self._history else READ_COMMITTED)
        await self._send(session, self._pending)
        try:
            await session.link.commit()
        except UnknownOutcomeError as error:
            raise self.engine.unconfirmed() from error
        finally:
            if session.link.is_committed:  # also when cancelled meanwhile
                self._committed(session)

    def _committed(self, session: PostgresSession) -> None:
        self._ended = "committed"
        self.engine.committed(session)

    async def rollback(self) -> None:
        """Undo everything and give the connection back. Idempotent; does nothing after a commit."""
        self._pending, self._history = [], []
        self._end("rolled back")
        await self._release()

    def _check_open(self) -> None:
        super()._check_open()
        if self._has_conflict:
            raise TransactionConflictError("the unit of work is based on what others changed; repeat it")
