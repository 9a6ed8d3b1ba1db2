"""The engine of a server: what connects its pool, its catalog and its callers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any, TypeVar

from polaris.clock import SYSTEM_CLOCK, Clock
from polaris.domain import HealthStatus
from polaris.exceptions import MigrationError, PolarisException, StoreConnectionError, UnconfirmedWriteError
from polaris.resilience import Backoff
from polaris.storage._backend import StoreHealth
from polaris.storage._operation import Operation
from polaris.storage._series_limits import SeriesLimits
from polaris.storage.backends.postgresql._catalog import Catalog
from polaris.storage.backends.postgresql._connector import Connector
from polaris.storage.backends.postgresql._driver import driver_errors
from polaris.storage.backends.postgresql._dsn import Dsn, check_schema_name
from polaris.storage.backends.postgresql._errors import (
    SERIALIZATION,
    RepeatError,
    lost_connection,
    sqlstate,
    translated,
)
from polaris.storage.backends.postgresql._figures import ServerFigures, figures
from polaris.storage.backends.postgresql._link import UnknownOutcomeError
from polaris.storage.backends.postgresql._listener import OutboxListener
from polaris.storage.backends.postgresql._migrate import check_schema, known_migrations, migrate
from polaris.storage.backends.postgresql._options import PostgresOptions
from polaris.storage.backends.postgresql._outbox import channel_of
from polaris.storage.backends.postgresql._outbox_port import PostgresOutboxPort
from polaris.storage.backends.postgresql._pool import ConnectionPool
from polaris.storage.backends.postgresql._session import PostgresSession, run_on
from polaris.storage.backends.postgresql._transaction import ATTEMPTS_MAX, PostgresTransaction
from polaris.storage.backends.postgresql._verify import OnCheck, StoreCheck
from polaris.storage.backends.postgresql._verify_reader import snapshot
from polaris.storage.backends.postgresql._windows import SLICE_ROWS
from polaris.storage.backends.shared import SharedEngine

T = TypeVar("T")


class PostgresEngine(SharedEngine):
    """All three models in one schema of a PostgreSQL database, version 15 or newer.

    Any number of processes may use the store at once. A write that is awaited to its end is committed on the server,
    and on its synchronous standbys when it has some. `dsn`: `postgresql://user:password@host1,host2:5432/database`; of
    several hosts the one that takes writes is used, looked for anew whenever a connection is made. `schema`: where the
    tables are; it is made if need be. `read_only` uses what is there, also on a standby, and changes nothing.

    Each operation is a transaction of its own (READ COMMITTED; reads of several statements on one snapshot), repeated
    when the server could not order it among others. A transaction is SERIALIZABLE: see `PostgresTransaction`. A write
    whose connection is lost before the answer is an `UnconfirmedWriteError`: done or not. A read is repeated once then.

    Cancelling asks the server to stop; a write is then done or not at all, and its connection serves the next one.
    `options`: see `PostgresOptions`. Bound to the event loop that connected it; not to be used over a fork.
    """

    name = "postgresql"

    def __init__(
        self,
        dsn: str,
        *,
        schema: str = "polaris",
        read_only: bool = False,
        clock: Clock = SYSTEM_CLOCK,
        series_limits: SeriesLimits | None = None,
        **options: Any,
    ) -> None:
        super().__init__(clock=clock)
        self.dsn = Dsn(dsn)
        self.schema = check_schema_name(schema)
        self.read_only = read_only
        self.options = PostgresOptions(**options)
        self.series_limits = series_limits or SeriesLimits()
        self._outbox = PostgresOutboxPort(self, self)
        connector = Connector(self.dsn, self.schema, self.options, read_only=read_only, on_connect=self._look_anew)
        self._pool = ConnectionPool(connector, self.options)
        self._catalog = Catalog(self._pool, self.schema, self.options.partition_us, read_only=read_only)
        self._listener = OutboxListener(connector.connect, channel_of(self.schema), self.outbox_changed.set)
        self._backoff = Backoff(0.005, 0.2, random=Random())  # noqa: S311 # spreads waits, no secret
        self._connected = False
        self._changing = asyncio.Lock()
        self._counts = {"operations": 0, "commits": 0, "repetitions": 0, "failures": 0}

    def _look_anew(self) -> None:
        """A connection was made: perhaps to another server, which may know less than the one before."""
        self._catalog.memory.clear()

    @property
    def is_connected(self) -> bool:
        return self._connected

    async def connect(self) -> None:
        """Connect and bring the schema up to date, unless `read_only`. Idempotent; several nodes may do so at once.

        Raises `StoreConnectionError` when no server can be used, `MigrationError` when the schema is foreign, newer, or
        older and `read_only`; nothing is left open.
        """
        async with self._changing:
            if self._connected:
                return
            try:
                await self._prepare_schema()
                await self._pool.open()
            except BaseException as error:  # boundary: undone, translated
                await self._pool.close()
                if isinstance(error, Exception):
                    known = translated(error)
                    raise known from (None if known is error else error.__cause__)
                raise
            self._connected = True

    async def _prepare_schema(self) -> None:
        migrations = known_migrations()
        async with self._pool.alone() as link:
            if not self.read_only:
                await migrate(link, self.schema, migrations)
                return
            version = await check_schema(link, self.schema, migrations)
        if version < len(migrations):
            needed = f"this release needs {len(migrations)}: open it for writing once"
            raise MigrationError(
                f"the store's schema has version {version}, {needed}",
                {"version": version, "known": len(migrations)},
            )

    async def disconnect(self) -> None:
        """Finish what was accepted, then close. Idempotent."""
        async with self._changing:
            self._connected = False
            try:
                await self._listener.stop()
            finally:
                await self._pool.close()

    async def execute(self, operation: Operation[T]) -> T:
        self._require_connected()
        if operation.mutates and self.read_only:
            raise StoreConnectionError("the store is open for reading only")
        self._counts["operations"] += 1
        try:
            return await self.repeated(lambda: self._once(operation), repeats_lost=not operation.mutates)
        except PolarisException:
            raise
        except Exception as error:  # boundary: translated
            self._counts["failures"] += 1
            raise translated(error) from None

    async def _once(self, operation: Operation[T]) -> T:
        async with self._pool.link() as link:
            session = PostgresSession(link, self._catalog, self.schema, self.series_limits, self.clock)
            try:
                result = await run_on(session, operation)
            except UnknownOutcomeError as error:
                raise self.unconfirmed() from error
            except Exception as error:  # boundary: looked at, then raised again
                if operation.mutates and link.touched and lost_connection(error):
                    raise self.unconfirmed() from error
                raise
            self.committed(session)
            return result

    async def repeated(
        self, work: Callable[[], Awaitable[T]], *, attempts_max: int = ATTEMPTS_MAX, repeats_lost: bool = False
    ) -> T:
        """Do the work again when the server could not order it among others, or something was outdated.

        With `repeats_lost` once also when the connection was lost: only for what changes nothing.
        """
        attempt = 1
        while True:
            try:
                return await work()
            except RepeatError:
                if attempt >= attempts_max:
                    raise
            except (driver_errors.PostgresError, driver_errors.InterfaceError, OSError) as error:
                again = sqlstate(error) in SERIALIZATION or (repeats_lost and lost_connection(error) and attempt == 1)
                if not again or isinstance(error, TimeoutError) or attempt >= attempts_max:
                    raise
            self._counts["repetitions"] += 1
            await asyncio.sleep(self._backoff.delay_s(attempt))
            attempt += 1

    async def summarise(self, collection: str, now_us: int) -> None:
        """Summarise the windows that are over by now, and those that late data went into, in short transactions."""

        async def run(step: Callable[[Any], Any]) -> Any:
            return await self.execute(Operation(lambda session: step(session.time_series), mutates=True))

        if self.read_only:
            return
        await run(lambda series: series.raise_frontier(collection, now_us))
        until_id = await run(lambda series: series.expand(collection))
        if until_id is not None:
            while await run(lambda series: series.summarise(collection, until_id, SLICE_ROWS)):
                pass

    async def begin(self, how: str) -> PostgresSession:
        """A session with a transaction begun on it, to be given back. Raises errors of the store and of the driver."""
        self._require_connected()
        link = await self._pool.take()
        try:
            await link.begin(how)
        except BaseException:  # boundary: undone, then raised again
            await self._pool.give_back(link)
            raise
        return PostgresSession(link, self._catalog, self.schema, self.series_limits, self.clock)

    async def give_back(self, session: PostgresSession) -> None:
        await self._pool.give_back(session.link)

    def committed(self, session: PostgresSession) -> None:
        """Called as soon as what a session did is committed."""
        self._counts["commits"] += 1
        session.lessons.keep()
        if session.outbox.added:
            self.outbox_changed.set()

    def unconfirmed(self) -> UnconfirmedWriteError:
        """The error for a write whose answer did not come."""
        self._counts["failures"] += 1
        return UnconfirmedWriteError("the connection was lost before the server confirmed the write: done or not done")

    def transaction(self) -> PostgresTransaction:
        return PostgresTransaction(self)

    async def listen(self, *, timeout_s: float) -> None:
        """Hear of the events that other processes commit, from now on. Idempotent."""
        self._require_connected()
        await self._listener.start(timeout_s=timeout_s)

    def _require_connected(self) -> None:
        if not self._connected:
            raise StoreConnectionError("the store is not connected")

    async def health(self) -> StoreHealth:
        if not self._connected:
            return StoreHealth(HealthStatus.UNKNOWN, self.name, "not connected")
        try:
            async with self._pool.link() as link:
                row = await link.row("SELECT current_setting('server_version'), pg_is_in_recovery()")
        except Exception as error:  # boundary: health never raises, it tells
            return StoreHealth(HealthStatus.UNHEALTHY, self.name, translated(error).message, dict(await self.stats()))
        assert row is not None  # noqa: S101 # by the nature of the statement
        details = {"server_version": row[0], "in_recovery": row[1], "hosts": list(self.dsn.hosts)}
        if row[1] and not self.read_only:
            return StoreHealth(HealthStatus.UNHEALTHY, self.name, "the server is a standby", details)
        message = "read-only" if self.read_only else ""
        return StoreHealth(HealthStatus.HEALTHY, self.name, message, details | dict(await self.stats()))

    async def verify(self, on_check: OnCheck | None = None) -> list[str]:
        """Check everything in the schema; gives what is wrong with it, an empty list when nothing is. Changes nothing.

        The schema is the one of this release; collections, partitions, indexes and tables are those that are noted;
        references lead somewhere; the newest point of each series is the one that is noted; edges have both ends; each
        text, policy, rollup and document is decoded as reads do; summaries are those of their points. Each part is
        looked at in one read-only snapshot, beside everybody's work, in bounded memory: while a collection of points is
        looked at, retention deletes from it row by row instead of dropping partitions. What is below the tables (pages,
        checksums, whether an index holds every row) is not looked at: `pg_amcheck` does that.

        Where a statement takes longer than `schema_timeout_s`, that the rest of its part was not checked is among what
        is wrong. `on_check` is called with the name of each check before it begins. Raises `StoreConnectionError` when
        the server cannot be asked, or the user may not read something.
        """
        self._require_connected()
        check = StoreCheck(self._pool, self.schema, timeout_s=self.options.schema_timeout_s, on_check=on_check)
        try:
            return await check.findings()
        except PolarisException:
            raise
        except Exception as error:  # boundary: translated
            raise translated(error) from None

    async def figures(self, *, count_points: bool = False) -> ServerFigures:
        """What is in the store, in figures of one moment. Documents, nodes and edges are counted; points, if asked for.

        Raises `StoreConnectionError` when the server cannot be asked, or a count takes longer than `schema_timeout_s`.
        """
        self._require_connected()
        try:
            async with snapshot(self._pool, self.options.schema_timeout_s) as reader:
                return await figures(reader, count_points=count_points)
        except PolarisException:
            raise
        except Exception as error:  # boundary: translated
            raise translated(error) from None

    async def stats(self) -> dict[str, int | float]:
        return {**self._counts, **self._pool.sizes}
