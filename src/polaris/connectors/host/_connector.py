"""The host connector: a machine that is read, not changed."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import ClassVar

from polaris.clock import SYSTEM_CLOCK, Clock
from polaris.connectors._blocking import BlockingReads
from polaris.connectors._connector import ActionDescription, ConnectorHealth
from polaris.connectors._readings import Readings, Stamps
from polaris.connectors.host._health import judge
from polaris.connectors.host._machine import Machine
from polaris.connectors.host._options import HostOptions
from polaris.connectors.host._processes import Processes
from polaris.domain import AdaptationAction, ExecutionResult, HealthStatus, MetricValue, SystemState
from polaris.exceptions import ActionNotSupportedError, ConnectorError


class HostConnector:
    """This machine: processors, memory, disks, network, and the processes asked for. It offers no actions.

    Reading happens in a thread, because disks and process tables may block. Rates are over the time between two
    collections, so the first collection after `connect` has none. `metadata` names the machine and gives the reasons
    when its health is not `healthy`. Follows the law of `ManagedSystemConnector`.
    """

    summary: ClassVar[str] = "This machine: processors, memory, disks, network and chosen processes."
    options_type: ClassVar[type[HostOptions]] = HostOptions

    def __init__(self, system_id: str, options: HostOptions | None = None, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._system_id = system_id
        self._options = options or HostOptions()
        self._clock = clock
        self._stamps = Stamps(clock)
        self._reads = BlockingReads(f"host connector {system_id}")
        self._sources: tuple[Machine, Processes] | None = None
        self._failure: str | None = None

    @classmethod
    def from_options(cls, system_id: str, options: Mapping[str, object]) -> HostConnector:
        """A connector, not yet connected. Raises `ConfigurationError` whose `problems` list every mistake."""
        return cls(system_id, HostOptions.read(options))

    @property
    def system_id(self) -> str:
        return self._system_id

    async def connect(self) -> None:
        if self._sources is None:
            self._failure = None
            self._sources = (
                Machine(self._options.filesystems, self._clock),
                Processes(self._options.processes, self._clock),
            )

    async def disconnect(self) -> None:
        self._sources = None

    async def collect_metrics(self) -> SystemState:
        sources = self._sources
        if sources is None:
            raise ConnectorError(f"{self._system_id}: the host connector is not connected")

        def read() -> tuple[datetime, dict[str, MetricValue]]:
            readings, stamp = Readings(), self._stamps.next()
            for source in sources:
                source.read_into(readings)
            return stamp, readings.metrics()

        try:
            stamp, metrics = await self._reads.run(read)
        except ConnectorError as error:
            self._failure = error.message
            raise
        self._failure = None
        status, reasons = judge(metrics, self._options)
        return SystemState(self._system_id, stamp, metrics, status, self._metadata(metrics, reasons))

    def _metadata(self, metrics: Mapping[str, MetricValue], reasons: Sequence[str]) -> dict[str, object]:
        metadata: dict[str, object] = {
            "host.name": platform.node(),
            "os.type": platform.system().lower(),
            "host.arch": platform.machine(),
        }
        boot_time_s = metrics["system.boot_time"].value
        if isinstance(boot_time_s, (int, float)):
            metadata["host.booted_at"] = datetime.fromtimestamp(boot_time_s, UTC).isoformat()
        if reasons:
            metadata["health.reasons"] = list(reasons)
        return metadata

    async def execute_action(self, action: AdaptationAction) -> ExecutionResult:
        """Refuses every action: the machine is read only."""
        message = f"{self._system_id}: the host connector offers no actions, not {action.action_type!r}"
        raise ActionNotSupportedError(message, {"action_id": action.action_id})

    def supported_actions(self) -> Sequence[ActionDescription]:
        return ()

    async def health(self) -> ConnectorHealth:
        if self._sources is None:
            return ConnectorHealth(HealthStatus.UNKNOWN, "not connected")
        if self._failure is not None:
            return ConnectorHealth(HealthStatus.UNHEALTHY, self._failure)
        return ConnectorHealth(HealthStatus.HEALTHY)
