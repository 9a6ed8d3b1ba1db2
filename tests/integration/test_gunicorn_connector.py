"""The gunicorn connector on real gunicorns: workers really come and go, and what is wrong is said."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.frozen import freeze
from tests.gunicorns import Gunicorn, free_udp_port, running_gunicorn

from polaris.connectors.gunicorn import GunicornConnector
from polaris.connectors.gunicorn._arbiter import Arbiter
from polaris.domain import AdaptationAction, ExecutionResult, ExecutionStatus, HealthStatus, SystemState
from polaris.exceptions import ConnectorError
from polaris.ids import new_id

Connect = Callable[..., Any]
PATIENCE_S = 10.0


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Gunicorn]:
    with running_gunicorn(tmp_path) as running:
        yield running


@pytest.fixture
async def connect(service: Gunicorn) -> AsyncIterator[Connect]:
    connectors: list[GunicornConnector] = []

    async def connected(**options: object) -> GunicornConnector:
        connector = GunicornConnector.from_options("web", {"pidfile": str(service.pidfile), **options})
        connectors.append(connector)
        await connector.connect()
        return connector

    yield connected
    for connector in connectors:
        await connector.disconnect()


async def act(connector: GunicornConnector, action_type: str, **parameters: object) -> ExecutionResult:
    return await connector.execute_action(AdaptationAction(new_id(), action_type, "web", parameters))


async def until(connector: GunicornConnector, holds: Callable[[SystemState], bool]) -> SystemState:
    async with asyncio.timeout(PATIENCE_S):
        while not holds(state := await connector.collect_metrics()):
            await asyncio.sleep(0.05)
    return state


async def test_workers_are_really_added_set_and_removed(service: Gunicorn, connect: Connect) -> None:
    connector = await connect(workers_max=4)
    before = service.worker_pids()
    added = await act(connector, "add_worker")
    assert added.status is ExecutionStatus.SUCCESS
    assert set(added.result_data["pids_before"]) == before
    assert set(added.result_data["pids_after"]) == service.worker_pids()
    assert len(service.worker_pids()) == 2
    assert (await act(connector, "set_workers", workers=4)).status is ExecutionStatus.SUCCESS
    assert len(service.worker_pids()) == 4
    assert (await connector.collect_metrics()).value("service.workers") == 4
    assert (await act(connector, "remove_worker")).status is ExecutionStatus.SUCCESS
    assert len(service.worker_pids()) == 3
    assert not before & service.worker_pids(), "the oldest worker goes first"
    assert b"200 OK" in await asyncio.to_thread(service.get)


async def test_the_guards_reject_and_nothing_is_done(service: Gunicorn, connect: Connect) -> None:
    connector = await connect(workers_max=2)
    before = service.worker_pids()
    for action_type, parameters in (("remove_worker", {}), ("set_workers", {"workers": 3})):
        result = await act(connector, action_type, **parameters)
        assert result.status is ExecutionStatus.REJECTED
        assert result.result_data["signals"] == 0
        assert result.error_message is not None
        assert "1 to 2" in result.error_message
    assert service.worker_pids() == before


async def test_concurrent_actions_are_carried_out_one_after_another(service: Gunicorn, connect: Connect) -> None:
    connector = await connect(workers_max=4)
    results = await asyncio.gather(*(act(connector, "add_worker") for _ in range(5)))
    assert [result.status for result in results] == [ExecutionStatus.SUCCESS] * 3 + [ExecutionStatus.REJECTED] * 2
    assert [result.result_data["workers_before"] for result in results] == [1, 2, 3, 4, 4]
    assert len(service.worker_pids()) == 4


async def test_a_busy_worker_finishes_its_request_before_it_goes(service: Gunicorn, connect: Connect) -> None:
    connector = await connect()
    await act(connector, "set_workers", workers=2)
    slow = [asyncio.ensure_future(asyncio.to_thread(service.get, "/slow?1.0")) for _ in range(2)]
    await asyncio.sleep(0.3)
    result = await act(connector, "remove_worker")
    assert result.status is ExecutionStatus.SUCCESS
    assert [b"200 OK" in answer for answer in await asyncio.gather(*slow)] == [True, True]


async def test_a_change_that_takes_too_long_is_a_timeout_and_the_next_one_waits_for_it(
    service: Gunicorn, connect: Connect
) -> None:
    connector = await connect(workers_max=4)
    await act(connector, "set_workers", workers=2)
    slow = [asyncio.ensure_future(asyncio.to_thread(service.get, "/slow?2.0")) for _ in range(2)]
    await asyncio.sleep(0.3)
    action = AdaptationAction(new_id(), "remove_worker", "web", timeout_seconds=0.3)
    result = await connector.execute_action(action)
    assert result.status is ExecutionStatus.TIMEOUT
    assert result.error_message is not None
    assert "2 instead of 1" in result.error_message
    following = await act(connector, "add_worker")
    assert following.status is ExecutionStatus.SUCCESS
    assert (following.result_data["workers_before"], following.result_data["workers_after"]) == (1, 2)
    await asyncio.gather(*slow)


async def test_an_arbiter_that_does_not_answer_is_a_timeout(service: Gunicorn, connect: Connect) -> None:
    connector = await connect(action_timeout_s=0.5)
    freeze(service.pid)
    result = await act(connector, "add_worker")
    assert result.status is ExecutionStatus.TIMEOUT
    assert result.result_data["signals"] == 1


async def test_a_killed_arbiter_is_noticed_everywhere(service: Gunicorn, connect: Connect) -> None:
    connector = await connect()
    assert (await connector.collect_metrics()).health_status is HealthStatus.HEALTHY
    service.kill()
    with pytest.raises(ConnectorError, match="gone"):
        await connector.collect_metrics()
    with pytest.raises(ConnectorError, match="gone"):
        await act(connector, "add_worker")
    health = await connector.health()
    assert health.status is HealthStatus.UNHEALTHY
    assert "gone" in health.message


async def test_a_restarted_service_is_found_again_through_its_pidfile(
    service: Gunicorn, connect: Connect, tmp_path: Path
) -> None:
    connector = await connect()
    first = (await connector.collect_metrics()).metadata["arbiter.pid"]
    service.kill()
    folder = tmp_path / "again"
    folder.mkdir()
    with running_gunicorn(folder) as again:
        again.pidfile.replace(service.pidfile)
        state = await connector.collect_metrics()
        assert state.metadata["arbiter.pid"] == again.pid != first
        assert state.metrics["service.cpu.utilization"].value is None, "a rate must not span two processes"


async def test_a_stranger_with_the_arbiters_pid_is_never_taken_for_it(tmp_path: Path) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    pidfile = tmp_path / "gunicorn.pid"
    pidfile.write_text(str(stranger.pid))
    connector = GunicornConnector.from_options("web", {"pidfile": str(pidfile)})
    with pytest.raises(ConnectorError, match="not the gunicorn arbiter"):
        await connector.connect()
    assert stranger.poll() is None
    stranger.communicate(b"\n")


def test_an_arbiter_never_signals_a_process_that_got_its_pid_later() -> None:
    first = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    second = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    arbiter = Arbiter.attach(first.pid, "input")
    first.communicate(b"\n")
    # As if the pid had come round again: the number leads to another process now.
    arbiter._process._pid = second.pid
    assert not arbiter.is_running()
    for pidfd in (True, False):
        if not pidfd:
            arbiter.close()
        with pytest.raises(ConnectorError, match="gone"):
            arbiter.send(signal.SIGTERM)
    assert second.poll() is None
    second.communicate(b"\n")


@pytest.mark.parametrize("content", ["", "gunicorn", "-1", "0", "1", "99999999999999999999", "\x00\xff"])
async def test_a_pidfile_with_rubbish_is_refused(content: str, tmp_path: Path) -> None:
    pidfile = tmp_path / "pid"
    pidfile.write_text(content)
    with pytest.raises(ConnectorError, match="pid"):
        await GunicornConnector.from_options("web", {"pidfile": str(pidfile)}).connect()


async def test_children_that_are_no_workers_are_not_counted(tmp_path: Path) -> None:
    (tmp_path / "hooks.py").write_text(
        "import subprocess\n"
        "def when_ready(server):\n"
        "    server.other = subprocess.Popen(['sleep', '60'])\n"
        "def on_exit(server):\n"
        "    server.other.kill()\n"
    )
    with running_gunicorn(tmp_path, workers=2, options=("--config", "hooks.py")) as service:
        connector = GunicornConnector.from_options("web", {"pid": service.pid})
        await connector.connect()
        async with asyncio.timeout(PATIENCE_S):
            while len(service.worker_pids()) < 3:
                await asyncio.sleep(0.02)
        assert (await connector.collect_metrics()).value("service.workers") == 2
        await connector.disconnect()


async def test_an_upgrade_in_progress_is_not_counted_as_a_worker(tmp_path: Path) -> None:
    with running_gunicorn(tmp_path, bind="127.0.0.1:0") as service:
        connector = GunicornConnector.from_options("web", {"pid": service.pid})
        await connector.connect()
        os.kill(service.pid, signal.SIGUSR2)
        async with asyncio.timeout(PATIENCE_S):
            while not any(child.children() for child in psutil.Process(service.pid).children()):
                await asyncio.sleep(0.02)
        assert len(service.worker_pids()) == 2
        assert (await connector.collect_metrics()).value("service.workers") == 1
        await connector.disconnect()


async def test_statsd_tells_the_rate_the_latency_and_the_errors(tmp_path: Path) -> None:
    port = free_udp_port()
    options = {"pidfile": str(tmp_path / "gunicorn.pid"), "statsd_port": port, "window_s": 4.0}
    connector = GunicornConnector.from_options("web", options)
    with running_gunicorn(tmp_path, statsd_port=port) as service:
        await connector.connect()
        assert connector.statsd_port == port
        for path in ("/", "/", "/slow?0.2", "/fail"):
            await asyncio.to_thread(service.get, path)
        state = await until(connector, lambda state: bool(state.value("service.request.errors.rate")))
        requests, errors = state.value("service.request.rate"), state.value("service.request.errors.rate")
        assert isinstance(requests, float)
        assert isinstance(errors, float)
        assert requests == pytest.approx(4 * errors)
        slowest, median = state.value("service.request.duration.p99"), state.value("service.request.duration.p50")
        assert isinstance(slowest, float)
        assert isinstance(median, float)
        assert 0.2 <= slowest < 2.0
        assert median < 0.1
        assert state.value("connector.statsd.malformed") == 0
        if sys.platform == "linux":
            assert state.value("connector.statsd.lost") == 0
    await connector.disconnect()


async def test_a_burst_of_datagrams_is_read_and_rubbish_is_counted(service: Gunicorn, connect: Connect) -> None:
    connector = await connect(statsd_port=0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.connect(("127.0.0.1", connector.statsd_port))
        for number in range(2_000):
            sender.send(b"gunicorn.requests:1|c|@1.0" if number % 2 else os.urandom(50))
            if number % 50 == 49:
                await asyncio.sleep(0)  # the burst is far over what an unread socket holds; the loop must keep up
    state = await until(connector, lambda state: state.value("connector.statsd.datagrams") == 2_000)
    malformed = state.value("connector.statsd.malformed")
    assert isinstance(malformed, int)
    assert malformed >= 900


async def test_a_statsd_port_in_use_leaves_nothing_half_connected(service: Gunicorn, connect: Connect) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(ConnectorError, match=str(port)):
            await connect(statsd_port=port)
    connector = GunicornConnector.from_options("web", {"pidfile": str(service.pidfile), "statsd_port": port})
    await connector.connect()
    await connector.disconnect()


async def test_the_journal_witnesses_what_was_done_and_what_was_cut_off(
    service: Gunicorn, connect: Connect, tmp_path: Path
) -> None:
    journal = str(tmp_path / "journal.jsonl")
    connector = await connect(journal=journal)
    done = AdaptationAction("done", "add_worker", "web")
    result = await connector.execute_action(done)
    freeze(service.pid)
    cut_off = asyncio.ensure_future(connector.execute_action(AdaptationAction("cut-off", "add_worker", "web")))
    async with asyncio.timeout(PATIENCE_S):
        while b"cut-off" not in Path(journal).read_bytes():
            await asyncio.sleep(0.01)
    cut_off.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cut_off
    os.kill(service.pid, signal.SIGCONT)
    await connector.disconnect()

    later = GunicornConnector.from_options("web", {"pidfile": str(service.pidfile), "journal": journal})
    assert await later.recall_action("done") == result
    assert await later.recall_action("cut-off") is None
    never = await later.recall_action("never")
    assert never is not None
    assert never.status is ExecutionStatus.PENDING


async def test_disconnecting_lets_the_running_action_end_and_be_witnessed(
    service: Gunicorn, connect: Connect, tmp_path: Path
) -> None:
    connector = await connect(journal=str(tmp_path / "journal.jsonl"), workers_max=4)
    action = AdaptationAction("running", "set_workers", "web", {"workers": 4})
    running = asyncio.ensure_future(connector.execute_action(action))
    async with asyncio.timeout(PATIENCE_S):
        while b"running" not in (tmp_path / "journal.jsonl").read_bytes():
            await asyncio.sleep(0.005)
    waiting = asyncio.ensure_future(act(connector, "remove_worker"))
    await asyncio.sleep(0)
    await connector.disconnect()
    result = await running
    assert result.status is ExecutionStatus.SUCCESS
    assert await connector.recall_action("running") == result
    with pytest.raises(ConnectorError, match="not connected"):
        await waiting
    assert len(service.worker_pids()) == 4


async def test_an_action_that_found_the_arbiter_gone_is_not_in_the_journal_as_begun(
    service: Gunicorn, connect: Connect, tmp_path: Path
) -> None:
    connector = await connect(journal=str(tmp_path / "journal.jsonl"))
    service.kill()
    with pytest.raises(ConnectorError):
        await connector.execute_action(AdaptationAction("lost", "add_worker", "web"))
    assert b"lost" not in (tmp_path / "journal.jsonl").read_bytes()


async def test_a_slow_service_is_unwell_by_its_thresholds(service: Gunicorn, connect: Connect) -> None:
    connector = await connect(statsd_port=0, latency_warning_s=0.1, latency_critical_s=1.0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.connect(("127.0.0.1", connector.statsd_port))
        for datagram, health, reasons in (
            (b"gunicorn.request.duration:50|ms", HealthStatus.HEALTHY, None),
            (
                b"gunicorn.request.duration:500|ms",
                HealthStatus.WARNING,
                ["service.request.duration.p95 is 0.5 s, more than 0.1 s"],
            ),
            (
                b"gunicorn.request.response_time:5000|ms",
                HealthStatus.CRITICAL,
                ["service.response_time.p95 is 5 s, more than 1 s"],
            ),
        ):
            sender.send(datagram)
            found = await until(connector, lambda state, h=health: state.health_status is h)  # type: ignore[misc]
            assert (found.health_status, found.metadata.get("health.reasons")) == (health, reasons)
