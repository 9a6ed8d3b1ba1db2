"""A connector that does what a test tells it to, and remembers what it was asked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta

from polaris.connectors import ActionDescription, ConnectorHealth
from polaris.domain import (
    AdaptationAction,
    ExecutionResult,
    ExecutionStatus,
    HealthStatus,
    MetricValue,
    SystemState,
)
from polaris.exceptions import ConnectorError

Behaviour = Callable[[AdaptationAction], Awaitable[ExecutionResult]]


class ScriptedConnector:
    """`executed` lists the ids of the actions that were begun, in order; `behaviour` decides what comes of them."""

    def __init__(self, system_id: str = "web", behaviour: Behaviour | None = None) -> None:
        self._system_id = system_id
        self._behaviour = behaviour
        self.executed: list[str] = []
        self.connections = 0
        self.connected = False
        self.samples = 0
        self.unreachable = False

    @property
    def system_id(self) -> str:
        return self._system_id

    async def connect(self) -> None:
        if self.unreachable:
            raise ConnectorError(f"{self.system_id} is not there")
        self.connected = True
        self.connections += 1

    async def disconnect(self) -> None:
        self.connected = False

    async def collect_metrics(self) -> SystemState:
        if self.unreachable:
            raise ConnectorError(f"{self.system_id} does not answer")
        self.samples += 1
        moment = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.samples)
        return SystemState(self.system_id, moment, {"load": MetricValue("load", float(self.samples))})

    async def execute_action(self, action: AdaptationAction) -> ExecutionResult:
        self.executed.append(action.action_id)
        if self._behaviour is not None:
            return await self._behaviour(action)
        return ExecutionResult(action.action_id, ExecutionStatus.SUCCESS, {"n": len(self.executed)})

    def supported_actions(self) -> Sequence[ActionDescription]:
        return (ActionDescription("scale", "Scales.", {}),)

    async def health(self) -> ConnectorHealth:
        return ConnectorHealth(HealthStatus.HEALTHY if self.connected else HealthStatus.UNKNOWN)


class RecallingConnector(ScriptedConnector):
    """One that can tell what came of an action: `recalled` maps ids to results; an id that is missing is not known."""

    def __init__(self, system_id: str = "web", behaviour: Behaviour | None = None) -> None:
        super().__init__(system_id, behaviour)
        self.recalled: dict[str, ExecutionResult] = {}

    async def recall_action(self, action_id: str) -> ExecutionResult | None:
        return self.recalled.get(action_id)
