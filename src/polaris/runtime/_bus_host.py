"""The embedded bus server under supervision: brought back when it dies or stores no more, stopped last."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from polaris.clock import SYSTEM_CLOCK, Clock
from polaris.domain import HealthStatus
from polaris.messaging.brokers._embedded_room import disk_bytes, fitting, write_problem
from polaris.resilience import Backoff
from polaris.runtime._health import HealthBoard
from polaris.runtime._storing import COMPONENT as STORAGE
from polaris.runtime._supervision import Supervisor

if TYPE_CHECKING:
    from polaris.api._view import ComponentView
    from polaris.messaging import EmbeddedNATSServer, StreamSpec
    from polaris.observability import StructuredLogger

COMPONENT = "bus server"
LOOK_EVERY_S = 1.0
STORES_NOTHING_S_MAX = 4.0
"""How long storing may have failed, with room on the disk, before the server is started again."""
RESTART_AGAIN_S_MAX = 300.0
RESTART_AGAIN = Backoff(10.0, RESTART_AGAIN_S_MAX, jitter="none")
"""Between two restarts that were to mend the storing; doubled from the first to the second."""


class BusHost:
    """Keeps an embedded server running. A server that ends by itself is started again on its port and store.

    A server whose streams could once not be written, as on a full disk, refuses everything from then on. So while the
    component `bus storage` is unhealthy, the host looks whether the folder can be written, says so when it cannot, and
    starts the server again when it can: after four seconds, and if that did not help after 10, 20, 40 ... 300 s.

    Clients reconnect to the same address; what they had stored is there again.
    """

    def __init__(
        self, server: EmbeddedNATSServer, board: HealthBoard, logger: StructuredLogger, *, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self.server = server
        self._board = board
        self._logger = logger
        self._clock = clock
        self._supervisor = Supervisor(board, logger, clock=clock)
        self._stores_nothing_since: float | None = None
        self._mended_at: float | None = None
        self._mends = 0
        self.restarts_total = 0
        board.on_change(self._note)

    async def start(self) -> None:
        """Start the server and watch it. Raises what `EmbeddedNATSServer.start` raises; nothing is left then."""
        await self.server.start()
        self._report_running()
        self._supervisor.run(COMPONENT, self._keep_alive)

    def _report_running(self) -> None:
        details = {"address": self.server.url, "pid": self.server.pid, "restarts": self.restarts_total}
        self._board.report(COMPONENT, HealthStatus.HEALTHY, details=details)

    def _note(self, view: ComponentView) -> None:
        if view.name != STORAGE:
            return
        if view.status is not HealthStatus.UNHEALTHY:
            self._stores_nothing_since = None
        elif self._stores_nothing_since is None:
            self._stores_nothing_since = self._clock.monotonic()

    async def _keep_alive(self) -> None:
        while True:
            ended = asyncio.create_task(self.server.wait(), name="bus server ended")
            useless = asyncio.create_task(self._stores_nothing(), name="bus server stores nothing")
            try:
                await asyncio.wait({ended, useless}, return_when=asyncio.FIRST_COMPLETED)
                reason = ended.result().description if ended.done() else useless.result()
            finally:
                ended.cancel()
                useless.cancel()
                await asyncio.gather(ended, useless, return_exceptions=True)
            self.restarts_total += 1
            self._board.count_restart(COMPONENT)
            self._board.report(COMPONENT, HealthStatus.UNHEALTHY, f"{reason}, is being started again")
            await self.server.restart()
            self._report_running()

    async def _stores_nothing(self) -> str:
        """Wait until a restart is what may help against streams that are not stored; the reason for it."""
        room_since: float | None = None
        while True:
            await self._clock.sleep(LOOK_EVERY_S)
            now_s = self._clock.monotonic()
            if self._mended_at is not None and now_s - self._mended_at > 2 * RESTART_AGAIN_S_MAX:
                self._mends, self._mended_at = 0, None
            since = self._stores_nothing_since
            problem = await asyncio.to_thread(write_problem, self.server.config.data_dir) if since is not None else ""
            if since is None or problem:
                room_since = None
            elif room_since is None:
                room_since = now_s
            if problem:
                message = f"cannot store, its folder cannot be written: {problem}"
                self._board.report(COMPONENT, HealthStatus.UNHEALTHY, message)
                continue
            self._report_running()
            if since is None or room_since is None or now_s - max(since, room_since) < STORES_NOTHING_S_MAX:
                continue
            if self._mended_at is not None and now_s - self._mended_at < RESTART_AGAIN.delay_s(self._mends):
                continue
            self._mends += 1
            self._mended_at = now_s
            return "has stored nothing although there is room on the disk"

    async def stop(self) -> None:
        """Stop watching, then stop the server. Idempotent."""
        await self._supervisor.stop()
        await self.server.stop()


def streams_on(
    folder: Path, streams: Sequence[StreamSpec], logger: StructuredLogger, *, payload_bytes_max: int
) -> list[StreamSpec]:
    """The streams as an embedded server in the folder may keep them; tells when its disk makes them smaller."""
    disk = disk_bytes(folder)
    fitted = fitting(streams, disk, payload_bytes_max=payload_bytes_max)
    smaller = {spec.name: spec.max_bytes for was, spec in zip(streams, fitted, strict=True) if spec != was}
    if smaller:
        logger.warning("the disk of the bus is small: its streams keep less", disk_bytes=disk, bytes_max=smaller)
    return fitted
