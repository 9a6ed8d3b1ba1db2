"""The embedded server's host: starts it again when it ends or stores nothing, never while its disk is full."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from polaris.domain import HealthStatus
from polaris.messaging import STANDARD_STREAMS, EmbeddedNATSServer, ServerExit
from polaris.observability import StructuredLogger
from polaris.runtime import _bus_host
from polaris.runtime._bus_host import COMPONENT, RESTART_AGAIN_S_MAX, BusHost, streams_on
from polaris.runtime._health import HealthBoard
from polaris.runtime._storing import COMPONENT as STORAGE
from polaris.testing import run_virtual, running_clock


class Server:
    """An embedded server as its host sees it, without a process."""

    def __init__(self, clock: Any) -> None:
        self.config = SimpleNamespace(data_dir=Path("nowhere"))
        self.url, self.pid = "nats://127.0.0.1:1", 1
        self.restarted_s: list[float] = []
        self._clock = clock
        self._end: asyncio.Future[ServerExit] = asyncio.get_running_loop().create_future()

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def wait(self) -> ServerExit:
        return await asyncio.shield(self._end)

    async def restart(self) -> None:
        self.restarted_s.append(self._clock.monotonic())
        self._end = asyncio.get_running_loop().create_future()

    def die(self, code: int) -> None:
        self._end.set_result(ServerExit(code=code, expected=False, log_tail="[1] [INF] Server is ready"))


class Scene:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.problem = ""

        async def at_once(function: Any, *arguments: Any) -> Any:
            return self.problem

        monkeypatch.setattr(asyncio, "to_thread", at_once)
        self.clock = running_clock()
        self.board = HealthBoard(clock=self.clock)
        self.told: list[str] = []
        self.board.on_change(lambda view: self.told.append(view.message) if view.name == COMPONENT else None)
        self.server = Server(self.clock)
        server = cast("EmbeddedNATSServer", self.server)
        self.host = BusHost(server, self.board, StructuredLogger("test"), clock=self.clock)

    def stores(self, well: bool) -> None:
        self.board.report(STORAGE, HealthStatus.HEALTHY if well else HealthStatus.UNHEALTHY)

    def status(self) -> tuple[HealthStatus, str]:
        view = self.board.get(COMPONENT)
        assert view is not None
        return view.status, view.message


def test_a_server_that_stores_nothing_is_started_again_when_its_folder_can_be_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario() -> None:
        scene = Scene(monkeypatch)
        await scene.host.start()
        scene.problem = "No space left on device"
        scene.stores(well=False)
        await scene.clock.sleep(600)
        assert scene.server.restarted_s == [], "a full disk is no place to start a server"
        assert scene.status() == (
            HealthStatus.UNHEALTHY,
            "cannot store, its folder cannot be written: No space left on device",
        )
        scene.problem = ""
        freed_s = scene.clock.monotonic()
        await scene.clock.sleep(8)
        (restarted_s,) = scene.server.restarted_s
        assert restarted_s - freed_s <= 6
        assert scene.status() == (HealthStatus.HEALTHY, "")
        scene.stores(well=True)
        await scene.clock.sleep(3_600)
        assert len(scene.server.restarted_s) == scene.host.restarts_total == 1
        await scene.host.stop()

    run_virtual(scenario())


def test_restarts_that_do_not_help_become_rare_and_a_later_failure_is_met_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario() -> None:
        scene = Scene(monkeypatch)
        await scene.host.start()
        scene.stores(well=False)
        await scene.clock.sleep(3_000)
        waits = [later - earlier for earlier, later in pairwise(scene.server.restarted_s)]
        assert waits[0] < 15
        assert waits == sorted(waits)
        assert max(waits) <= RESTART_AGAIN_S_MAX + 5
        assert len(waits) < 16
        scene.stores(well=True)
        await scene.clock.sleep(3 * RESTART_AGAIN_S_MAX)
        failed_s = scene.clock.monotonic()
        scene.stores(well=False)
        await scene.clock.sleep(8)
        assert scene.server.restarted_s[-1] > failed_s
        await scene.host.stop()

    run_virtual(scenario())


def test_a_moment_without_storing_is_no_reason_for_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        scene = Scene(monkeypatch)
        await scene.host.start()
        for _ in range(20):
            scene.stores(well=False)
            await scene.clock.sleep(3)
            scene.stores(well=True)
            await scene.clock.sleep(3)
        assert scene.server.restarted_s == []
        await scene.host.stop()

    run_virtual(scenario())


def test_a_server_that_was_killed_is_said_to_have_been_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        scene = Scene(monkeypatch)
        await scene.host.start()
        scene.server.die(137)
        await scene.clock.sleep(1)
        assert "was killed by a signal (SIGKILL), is being started again" in scene.told
        assert not any("Server is ready" in message for message in scene.told)
        assert len(scene.server.restarted_s) == 1
        assert scene.board.restarts == {COMPONENT: 1}
        await scene.host.stop()

    run_virtual(scenario())


def test_on_a_small_disk_streams_keep_less_and_the_node_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[dict[str, Any]] = []
    logger = cast("StructuredLogger", SimpleNamespace(warning=lambda message, **fields: told.append(fields)))
    for disk, telemetry_bytes in ((1 << 40, 1 << 30), (1 << 30, 1 << 27)):
        monkeypatch.setattr(_bus_host, "disk_bytes", lambda _, disk=disk: disk)
        streams = streams_on(tmp_path, STANDARD_STREAMS, logger, payload_bytes_max=1 << 20)
        assert [spec.name for spec in streams] == [spec.name for spec in STANDARD_STREAMS]
        assert streams[0].max_bytes == telemetry_bytes
    (fields,) = told
    assert fields["disk_bytes"] == 1 << 30
    assert fields["bytes_max"]["POLARIS_TELEMETRY"] == 1 << 27
