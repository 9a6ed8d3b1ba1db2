"""The embedded bus server under supervision: started first, brought back when it dies, stopped last."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polaris.clock import SYSTEM_CLOCK, Clock
from polaris.domain import HealthStatus
from polaris.runtime._health import HealthBoard
from polaris.runtime._supervision import Supervisor

if TYPE_CHECKING:
    from polaris.messaging import EmbeddedNATSServer
    from polaris.observability import StructuredLogger

COMPONENT = "bus server"


class BusHost:
    """Keeps an embedded server running. A server that ends by itself is started again on its port and store.

    Clients reconnect to the same address; what they had stored is there again.
    """

    def __init__(
        self, server: EmbeddedNATSServer, board: HealthBoard, logger: StructuredLogger, *, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self.server = server
        self._board = board
        self._logger = logger
        self._supervisor = Supervisor(board, logger, clock=clock)
        self.restarts_total = 0

    async def start(self) -> None:
        """Start the server and watch it. Raises what `EmbeddedNATSServer.start` raises; nothing is left then."""
        await self.server.start()
        self._report_running()
        self._supervisor.run(COMPONENT, self._keep_alive)

    def _report_running(self) -> None:
        details = {"address": self.server.url, "pid": self.server.pid, "restarts": self.restarts_total}
        self._board.report(COMPONENT, HealthStatus.HEALTHY, details=details)

    async def _keep_alive(self) -> None:
        while True:
            end = await self.server.wait()
            self.restarts_total += 1
            self._board.report(COMPONENT, HealthStatus.UNHEALTHY, f"ended with code {end.code}, is being started again")
            await self.server.restart()
            self._report_running()

    async def stop(self) -> None:
        """Stop watching, then stop the server. Idempotent."""
        await self._supervisor.stop()
        await self.server.stop()
