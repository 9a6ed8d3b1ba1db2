"""The connections to a server: a bounded pool, and one more for changes of the schema."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from polaris.exceptions import StoreConnectionError
from polaris.storage.backends.postgresql._driver import asyncpg
from polaris.storage.backends.postgresql._dsn import Dsn
from polaris.storage.backends.postgresql._errors import lost_connection, translated
from polaris.storage.backends.postgresql._link import CLEANUP_S, Link
from polaris.storage.backends.postgresql._options import PostgresOptions

VERSION_MIN = 15


class ConnectionPool:
    """Makes connections when they are needed and keeps some; lost ones are replaced at their next use.

    With several hosts in the address each new connection looks for the primary anew. `on_connect` is called whenever a
    connection was made: what was known of the server may be true no longer.
    """

    def __init__(
        self, dsn: Dsn, schema: str, options: PostgresOptions, *, read_only: bool, on_connect: Callable[[], None]
    ) -> None:
        self._dsn = dsn
        self._options = options
        self._read_only = read_only
        self._settings = options.server_settings(schema, read_only=read_only)
        self._on_connect = on_connect
        self._pool: Any = None
        self._alone: Any = None
        self._alone_lock = asyncio.Lock()
        self.waits = 0

    async def open(self) -> None:
        """Make the first connection. Raises `StoreConnectionError`; then nothing is left open."""
        pool = asyncpg.create_pool(
            min_size=0,
            max_size=self._options.pool_max,
            connect=self.connect,
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
        self._pool = pool

    async def connect(self, *_: Any, **__: Any) -> Any:
        """A new connection of its own, to be closed by the caller. Raises errors of the driver."""
        wanted = {} if "target_session_attrs" in self._dsn.reveal() else {"target_session_attrs": self._attributes()}
        connection = await asyncpg.connect(
            self._dsn.reveal(),
            timeout=self._options.connect_timeout_s,
            command_timeout=self._options.command_timeout_s,
            server_settings=self._settings,
            **wanted,
        )
        try:
            _check_server(connection)
        except BaseException:  # boundary: undone, then raised again
            connection.terminate()
            raise
        self._on_connect()
        return connection

    def _attributes(self) -> str:
        return "any" if self._read_only else "read-write"

    @asynccontextmanager
    async def link(self) -> AsyncIterator[Link]:
        """A connection for one operation; given back at the end, thrown away when it was lost."""
        link = await self.take()
        try:
            yield link
        except BaseException as error:  # boundary: looked at, then raised again
            if lost_connection(error):
                link.throw_away()
            raise
        finally:
            await self.give_back(link)

    async def take(self) -> Link:
        """A connection of the pool. Raises `StoreConnectionError` when none comes free or can be made in time."""
        pool = self._pool
        if pool is None:
            raise StoreConnectionError("the store is not connected")
        if pool.get_idle_size() == 0 and pool.get_size() >= self._options.pool_max:
            self.waits += 1
        try:
            return Link(await pool.acquire(timeout=self._options.acquire_timeout_s))
        except TimeoutError as error:
            raise StoreConnectionError(
                f"no connection came free or could be made within {self._options.acquire_timeout_s} s",
                {"pool_max": self._options.pool_max},
            ) from error
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, asyncpg.InternalClientError) as error:
            raise translated(error) from _shown(error)

    async def give_back(self, link: Link) -> None:
        """Undo what is not committed and put the connection back. Never raises but for cancellation."""
        pool = self._pool
        try:
            await link.undo()
        finally:
            if pool is not None:
                try:
                    await pool.release(link.connection, timeout=CLEANUP_S)
                except Exception:  # boundary: what the connection did is done; one that cannot be given back goes
                    link.throw_away()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[Link]:
        """The connection for changes of the schema, used by one task at a time.

        It is not of the pool, so a transaction that holds a connection and needs such a change never waits for itself.
        """
        async with self._alone_lock:
            try:
                async with asyncio.timeout(self._options.acquire_timeout_s):
                    if self._alone is None or self._alone.is_closed():
                        self._alone = await self.connect()
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, asyncpg.InternalClientError) as error:
                raise translated(error) from _shown(error)
            link = Link(self._alone)
            try:
                yield link
            except BaseException as error:  # boundary: looked at, then raised again
                if lost_connection(error):
                    link.throw_away()
                raise
            finally:
                await link.undo()

    async def close(self) -> None:
        """Wait for what is under way, at most as long as a statement may take, then close. Idempotent."""
        pool, self._pool = self._pool, None
        alone, self._alone = self._alone, None
        try:
            if pool is not None:
                try:
                    async with asyncio.timeout(self._options.command_timeout_s):
                        await pool.close()
                except (TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                    pool.terminate()
        finally:
            if pool is not None:
                pool.terminate()
            if alone is not None:
                alone.terminate()

    @property
    def sizes(self) -> dict[str, int | float]:
        pool = self._pool
        return {
            "connections": 0 if pool is None else pool.get_size(),
            "connections_idle": 0 if pool is None else pool.get_idle_size(),
            "connection_waits": self.waits,
        }


async def _leave_as_it_is(_connection: Any) -> None:
    """Nothing that this package does outlives its transaction, so a connection needs no reset."""


def _check_server(connection: Any) -> None:
    version = connection.get_server_version()
    if version.major < VERSION_MIN:
        raise StoreConnectionError(f"PostgreSQL {VERSION_MIN} or newer is needed, the server is {version.major}")
    encoding = connection.get_settings().server_encoding
    if encoding != "UTF8":
        raise StoreConnectionError(f"the database must be encoded in UTF8, it is in {encoding}")


def _shown(error: BaseException) -> BaseException | None:
    """What may be shown as the cause: errors of the client may quote the address, so only those of the server."""
    return error if isinstance(error, asyncpg.PostgresError) else None
