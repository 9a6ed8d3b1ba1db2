"""Members of a cluster die, freeze, are cut off, restarted and retired: the bus carries on, and nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from tests.awake import PATIENCE_S, Awake, awake, until, within
from tests.conftest import MakeNATSServer
from tests.faults.longest import ALLOWANCE_S, Longest
from tests.faults.sizes import size
from tests.nats_cluster import RELAY_TASK, NATSCluster, nats_cluster

from polaris.clock import utc_now
from polaris.domain import SystemState, TelemetryEvent
from polaris.exceptions import BusConnectionError, MessageBusError
from polaris.messaging import (
    STANDARD_STREAMS,
    ConnectionState,
    DeduplicationMiddleware,
    NATSMessageBroker,
    PolarisMessageBus,
    topic_of,
)
from polaris.messaging._dead_letters import DeadLetterRecord
from polaris.messaging.brokers._jetstream_api import JetStreamAPI
from polaris.testing import run_virtual

STREAM = "POLARIS_TELEMETRY"
REPLICATED = [replace(stream, replicas=3) for stream in STANDARD_STREAMS]
PING_S = 0.5
TIMEOUT_S = 3.0
SLACK_S = 0.5
PUBLISHERS = 8
PAUSE_S = 0.02
"""Of a publisher after each event: some hundred events a second in all, so that faults and not the load are tested."""
SYSTEMS = 20
FROZEN_S_MIN = size(0, 25)
"""At least until another server leads, at any size."""


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[NATSCluster]:
    async with nats_cluster(tmp_path) as cluster:
        yield cluster


@contextlib.asynccontextmanager
async def a_bus(cluster: NATSCluster, **settings: Any) -> AsyncIterator[PolarisMessageBus]:
    """A bus on all three servers whose streams have three replicas; no task of it is left afterwards."""
    before = asyncio.all_tasks()
    broker = NATSMessageBroker(cluster.client_config(ping_interval_s=PING_S, **settings))
    async with PolarisMessageBus(broker, [DeduplicationMiddleware()], streams=REPLICATED, grace_s=2.0) as bus:
        yield bus
    await asyncio.sleep(0)
    assert {task.get_name() for task in asyncio.all_tasks() - before} - {RELAY_TASK} == set()


def server_of(bus: PolarisMessageBus, cluster: NATSCluster) -> str:
    """The server that the bus is connected to."""
    assert isinstance(bus.broker, NATSMessageBroker)
    client = bus.broker._connection._client
    assert client is not None
    assert client.connected_url is not None
    assert client.connected_url.port is not None
    return cluster.name_of(client.connected_url.port)


class Traffic:
    """Events that are published all the time, each until it is confirmed, and what became of them."""

    def __init__(self, clock: Awake) -> None:
        self.longest = Longest(clock)
        """Of all publishes."""
        self.confirmed: Counter[str] = Counter()
        self.handled: Counter[str] = Counter()
        self.raised: Counter[str] = Counter()
        self._over = False

    async def handle(self, event: TelemetryEvent) -> None:
        self.handled[event.event_id] += 1

    async def publish(self, bus: PolarisMessageBus, number: int) -> None:
        while not self._over:
            event = TelemetryEvent(SystemState(f"system-{number % SYSTEMS}", utc_now()))
            while event.event_id not in self.confirmed:
                try:
                    with self.longest.act():
                        await bus.publish(topic_of(event), event, timeout_s=TIMEOUT_S)
                    self.confirmed[event.event_id] += 1
                except MessageBusError as error:
                    assert error.retryable
                    self.raised[type(error).__name__] += 1
                await asyncio.sleep(PAUSE_S)

    async def carries_on(self, events: int = 100, *, within_s: float = 15.0) -> float:
        """Wait until so many further events were confirmed and handled; how long that took."""
        confirmed, handled = len(self.confirmed) + events, len(self.handled) + events
        return await until(
            lambda: len(self.confirmed) >= confirmed and len(self.handled) >= handled,
            f"{events} more events are confirmed and handled",
            within_s=within_s,
        )

    def end(self) -> None:
        """Let every publisher end with the event it has in hand."""
        self._over = True


async def dead_letters_of(bus: PolarisMessageBus) -> list[DeadLetterRecord]:
    """Their stream may be without a leader still."""
    async with within(PATIENCE_S):
        while True:
            try:
                return await bus.dead_letters.list()
            except BusConnectionError:
                await asyncio.sleep(0.1)


@contextlib.asynccontextmanager
async def traffic(
    cluster: NATSCluster, consuming: PolarisMessageBus, *publishing: PolarisMessageBus
) -> AsyncIterator[Traffic]:
    """Traffic during the block; at its end acknowledged = stored = handled, each event once."""
    async with awake() as clock:
        traffic = Traffic(clock)
        subscription = await consuming.subscribe(
            "polaris.telemetry.*", traffic.handle, durable="worker", ack_wait_s=3.0
        )
        async with asyncio.TaskGroup() as group:
            for number in range(PUBLISHERS * len(publishing)):
                group.create_task(traffic.publish(publishing[number % len(publishing)], number))
            await traffic.carries_on()
            yield traffic
            await traffic.carries_on()
            traffic.end()
    async with asyncio.timeout(PATIENCE_S):
        while len(traffic.handled) < len(traffic.confirmed) or subscription.in_flight:
            await asyncio.sleep(0.01)
        while (info := await subscription.info()) is None or info.pending or info.ack_pending:
            await asyncio.sleep(0.05)
    assert Counter(await cluster.stored_ids(STREAM)) == traffic.confirmed == traffic.handled
    assert set(traffic.handled.values()) == {1}
    assert await dead_letters_of(consuming) == []
    assert traffic.longest.seconds <= TIMEOUT_S + ALLOWANCE_S
    assert {bus.state for bus in (consuming, *publishing)} == {ConnectionState.CONNECTED}


@pytest.mark.slow
async def test_the_leader_of_a_stream_is_killed_under_its_publishers_and_consumers(
    cluster: NATSCluster, record_property: Callable[[str, object], None]
) -> None:
    async with a_bus(cluster) as bus, traffic(cluster, bus, bus) as events:
        victim = server_of(bus, cluster)
        await cluster.lead(STREAM, victim)
        await cluster.kill(victim)
        await cluster.leader(STREAM, other_than=victim)
        record_property("resumed_s", await events.carries_on())
        await cluster.start(victim)
    record_property("events", len(events.handled))
    record_property("raised", dict(events.raised))


@pytest.mark.slow
async def test_the_leader_of_a_stream_freezes_and_comes_back(
    cluster: NATSCluster, record_property: Callable[[str, object], None]
) -> None:
    states: list[ConnectionState] = []
    loop = asyncio.get_running_loop()
    async with a_bus(cluster) as bus:
        bus.broker.on_state(states.append)
        async with traffic(cluster, bus, bus) as events:
            victim = server_of(bus, cluster)
            await cluster.lead(STREAM, victim)
            cluster.freeze(victim)
            frozen_s = loop.time()
            await until(lambda: bool(states), "the silence is noticed", within_s=2 * PING_S + SLACK_S)
            await cluster.leader(STREAM, other_than=victim)
            await events.carries_on()
            assert server_of(bus, cluster) != victim
            await asyncio.sleep(frozen_s + FROZEN_S_MIN - loop.time())
            # It still takes itself for the leader.
            cluster.thaw(victim)
        assert states == [ConnectionState.RECONNECTING, ConnectionState.CONNECTED]
    record_property("events", len(events.handled))
    record_property("raised", dict(events.raised))


@pytest.mark.slow
async def test_the_leader_of_a_stream_is_cut_off_from_the_others_but_not_from_its_clients(
    cluster: NATSCluster, record_property: Callable[[str, object], None]
) -> None:
    async with a_bus(cluster) as here:
        lonely = server_of(here, cluster)
        elsewhere = cluster.url(next(name for name in "abc" if name != lonely))
        async with a_bus(cluster, servers=(elsewhere,)) as there, traffic(cluster, there, here, there) as events:
            await cluster.lead(STREAM, lonely)
            cluster.cut_off(lonely)
            await cluster.leader(STREAM, other_than=lonely, via=server_of(there, cluster))
            await events.carries_on()
            assert server_of(here, cluster) == lonely
            assert events.raised["UnconfirmedPublishError"] >= PUBLISHERS, "the lonely leader took events alone"
            cluster.heal(lonely)
    record_property("events", len(events.handled))
    record_property("raised", dict(events.raised))


@pytest.mark.slow
async def test_all_servers_are_restarted_one_after_the_other(
    cluster: NATSCluster, record_property: Callable[[str, object], None]
) -> None:
    async with a_bus(cluster) as bus, traffic(cluster, bus, bus) as events:
        for name in "abc":
            await cluster.stop(name)
            await cluster.start(name)
            await cluster.whole(STREAM)
            await events.carries_on()
    record_property("events", len(events.handled))
    record_property("raised", dict(events.raised))


async def test_a_server_that_retires_is_left_without_loss(
    cluster: NATSCluster, record_property: Callable[[str, object], None]
) -> None:
    async with a_bus(cluster) as bus, traffic(cluster, bus, bus) as events:
        retired = server_of(bus, cluster)
        await cluster.lead(STREAM, retired)
        cluster.enter_lame_duck_mode(retired)
        assert await cluster.ended(retired) == 0
        await events.carries_on()
        assert server_of(bus, cluster) != retired
        await cluster.start(retired)
    record_property("events", len(events.handled))
    record_property("raised", dict(events.raised))


async def test_replicas_are_added_to_streams_that_have_none_and_refused_by_a_server_alone(
    cluster: NATSCluster, make_nats_server: MakeNATSServer
) -> None:
    async with PolarisMessageBus(NATSMessageBroker(cluster.client_config())) as bus:
        await bus.publish_telemetry(TelemetryEvent(SystemState("web", utc_now())))
    async with a_bus(cluster):
        await cluster.whole(STREAM)
    assert len(await cluster.stored_ids(STREAM)) == 1
    server = await make_nats_server()
    alone = PolarisMessageBus(NATSMessageBroker(server.client_config()), streams=REPLICATED)
    async with within(4.0):  # less than a cluster that is not ready yet would be waited for
        with pytest.raises(MessageBusError, match="replicas"):
            await alone.start()
    assert alone.state is not ConnectionState.CONNECTED


def refusal(number: int) -> bytes:
    return json.dumps({"error": {"code": 503, "err_code": number, "description": "not now"}}).encode()


def test_a_cluster_that_is_not_ready_yet_is_asked_again_for_a_while() -> None:
    answers = [refusal(10008), refusal(10005), b'{"config": {}}']
    asked: list[str] = []

    async def ask(subject: str, _: bytes) -> bytes:
        asked.append(subject)
        return answers.pop(0) if len(answers) > 1 else answers[0]

    async def scenario() -> None:
        nonlocal answers, asked
        api = JetStreamAPI(ask, patience_s=0.5)
        assert await api.has_stream("S")
        assert asked == ["$JS.API.STREAM.INFO.S"] * 3
        for number, kind in ((10008, BusConnectionError), (10005, MessageBusError)):
            answers = [refusal(number)]
            async with asyncio.timeout(1.0):
                with pytest.raises(kind, match="not now") as caught:
                    await api.has_stream("S")
            assert type(caught.value) is kind
        # What is refused for good is refused at once.
        answers, asked = [refusal(10052)], []
        with pytest.raises(MessageBusError, match="not now"):
            await api.has_stream("S")
        assert len(asked) == 1

    run_virtual(scenario())


async def test_a_bus_may_be_started_together_with_its_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # How long the servers need to elect a leader is up to them, and to the machine.
    assert JetStreamAPI.__init__.__kwdefaults__ is not None
    monkeypatch.setitem(JetStreamAPI.__init__.__kwdefaults__, "patience_s", PATIENCE_S)
    cluster = NATSCluster(tmp_path)
    opening = asyncio.create_task(cluster.open())
    try:
        async with a_bus(cluster, connect_timeout_s=PATIENCE_S) as bus:
            receipt = await bus.publish_telemetry(TelemetryEvent(SystemState("web", utc_now())))
            assert receipt.sequence == 1
    finally:
        await asyncio.wait([opening])
        await cluster.close()
    opening.result()
