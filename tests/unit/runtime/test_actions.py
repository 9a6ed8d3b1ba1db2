"""The action path: each action once, whatever is delivered twice, fails or is cut off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import pytest
from tests.scripted_connector import RecallingConnector, ScriptedConnector

from polaris.domain import (
    AdaptationAction,
    AdaptationEvent,
    ExecutionResult,
    ExecutionResultEvent,
    ExecutionStatus,
)
from polaris.exceptions import ActionNotSupportedError, ConnectorError, DataStoreError, PayloadTooLargeError
from polaris.messaging import InMemoryHub, InMemoryMessageBroker, PolarisMessageBus, adaptation_topic
from polaris.observability import MetricsCollector, StructuredLogger
from polaris.runtime._actions import ActionService
from polaris.runtime._connection import Connection
from polaris.runtime._execution import ActionExecution
from polaris.runtime._health import HealthBoard
from polaris.runtime._ledger import ActionLedger, LedgerEntry
from polaris.runtime._relay import OutboxRelay
from polaris.runtime._settings import ActionSettings
from polaris.runtime._supervision import Supervisor
from polaris.storage import PolarisDataStore
from polaris.testing import run_virtual, running_clock

LOGGER = StructuredLogger("test")


class Loop:
    """A bus, a store and an action service, in virtual time. `hub` and `store` outlive a service, as a restart does."""

    def __init__(self, *connectors: ScriptedConnector, settings: ActionSettings | None = None) -> None:
        self.clock = running_clock()
        self.hub = InMemoryHub(clock=self.clock)
        self.store = PolarisDataStore.memory(clock=self.clock)
        self.connectors = {connector.system_id: connector for connector in connectors}
        self.settings = settings or ActionSettings()
        self.metrics = MetricsCollector()
        self.seen: list[LedgerEntry] = []
        self.announced: list[ExecutionResult] = []
        self.runs = 0
        self.causes: Mapping[str, datetime] = {}

    def ledger(self) -> ActionLedger:
        self.runs += 1
        return ActionLedger(self.store, f"run-{self.runs}", clock=self.clock)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[PolarisMessageBus]:
        bus = PolarisMessageBus(InMemoryMessageBroker(self.hub), clock=self.clock)
        board = HealthBoard(clock=self.clock)
        await self.store.connect()
        await bus.start()
        await bus.subscribe("polaris.executions.*", self.listen, durable="listener")
        relay = OutboxRelay(self.store, bus, board, LOGGER, clock=self.clock)
        service = ActionService(
            bus,
            self.ledger(),
            {
                name: ActionExecution(Connection(connector, LOGGER), self.settings, LOGGER, clock=self.clock)
                for name, connector in self.connectors.items()
            },
            Supervisor(board, LOGGER, clock=self.clock),
            self.metrics,
            LOGGER,
            source="test",
            caused_at=lambda correlation_id: self.causes.get(correlation_id or ""),
            on_action=self.seen.append,
            clock=self.clock,
        )
        await relay.start()
        await service.start()
        try:
            yield bus
            await self.settled(bus)
        finally:
            await service.stop()
            await relay.stop()
            await bus.drain()

    async def listen(self, event: ExecutionResultEvent) -> None:
        self.announced.append(event.result)

    async def settled(self, bus: PolarisMessageBus) -> None:
        """Wait, in virtual time, until nothing is on its way any more."""
        await self.clock.sleep(120)

    async def result(self, action_id: str) -> ExecutionResult | None:
        return await self.store.results.find_by_action(action_id)


def action(action_id: str = "a1", system_id: str = "web", **fields: Any) -> AdaptationAction:
    return AdaptationAction(action_id, "scale", system_id, **fields)


async def ask(bus: PolarisMessageBus, asked: AdaptationAction) -> None:
    await bus.publish(adaptation_topic(asked.target_system), AdaptationEvent(asked))


def in_virtual_time(test: Callable[[], Awaitable[None]]) -> None:
    run_virtual(test())  # type: ignore[arg-type]


def test_an_action_is_executed_stored_and_announced_once() -> None:
    async def scenario() -> None:
        connector = ScriptedConnector()
        loop = Loop(connector)
        async with loop.running() as bus:
            await ask(bus, action())
        assert connector.executed == ["a1"]
        stored = await loop.result("a1")
        assert stored is not None
        assert stored.status is ExecutionStatus.SUCCESS
        assert stored.started_at is not None
        assert stored.completed_at is not None
        assert [result.action_id for result in loop.announced] == ["a1"]
        assert [entry.status for entry in loop.seen] == [ExecutionStatus.RUNNING, ExecutionStatus.SUCCESS]
        assert await loop.store.actions.find_by_id("a1") is not None
        assert await loop.store.outbox.count() == 0

    in_virtual_time(scenario)


def test_the_same_action_published_again_is_not_executed_again() -> None:
    async def scenario() -> None:
        connector = ScriptedConnector()
        loop = Loop(connector)
        async with loop.running() as bus:
            await asyncio.gather(*(ask(bus, action()) for _ in range(10)))
        async with loop.running() as bus:
            await ask(bus, action())
        assert connector.executed == ["a1"]
        assert len(loop.announced) == 1

    in_virtual_time(scenario)


def test_actions_of_one_system_keep_their_order_and_do_not_delay_another() -> None:
    async def scenario() -> None:
        async def slowly(asked: AdaptationAction) -> ExecutionResult:
            await running_clock().sleep(5)
            return ExecutionResult(asked.action_id, ExecutionStatus.SUCCESS)

        slow, quick = ScriptedConnector("slow", slowly), ScriptedConnector("quick")
        loop = Loop(slow, quick)
        async with loop.running() as bus:
            for number in range(4):
                await ask(bus, action(f"s{number}", "slow"))
            begun = loop.clock.monotonic()
            await ask(bus, action("q", "quick"))
            while not quick.executed:
                await loop.clock.sleep(0.01)
            assert loop.clock.monotonic() - begun < 5
        assert slow.executed == ["s0", "s1", "s2", "s3"]

    in_virtual_time(scenario)


def test_an_error_that_means_nothing_was_done_is_retried() -> None:
    async def scenario() -> None:
        async def third_time_lucky(asked: AdaptationAction) -> ExecutionResult:
            if len(connector.executed) < 3:
                raise ConnectorError("not reached")
            return ExecutionResult(asked.action_id, ExecutionStatus.SUCCESS)

        connector = ScriptedConnector(behaviour=third_time_lucky)
        loop = Loop(connector)
        async with loop.running() as bus:
            await ask(bus, action())
        assert connector.executed == ["a1"] * 3
        stored = await loop.result("a1")
        assert stored is not None
        assert stored.status is ExecutionStatus.SUCCESS

    in_virtual_time(scenario)


async def raise_connector_error(_: AdaptationAction) -> ExecutionResult:
    raise ConnectorError("not reached")


async def raise_not_supported(_: AdaptationAction) -> ExecutionResult:
    raise ActionNotSupportedError("never heard of it")


async def raise_foreign_error(_: AdaptationAction) -> ExecutionResult:
    raise ZeroDivisionError("in the middle")


async def hang(_: AdaptationAction) -> ExecutionResult:
    await asyncio.Event().wait()
    raise AssertionError


async def stay_open(asked: AdaptationAction) -> ExecutionResult:
    return ExecutionResult(asked.action_id, ExecutionStatus.RUNNING)


@pytest.mark.parametrize(
    ("behaviour", "status", "executions", "message"),
    [
        (raise_connector_error, ExecutionStatus.FAILED, 3, "nothing was done"),
        (raise_not_supported, ExecutionStatus.REJECTED, 1, "never heard of it"),
        (raise_foreign_error, ExecutionStatus.UNKNOWN, 1, "may have been changed"),
        (hang, ExecutionStatus.TIMEOUT, 1, "may have been changed"),
        (stay_open, ExecutionStatus.UNKNOWN, 1, "running"),
    ],
)
def test_every_failure_ends_in_an_honest_status(
    behaviour: Any, status: ExecutionStatus, executions: int, message: str
) -> None:
    async def scenario() -> None:
        connector = ScriptedConnector(behaviour=behaviour)
        loop = Loop(connector)
        async with loop.running() as bus:
            await ask(bus, action(timeout_seconds=2.0))
        stored = await loop.result("a1")
        assert stored is not None
        assert stored.status is status
        assert message in (stored.error_message or "")
        assert len(connector.executed) == executions
        assert [result.status for result in loop.announced] == [status]

    in_virtual_time(scenario)


def test_what_goes_wrong_while_connecting_has_done_nothing() -> None:
    async def scenario() -> None:
        class Refusing(ScriptedConnector):
            async def connect(self) -> None:
                raise ConnectionRefusedError("port closed")

        connector = Refusing()
        loop = Loop(connector)
        async with loop.running() as bus:
            await ask(bus, action())
        stored = await loop.result("a1")
        assert stored is not None
        assert stored.status is ExecutionStatus.FAILED
        assert "nothing was done" in (stored.error_message or "")
        assert connector.executed == []

    in_virtual_time(scenario)


def test_an_action_on_a_system_that_nobody_configured_is_refused_visibly() -> None:
    async def scenario() -> None:
        loop = Loop(ScriptedConnector())
        async with loop.running() as bus:
            await ask(bus, action(system_id="nowhere"))
        stored = await loop.result("a1")
        assert stored is not None
        assert stored.status is ExecutionStatus.REJECTED
        assert "nowhere" in (stored.error_message or "")

    in_virtual_time(scenario)


@pytest.mark.parametrize(
    "topic", ["polaris.adaptations.db", "polaris.adaptations.nowhere", "polaris.adaptations.web.x"]
)
def test_an_action_on_the_topic_of_another_system_is_not_executed(topic: str) -> None:
    async def scenario() -> None:
        web, db = ScriptedConnector("web"), ScriptedConnector("db")
        loop = Loop(web, db)
        async with loop.running() as bus:
            await bus.publish(topic, AdaptationEvent(action()))
        assert web.executed == db.executed == []
        stored = await loop.result("a1")
        assert stored is not None
        assert stored.status is ExecutionStatus.REJECTED

    in_virtual_time(scenario)


async def cut_off(loop: Loop) -> None:
    """Run until the execution has begun, then let the node die in the middle of it."""
    ledger = loop.ledger()
    await loop.store.connect()
    await ledger.prepare()
    await ledger.take(AdaptationEvent(action()))


def test_an_action_cut_off_in_mid_execution_ends_as_unknown_and_is_not_repeated() -> None:
    async def scenario() -> None:
        connector = ScriptedConnector()
        loop = Loop(connector)
        await cut_off(loop)
        async with loop.running() as bus:
            await ask(bus, action())
        assert connector.executed == []
        stored = await loop.result("a1")
        assert stored is not None
        assert stored.status is ExecutionStatus.UNKNOWN
        assert [result.status for result in loop.announced] == [ExecutionStatus.UNKNOWN]

    in_virtual_time(scenario)


def test_an_action_whose_connector_recalls_it_gets_the_recalled_result() -> None:
    async def scenario() -> None:
        connector = RecallingConnector()
        connector.recalled["a1"] = ExecutionResult("a1", ExecutionStatus.SUCCESS, {"recalled": True})
        loop = Loop(connector)
        await cut_off(loop)
        async with loop.running():
            pass
        assert connector.executed == []
        stored = await loop.result("a1")
        assert stored is not None
        assert stored.result_data == {"recalled": True}

    in_virtual_time(scenario)


def test_an_action_that_had_certainly_not_begun_is_executed_after_the_restart() -> None:
    async def scenario() -> None:
        connector = RecallingConnector()
        connector.recalled["a1"] = ExecutionResult("a1", ExecutionStatus.PENDING)
        loop = Loop(connector)
        await cut_off(loop)
        async with loop.running() as bus:
            await ask(bus, action())
        assert connector.executed == ["a1"]
        stored = await loop.result("a1")
        assert stored is not None
        assert stored.status is ExecutionStatus.SUCCESS

    in_virtual_time(scenario)


def test_an_action_begun_anew_after_the_restart_is_not_disturbed_by_its_delivery() -> None:
    async def scenario() -> None:
        async def slow(asked: AdaptationAction) -> ExecutionResult:
            await loop.clock.sleep(20)
            return ExecutionResult(asked.action_id, ExecutionStatus.SUCCESS)

        connector = RecallingConnector(behaviour=slow)
        connector.recalled["a1"] = ExecutionResult("a1", ExecutionStatus.PENDING)
        loop = Loop(connector)
        await cut_off(loop)
        async with loop.running() as bus:
            await ask(bus, action())
            await loop.clock.sleep(5)
            del connector.recalled["a1"]
            await ask(bus, action())
        assert connector.executed == ["a1"]
        assert [result.status for result in loop.announced] == [ExecutionStatus.SUCCESS]

    in_virtual_time(scenario)


def test_a_result_that_cannot_be_stored_at_first_is_stored_later_without_executing_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failures = 0

    async def failing(self: ActionLedger, *args: Any, **kwargs: Any) -> Any:
        nonlocal failures
        if failures < 12:
            failures += 1
            raise DataStoreError("disk on fire")
        return await finish(self, *args, **kwargs)

    finish = ActionLedger.finish
    monkeypatch.setattr(ActionLedger, "finish", failing)

    async def scenario() -> None:
        connector = ScriptedConnector()
        loop = Loop(connector)
        async with loop.running() as bus:
            await ask(bus, action())
        assert failures == 12
        assert connector.executed == ["a1"]
        stored = await loop.result("a1")
        assert stored is not None
        assert stored.status is ExecutionStatus.SUCCESS

    in_virtual_time(scenario)


def test_an_action_that_was_not_taken_because_the_store_failed_is_executed_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failures = 0

    async def failing(self: ActionLedger, *args: Any, **kwargs: Any) -> Any:
        nonlocal failures
        if failures < 12:
            failures += 1
            raise DataStoreError("disk on fire")
        return await take(self, *args, **kwargs)

    take = ActionLedger.take
    monkeypatch.setattr(ActionLedger, "take", failing)

    async def scenario() -> None:
        connector = ScriptedConnector()
        loop = Loop(connector)
        async with loop.running() as bus:
            await ask(bus, action())
        assert connector.executed == ["a1"]

    in_virtual_time(scenario)


def test_a_result_too_large_for_store_and_bus_keeps_its_status_and_says_what_was_left_out() -> None:
    async def scenario() -> None:
        async def wordy(asked: AdaptationAction) -> ExecutionResult:
            return ExecutionResult(asked.action_id, ExecutionStatus.SUCCESS, {"log": "x" * 3_000_000})

        loop = Loop(ScriptedConnector(behaviour=wordy))
        async with loop.running() as bus:
            await ask(bus, action())
        (announced,) = loop.announced
        assert announced.status is ExecutionStatus.SUCCESS
        assert announced.result_data == {"left_out": "3000010 bytes of result data, the limit is 32768"}
        assert await loop.result("a1") == announced

    in_virtual_time(scenario)


def test_an_announcement_that_the_bus_refuses_for_good_does_not_hold_up_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def refusing(self: PolarisMessageBus, topic: str, event: Any, **options: Any) -> Any:
        if isinstance(event, ExecutionResultEvent) and event.result.action_id == "a1":
            raise PayloadTooLargeError(topic, payload_bytes=2, payload_bytes_max=1)
        return await publish(self, topic, event, **options)

    publish = PolarisMessageBus.publish
    monkeypatch.setattr(PolarisMessageBus, "publish", refusing)

    async def scenario() -> None:
        loop = Loop(ScriptedConnector())
        async with loop.running() as bus:
            await ask(bus, action("a1"))
            await ask(bus, action("a2"))
        assert [result.action_id for result in loop.announced] == ["a2"]
        assert await loop.store.outbox.count() == 0
        assert await loop.result("a1") is not None

    in_virtual_time(scenario)


def test_the_result_of_a_system_with_the_longest_id_is_announced() -> None:
    async def scenario() -> None:
        loop = Loop(ScriptedConnector("ÿ" * 256))
        async with loop.running() as bus:
            await ask(bus, action(system_id="ÿ" * 256))
        assert [result.status for result in loop.announced] == [ExecutionStatus.SUCCESS]

    in_virtual_time(scenario)


def test_outcomes_and_loop_latency_are_counted() -> None:
    async def scenario() -> None:
        loop = Loop(ScriptedConnector())
        loop.causes = {"c1": loop.clock.now()}
        async with loop.running() as bus:
            await bus.publish(adaptation_topic("web"), AdaptationEvent(action(), correlation_id="c1"))
        text = loop.metrics.render().decode()
        assert 'polaris_adaptations_total{action_type="scale",status="success",system_id="web"} 1.0' in text
        assert 'polaris_loop_latency_seconds_count{action_type="scale",status="success"} 1.0' in text

    in_virtual_time(scenario)


def test_a_controller_that_is_quicker_than_the_store_is_measured_too() -> None:
    async def scenario() -> None:
        causes: dict[str, datetime] = {}

        async def while_the_sample_is_stored(asked: AdaptationAction) -> ExecutionResult:
            causes["c1"] = sampled_at
            return ExecutionResult(asked.action_id, ExecutionStatus.SUCCESS)

        loop = Loop(ScriptedConnector(behaviour=while_the_sample_is_stored))
        loop.causes, sampled_at = causes, loop.clock.now()
        async with loop.running() as bus:
            await bus.publish(adaptation_topic("web"), AdaptationEvent(action(), correlation_id="c1"))
        assert [entry.caused_at for entry in loop.seen] == [None, sampled_at]
        entry = await loop.ledger().get("a1")
        assert entry is not None
        assert entry.caused_at == sampled_at
        text = loop.metrics.render().decode()
        assert 'polaris_loop_latency_seconds_count{action_type="scale",status="success"} 1.0' in text

    in_virtual_time(scenario)


def test_an_action_that_waited_for_the_node_connects_the_system_itself() -> None:
    class Slow(ScriptedConnector):
        async def connect(self) -> None:
            await running_clock().sleep(2.0)
            await super().connect()

        async def execute_action(self, action: AdaptationAction) -> ExecutionResult:
            if not self.connected:
                raise ConnectorError("not connected")
            return await super().execute_action(action)

    async def scenario() -> None:
        loop = Loop(Slow())
        async with loop.running() as bus:
            await ask(bus, action())
            await loop.settled(bus)
        result = await loop.result("a1")
        assert result is not None
        assert result.status is ExecutionStatus.SUCCESS
        assert loop.connectors["web"].executed == ["a1"]

    in_virtual_time(scenario)


def test_a_stop_lets_the_running_action_end_and_leaves_the_waiting_ones_to_the_next_start() -> None:
    async def scenario() -> None:
        ended = asyncio.Event()

        async def slowly(asked: AdaptationAction) -> ExecutionResult:
            await running_clock().sleep(4.0)
            return ExecutionResult(asked.action_id, ExecutionStatus.SUCCESS)

        connector = ScriptedConnector(behaviour=slowly)
        loop = Loop(connector)
        loop.settled = lambda bus: ended.wait()  # type: ignore[assignment, method-assign, return-value]
        async with loop.running() as bus:
            for number in range(5):
                await ask(bus, action(f"a{number}"))
            await loop.clock.sleep(1.0)
            ended.set()
        assert connector.executed == ["a0"]
        del loop.settled
        async with loop.running():
            pass
        assert connector.executed == [f"a{number}" for number in range(5)]
        results = [await loop.result(f"a{number}") for number in range(5)]
        assert [result and result.status for result in results] == [ExecutionStatus.SUCCESS] * 5

    in_virtual_time(scenario)


def test_what_is_executed_is_what_the_ledger_holds_not_another_message_with_the_same_id() -> None:
    async def scenario() -> None:
        scaled: list[object] = []

        async def scale(asked: AdaptationAction) -> ExecutionResult:
            scaled.append(asked.parameters["to"])
            return ExecutionResult(asked.action_id, ExecutionStatus.SUCCESS)

        loop = Loop(ScriptedConnector(behaviour=scale))
        async with loop.running() as bus:
            # Taken by this run, and cut off before the execution began.
            taken = ActionLedger(loop.store, "run-1", clock=loop.clock)
            await taken.take(AdaptationEvent(action(parameters={"to": 1})))
            await ask(bus, action(parameters={"to": 2}))
        assert scaled == [1]

    in_virtual_time(scenario)


def test_actions_that_wait_when_their_system_leaves_the_configuration_are_refused_visibly() -> None:
    async def scenario() -> None:
        async def slowly(asked: AdaptationAction) -> ExecutionResult:
            await running_clock().sleep(4.0)
            return ExecutionResult(asked.action_id, ExecutionStatus.SUCCESS)

        ended = asyncio.Event()
        web = ScriptedConnector(behaviour=slowly)
        loop = Loop(web)
        loop.settled = lambda bus: ended.wait()  # type: ignore[assignment, method-assign, return-value]
        async with loop.running() as bus:
            for number in range(3):
                await ask(bus, action(f"a{number}"))
            await loop.clock.sleep(1.0)
            ended.set()
        del loop.settled
        del loop.connectors["web"]
        async with loop.running():
            pass
        loop.connectors["web"] = web
        async with loop.running():
            pass
        results = [await loop.result(f"a{number}") for number in range(3)]
        assert [result and result.status.value for result in results] == ["success", "rejected", "rejected"]
        assert web.executed == ["a0"]

    in_virtual_time(scenario)
