"""The outbox port of a server's engine: waiting hears of the commits of other processes as well."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from polaris.storage._operation import Executor
from polaris.storage.backends.shared import OutboxPort

if TYPE_CHECKING:
    from polaris.storage.backends.postgresql._engine import PostgresEngine


class PostgresOutboxPort(OutboxPort):
    """The port of all engines; before it waits, it has the engine listen."""

    def __init__(self, engine: PostgresEngine, executor: Executor) -> None:
        super().__init__(engine, executor)
        self._server = engine

    async def wait(self, *, timeout_s: float) -> bool:
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout_s
        await self._server.listen(timeout_s=timeout_s)
        return await super().wait(timeout_s=max(0.0, until - loop.time()))
