"""A node: the assembled container, with a start, a stop, and the addresses it can be reached at."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self

from polaris import __version__
from polaris._redaction import redact_text
from polaris.exceptions import ConfigurationError, DependencyResolutionException, PolarisException
from polaris.runtime._data_folder import DataFolder, NodeFile
from polaris.runtime._effective import OF_A_PROGRAM, Origination

if TYPE_CHECKING:
    from types import TracebackType

    from polaris.di import DIContainer
    from polaris.runtime._settings import Settings


class Node:
    """Everything that `polaris run` runs, for programs and tests of their own.

        async with Node(load_settings()) as node:
            print(node.http_url)

    `start` raises with everything rolled back: `ConfigurationError`, `StoreLockedError`, `BusConnectionError` or what
    else the parts raise, alone or in an ExceptionGroup. `stop` drains within `node.shutdown_grace_s` and then ends what
    would not end; whoever started the node stops it. A node can be started again after a stop.
    """

    def __init__(self, settings: Settings, *, origination: Origination = OF_A_PROGRAM) -> None:
        self.settings = settings
        self._origination = origination
        self.container: DIContainer | None = None
        self.http_url: str | None = None
        self.http_token: str | None = None
        self.bus_url: str | None = None
        self.bus_token: str | None = None

    async def start(self) -> None:
        """Start bus, store, services and page, in the order of their dependencies; returns when all of them answer.

        A node that is started, or being started, is refused with `ConfigurationError` and goes on as it is.
        """
        from polaris.runtime._assembly import assemble

        if self.container is not None:
            raise ConfigurationError("the node is started already; stop it before it is started again")
        self.container = container = assemble(self.settings, self._origination)
        try:
            await container.start()
            if self.container is not container:
                raise PolarisException("the node was stopped while it started")
            await self._publish_addresses(container)
        except BaseException as error:  # boundary: undone, then raised again
            await self.stop()
            if not isinstance(error, ExceptionGroup):
                raise
            plain = _plain(error)
            raise plain from plain.__cause__

    async def _publish_addresses(self, container: DIContainer) -> None:
        """Say where the node can be reached: here, on the page, and in the node file."""
        from polaris.api import HttpServer
        from polaris.messaging import PolarisMessageBus
        from polaris.runtime._bus_host import BusHost
        from polaris.runtime._view import RuntimeView

        settings = self.settings
        if settings.http.enabled:
            self.http_url = (await container.aresolve(HttpServer)).url
        if settings.nats.servers:
            self.bus_url = settings.nats.servers[0]
        else:
            server = (await container.aresolve(BusHost)).server
            self.bus_url, self.bus_token = server.url, server.token
        folder = await container.aresolve(DataFolder)
        if settings.http.enabled:
            self.http_token = folder.http_token(settings.http.token)
        view = await container.aresolve(RuntimeView)
        if self.http_url is not None:
            view.addresses = {"page": self.http_url, "metrics": f"{self.http_url}metrics"}
        view.addresses["bus"] = redact_text(self.bus_url)
        view.streams = (await container.aresolve(PolarisMessageBus)).streams
        await asyncio.to_thread(folder.write_node_file, self._facts())

    def _facts(self) -> NodeFile:
        return NodeFile(
            name=self.settings.node.name,
            pid=os.getpid(),
            version=__version__,
            started_at=datetime.now(UTC),
            http_url=self.http_url,
            http_token=self.http_token,
            bus_url=self.bus_url,
            bus_token=self.bus_token,
            bus_embedded=not self.settings.nats.servers,
            store_path=str(self.settings.store_path) if self.settings.store.engine == "sqlite" else None,
        )

    @property
    def bus_token_file(self) -> Path | None:
        """Where the token that the embedded bus asks for is kept, readable by the node's user; None for other buses."""
        return None if self.bus_token is None else self.settings.data_dir / "nats" / "token"

    @property
    def http_token_file(self) -> Path | None:
        """Where the token is kept that changes over HTTP need; None where it is configured, or there is no HTTP."""
        made = self.http_token is not None and self.settings.http.token is None
        return DataFolder(self.settings.data_dir).http_token_file if made else None

    async def stop(self) -> None:
        """Drain and stop, in the reverse order. Idempotent. Failures to stop cleanly come out as an ExceptionGroup."""
        container, self.container = self.container, None
        if container is not None:
            await container.stop()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()


def _plain(group: ExceptionGroup[Exception]) -> Exception:
    """Why the node could not start, in the words of its parts: that they are parts of a container helps nobody."""
    reasons = [_reason(error) for error in _members(group)]
    return reasons[0] if len(reasons) == 1 else ExceptionGroup("the node could not start", reasons)


def _members(group: ExceptionGroup[Exception]) -> Iterator[Exception]:
    for error in group.exceptions:
        if isinstance(error, ExceptionGroup):
            yield from _members(error)
        else:
            yield error


def _reason(error: Exception) -> Exception:
    found: BaseException | None = error
    while isinstance(found, DependencyResolutionException):
        found = found.__cause__
    return found if isinstance(found, PolarisException) else error
