"""A server is away for long: its clients try for ever, each at its own time, and are back at once when it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.awake import awake, within
from tests.conftest import MakeNATSServer
from tests.faults.sizes import size
from tests.nats_cluster import Relay

from polaris.messaging import ConnectionState, EmbeddedNATSServer, NATSConfig, NATSMessageBroker

AWAY_S = size(3, 60)
CLIENTS = 12
WAIT_S = 0.2
ROUNDS_S = 1.5
STEP_S = 0.02
DRIVER_GIVES_UP = 60
"""Attempts after which nats-py by itself forgets a server."""


@pytest.fixture
async def server(make_nats_server: MakeNATSServer) -> EmbeddedNATSServer:
    return await make_nats_server()


@pytest.fixture
async def relays(server: EmbeddedNATSServer) -> AsyncIterator[list[Relay]]:
    relays = [Relay(server.port), Relay(server.port)]
    for relay in relays:
        await relay.open()
    yield relays
    for relay in relays:
        relay.close()


async def stay_away(away_s: float) -> float:
    """Let the clients try for so long as they can; how long that was by the clock."""
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    async with awake() as clock:
        while clock.seconds < away_s:
            await asyncio.sleep(STEP_S)
    return loop.time() - began_s


def client(server: EmbeddedNATSServer, relay: Relay, wait_s: float) -> NATSMessageBroker:
    return NATSMessageBroker(
        NATSConfig(
            servers=(f"nats://127.0.0.1:{relay.port}",),
            token=server.token,
            reconnect_time_wait=wait_s,
            reconnect_time_wait_max_s=wait_s,
        )
    )


async def test_clients_try_for_ever_and_not_in_step(server: EmbeddedNATSServer, relays: list[Relay]) -> None:
    impatient, patient = client(server, relays[0], 0.02), [client(server, relays[1], WAIT_S) for _ in range(CLIENTS)]
    clients = [impatient, *patient]
    for broker in clients:
        await broker.connect()
    for relay in relays:
        relay.sever()
        relay.attempts_s.clear()
    away_s = await stay_away(AWAY_S)
    assert {broker.state for broker in clients} == {ConnectionState.RECONNECTING}
    assert len(relays[0].attempts_s) > DRIVER_GIVES_UP
    # All lost the connection at the same moment. Each waits from half of the time to all of it, then fails.
    attempts = relays[1].attempts_s
    assert CLIENTS * AWAY_S / (2 * WAIT_S) < len(attempts) <= CLIENTS * (away_s / (WAIT_S / 2) + 1)
    # In step they would come by the dozen.
    moments = {int(at_s / STEP_S) for at_s in attempts}
    assert len(attempts) / len(moments) < CLIENTS / 3
    for relay in relays:
        relay.heal()
    async with within(2.0):
        while {broker.state for broker in clients} != {ConnectionState.CONNECTED}:
            await asyncio.sleep(0.005)
    assert [broker.reconnects for broker in clients] == [1] * len(clients)
    for broker in clients:
        await broker.disconnect()


async def test_a_server_that_is_back_does_not_wait_for_those_that_are_not(server: EmbeddedNATSServer) -> None:
    relays = [Relay(server.port) for _ in range(4)]
    for relay in relays:
        await relay.open()
    broker = NATSMessageBroker(
        NATSConfig(
            servers=tuple(f"nats://127.0.0.1:{relay.port}" for relay in relays),
            token=server.token,
            reconnect_time_wait=WAIT_S,
            reconnect_time_wait_max_s=WAIT_S,
        )
    )
    await broker.connect()
    try:
        for relay in relays:
            relay.sever()
            relay.attempts_s.clear()
        away_s = await stay_away(ROUNDS_S)
        # All of them in every round, and one wait a round: each is tried as often as if it were the only one.
        attempts = [len(relay.attempts_s) for relay in relays]
        assert min(attempts) > ROUNDS_S / WAIT_S / 2
        assert max(attempts) - min(attempts) <= 1
        assert max(attempts) <= away_s / (WAIT_S / 2) + 2
        relays[2].heal()
        async with within(2.0):
            while broker.state is not ConnectionState.CONNECTED:
                await asyncio.sleep(0.005)
    finally:
        await broker.disconnect()
        for relay in relays:
            relay.close()
