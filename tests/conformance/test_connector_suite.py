"""The contract suite of connectors itself: a sound connector passes it, and each broken promise fails its own test."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import pytest

from polaris.clock import utc_now
from polaris.connectors import ActionDescription, ConnectorHealth, ConnectorOptions, ManagedSystemConnector
from polaris.connectors._readings import Stamps
from polaris.domain import (
    AdaptationAction,
    ExecutionResult,
    ExecutionStatus,
    HealthStatus,
    MetricValue,
    SystemState,
)
from polaris.exceptions import ActionNotSupportedError, ConfigurationError, ConnectorError
from polaris.testing.connector_suite import ConnectorSuite

PROMISES = sorted(
    name for name, _ in inspect.getmembers(ConnectorSuite, inspect.isfunction) if name.startswith("test_")
)


class Lamp:
    """A small sound connector: a lamp that can be switched on."""

    summary: ClassVar[str] = "A lamp."
    options_type: ClassVar[type[ConnectorOptions]] = ConnectorOptions
    done: ClassVar[dict[str, ExecutionResult]] = {}

    def __init__(self, system_id: str) -> None:
        self.system_id = system_id
        self.connected = False
        self.stamps = Stamps()

    @classmethod
    def from_options(cls, system_id: str, options: Mapping[str, object]) -> Lamp:
        ConnectorOptions.read(options)
        return cls(system_id)

    async def connect(self) -> None:
        await asyncio.sleep(0)
        self.connected = True

    async def disconnect(self) -> None:
        self.connected = False

    async def collect_metrics(self) -> SystemState:
        if not self.connected:
            raise ConnectorError("not connected")
        await asyncio.sleep(0)
        readings = [MetricValue("lamp.power", 3.0, "W"), MetricValue("lamp.switching.rate", None, "1/s")]
        return SystemState(self.system_id, self.stamps.next(), {reading.name: reading for reading in readings})

    async def execute_action(self, action: AdaptationAction) -> ExecutionResult:
        if action.target_system != self.system_id or action.action_type != "switch_on":
            raise ActionNotSupportedError("not mine")
        if action.parameters:
            raise ActionNotSupportedError(f"unknown: {', '.join(action.parameters)}")
        if not self.connected:
            raise ConnectorError("not connected")
        result = ExecutionResult(
            action.action_id, ExecutionStatus.SUCCESS, started_at=utc_now(), completed_at=utc_now()
        )
        self.done[action.action_id] = result
        return result

    async def recall_action(self, action_id: str) -> ExecutionResult | None:
        return self.done.get(action_id)

    def supported_actions(self) -> Sequence[ActionDescription]:
        return [ActionDescription("switch_on", "Switch it on.", {"type": "object"})]

    async def health(self) -> ConnectorHealth:
        return ConnectorHealth(HealthStatus.HEALTHY if self.connected else HealthStatus.UNKNOWN)


class LampSuite(ConnectorSuite):
    def actions(self) -> Sequence[tuple[str, Mapping[str, Any]]]:
        return [("switch_on", {})]


class BornHealthy(Lamp):
    async def health(self) -> ConnectorHealth:
        return ConnectorHealth(HealthStatus.HEALTHY)


class NeverHealthy(Lamp):
    async def health(self) -> ConnectorHealth:
        return ConnectorHealth(HealthStatus.UNKNOWN)


class ConnectsOnce(Lamp):
    async def connect(self) -> None:
        if self.connected:
            raise ConnectorError("connected already")
        await super().connect()


class DeadAfterUse(Lamp):
    ended = False

    async def connect(self) -> None:
        if self.ended:
            raise ConnectorError("used up")
        await super().connect()

    async def disconnect(self) -> None:
        self.ended = self.connected
        await super().disconnect()


class KeepsDescriptor(Lamp):
    kept: ClassVar[list[int]] = []

    async def connect(self) -> None:
        await super().connect()
        self.kept.extend(os.pipe())


class HalfConnected(Lamp):
    async def connect(self) -> None:
        self.connected = True
        await asyncio.sleep(0)
        await asyncio.sleep(0)


class ForeignState(Lamp):
    async def collect_metrics(self) -> SystemState:
        state = await super().collect_metrics()
        return SystemState("another-system", state.timestamp, state.metrics)


class WithoutUnit(Lamp):
    async def collect_metrics(self) -> SystemState:
        state = await super().collect_metrics()
        return SystemState(state.system_id, state.timestamp, [MetricValue("lamp.power", 3.0)])  # type: ignore[arg-type]


class ZeroForMissing(Lamp):
    async def collect_metrics(self) -> SystemState:
        state = await super().collect_metrics()
        zero = MetricValue("lamp.switching.rate", 0.0, "1/s")
        return SystemState(state.system_id, state.timestamp, {**state.metrics, zero.name: zero})


class SameTime(Lamp):
    stamp = utc_now()

    async def collect_metrics(self) -> SystemState:
        state = await super().collect_metrics()
        self.__class__.stamp = max(self.stamp, state.timestamp.replace(microsecond=0))
        return SystemState(state.system_id, self.stamp, state.metrics)


class BrokenByCancellation(Lamp):
    busy = False

    async def collect_metrics(self) -> SystemState:
        if self.busy:
            raise ConnectorError("busy")
        self.busy = True
        state = await super().collect_metrics()
        self.busy = False
        return state


class ForgetsActions(Lamp):
    def supported_actions(self) -> Sequence[ActionDescription]:
        return super().supported_actions() if not self.connected else []


class DoesAnything(Lamp):
    async def execute_action(self, action: AdaptationAction) -> ExecutionResult:
        known = AdaptationAction(action.action_id, "switch_on", action.target_system, action.parameters)
        return await super().execute_action(known)


class IgnoresParameters(Lamp):
    async def execute_action(self, action: AdaptationAction) -> ExecutionResult:
        return await super().execute_action(
            AdaptationAction(action.action_id, action.action_type, action.target_system)
        )


class ServesEverybody(Lamp):
    async def execute_action(self, action: AdaptationAction) -> ExecutionResult:
        mine = AdaptationAction(action.action_id, action.action_type, self.system_id, action.parameters)
        return await super().execute_action(mine)


class ActsUnconnected(Lamp):
    async def execute_action(self, action: AdaptationAction) -> ExecutionResult:
        self.connected = True
        return await super().execute_action(action)


class NeverFinal(Lamp):
    async def execute_action(self, action: AdaptationAction) -> ExecutionResult:
        result = await super().execute_action(action)
        self.done[action.action_id] = running = ExecutionResult(result.action_id, ExecutionStatus.RUNNING)
        return running


class RemembersWhatNeverWas(Lamp):
    async def recall_action(self, action_id: str) -> ExecutionResult | None:
        return await super().recall_action(action_id) or ExecutionResult(action_id, ExecutionStatus.SUCCESS)


class RemembersWrongly(Lamp):
    async def recall_action(self, action_id: str) -> ExecutionResult | None:
        return ExecutionResult(action_id, ExecutionStatus.FAILED) if action_id in self.done else None


class OneMistakeAtATime(Lamp):
    @classmethod
    def from_options(cls, system_id: str, options: Mapping[str, object]) -> Lamp:
        if options:
            raise ConfigurationError(problems=[f"{next(iter(options))}: unknown key"])
        return cls(system_id)


BROKEN: dict[type[Lamp], str] = {
    BornHealthy: "test_a_new_connector_is_unconnected_and_says_so",
    NeverHealthy: "test_a_connected_connector_is_healthy",
    ConnectsOnce: "test_connecting_and_disconnecting_twice_does_no_harm",
    DeadAfterUse: "test_a_disconnected_connector_reads_nothing_and_can_be_connected_again",
    KeepsDescriptor: "test_disconnecting_gives_back_every_task_and_descriptor",
    HalfConnected: "test_a_cancelled_connect_leaves_the_connector_unconnected_and_usable",
    ForeignState: "test_a_state_names_its_system_and_the_time_it_was_read",
    WithoutUnit: "test_every_reading_has_a_unit_and_a_key_that_begins_with_its_name",
    ZeroForMissing: "test_a_rate_is_missing_not_zero_until_there_is_something_to_compare_with",
    SameTime: "test_overlapping_collections_all_succeed_with_timestamps_of_their_own",
    BrokenByCancellation: "test_a_cancelled_collection_leaves_the_connector_usable",
    ForgetsActions: "test_the_offered_actions_are_described_and_the_same_at_any_time",
    DoesAnything: "test_an_unknown_action_is_refused",
    IgnoresParameters: "test_unknown_parameters_are_refused",
    ServesEverybody: "test_an_action_for_another_system_is_refused",
    ActsUnconnected: "test_an_action_on_an_unconnected_connector_is_not_done",
    NeverFinal: "test_an_executed_action_has_a_final_result_of_its_own",
    RemembersWhatNeverWas: "test_what_was_never_asked_is_never_recalled_as_done",
    RemembersWrongly: "test_an_executed_action_is_recalled_with_its_result_or_not_at_all",
    OneMistakeAtATime: "test_every_mistake_in_the_options_is_reported_at_once",
}


async def run(promise: str, connector_type: type[Lamp]) -> None:
    made: list[Lamp] = []

    def make() -> ManagedSystemConnector:
        made.append(connector_type("lamp"))
        return made[-1]

    check: Callable[[Any], Any] = getattr(LampSuite(), promise)
    try:
        await check(make)
    finally:
        for lamp in made:
            await lamp.disconnect()
        while KeepsDescriptor.kept:
            os.close(KeepsDescriptor.kept.pop())


@pytest.mark.parametrize("promise", PROMISES)
async def test_a_sound_connector_keeps_its_promise(promise: str) -> None:
    await run(promise, Lamp)


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.__name__)
async def test_a_broken_promise_is_noticed(broken: type[Lamp]) -> None:
    with pytest.raises((AssertionError, ConnectorError, pytest.fail.Exception)):
        await run(BROKEN[broken], broken)


def test_every_promise_has_a_connector_that_breaks_it() -> None:
    assert sorted(BROKEN.values()) == PROMISES
