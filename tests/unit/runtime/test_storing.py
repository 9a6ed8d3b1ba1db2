"""A bus that stores nothing is told from one that does: by the publishes of the node and by a probe."""

from __future__ import annotations

from typing import Any, Self

import pytest

from polaris.domain import HealthStatus, SystemState, TelemetryEvent
from polaris.exceptions import MessageBusError, PublishError, UnconfirmedPublishError
from polaris.messaging import (
    DeliveryClass,
    InMemoryHub,
    InMemoryMessageBroker,
    OutgoingMessage,
    PolarisMessageBus,
    Receipt,
    StreamSpec,
)
from polaris.observability import StructuredLogger
from polaris.runtime._health import HealthBoard
from polaris.runtime._storing import COMPONENT, OUTCOME_LASTS_S, PROBE_STREAM, PublishOutcomes, StorageWatch
from polaris.runtime._supervision import Supervisor
from polaris.testing import VirtualClock, run_virtual, running_clock


class BrokerOnADisk(InMemoryMessageBroker):
    """A broker whose disk may be full: what cannot be stored is not confirmed, and may be for some streams only."""

    def __init__(self, hub: InMemoryHub) -> None:
        super().__init__(hub)
        self.cannot_store = ""
        self.forbids_streams = False
        self.has_no_room = False
        self.probes = 0

    async def publish(self, message: OutgoingMessage, **options: Any) -> Receipt:
        self.probes += message.subject in PROBE_STREAM.subjects
        if options.get("delivery") is DeliveryClass.AT_LEAST_ONCE and message.subject.startswith(
            self.cannot_store or "-"
        ):
            raise UnconfirmedPublishError("no answer")
        return await super().publish(message, **options)

    async def ensure_stream(self, spec: StreamSpec) -> None:
        if self.forbids_streams and spec == PROBE_STREAM:
            raise PublishError("not allowed")
        if self.has_no_room and spec == PROBE_STREAM:
            raise MessageBusError("error creating store for stream", {"code": 500, "err_code": 10_049})
        await super().ensure_stream(spec)


class Scene:
    def __init__(self) -> None:
        self.clock: VirtualClock = running_clock()
        self.broker = BrokerOnADisk(InMemoryHub(clock=self.clock))
        self.board = HealthBoard(clock=self.clock)
        self.outcomes = PublishOutcomes(clock=self.clock)
        self.bus = PolarisMessageBus(self.broker, [self.outcomes], clock=self.clock)
        self.watch = StorageWatch(self.broker, self.board, self.outcomes, clock=self.clock)
        self.supervisor = Supervisor(self.board, StructuredLogger("test"), clock=self.clock)

    async def __aenter__(self) -> Self:
        await self.bus.start()
        self.supervisor.run("watch", self.watch.look_for_ever)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.supervisor.stop()
        await self.bus.stop()

    async def publish(self) -> None:
        await self.bus.publish_telemetry(TelemetryEvent(SystemState("web", self.clock.now())), timeout_s=2.0)

    def status(self) -> tuple[HealthStatus, str]:
        view = self.board.get(COMPONENT)
        assert view is not None
        return view.status, view.message


def test_a_probe_that_is_not_confirmed_twice_withdraws_health_and_one_that_is_gives_it_back() -> None:
    async def scenario() -> None:
        async with Scene() as scene:
            await scene.clock.sleep(20)
            assert scene.status() == (HealthStatus.HEALTHY, "")
            scene.broker.cannot_store = "polaris"
            await scene.clock.sleep(10)
            assert scene.status() == (HealthStatus.UNHEALTHY, "the bus cannot store: a probe failed: no answer")
            scene.broker.cannot_store = ""
            await scene.clock.sleep(2)
            assert scene.status() == (HealthStatus.HEALTHY, "")

    run_virtual(scenario())


def test_one_stream_that_stores_nothing_is_named_although_the_probe_is_stored() -> None:
    async def scenario() -> None:
        async with Scene() as scene:
            await scene.clock.sleep(10)
            scene.broker.cannot_store = "polaris.telemetry."
            with pytest.raises(UnconfirmedPublishError):
                await scene.publish()
            await scene.clock.sleep(6)
            status, message = scene.status()
            assert status is HealthStatus.UNHEALTHY
            assert message == "the bus cannot store: POLARIS_TELEMETRY: no answer"
            scene.broker.cannot_store = ""
            await scene.publish()
            await scene.clock.sleep(2)
            assert scene.status() == (HealthStatus.HEALTHY, "")

    run_virtual(scenario())


def test_a_failed_publish_that_nobody_repeats_is_forgotten() -> None:
    async def scenario() -> None:
        async with Scene() as scene:
            scene.broker.cannot_store = "polaris.telemetry."
            with pytest.raises(UnconfirmedPublishError):
                await scene.publish()
            await scene.clock.sleep(OUTCOME_LASTS_S - 5)
            assert scene.status()[0] is HealthStatus.UNHEALTHY
            await scene.clock.sleep(10)
            assert scene.status()[0] is HealthStatus.HEALTHY

    run_virtual(scenario())


def test_the_probe_does_not_reach_those_who_listen_to_polaris_and_leaves_nothing_behind() -> None:
    async def scenario() -> None:
        async with Scene() as scene:
            heard: list[str] = []

            async def hear(delivery: Any) -> None:
                heard.append(delivery.subject)

            await scene.broker.subscribe("polaris.>", hear)
            await scene.clock.sleep(600)
            assert scene.broker.probes >= 100
            assert heard == []
            for stream in scene.bus.streams:
                assert await scene.broker.read_stored(stream.name) == []
            assert len(await scene.broker.read_stored(PROBE_STREAM.name)) <= 16

    run_virtual(scenario())


def test_a_server_that_does_not_allow_the_probe_is_judged_by_publishes_with_a_warning() -> None:
    async def scenario() -> None:
        async with Scene() as scene:
            scene.broker.forbids_streams = True
            await scene.clock.sleep(20)
            assert scene.status() == (HealthStatus.WARNING, "storing cannot be probed: not allowed")
            assert scene.broker.probes == 0

    run_virtual(scenario())


def test_a_server_that_cannot_make_the_files_of_the_probe_stores_nothing() -> None:
    async def scenario() -> None:
        async with Scene() as scene:
            scene.broker.has_no_room = True
            await scene.clock.sleep(12)
            assert scene.status() == (
                HealthStatus.UNHEALTHY,
                "the bus cannot store: a probe failed: error creating store for stream",
            )
            scene.broker.has_no_room = False
            await scene.clock.sleep(3)
            assert scene.status() == (HealthStatus.HEALTHY, "")
            assert scene.broker.probes

    run_virtual(scenario())
