"""Making connections: each host of the address in turn, each with its own time, until one is what is needed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

from polaris.exceptions import StoreConnectionError
from polaris.storage.backends.postgresql._driver import asyncpg, driver_errors
from polaris.storage.backends.postgresql._dsn import Dsn
from polaris.storage.backends.postgresql._options import PostgresOptions

VERSION_MIN = 15
FAILURES = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
"""What making a connection may fail with; the errors of time are of OSError."""


class Connector:
    """Makes connections to the host that is what the address asks for, `read-write` unless it says otherwise.

    Hosts are tried in turn from the one that was right last; one that does not answer costs `connect_timeout_s`, and
    whoever has no time left for the others leaves them to the next. `on_connect` is called whenever a connection was
    made: it may be to another server.
    """

    def __init__(
        self, dsn: Dsn, schema: str, options: PostgresOptions, *, read_only: bool, on_connect: Callable[[], None]
    ) -> None:
        self._addresses = dsn.addresses()
        self._options = options
        self._schema = schema
        self._settings = options.server_settings(schema, read_only=read_only)
        wanted = dsn.session_attributes or ("any" if read_only else "read-write")
        self._wanted = ("standby", "any") if wanted == "prefer-standby" else (wanted,)
        self._on_connect = on_connect
        self._first = 0

    async def connect(self, *_: Any, **__: Any) -> Any:
        """A new connection, to be closed by the caller. Raises `FAILURES` and `StoreConnectionError`."""
        failures: list[BaseException] = []
        for wanted in self._wanted:
            for place in self._turns():
                try:
                    async with asyncio.timeout(self._options.connect_timeout_s):
                        connection = await self._connect(place, wanted)
                except FAILURES as error:
                    failures.append(error)
                    self._pass_over(place)
                except asyncio.CancelledError:
                    self._pass_over(place)
                    raise
                else:
                    self._first = place
                    self._on_connect()
                    return connection
        raise _most_telling(failures, self._wanted[-1])

    def _turns(self) -> Iterator[int]:
        count, first = len(self._addresses), self._first
        return ((first + turn) % count for turn in range(count))

    def _pass_over(self, place: int) -> None:
        """The next one begins behind this host, unless somebody has found a better beginning."""
        if self._first == place:
            self._first = (place + 1) % len(self._addresses)

    async def _connect(self, place: int, wanted: str) -> Any:
        connection = await asyncpg.connect(
            self._addresses[place],
            timeout=self._options.connect_timeout_s,
            command_timeout=self._options.command_timeout_s,
            server_settings=self._settings,
            target_session_attrs=wanted,
        )
        try:
            await self._check(connection)
        except BaseException:  # boundary: undone, then raised again
            connection.terminate()
            raise
        return connection

    async def _check(self, connection: Any) -> None:
        version = connection.get_server_version()
        if version.major < VERSION_MIN:
            raise StoreConnectionError(f"PostgreSQL {VERSION_MIN} or newer is needed, the server is {version.major}")
        encoding = connection.get_settings().server_encoding
        if encoding != "UTF8":
            raise StoreConnectionError(f"the database must be encoded in UTF8, it is in {encoding}")
        # A pooler may drop what a connection asks for at its start: tables would be made who knows where.
        if await connection.fetchval("SELECT current_setting('search_path')") != self._schema:
            raise StoreConnectionError(
                "the server did not take the settings of the connection: a pooler that shares connections does not work"
            )


def _most_telling(failures: list[BaseException], wanted: str) -> BaseException:
    """Of the failures of several hosts the one that says most: a refusal by a server, before hosts that are away."""
    refusals: list[BaseException] = [
        error
        for error in failures
        if isinstance(error, asyncpg.PostgresError) and not isinstance(error, driver_errors.CannotConnectNowError)
    ]
    if refusals:
        return refusals[0]
    if any(isinstance(error, driver_errors.TargetServerAttributeNotMatched) for error in failures):
        away = sum(not isinstance(error, driver_errors.TargetServerAttributeNotMatched) for error in failures)
        return StoreConnectionError(f"no host of the address is {wanted!r}", {"hosts": len(failures), "away": away})
    return failures[-1]
