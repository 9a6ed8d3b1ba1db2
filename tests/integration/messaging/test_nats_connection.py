"""The connection to a real server: made, refused, lost, made again, closed."""

from __future__ import annotations

import asyncio
import os
import signal
import socket

import pytest
from nats import errors
from tests.awake import PATIENCE_S, within
from tests.conftest import ConnectNATS, MakeNATSServer
from tests.frozen import freeze

from polaris.exceptions import BusConnectionError, RequestTimeoutError, SubscriptionError, UnconfirmedPublishError
from polaris.messaging._broker import (
    ConnectionState,
    ConsumerSpec,
    Delivery,
    DeliveryClass,
    OutgoingMessage,
    StreamSpec,
)
from polaris.messaging.brokers._embedded import EmbeddedNATSServer
from polaris.messaging.brokers._nats import NATSMessageBroker
from polaris.messaging.brokers._nats_config import NATSConfig, TLSConfig
from polaris.messaging.brokers._tasks import end

STORED = DeliveryClass.AT_LEAST_ONCE


async def kill(server: EmbeddedNATSServer) -> None:
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    await server.wait()


async def reach(broker: NATSMessageBroker, state: ConnectionState) -> None:
    async with within(5.0):
        while broker.state is not state:
            await asyncio.sleep(0.002)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


async def test_a_subscription_survives_the_loss_of_the_connection(
    make_nats_server: MakeNATSServer, connect_nats: ConnectNATS
) -> None:
    server = await make_nats_server()
    broker = await connect_nats(server)
    received: asyncio.Queue[bytes] = asyncio.Queue()
    states: list[ConnectionState] = []
    broker.on_state(states.append)

    async def on_delivery(delivery: Delivery) -> None:
        received.put_nowait(delivery.payload)

    kept = await broker.subscribe("a.*", on_delivery)
    ended = await broker.subscribe("a.*", on_delivery)
    await ended.unsubscribe()
    for number in range(3):
        await kill(server)
        await reach(broker, ConnectionState.RECONNECTING)
        await server.start()
        await reach(broker, ConnectionState.CONNECTED)
        await broker.publish(OutgoingMessage("a.b", str(number).encode()))
        assert await asyncio.wait_for(received.get(), PATIENCE_S) == str(number).encode()
    await kept.drain()
    assert received.empty()
    assert states == [ConnectionState.RECONNECTING, ConnectionState.CONNECTED] * 3
    assert broker.reconnects == 3


async def test_without_a_connection_everything_is_refused_at_once(
    make_nats_server: MakeNATSServer, connect_nats: ConnectNATS
) -> None:
    server = await make_nats_server()
    broker = await connect_nats(server)
    await kill(server)
    await reach(broker, ConnectionState.RECONNECTING)
    message = OutgoingMessage("a.b", b"x", "id-1")
    async with within(0.5):
        for delivery in DeliveryClass:
            with pytest.raises(BusConnectionError):
                await broker.publish(message, delivery=delivery)
        with pytest.raises(BusConnectionError):
            await broker.request(message, timeout_s=5.0)
        with pytest.raises(BusConnectionError):
            await broker.subscribe("a.b", lambda _: asyncio.sleep(0))
        with pytest.raises(BusConnectionError):
            await broker.ensure_stream(StreamSpec(name="S", subjects=("a.b",)))
        await broker.connect()
        assert broker.state is ConnectionState.RECONNECTING


async def test_what_is_in_flight_when_the_connection_breaks_ends_as_unknown_and_is_not_sent_later(
    make_nats_server: MakeNATSServer, connect_nats: ConnectNATS
) -> None:
    server = await make_nats_server()
    asking, answering = await connect_nats(server), await connect_nats(server)
    seen: list[bytes] = []

    async def silent(delivery: Delivery) -> None:
        seen.append(delivery.payload)

    await answering.subscribe("a.b", silent)
    requests = [asyncio.create_task(asking.request(OutgoingMessage("a.b", b"x"), timeout_s=60.0)) for _ in range(3)]
    stored = asyncio.create_task(asking.publish(OutgoingMessage("a.b", b"x"), delivery=STORED, timeout_s=60.0))
    async with within(5.0):
        while len(seen) < 4:
            await asyncio.sleep(0.002)
        await kill(server)
        for request in requests:
            with pytest.raises(RequestTimeoutError):
                await request
        with pytest.raises(UnconfirmedPublishError):
            await stored
    await server.start()
    await reach(asking, ConnectionState.CONNECTED)
    await reach(answering, ConnectionState.CONNECTED)
    await asking.publish(OutgoingMessage("a.b", b"last"))
    async with within(5.0):
        while b"last" not in seen:
            await asyncio.sleep(0.002)
    assert seen == [b"x"] * 4 + [b"last"]


async def test_an_unreachable_server_is_an_error_in_time() -> None:
    port = free_port()
    config = NATSConfig(servers=(f"nats://me:secret-word@127.0.0.1:{port}",), connect_timeout_s=0.4)
    broker = NATSMessageBroker(config)
    async with within(2.0):
        with pytest.raises(BusConnectionError, match=rf"nats://127\.0\.0\.1:{port} within 0\.4 s") as caught:
            await broker.connect()
    assert "secret-word" not in f"{caught.value} {caught.value.to_dict()}"
    assert broker.state is ConnectionState.DISCONNECTED
    await broker.disconnect()


async def test_connecting_waits_for_a_server_that_comes_up(make_nats_server: MakeNATSServer) -> None:
    server = await make_nats_server()
    await server.stop()
    broker = NATSMessageBroker(server.client_config())
    connecting = asyncio.create_task(broker.connect())
    await asyncio.sleep(0.2)
    assert not connecting.done()
    await server.start()
    await asyncio.wait_for(connecting, PATIENCE_S)
    await broker.disconnect()


async def test_a_cancelled_connect_leaves_nothing_open(nats_server: EmbeddedNATSServer) -> None:
    before = asyncio.all_tasks()
    for delay_s in (0.0, 0.0005, 0.001, 0.002):
        broker = NATSMessageBroker(nats_server.client_config())
        connecting = asyncio.create_task(broker.connect())
        await asyncio.sleep(delay_s)
        connecting.cancel()
        await asyncio.wait([connecting])
        if connecting.cancelled():
            assert broker.state is ConnectionState.DISCONNECTED
        await broker.connect()
        await broker.disconnect()
    assert asyncio.all_tasks() == before


async def test_a_closed_broker_has_no_tasks_left(nats_server: EmbeddedNATSServer, connect_nats: ConnectNATS) -> None:
    before = asyncio.all_tasks()
    broker = await connect_nats(nats_server)
    handling = asyncio.Event()

    async def handle(_: Delivery) -> None:
        handling.set()
        await asyncio.sleep(60.0)

    await broker.subscribe("tasks.a", handle)
    await broker.publish(OutgoingMessage("tasks.a", b"x"))
    await asyncio.wait_for(handling.wait(), PATIENCE_S)
    await broker.disconnect()
    assert asyncio.all_tasks() == before


async def test_a_server_is_found_among_unreachable_ones(make_nats_server: MakeNATSServer) -> None:
    server = await make_nats_server()
    broker = NATSMessageBroker(
        NATSConfig(
            servers=(f"nats://127.0.0.1:{free_port()}", server.url, f"nats://127.0.0.1:{free_port()}"),
            token=server.token,
            reconnect_time_wait_max_s=0.1,
        )
    )
    await broker.connect()
    await kill(server)
    await server.start()
    await reach(broker, ConnectionState.CONNECTED)
    await broker.disconnect()


async def test_attempts_to_reconnect_can_be_limited(make_nats_server: MakeNATSServer) -> None:
    server = await make_nats_server()
    for attempts in (0, 2):
        broker = NATSMessageBroker(server.client_config(max_reconnect_attempts=attempts))
        await broker.connect()
        await kill(server)
        await reach(broker, ConnectionState.CLOSED)
        with pytest.raises(BusConnectionError):
            await broker.publish(OutgoingMessage("a.b", b"x"))
        await server.start()
        await broker.connect()
        await broker.publish(OutgoingMessage("a.b", b"x"))
        await broker.disconnect()


async def test_a_broker_is_closed_while_it_reconnects(
    make_nats_server: MakeNATSServer, connect_nats: ConnectNATS
) -> None:
    server = await make_nats_server()
    broker = await connect_nats(server)
    await kill(server)
    await reach(broker, ConnectionState.RECONNECTING)
    async with within(2.0):
        await broker.drain()
    assert broker.state is ConnectionState.CLOSED
    await server.start()
    await asyncio.sleep(0.3)
    assert broker.state is ConnectionState.CLOSED


async def test_secrets_are_not_sent_in_the_clear_when_encryption_was_asked_for(
    make_nats_server: MakeNATSServer,
) -> None:
    server = await make_nats_server()
    config = server.client_config(tls=TLSConfig(), connect_timeout_s=30.0)
    for wanted in (config, NATSConfig(servers=(server.url.replace("nats://", "tls://"),), token=server.token)):
        broker = NATSMessageBroker(wanted)
        async with within(10.0):
            with pytest.raises(BusConnectionError, match="secure connection"):
                await broker.connect()


async def test_the_waits_between_attempts_grow_are_jittered_and_bounded(nats_server: EmbeddedNATSServer) -> None:
    broker = NATSMessageBroker(nats_server.client_config(reconnect_time_wait=0.1, reconnect_time_wait_max_s=1.0))
    await broker.connect()
    client = broker.require_client()
    waits = [[client._next_server(client.server_pool, {})[1] for _ in range(10)] for _ in range(200)]
    await broker.disconnect()
    first = waits[0]
    assert first[0] <= 0.1
    for attempt, wait in enumerate(first[1:]):
        full = min(1.0, 0.1 * 2**attempt)
        assert full / 2 <= wait <= full
    late = [wait for row in waits[1:] for wait in row]
    assert 0.5 <= min(late) < 0.52
    assert 0.98 < max(late) <= 1.0


async def test_a_drain_waits_for_confirmations_and_handlers(
    nats_server: EmbeddedNATSServer, connect_nats: ConnectNATS
) -> None:
    broker, other = await connect_nats(nats_server), await connect_nats(nats_server)
    await other.ensure_stream(StreamSpec(name="DRAIN", subjects=("drain.stored",)))
    handled: list[bytes] = []
    handling = asyncio.Event()

    async def slow(delivery: Delivery) -> None:
        handling.set()
        await asyncio.sleep(0.05)
        await broker.publish(OutgoingMessage("drain.stored", b"from the handler", "id-h"), delivery=STORED)
        handled.append(delivery.payload)

    await broker.subscribe("drain.core", slow)
    await other.publish(OutgoingMessage("drain.core", b"x"))
    await asyncio.wait_for(handling.wait(), PATIENCE_S)
    publishing = [
        asyncio.create_task(broker.publish(OutgoingMessage("drain.stored", b"x", f"id-{n}"), delivery=STORED))
        for n in range(200)
    ]
    await asyncio.sleep(0)
    await broker.drain()
    assert len(await asyncio.gather(*publishing)) == 200
    assert handled == [b"x"]
    assert len(await other.read_stored("DRAIN", count_max=300)) == 201


async def test_a_drain_ends_in_time_although_a_handler_does_not(
    nats_server: EmbeddedNATSServer, connect_nats: ConnectNATS
) -> None:
    broker = await connect_nats(nats_server, drain_timeout_s=0.2)
    handling, cancelled = asyncio.Event(), asyncio.Event()

    async def stuck(_: Delivery) -> None:
        handling.set()
        try:
            await asyncio.sleep(600.0)
        finally:
            cancelled.set()

    await broker.subscribe("stuck.a", stuck)
    await broker.publish(OutgoingMessage("stuck.a", b"x"))
    await asyncio.wait_for(handling.wait(), PATIENCE_S)
    async with within(10.0):
        await broker.drain()
    assert cancelled.is_set()
    assert broker.state is ConnectionState.CLOSED


async def test_a_task_that_loses_cancellations_is_ended_all_the_same() -> None:
    lost = 0

    async def stubborn() -> None:
        nonlocal lost
        while lost < 3:
            try:
                await asyncio.sleep(600.0)
            except asyncio.CancelledError:
                lost += 1
        await asyncio.sleep(600.0)

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    await asyncio.wait_for(end(task, None), PATIENCE_S)
    assert (lost, task.cancelled()) == (3, True)


@pytest.mark.parametrize("half", ["reading", "writing"])
async def test_a_connection_that_fails_at_reading_or_writing_is_made_again(
    nats_server: EmbeddedNATSServer, connect_nats: ConnectNATS, monkeypatch: pytest.MonkeyPatch, half: str
) -> None:
    broker = await connect_nats(nats_server)
    await broker.ensure_stream(StreamSpec(name="WORKER", subjects=("worker.a",)))
    client = broker.require_client()
    with monkeypatch.context() as patched:

        def fail(_: bytes) -> None:
            patched.undo()
            raise RuntimeError("a defect")

        if half == "reading":
            patched.setattr(client._ps, "_control", fail)
            patched.setattr(client._ps, "_message", lambda *_: fail(b""))
        else:
            line = client._wire._line
            assert line is not None
            patched.setattr(line.transport, "write", fail)
        with pytest.raises(UnconfirmedPublishError):
            await broker.publish(OutgoingMessage("worker.a", b"x", "id-1"), delivery=STORED, timeout_s=5.0)
    await reach(broker, ConnectionState.CONNECTED)
    await broker.publish(OutgoingMessage("worker.a", b"x", "id-1"), delivery=STORED)
    assert broker.reconnects == 1


async def test_a_connection_does_not_hang_on_the_tasks_of_nats_py(
    make_nats_server: MakeNATSServer, connect_nats: ConnectNATS
) -> None:
    server = await make_nats_server()
    broker = await connect_nats(server)
    await broker.ensure_stream(StreamSpec(name="WORKER", subjects=("worker.a",)))
    client = broker.require_client()
    for task in (client._flusher_task, client._reading_task):
        assert task is not None
        task.cancel()
    await asyncio.sleep(0)
    await broker.publish(OutgoingMessage("worker.a", b"x", "id-1"), delivery=STORED)
    assert server.pid is not None
    freeze(server.pid)
    # A flush proves that the server has answered, whatever has ended.
    with pytest.raises(TimeoutError):
        async with within(0.2):
            await client.flush()
    os.kill(server.pid, signal.SIGKILL)
    await server.wait()
    await reach(broker, ConnectionState.RECONNECTING)
    await server.start()
    await reach(broker, ConnectionState.CONNECTED)


async def test_a_receiver_that_fails_costs_no_other_message(
    nats_server: EmbeddedNATSServer, connect_nats: ConnectNATS, caplog: pytest.LogCaptureFixture
) -> None:
    broker = await connect_nats(nats_server)
    client = broker.require_client()
    seen: list[bytes] = []

    def take(subject: str, reply: str, payload: bytes, headers: bytes | None) -> None:
        if payload == b"1":
            raise RuntimeError("a defect of the receiver")
        seen.append(payload)

    subscription = await client.listen("receiver.a", take)
    for number in range(4):
        client.send("receiver.a", "", None, b"%d" % number)
    await client.flush()
    client.forget(subscription)
    assert seen == [b"0", b"2", b"3"]
    assert "a defect of the receiver" in caplog.text
    assert broker.reconnects == 0


async def test_a_cancelled_flush_does_not_hurt_the_connection(
    nats_server: EmbeddedNATSServer, connect_nats: ConnectNATS
) -> None:
    broker = await connect_nats(nats_server)
    for _ in range(20):
        subscribing = asyncio.create_task(broker.subscribe("flushed.a", lambda _: asyncio.sleep(0)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        subscribing.cancel()
        await asyncio.wait([subscribing])
    with pytest.raises(RequestTimeoutError, match="nobody"):
        await broker.request(OutgoingMessage("flushed.a", b"x"), timeout_s=5.0)
    assert broker.reconnects == 0


async def test_a_broker_that_is_connected_again_begins_without_its_former_subscriptions(
    make_nats_server: MakeNATSServer,
) -> None:
    server = await make_nats_server()
    broker = NATSMessageBroker(server.client_config(max_reconnect_attempts=0))
    before = asyncio.all_tasks()
    seen: list[bytes] = []

    async def on_delivery(delivery: Delivery) -> None:
        seen.append(delivery.payload)

    async def disconnect() -> None:
        await broker.disconnect()

    async def lose() -> None:
        await kill(server)
        await reach(broker, ConnectionState.CLOSED)
        await server.start()

    for ending in (disconnect, lose):
        await broker.connect()
        await broker.ensure_stream(StreamSpec(name="AGAIN", subjects=("again.stored",)))
        await broker.subscribe("again.a", on_delivery)
        consumer = await broker.consumer(ConsumerSpec(stream="AGAIN", durable="reader", pattern="again.stored"))
        await ending()
        await broker.connect()
        await broker.publish(OutgoingMessage("again.a", b"x"))
        with pytest.raises(SubscriptionError, match="former connection"):
            await consumer.fetch(1, wait_s=5.0)
        anew = await broker.consumer(consumer.spec)
        assert await anew.fetch(1, wait_s=0.05) == []
        await broker.disconnect()
    assert seen == []
    await server.stop()
    assert asyncio.all_tasks() <= before


async def test_an_attempt_that_fails_after_its_handshake_leaves_no_socket_open(monkeypatch: pytest.MonkeyPatch) -> None:
    met: list[asyncio.StreamWriter] = []
    there: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        met.append(writer)
        there.add(writer)
        writer.write(b'INFO {"max_payload": 1048576, "headers": true}\r\n')
        while line := await reader.readline():
            if line == b"PING\r\n":
                writer.write(b"PONG\r\n")
        there.discard(writer)
        writer.close()

    peer = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = peer.sockets[0].getsockname()[1]
    broker = NATSMessageBroker(NATSConfig(servers=(f"nats://127.0.0.1:{port}",), reconnect_time_wait=0.01))
    await broker.connect()
    client = broker.require_client()
    with monkeypatch.context() as patched:

        async def unanswered(timeout: float = 10.0) -> None:
            patched.undo()
            raise errors.FlushTimeoutError

        patched.setattr(client, "flush", unanswered)
        met[0].close()
        async with within(5.0):
            while broker.reconnects == 0:
                await asyncio.sleep(0.002)
    async with within(5.0):
        while there != {met[2]}:
            await asyncio.sleep(0.002)
    assert len(met) == 3
    await broker.disconnect()
    peer.close()
    await peer.wait_closed()


async def test_a_flush_is_answered_behind_everything_that_was_sent_before() -> None:
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"max_payload": 1048576, "headers": true}\r\n')
        while line := await reader.readline():
            heard.append(line.split()[0])
            if heard[-1] == b"PUB":
                await reader.readline()
            if heard[-1] == b"PING":
                writer.write(b"PONG\r\n")
        writer.close()

    peer = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = peer.sockets[0].getsockname()[1]
    broker = NATSMessageBroker(NATSConfig(servers=(f"nats://127.0.0.1:{port}",)))
    await broker.connect()
    await broker.publish(OutgoingMessage("a.b", b"x"))
    subscription = await broker.subscribe("a.b", lambda _: asyncio.sleep(0))
    await subscription.drain()
    await broker.publish(OutgoingMessage("a.b", b"x"))
    await broker.disconnect()
    assert heard == b"CONNECT PING SUB PING PUB SUB PING UNSUB PING PUB PING".split()
    peer.close()
    await peer.wait_closed()
