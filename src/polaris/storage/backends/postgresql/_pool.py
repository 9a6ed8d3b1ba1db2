"""The connections to a server: a bounded pool, and one more for changes of the schema."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from polaris.exceptions import StoreConnectionError
from polaris.storage.backends.postgresql._connector import FAILURES, Connector
from polaris.storage.backends.postgresql._driver import asyncpg
from polaris.storage.backends.postgresql._errors import is_of_no_use, translated
from polaris.storage.backends.postgresql._link import CLEANUP_S, Link
from polaris.storage.backends.postgresql._options import PostgresOptions
from polaris.storage.backends.postgresql._sharing import SHARES_MAX

REFUSED_S = 60.0


class ConnectionPool:
    """Makes connections when they are needed and keeps some; lost ones are replaced at their next use."""

    def __init__(self, connector: Connector, options: PostgresOptions) -> None:
        self._connector = connector
        self._options = options
        self._pool: Any = None
        self._is_open = False
        self._users = 0
        """Who has a connection, or waits for one."""
        self._unused = asyncio.Event()
        self._unused.set()
        self._alone: Any = None
        self._alone_lock = asyncio.Lock()
        self._refused_until_s = 0.0
        self.waits = 0

    async def open(self) -> None:
        """Make the first connection. Raises `StoreConnectionError`; then nothing is left open."""
        pool = asyncpg.create_pool(
            min_size=0,
            max_size=self._options.pool_max,
            connect=self._connector.connect,
            reset=_leave_as_it_is,
            max_inactive_connection_lifetime=300.0,
        )
        try:
            await pool
            await pool.release(await pool.acquire(timeout=self._options.acquire_timeout_s))
        except BaseException as error:  # boundary: undone, then raised again
            pool.terminate()
            if isinstance(error, Exception):
                raise translated(error) from _shown(error)
            raise
        self._pool, self._is_open = pool, True

    @asynccontextmanager
    async def link(self) -> AsyncIterator[Link]:
        """A connection for one operation; given back at the end, thrown away when it was lost."""
        link = await self.take()
        try:
            yield link
        except BaseException as error:  # boundary: looked at, then raised again
            if is_of_no_use(error):
                link.throw_away()
            raise
        finally:
            await self.give_back(link)

    @property
    def has_spare(self) -> bool:
        is_refused = asyncio.get_running_loop().time() < self._refused_until_s
        return self._is_open and not is_refused and self._users * 2 < self._options.pool_max

    @property
    def wait_s_max(self) -> float:
        options = self._options
        return options.idle_timeout_s + SHARES_MAX * options.acquire_timeout_s + options.command_timeout_s

    @asynccontextmanager
    async def spare(self) -> AsyncIterator[Link | None]:
        if not self.has_spare:
            yield None
            return
        async with self.link() as link:
            yield link

    def refuse(self) -> None:
        self._refused_until_s = asyncio.get_running_loop().time() + REFUSED_S

    async def take(self) -> Link:
        """A connection of the pool. Raises `StoreConnectionError` when none comes free or can be made in time."""
        pool = self._pool
        if not self._is_open:
            raise StoreConnectionError("the store is not connected")
        if pool.get_idle_size() == 0 and pool.get_size() >= self._options.pool_max:
            self.waits += 1
        self._users += 1
        self._unused.clear()
        try:
            return self._link_of(await pool.acquire(timeout=self._options.acquire_timeout_s))
        except BaseException as error:  # boundary: nothing was taken; translated, or raised again
            self._leave()
            if isinstance(error, TimeoutError):
                raise self._none_in_time() from error
            if isinstance(error, FAILURES):
                raise translated(error) from _shown(error)
            raise

    def _leave(self) -> None:
        self._users -= 1
        if not self._users:
            self._unused.set()

    def _none_in_time(self) -> StoreConnectionError:
        return StoreConnectionError(
            f"no connection came free or could be made within {self._options.acquire_timeout_s} s",
            {"pool_max": self._options.pool_max},
        )

    async def give_back(self, link: Link) -> None:
        """Undo what is not committed and put the connection back. Never raises but for cancellation."""
        try:
            await link.undo()
        finally:
            try:
                await self._pool.release(link.connection, timeout=CLEANUP_S)
            except Exception:  # boundary: what the connection did is done; one that cannot be given back goes
                link.throw_away()
            finally:
                self._leave()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[Link]:
        """The connection for changes of the schema, used by one task at a time.

        It is not of the pool, so a transaction that holds a connection and needs such a change never waits for itself.
        Raises `StoreConnectionError` when it is not to be had in time.
        """
        try:
            async with asyncio.timeout(self._options.acquire_timeout_s):
                await self._alone_lock.acquire()
        except TimeoutError as error:
            raise self._none_in_time() from error
        try:
            link = await self._link_alone()
            try:
                yield link
            except BaseException as error:  # boundary: looked at, then raised again
                if is_of_no_use(error):
                    link.throw_away()
                raise
            finally:
                await link.undo()
        finally:
            self._alone_lock.release()

    async def _link_alone(self) -> Link:
        try:
            async with asyncio.timeout(self._options.acquire_timeout_s):
                if self._alone is None or self._alone.is_closed():
                    self._alone = await self._connector.connect()
        except FAILURES as error:
            raise translated(error) from _shown(error)
        return self._link_of(self._alone)

    def _link_of(self, connection: Any) -> Link:
        return Link(connection, self._options.schema_timeout_s, self)

    async def close(self) -> None:
        """Wait for what is under way, at most as long as a statement may take, then close. Idempotent."""
        self._is_open = False
        pool = self._pool
        try:
            if pool is not None:
                try:
                    async with asyncio.timeout(self._options.command_timeout_s):
                        await self._unused.wait()
                        await pool.close()
                except FAILURES:
                    pool.terminate()
        finally:
            alone, self._alone = self._alone, None
            if pool is not None:
                pool.terminate()
            if alone is not None:
                alone.terminate()

    @property
    def sizes(self) -> dict[str, int | float]:
        pool = self._pool if self._is_open else None
        return {
            "connections": 0 if pool is None else pool.get_size(),
            "connections_idle": 0 if pool is None else pool.get_idle_size(),
            "connection_waits": self.waits,
        }


async def _leave_as_it_is(_connection: Any) -> None:
    """Nothing that this package does outlives its transaction, so a connection needs no reset."""


def _shown(error: BaseException) -> BaseException | None:
    """What may be shown as the cause: errors of the client may quote the address, so only those of the server."""
    return error if isinstance(error, asyncpg.PostgresError) else None
