"""What a server gives up for a consumer of another client becomes a dead letter: on real servers, with nats-py."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import nats
import pytest
from msgspec.structs import replace
from nats.js.api import AckPolicy, ConsumerConfig
from nats.js.client import JetStreamContext
from tests.awake import within
from tests.conftest import MakeNATSServer
from tests.nats_cluster import nats_cluster, start_server

from polaris.clock import utc_now
from polaris.domain import SystemState, TelemetryEvent
from polaris.messaging import (
    STANDARD_STREAMS,
    DeadLetterReason,
    DeadLetterRecord,
    DeliveryClass,
    EmbeddedNATSServer,
    NATSConfig,
    NATSMessageBroker,
    OutgoingMessage,
    PolarisMessageBus,
    Receipt,
    _given_up,
)
from polaris.messaging._streams import ADVISORY_STREAM
from polaris.observability import capture_logs

PATIENCE_S = 20.0
STREAM, DURABLE, TOPIC = "POLARIS_TELEMETRY", "plain-client", "polaris.telemetry.web"
LIMIT = 2


@pytest.fixture
async def server(make_nats_server: MakeNATSServer) -> EmbeddedNATSServer:
    return await make_nats_server()


@contextlib.asynccontextmanager
async def plain_jetstream(config: NATSConfig) -> AsyncIterator[JetStreamContext]:
    client = await nats.connect(list(config.servers), token=config.token)
    try:
        yield client.jetstream()
    finally:
        await client.close()


async def give_up(config: NATSConfig, stream: str = STREAM, pattern: str = TOPIC, *, count: int = 1) -> None:
    """As a client that POLARIS knows nothing of: nak messages as often as its consumer allows, then ask for more."""
    async with plain_jetstream(config) as jetstream:
        limited = ConsumerConfig(
            durable_name=DURABLE, ack_policy=AckPolicy.EXPLICIT, max_deliver=LIMIT, filter_subject=pattern
        )
        await jetstream.add_consumer(stream, limited)
        consumer = await jetstream.pull_subscribe_bind(DURABLE, stream)
        for _ in range(LIMIT * count):
            (message,) = await consumer.fetch(1, timeout=PATIENCE_S)
            await message.nak()
        with pytest.raises(nats.errors.TimeoutError):
            await consumer.fetch(1, timeout=0.2)


async def listed(bus: PolarisMessageBus, count: int) -> Sequence[DeadLetterRecord]:
    """All dead letters, once there are so many."""
    async with within(PATIENCE_S):
        while len(found := await bus.dead_letters.list()) < count:
            await asyncio.sleep(0.02)
    return found


def telemetry() -> TelemetryEvent:
    return TelemetryEvent(SystemState("web", utc_now()))


async def test_it_is_put_aside_also_when_the_server_gave_it_up_while_no_bus_ran(server: EmbeddedNATSServer) -> None:
    config = server.client_config("bus")
    async with PolarisMessageBus(NATSMessageBroker(config)) as bus:
        await bus.publish_telemetry(telemetry())
        (stored,) = await bus.broker.read_stored(STREAM)
        await give_up(config)
        (first,) = await listed(bus, 1)
        await bus.publish_telemetry(telemetry())
    await give_up(config)
    async with PolarisMessageBus(NATSMessageBroker(config)) as bus:
        _, second = await listed(bus, 2)
    entry = first.entry
    assert (entry.reason, entry.subscription, entry.attempts) == (DeadLetterReason.GIVEN_UP, DURABLE, LIMIT)
    assert (entry.topic, entry.stream, entry.sequence) == (TOPIC, STREAM, stored.sequence)
    assert (entry.payload, entry.headers, entry.first_at) == (stored.payload, stored.headers, stored.stored_at)
    assert (second.entry.reason, second.entry.sequence) == (DeadLetterReason.GIVEN_UP, 2)


async def test_only_streams_of_the_bus_are_put_aside(server: EmbeddedNATSServer) -> None:
    config = server.client_config("bus")
    async with PolarisMessageBus(NATSMessageBroker(config)) as bus:
        async with plain_jetstream(config) as jetstream:
            await jetstream.add_stream(name="STRANGERS", subjects=["strangers.>"])
            await jetstream.publish("strangers.1", b"x")
        await give_up(config, "STRANGERS", "strangers.>")
        await bus.publish_telemetry(telemetry())
        await give_up(config)
        assert [record.entry.stream for record in await listed(bus, 1)] == [STREAM]
        assert len(await bus.broker.read_stored(ADVISORY_STREAM.name)) == 2


class Dying(NATSMessageBroker):
    """Loses its connection for good when a dead letter is stored: nothing after it is acknowledged."""

    async def publish(
        self,
        message: OutgoingMessage,
        *,
        delivery: DeliveryClass = DeliveryClass.AT_MOST_ONCE,
        timeout_s: float = 5.0,
    ) -> Receipt:
        receipt = await super().publish(message, delivery=delivery, timeout_s=timeout_s)
        if message.subject.startswith("polaris.dead_letter."):
            await self.disconnect()
        return receipt


async def test_one_that_was_stored_and_not_acknowledged_is_not_stored_again(
    server: EmbeddedNATSServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_given_up, "ACK_WAIT_S", 0.5)
    config = server.client_config("bus")
    dying = PolarisMessageBus(Dying(config))
    await dying.start()
    await dying.publish_telemetry(telemetry())
    await give_up(config)
    async with PolarisMessageBus(NATSMessageBroker(config)) as bus:
        await listed(bus, 1)
        name = f"{_given_up.DURABLE}-{STREAM}"
        async with plain_jetstream(config) as jetstream, within(PATIENCE_S):
            while (info := await jetstream.consumer_info(ADVISORY_STREAM.name, name)).num_ack_pending:
                await asyncio.sleep(0.02)
            assert info.delivered.consumer_seq >= 2
        assert len(await bus.dead_letters.list()) == 1
    await dying.stop()


async def test_where_advisories_and_direct_gets_are_forbidden_the_bus_works_without_them(tmp_path: Path) -> None:
    denied = [f"$JS.API.STREAM.CREATE.{ADVISORY_STREAM.name}", "$JS.API.DIRECT.GET.>"]
    user = {"user": "me", "password": "open-sesame", "permissions": {"publish": {"allow": [">"], "deny": denied}}}
    settings = {
        "host": "127.0.0.1",
        "port": -1,
        "jetstream": {"store_dir": str(tmp_path / "store"), "max_file_store": 8 << 30},
        "authorization": {"users": [user]},
    }
    process = await start_server(tmp_path / "server", settings)
    try:
        (ports,) = (tmp_path / "server").glob("*.ports")
        address = json.loads(ports.read_text())["nats"][0]
        config = NATSConfig(servers=(address,), user="me", password="open-sesame")
        with capture_logs() as logs:
            async with PolarisMessageBus(NATSMessageBroker(config)) as bus:
                for _ in range(3):
                    await bus.publish_telemetry(telemetry())
                for _ in range(2):
                    assert [one.sequence for one in await bus.broker.read_stored(STREAM)] == [1, 2, 3]
        complaints = [line["message"] for line in logs if line["level"] == "WARNING"]
        assert len([text for text in complaints if "cannot become a dead letter" in text]) == 1
        assert len([text for text in complaints if "Permissions Violation" in text]) <= 2, complaints
    finally:
        await process.stop(5.0)


async def test_it_is_put_aside_in_a_cluster(tmp_path: Path) -> None:
    replicated = [replace(stream, replicas=3) for stream in STANDARD_STREAMS]
    async with nats_cluster(tmp_path) as cluster:
        config = cluster.client_config()
        async with PolarisMessageBus(NATSMessageBroker(config), streams=replicated) as bus:
            await bus.publish_telemetry(telemetry())
            await give_up(config)
            (record,) = await listed(bus, 1)
            answer = await cluster.ask(f"$JS.API.STREAM.INFO.{ADVISORY_STREAM.name}")
            await bus.publish_telemetry(telemetry())
            for url in cluster.urls:
                broker = NATSMessageBroker(NATSConfig(servers=(url,)))
                await broker.connect()
                assert [stored.sequence for stored in await broker.read_stored(STREAM)] == [1, 2]
                await broker.disconnect()
    assert answer is not None
    assert answer["config"]["num_replicas"] == 3
    assert (record.entry.reason, record.entry.stream) == (DeadLetterReason.GIVEN_UP, STREAM)
