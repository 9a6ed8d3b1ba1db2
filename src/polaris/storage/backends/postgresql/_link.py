"""One connection while it is used: statements, and transactions that are begun when several belong together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol, TypeVar

from polaris.storage.backends.postgresql._driver import asyncpg
from polaris.storage.backends.postgresql._errors import lost_connection

Row = Any
T = TypeVar("T")
CLEANUP_S = 5.0
"""How long a rollback may take before the connection is thrown away instead."""

READ_COMMITTED = "BEGIN ISOLATION LEVEL READ COMMITTED"
SNAPSHOT = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
# How many points a range holds differs from question to question; a plan for all of them would be made for few.
SCAN = f"{SNAPSHOT}; SET LOCAL plan_cache_mode = force_custom_plan"
# What is done anew must give what it gave: processes that share a sum, and scans that join another one's, do not.
SERIALIZABLE = (
    "BEGIN ISOLATION LEVEL SERIALIZABLE;"
    " SET LOCAL max_parallel_workers_per_gather = 0; SET LOCAL synchronize_seqscans = off"
)


class Others(Protocol):
    """Where other connections to the same servers are to be had."""

    @property
    def has_spare(self) -> bool:
        """Whether `spare` would give one."""
        ...

    @property
    def wait_s_max(self) -> float:
        """How long one of several connections may have to wait for the others."""
        ...

    def spare(self) -> AbstractAsyncContextManager[Link | None]:
        """A connection for one who has one already and could do without another; None where too many are in use."""
        ...

    def refuse(self) -> None:
        """Give none for a while: the server would not let several see the same."""
        ...


class UnknownOutcomeError(Exception):
    """The connection went away while the server was making something last: it is done, or it is not."""


class Link:
    """A connection in the hands of one operation or one transaction.

    A single statement is a transaction of its own; `atomic` makes several one, unless there is one already.
    """

    __slots__ = (
        "_in_transaction",
        "_is_cut_off",
        "_schema_timeout_s",
        "connection",
        "is_committed",
        "is_serializable",
        "is_snapshot",
        "others",
        "touched",
    )

    def __init__(self, connection: Any, schema_timeout_s: float, others: Others | None = None) -> None:
        self.connection = connection
        self._schema_timeout_s = schema_timeout_s
        self._in_transaction = False
        self._is_cut_off = False
        """Whether a statement outside a transaction failed or was cancelled, perhaps between preparation and execution.

        The driver leaves the server there, and it refuses a transaction that is begun next, until it is told to go on.
        """
        self.is_committed = False
        """Whether its transaction was committed."""
        self.is_serializable = False
        """Whether the transaction sees nothing that others commit meanwhile."""
        self.is_snapshot = False
        """Whether it only reads, and all from one snapshot."""
        self.others = others
        self.touched = False
        """Whether a statement that may have changed something was sent outside a transaction."""

    @property
    def in_transaction(self) -> bool:
        return self._in_transaction

    @property
    def is_gone(self) -> bool:
        """Whether the connection is closed; the pool may have taken a lost one away, then it may not be asked."""
        try:
            return bool(self.connection.is_closed())
        except asyncpg.InterfaceError:
            return True

    def throw_away(self) -> None:
        """Close the connection without a word to the server. Idempotent."""
        if not self.is_gone:
            self.connection.terminate()

    async def rows(self, sql: str, *values: Any) -> list[Row]:
        return await self._sent(self.connection.fetch(sql, *values))

    async def row(self, sql: str, *values: Any) -> Row | None:
        return await self._sent(self.connection.fetchrow(sql, *values))

    async def value(self, sql: str, *values: Any) -> Any:
        return await self._sent(self.connection.fetchval(sql, *values))

    async def run(self, sql: str, *values: Any, timeout_s: float | None = None) -> int:
        """Run a statement; gives how many rows it touched. `timeout_s` instead of what all statements have."""
        self._touch()
        status: str = await self._sent(self.connection.execute(sql, *values, timeout=timeout_s))
        last = status.rpartition(" ")[2]
        return int(last) if last.isdigit() else 0

    async def run_long(self, sql: str) -> None:
        """Run a statement that changes the schema, in a transaction: it may take as long as `schema_timeout_s`."""
        limit_ms = round(self._schema_timeout_s * 1000)
        await self.run(f"SET LOCAL statement_timeout = {limit_ms}")
        await self.run(sql, timeout_s=self._schema_timeout_s + 2.0)
        await self.run("SET LOCAL statement_timeout TO DEFAULT")

    async def run_many(self, sql: str, values: Iterable[Sequence[Any]]) -> None:
        """Run a statement once for each set of values, all or none, in one go."""
        self._touch()
        await self._sent(self.connection.executemany(sql, values))

    async def copy(self, table: str, columns: Sequence[str], records: Iterable[Sequence[Any]]) -> None:
        """Put records into a table by COPY."""
        self._touch()
        await self._sent(self.connection.copy_records_to_table(table, records=records, columns=columns))

    async def _sent(self, answer: Awaitable[T]) -> T:
        try:
            return await answer
        except BaseException:  # boundary: noted, then raised again
            self._is_cut_off |= not self._in_transaction
            raise

    def _touch(self) -> None:
        if not self._in_transaction:
            self.touched = True

    async def begin(self, how: str) -> None:
        self.is_serializable = how == SERIALIZABLE
        self.is_snapshot = how.startswith(SNAPSHOT)
        self._in_transaction = True  # also when cancelled here: the server may have begun
        await self.connection.execute(how)

    async def commit(self) -> None:
        """Make the transaction last. Cancelled, it waits for the end and then tells of the cancellation.

        Raises `UnknownOutcomeError` when the connection is lost meanwhile, unless it only read.
        """
        ending = asyncio.ensure_future(self.connection.execute("COMMIT"))
        cancelled: asyncio.CancelledError | None = None
        while not ending.done():
            try:
                await asyncio.wait([ending])
            except asyncio.CancelledError as error:
                cancelled = error
        failure = ending.exception()
        if failure is not None:
            if lost_connection(failure):
                self._in_transaction = False
                self.throw_away()
                if self.is_snapshot:  # it made nothing last
                    raise failure
                raise UnknownOutcomeError from failure
            raise failure
        self._in_transaction = False
        if ending.result() != "COMMIT":
            raise asyncpg.InFailedSQLTransactionError("the transaction had failed")
        self.is_committed = True
        if cancelled is not None:
            raise cancelled

    async def undo(self) -> None:
        """Take back what is not committed, whatever state the connection is in; never raises, never leaves a trace.

        A connection that does not answer is thrown away, and the server then undoes by itself.
        """
        if not (self._in_transaction or self._is_cut_off) or self.is_gone:
            self._in_transaction = False
            return
        ending = asyncio.ensure_future(self._rollback())
        cancelled: asyncio.CancelledError | None = None
        while not ending.done():
            try:
                await asyncio.wait([ending])
            except asyncio.CancelledError as error:
                cancelled = error
        self._in_transaction = self._is_cut_off = False
        if cancelled is not None:
            raise cancelled

    async def _rollback(self) -> None:
        try:
            async with asyncio.timeout(CLEANUP_S):
                await self.connection.execute("ROLLBACK" if self._in_transaction else "SELECT")
        except Exception:  # boundary: whatever it is, a connection that cannot roll back is of no use any more
            self.throw_away()

    @asynccontextmanager
    async def atomic(self, how: str = READ_COMMITTED) -> AsyncIterator[None]:
        """One transaction for what is done inside, or a part of the one there is."""
        if self._in_transaction:
            yield
            return
        try:
            await self.begin(how)
            yield
            await self.commit()
        except BaseException:  # boundary: undone, then raised again
            await self.undo()
            raise
