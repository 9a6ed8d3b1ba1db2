"""A connector whose journal is the witness of what a node did to its system, whatever became of the node.

[systems.pump]
connector = "tests.witness_connector:WitnessConnector"
options = { journal = "pump.jsonl", before_s = 0.01, after_s = 0.01 }
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Self

import msgspec

from polaris.clock import utc_now
from polaris.connectors import ActionDescription, ConnectorHealth, ConnectorOptions
from polaris.domain import AdaptationAction, ExecutionResult, ExecutionStatus, HealthStatus, MetricValue, SystemState
from polaris.exceptions import ConnectorError


class WitnessOptions(ConnectorOptions, frozen=True, kw_only=True):
    """Where the journal is, and how slow the system is."""

    journal: str
    before_s: float = 0.0
    """From the begin of an action to its effect."""
    after_s: float = 0.0
    """From the effect to the end."""
    refuses_first: int = 0
    """How many attempts are refused with an error that means that nothing was done."""


class Witnessed(msgspec.Struct, frozen=True):
    """One line of the journal."""

    event: str
    """begin, effect, end, or `denied`: the connector said that the action was certainly not begun."""
    action_id: str
    pid: int


def read_journal(path: Path) -> list[Witnessed]:
    """What happened, in order; a line torn by a kill did not."""
    if not path.exists():
        return []
    lines = []
    for line in path.read_bytes().splitlines():
        try:
            lines.append(msgspec.json.decode(line, type=Witnessed))
        except msgspec.DecodeError:
            continue
    return lines


class WitnessConnector:
    """Cannot tell afterwards what it did. Its samples are numbered from 1, through all restarts."""

    summary: ClassVar[str] = "writes down what it is asked to do"
    options_type: ClassVar[type[msgspec.Struct]] = WitnessOptions

    def __init__(self, system_id: str, options: WitnessOptions) -> None:
        self.system_id = system_id
        self._options = options
        self._path = Path(options.journal)
        self._numbers = self._path.with_suffix(".samples")
        self._refusals_left = options.refuses_first

    @classmethod
    def from_options(cls, system_id: str, options: Mapping[str, object]) -> Self:
        return cls(system_id, WitnessOptions.read(options))

    async def connect(self) -> None:
        """Nothing to do."""

    async def disconnect(self) -> None:
        """Nothing to do."""

    async def collect_metrics(self) -> SystemState:
        number = int(self._numbers.read_text()) + 1 if self._numbers.exists() else 1
        self._numbers.write_text(str(number))
        return SystemState(self.system_id, utc_now(), {"number": MetricValue("number", number)}, HealthStatus.HEALTHY)

    async def execute_action(self, action: AdaptationAction) -> ExecutionResult:
        if self._refusals_left:
            self._refusals_left -= 1
            raise ConnectorError("not now")
        self.write("begin", action.action_id)
        await asyncio.sleep(self._options.before_s)
        self.write("effect", action.action_id)
        await asyncio.sleep(self._options.after_s)
        self.write("end", action.action_id)
        return ExecutionResult(action.action_id, ExecutionStatus.SUCCESS, {"pid": os.getpid()})

    def write(self, event: str, action_id: str) -> None:
        """One line, on the disk before anything else happens."""
        line = json.dumps({"event": event, "action_id": action_id, "pid": os.getpid()}) + "\n"
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, line.encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def supported_actions(self) -> Sequence[ActionDescription]:
        return (ActionDescription("poke", "Leaves a trace.", {}),)

    async def health(self) -> ConnectorHealth:
        return ConnectorHealth(HealthStatus.HEALTHY)


class RecallingWitnessConnector(WitnessConnector):
    """Knows from its journal what it did: the effect is one line, so it is there or it is not."""

    async def recall_action(self, action_id: str) -> ExecutionResult | None:
        events = {line.event for line in read_journal(self._path) if line.action_id == action_id}
        if "effect" in events:
            return ExecutionResult(action_id, ExecutionStatus.SUCCESS, {"recalled": True})
        self.write("denied", action_id)
        return ExecutionResult(action_id, ExecutionStatus.PENDING)


class MoodyWitnessConnector(WitnessConnector):
    """Gives no sample while there is a file `silent` beside its journal, and does nothing while there is `refusing`."""

    async def collect_metrics(self) -> SystemState:
        self._fail_with("silent", "it does not answer")
        return await super().collect_metrics()

    async def execute_action(self, action: AdaptationAction) -> ExecutionResult:
        self._fail_with("refusing", "it takes no orders")
        return await super().execute_action(action)

    def _fail_with(self, mood: str, reason: str) -> None:
        if self._path.with_name(mood).exists():
            raise ConnectorError(reason)
