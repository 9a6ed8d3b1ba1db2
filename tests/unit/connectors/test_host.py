"""The host connector: what it reads is right, what it cannot read is missing, and thresholds make its health."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from polaris.connectors.host import HostConnector, HostOptions
from polaris.connectors.host._health import judge
from polaris.domain import HealthStatus, MetricValue, Quality, SystemState
from polaris.exceptions import ConnectorError
from polaris.testing import VirtualClock


async def collected(options: HostOptions | None = None, *, times: int = 1) -> SystemState:
    clock = VirtualClock()
    connector = HostConnector("machine", options, clock=clock)
    await connector.connect()
    for _ in range(times):
        clock.advance(1.0)
        state = await connector.collect_metrics()
    await connector.disconnect()
    return state


@pytest.fixture
def child(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Under a name of its own: others of one name come and go, and with them what they have used together."""
    program = tmp_path / f"child-{os.getpid()}"
    program.symlink_to(Path(sys.executable).resolve())
    process = subprocess.Popen([program, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.communicate(b"\n")


async def test_it_reads_what_the_machine_says() -> None:
    state = await collected(times=2)
    assert state.value("system.memory.limit") == psutil.virtual_memory().total
    assert state.value("system.cpu.logical.count") == psutil.cpu_count()
    assert state.value("system.filesystem.limit[/]") == psutil.disk_usage("/").total
    assert abs(float(state.value("system.boot_time") or 0) - psutil.boot_time()) < 5
    utilization = state.metrics["system.memory.utilization"]
    assert isinstance(utilization.value, float)
    assert 0 < utilization.value < 1
    assert utilization.unit == "1"
    assert state.metadata["os.type"] in ("linux", "darwin")


async def test_the_processor_share_is_missing_at_first_and_busy_time_over_time_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    times = psutil.cpu_times()._replace(user=100.0, system=0.0, idle=900.0, guest=50.0)
    zeroed = {name: 0.0 for name in times._fields if name not in ("user", "system", "idle", "guest")}
    times = times._replace(**zeroed)
    monkeypatch.setattr(psutil, "cpu_times", lambda: times)
    connector = HostConnector("machine")
    await connector.connect()
    assert (await connector.collect_metrics()).metrics["system.cpu.utilization"].quality is Quality.MISSING
    times = times._replace(user=103.0, idle=901.0, guest=53.0)  # guest time is contained in user time
    assert (await connector.collect_metrics()).value("system.cpu.utilization") == pytest.approx(0.75)
    await connector.disconnect()


@pytest.mark.parametrize(
    ("call", "key"),
    [
        ("virtual_memory", "system.memory.usage"),
        ("swap_memory", "system.paging.usage"),
        ("cpu_times", "system.cpu.utilization"),
        ("disk_usage", "system.filesystem.usage[/]"),
        ("disk_io_counters", "system.disk.io.read.rate"),
        ("net_io_counters", "system.network.io.receive.rate"),
        ("pids", "system.process.count"),
        ("boot_time", "system.uptime"),
    ],
)
async def test_what_the_system_does_not_tell_is_missing_and_takes_nothing_else_along(
    call: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(call)

    monkeypatch.setattr(psutil, call, refuse)
    state = await collected(times=2)
    assert state.metrics[key].quality is Quality.MISSING
    assert sum(metric.quality is Quality.OK for metric in state.metrics.values()) >= 8


async def test_a_mount_point_that_is_not_there_is_missing_beside_one_that_is(tmp_path: Path) -> None:
    state = await collected(HostOptions(filesystems=("/", str(tmp_path / "gone"))))
    assert state.value("system.filesystem.usage[/]")
    assert state.metrics[f"system.filesystem.usage[{tmp_path}/gone]"].quality is Quality.MISSING


async def test_processes_are_found_by_pid_pidfile_and_name(child: subprocess.Popen[bytes], tmp_path: Path) -> None:
    pidfile = tmp_path / "child.pid"
    pidfile.write_text(f"{child.pid}\n")
    name = psutil.Process(child.pid).name()
    state = await collected(HostOptions(processes=(str(child.pid), str(pidfile), name)), times=2)
    for want in (str(child.pid), str(pidfile), name):
        assert state.value(f"process.alive[{want}]") == 1
        memory = state.value(f"process.memory.usage[{want}]")
        assert isinstance(memory, int)
        assert memory > 1 << 20
        assert state.metrics[f"process.cpu.utilization[{want}]"].quality is Quality.OK
        assert state.metrics[f"process.alive[{want}]"].tags == {"process": want}
    assert state.value(f"process.count[{child.pid}]") == 1
    named = state.value(f"process.count[{name}]")
    assert named == 1


async def test_a_process_that_does_not_run_has_no_memory_and_makes_the_machine_critical(tmp_path: Path) -> None:
    pidfile = tmp_path / "broken.pid"
    pidfile.write_text("not a pid")
    gone = (str(tmp_path / "none.pid"), str(pidfile), "no-such-process-name", str(2**31 - 2))
    state = await collected(HostOptions(processes=gone))
    for want in gone:
        assert state.value(f"process.alive[{want}]") == 0
        assert state.value(f"process.count[{want}]") == 0
        assert state.metrics[f"process.memory.usage[{want}]"].quality is Quality.MISSING
    assert state.health_status is HealthStatus.CRITICAL
    assert len(state.metadata["health.reasons"]) == len(gone)


async def test_a_zombie_does_not_run() -> None:
    zombie = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
    state = await collected(HostOptions(processes=(str(zombie.pid),)))
    zombie.wait()
    assert state.value(f"process.alive[{zombie.pid}]") == 0


def test_the_worst_reading_decides_the_health_and_a_missing_one_says_nothing() -> None:
    def health(cpu: float | None, memory: float | None) -> HealthStatus:
        readings = [
            MetricValue("system.cpu.utilization", cpu, "1"),
            MetricValue("system.memory.utilization", memory, "1"),
        ]
        return judge({reading.name: reading for reading in readings}, HostOptions())[0]

    assert health(None, None) is HealthStatus.UNKNOWN
    assert health(0.90, None) is HealthStatus.HEALTHY
    assert health(0.91, 0.5) is HealthStatus.WARNING
    assert health(0.91, 0.98) is HealthStatus.CRITICAL


async def test_a_machine_that_cannot_be_read_at_all_shows_in_the_connectors_health(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connector = HostConnector("machine")
    await connector.connect()

    async def hang(_: object) -> None:
        raise ConnectorError("an earlier reading has not come back")

    with monkeypatch.context() as patched:
        patched.setattr(connector._reads, "run", hang)
        with pytest.raises(ConnectorError):
            await connector.collect_metrics()
        assert (await connector.health()).status is HealthStatus.UNHEALTHY
    await connector.collect_metrics()
    assert (await connector.health()).status is HealthStatus.HEALTHY
    await connector.disconnect()
