"""Servers announce their end (lame duck mode), one by one or alone: clients go in time, lose nothing, and come back."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from tests.awake import PATIENCE_S, within
from tests.faults.test_nats_cluster import STREAM, a_bus, server_of, traffic
from tests.nats_cluster import LAME_DUCK_GRACE_S, NATSCluster, free_ports, nats_cluster, start_server

from polaris.exceptions import BusConnectionError
from polaris.messaging import (
    ConnectionState,
    ConsumerSpec,
    Delivery,
    DeliveryClass,
    NATSConfig,
    NATSMessageBroker,
    OutgoingMessage,
    StreamSpec,
)

STORED = DeliveryClass.AT_LEAST_ONCE
LEAVE_WITHIN_S = 0.2


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[NATSCluster]:
    async with nats_cluster(tmp_path) as cluster:
        yield cluster


@pytest.mark.slow
async def test_all_servers_are_retired_and_restarted_one_after_the_other(
    cluster: NATSCluster, record_property: Callable[[str, object], None]
) -> None:
    states: list[ConnectionState] = []
    late: list[str] = []
    async with a_bus(cluster, lame_duck_leave_within_s=LEAVE_WITHIN_S) as bus, traffic(cluster, bus, bus) as events:

        def note(state: ConnectionState) -> None:
            states.append(state)
            late.extend(name for name in "abc" if retiring == name and cluster.hangs_up(name))

        bus.on_state(note)
        for _ in "abc":
            # Always the one that has the client, so that it moves three times.
            retiring = server_of(bus, cluster)
            states.clear()
            cluster.enter_lame_duck_mode(retiring)
            assert await cluster.ended(retiring) == 0
            assert cluster.hangs_up(retiring)
            assert states == [ConnectionState.RECONNECTING, ConnectionState.CONNECTED]
            assert server_of(bus, cluster) != retiring
            await cluster.start(retiring)
            assert not cluster.hangs_up(retiring)
            await cluster.whole(STREAM)
            await events.carries_on()
        assert late == []
        (subscription,) = bus._inbound._routes
        record_property("redelivered", subscription.stats.redelivered)
    record_property("events", len(events.handled))
    record_property("raised", dict(events.raised))


async def test_a_server_alone_serves_until_it_hangs_up_and_is_taken_up_again(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    settings = {
        "host": "127.0.0.1",
        "port": port,
        "jetstream": {"store_dir": str(tmp_path / "store")},
        "lame_duck_grace_period": f"{LAME_DUCK_GRACE_S:g}s",
        "lame_duck_duration": "30s",
    }
    process = await start_server(tmp_path, settings)
    broker = NATSMessageBroker(NATSConfig(servers=(f"nats://127.0.0.1:{port}",), lame_duck_leave_within_s=0.0))
    await broker.connect()
    loop = asyncio.get_running_loop()
    lost_s: list[float] = []
    broker.on_state(lambda _: lost_s.append(loop.time()))
    heard: asyncio.Queue[bytes] = asyncio.Queue()

    async def hear(delivery: Delivery) -> None:
        heard.put_nowait(delivery.payload)

    await broker.subscribe("core.a", hear)
    await broker.ensure_stream(StreamSpec(name="ALONE", subjects=("stored.a",)))
    consumer = await broker.consumer(ConsumerSpec(stream="ALONE", durable="reader", pattern="stored.a"))
    await broker.publish(OutgoingMessage("stored.a", b"before", "id-1"), delivery=STORED)
    assert process.server_pid is not None
    os.kill(process.server_pid, signal.SIGUSR2)
    told_s = loop.time()
    hangs_up_s = told_s + LAME_DUCK_GRACE_S - 0.3
    while loop.time() < hangs_up_s:
        try:
            await broker.publish(OutgoingMessage("core.a", b"meanwhile"))
            assert await asyncio.wait_for(heard.get(), LAME_DUCK_GRACE_S) == b"meanwhile"
        except (BusConnectionError, TimeoutError):
            assert loop.time() >= hangs_up_s
        await asyncio.sleep(0.05)
    assert all(at_s >= hangs_up_s for at_s in lost_s)
    assert await asyncio.wait_for(process.wait(), PATIENCE_S) == 0
    process = await start_server(tmp_path, settings)
    try:
        async with within(5.0):
            while broker.state is not ConnectionState.CONNECTED:
                await asyncio.sleep(0.005)
        assert len(lost_s) == 2
        await broker.publish(OutgoingMessage("core.a", b"after"))
        assert await asyncio.wait_for(heard.get(), PATIENCE_S) == b"after"
        assert (await broker.publish(OutgoingMessage("stored.a", b"after", "id-2"), delivery=STORED)).sequence == 2
        assert [one.payload for one in await consumer.fetch(2, wait_s=5.0)] == [b"before", b"after"]
    finally:
        await broker.disconnect()
        await process.stop(5.0)
