"""Stored messages read in batches are those read one by one, on a real server; and where it cannot be, one by one."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
from tests.awake import within
from tests.conftest import ConnectNATS, MakeNATSServer
from tests.frozen import freeze

from polaris.exceptions import BusConnectionError, MessageBusError
from polaris.ids import new_id
from polaris.messaging import (
    DeliveryClass,
    EmbeddedNATSServer,
    NATSMessageBroker,
    OutgoingMessage,
    StoredMessage,
    StreamSpec,
)

ODD = [
    {},
    {"A": "b"},
    {"Nats-Stream": "mine", "Nats-Sequence": "7", "Nats-Subject": "x", "Nats-Time-Stamp": "never"},
    {"Nats-Num-Pending": "0", "Nats-Last-Sequence": "0", "Status": "204", "Description": "EOB"},
]


async def filled(broker: NATSMessageBroker, count: int, *, payload_bytes: int = 10) -> StreamSpec:
    """A stream of odd messages with gaps in it."""
    name = f"batch{new_id().replace('-', '')}"
    spec = StreamSpec(name=name, subjects=(f"{name}.>",))
    await broker.ensure_stream(spec)
    for number in range(count):
        message = OutgoingMessage(f"{name}.{number % 7}", b"x" * (number % 3 * payload_bytes), None, ODD[number % 4])
        await broker.publish(message, delivery=DeliveryClass.AT_LEAST_ONCE)
    for number in range(1, count, 9):
        assert await broker.erase_stored(name, number)
    return spec


async def one_by_one(broker: NATSMessageBroker, stream: str) -> list[StoredMessage]:
    found: list[StoredMessage] = []
    while page := await broker.read_stored(stream, from_sequence=found[-1].sequence + 1 if found else 1, count_max=1):
        found += page
    return found


async def test_what_is_read_in_batches_is_what_is_read_one_by_one(
    nats_server: EmbeddedNATSServer, connect_nats: ConnectNATS
) -> None:
    broker = await connect_nats(nats_server)
    name = (await filled(broker, 400)).name
    expected = await one_by_one(broker, name)
    assert len(expected) == 400 - len(range(1, 400, 9))
    questions = 0
    gather = broker._connection.gather

    async def counted(*arguments: object, **options: object) -> object:
        nonlocal questions
        questions += 1
        return await gather(*arguments, **options)  # type: ignore[arg-type]

    broker._connection.gather = counted  # type: ignore[method-assign, assignment]
    assert list(await broker.read_stored(name, count_max=10_000)) == expected
    assert questions == 2
    assert (
        list(await broker.read_stored(name, from_sequence=200, count_max=50))
        == [stored for stored in expected if stored.sequence >= 200][:50]
    )
    assert await broker.read_stored(name, from_sequence=401) == []
    assert await broker.read_stored(name, count_max=0) == []
    assert await broker.read_stored(name, count_max=-1) == []


async def test_more_bytes_than_a_batch_may_have_are_read_too(
    nats_server: EmbeddedNATSServer, connect_nats: ConnectNATS
) -> None:
    broker = await connect_nats(nats_server)
    name = (await filled(broker, 30, payload_bytes=500_000)).name
    found = await broker.read_stored(name)
    assert [stored.sequence for stored in found] == [n for n in range(1, 31) if n % 9 != 1]
    assert {len(stored.payload) for stored in found} == {0, 500_000, 1_000_000}


async def test_a_stream_of_somebody_else_is_read_one_by_one_and_an_unknown_one_is_an_error(
    nats_server: EmbeddedNATSServer, connect_nats: ConnectNATS
) -> None:
    broker = await connect_nats(nats_server)
    name = f"other{new_id().replace('-', '')}"
    config = {"name": name, "subjects": [f"{name}.>"], "storage": "file", "retention": "limits", "num_replicas": 1}
    await broker._api.call(f"STREAM.CREATE.{name}", config)
    for number in range(5):
        message = OutgoingMessage(f"{name}.x", b"%d" % number)
        await broker.publish(message, delivery=DeliveryClass.AT_LEAST_ONCE)
    assert [stored.payload for stored in await broker.read_stored(name)] == [b"0", b"1", b"2", b"3", b"4"]
    await broker.ensure_stream(StreamSpec(name=name, subjects=(f"{name}.>",)))
    assert [stored.payload for stored in await broker.read_stored(name)] == [b"0", b"1", b"2", b"3", b"4"]
    with pytest.raises(MessageBusError) as caught:
        await broker.read_stored(f"none{name}")
    assert not isinstance(caught.value, BusConnectionError)


async def test_a_connection_that_breaks_meanwhile_is_an_error_at_once(
    make_nats_server: MakeNATSServer, connect_nats: ConnectNATS
) -> None:
    server = await make_nats_server()
    broker = await connect_nats(server)
    name = (await filled(broker, 100)).name
    gather = broker._connection.gather

    async def broken_off(*arguments: object, **options: object) -> object:
        assert server.pid is not None
        freeze(server.pid)
        asyncio.get_running_loop().call_later(0.2, os.kill, server.pid, signal.SIGKILL)
        return await gather(*arguments, **options)  # type: ignore[arg-type]

    broker._connection.gather = broken_off  # type: ignore[method-assign, assignment]
    async with within(4.0):  # less than an answer may take
        with pytest.raises(BusConnectionError):
            await broker.read_stored(name)
