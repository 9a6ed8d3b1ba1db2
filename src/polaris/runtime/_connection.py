"""The one connection to a managed system, which its sampler and its actions share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from polaris.connectors import ManagedSystemConnector
from polaris.exceptions import ConnectorError, DeadlineExceededError, PolarisException
from polaris.resilience import Timeout

if TYPE_CHECKING:
    from polaris.observability import StructuredLogger

CONNECT_TIMEOUT_S = 10.0
DISCONNECT_TIMEOUT_S = 5.0


class Connection:
    """Opens when somebody first needs the system, and stays open until it is dropped.

    A sampler may renew it, but never under an action that is being carried out.
    """

    def __init__(self, connector: ManagedSystemConnector, logger: StructuredLogger) -> None:
        self.connector = connector
        self._logger = logger.bind(system_id=connector.system_id)
        self._turn = asyncio.Lock()
        self._connected = False
        self._actions = 0

    async def open(self) -> ManagedSystemConnector:
        """The connector, connected. Raises the `PolarisException` of its `connect`, `ConnectorError` for any other."""
        async with self._turn:
            if not self._connected:
                try:
                    await Timeout(CONNECT_TIMEOUT_S).execute(self.connector.connect, "connect")
                except DeadlineExceededError as error:
                    message = f"{self.connector.system_id}: not connected within {CONNECT_TIMEOUT_S:g} s"
                    raise ConnectorError(message) from error
                except PolarisException:
                    raise
                except Exception as error:  # boundary: a connector may be anybody's code; nothing was done yet
                    message = f"{self.connector.system_id}: not connected: {type(error).__name__}: {error}"
                    raise ConnectorError(message) from error
                self._connected = True
                self._logger.info("managed system connected")
            return self.connector

    @asynccontextmanager
    async def for_action(self) -> AsyncIterator[ManagedSystemConnector]:
        """The connector, connected, and not disconnected by `renew` before the end. Raises as `open` does."""
        connector = await self.open()
        self._actions += 1
        try:
            yield connector
        finally:
            self._actions -= 1

    async def renew(self) -> None:
        """Disconnect, so that the next one who needs the system connects anew; nothing while an action runs."""
        async with self._turn:
            if not self._actions:
                await self._disconnect()

    async def drop(self) -> None:
        """Disconnect, within a deadline, whatever goes on. Never raises."""
        async with self._turn:
            await self._disconnect()

    async def _disconnect(self) -> None:
        self._connected = False
        try:
            await Timeout(DISCONNECT_TIMEOUT_S).execute(self.connector.disconnect, "disconnect")
        except Exception:  # boundary: a connector may be anybody's code, and must not keep the others from being let go
            self._logger.exception("connector could not be disconnected")


class Connections:
    """The connections to all managed systems. They outlive all who use them: they are dropped when those have ended."""

    def __init__(self, connectors: Mapping[str, ManagedSystemConnector], logger: StructuredLogger) -> None:
        self.by_system = {system_id: Connection(connector, logger) for system_id, connector in connectors.items()}

    async def start(self) -> None:
        """Nothing: each is opened by the first who needs it."""

    async def stop(self) -> None:
        """Let go of every system."""
        await asyncio.gather(*(connection.drop() for connection in self.by_system.values()))
