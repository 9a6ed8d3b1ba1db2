"""The watch: news of every component is told, and a deaf or lost consumer of the action path decides on readiness."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, Self, cast

from polaris.domain import HealthEvent, HealthStatus
from polaris.exceptions import SubscriptionError
from polaris.messaging import ConsumerInfo, InMemoryHub, InMemoryMessageBroker, PolarisMessageBus, SubscriptionStats
from polaris.observability import MetricsCollector, StructuredLogger
from polaris.runtime._health import HealthBoard
from polaris.runtime._storing import PublishOutcomes
from polaris.runtime._watch import ACTIONS, LANES_AT_ONCE, STORE, Watch
from polaris.storage import PolarisDataStore, StoreHealth
from polaris.testing import run_virtual, running_clock


class Lane:
    """A subscription of the action path as the watch sees it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.active = True
        self.in_flight = 0
        self.stats = SubscriptionStats()
        self.waiting = 0
        self.deleted = False
        self.looks = 0

    async def info(self) -> ConsumerInfo:
        self.looks += 1
        if self.deleted:
            raise SubscriptionError(f"consumer {self.name!r} is not there")
        return ConsumerInfo(pending=self.waiting, ack_pending=self.in_flight, redelivered=0)


class Scene:
    def __init__(self, lanes: int = 2) -> None:
        self.clock = running_clock()
        broker = InMemoryMessageBroker(InMemoryHub(clock=self.clock))
        self.outcomes = PublishOutcomes(clock=self.clock)
        self.bus = PolarisMessageBus(broker, [self.outcomes], clock=self.clock)
        self.board = HealthBoard(clock=self.clock)
        self.board.expect([ACTIONS])
        self.store = PolarisDataStore.memory(clock=self.clock)
        self.lanes = [Lane(f"execute-{number}") for number in range(lanes)]
        self.watch = Watch(
            broker,
            self.bus,
            self.store,
            self.board,
            MetricsCollector().instruments,
            StructuredLogger("test"),
            ingest=cast("Any", SimpleNamespace(subscription=None)),
            actions=cast("Any", SimpleNamespace(subscriptions=tuple(self.lanes))),
            outcomes=self.outcomes,
            source="polaris/test",
            on_look=lambda: None,
            clock=self.clock,
        )

    async def __aenter__(self) -> Self:
        await self.store.connect()
        await self.bus.start()
        await self.watch.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.watch.stop()
        await self.bus.stop()
        await self.store.disconnect()

    def status(self, component: str = ACTIONS) -> tuple[HealthStatus, str]:
        view = self.board.get(component)
        assert view is not None
        return view.status, view.message


def test_actions_that_wait_and_are_not_taken_withdraw_readiness_and_give_it_back() -> None:
    async def scenario() -> None:
        async with Scene() as scene:
            assert scene.board.readiness().ok
            scene.lanes[1].waiting = 3
            await scene.clock.sleep(8)
            assert scene.board.readiness().ok
            await scene.clock.sleep(8)
            assert scene.status() == (
                HealthStatus.UNHEALTHY,
                "execute-1: messages wait and none was handled for over 10 s",
            )
            assert not scene.board.readiness().ok
            scene.lanes[1].waiting = 0
            await scene.clock.sleep(3)
            assert scene.board.readiness().ok

    run_virtual(scenario())


def test_an_action_that_runs_for_long_is_no_fault_of_those_that_wait_behind_it() -> None:
    async def scenario() -> None:
        async with Scene() as scene:
            scene.lanes[0].in_flight, scene.lanes[0].waiting = 1, 5
            await scene.clock.sleep(3_600)
            assert scene.status() == (HealthStatus.HEALTHY, "")

    run_virtual(scenario())


def test_a_consumer_that_is_gone_is_named() -> None:
    async def scenario() -> None:
        async with Scene() as scene:
            scene.lanes[0].deleted = True
            await scene.clock.sleep(3)
            status, message = scene.status()
            assert status is HealthStatus.UNHEALTHY
            assert message.startswith("execute-0: its consumer does not answer: consumer 'execute-0' is not there")

    run_virtual(scenario())


def test_of_many_systems_all_get_their_turn_and_those_in_trouble_stay_in_sight() -> None:
    async def scenario() -> None:
        async with Scene(lanes=5 * LANES_AT_ONCE) as scene:
            await scene.clock.sleep(21)
            assert {lane.looks for lane in scene.lanes} <= {2, 3}
            scene.lanes[7].deleted = True
            await scene.clock.sleep(11)
            assert scene.status()[0] is HealthStatus.UNHEALTHY
            scene.lanes[7].deleted = False
            await scene.clock.sleep(2.5)
            assert scene.status()[0] is HealthStatus.HEALTHY

    run_virtual(scenario())


def test_news_of_components_with_names_too_long_or_illegal_are_no_obstacle_for_others() -> None:
    async def scenario() -> None:
        async with Scene() as scene:
            told: list[str] = []

            async def hear(event: HealthEvent) -> None:
                told.append(event.component)

            await scene.bus.subscribe("polaris.health.>", hear)
            names = ["connector:" + "x" * 250 + end for end in ("a", "b")]
            for name in [*names, "connector:\ud800", "connector:web"]:
                scene.board.report(name, HealthStatus.HEALTHY)
            await scene.clock.sleep(5)
            assert "connector:web" in told
            long = [name for name in told if name.startswith("connector:x")]
            assert len(set(long)) == 2
            assert all(len(name) == 256 for name in long)
            assert scene.board.get("watch") is None, "the watch failed and was started again"

    run_virtual(scenario())


def test_a_store_in_trouble_is_written_to_so_that_it_notices_its_recovery() -> None:
    async def scenario() -> None:
        scene = Scene()
        scene.store.health = remembered(scene.store)  # type: ignore[method-assign]
        async with scene:
            await asyncio.sleep(0)
            assert scene.status(STORE)[0] is HealthStatus.HEALTHY

    run_virtual(scenario())


def remembered(store: PolarisDataStore) -> Any:
    """The health of a store whose last write failed, until there is another."""

    async def health() -> StoreHealth:
        written = await store.documents.count("write_checks")
        return StoreHealth(HealthStatus.HEALTHY if written else HealthStatus.UNHEALTHY, "test", "the disk is full")

    return health
