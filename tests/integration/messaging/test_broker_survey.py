"""A survey of a broker tells its streams and the lag of every consumer, and changes nothing; on all of them alike."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import nats
import pytest
from tests.conftest import MakeNATSServer

from polaris.exceptions import BusConnectionError, MessageBusError
from polaris.messaging import (
    ConsumerSpec,
    DeadLetters,
    DeliveryClass,
    EmbeddedNATSServer,
    InMemoryMessageBroker,
    LanedMessageBroker,
    MessageBroker,
    NATSMessageBroker,
    OutgoingMessage,
    StreamSpec,
)
from polaris.messaging._dead_letters import BODY_TOPIC
from polaris.messaging._survey import Survey, SurveyedBroker

EVENTS = StreamSpec(name="SURVEYED", subjects=("surveyed.>",), max_age_s=3600.0, max_bytes=1 << 20)
LETTERS = StreamSpec(name="SURVEYED_LETTERS", subjects=("polaris.dead_letter.>",), max_age_s=None, max_bytes=None)


@pytest.fixture(params=["memory", "nats", "lanes"])
async def broker(request: pytest.FixtureRequest, make_nats_server: MakeNATSServer) -> AsyncIterator[MessageBroker]:
    made: MessageBroker
    if request.param == "memory":
        made = InMemoryMessageBroker()
    else:
        server = await make_nats_server()
        made = NATSMessageBroker(server.client_config("survey"))
        if request.param == "lanes":
            made = LanedMessageBroker(made, NATSMessageBroker(server.client_config("bulk")))
    await made.connect()
    yield made
    await made.disconnect()


async def store(broker: MessageBroker, subject: str, count: int = 1) -> None:
    for _ in range(count):
        await broker.publish(OutgoingMessage(subject, b"x" * 100), delivery=DeliveryClass.AT_LEAST_ONCE)


async def survey(broker: MessageBroker, *, streams_max: int = 10, consumers_max: int = 10) -> Survey:
    assert isinstance(broker, SurveyedBroker)
    return await broker.survey(streams_max=streams_max, consumers_max=consumers_max)


async def test_streams_are_told_with_what_they_hold_and_their_bounds(broker: MessageBroker) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    await broker.ensure_stream(EVENTS)
    (empty,) = (await survey(broker)).streams
    assert (empty.messages, empty.bytes, empty.first_at, empty.last_at, empty.consumers) == (0, 0, None, None, ())
    await store(broker, "surveyed.a", 3)
    (stream,) = (await survey(broker)).streams
    assert (stream.name, stream.subjects) == ("SURVEYED", ("surveyed.>",))
    assert (stream.messages, stream.first_sequence, stream.last_sequence) == (3, 1, 3)
    assert (stream.bytes_max, stream.age_max_s, stream.replicas) == (1 << 20, 3600.0, 1)
    assert 300 < stream.bytes < 1000
    assert stream.first_at is not None
    assert stream.last_at is not None
    assert before <= stream.first_at <= stream.last_at <= datetime.now(UTC) + timedelta(seconds=1)


async def test_the_lag_of_a_consumer_is_what_it_was_not_given_and_what_it_did_not_settle(broker: MessageBroker) -> None:
    await broker.ensure_stream(EVENTS)
    spec = ConsumerSpec(stream="SURVEYED", durable="reader", pattern="surveyed.a", in_flight_max=7)
    consumer = await broker.consumer(spec)
    await store(broker, "surveyed.a", 5)
    await store(broker, "surveyed.b", 2)
    taken = await consumer.fetch(2, wait_s=5)
    await taken[0].ack(confirm=True)
    (told,) = (await survey(broker)).streams[0].consumers
    assert (told.name, told.patterns, told.ack, told.durable) == ("reader", ("surveyed.a",), "each", True)
    assert (told.pending, told.unacknowledged, told.redelivered, told.in_flight_max) == (3, 1, 0, 7)
    assert not told.paused
    assert len(await consumer.fetch(10, wait_s=5)) == 3, "looking took nothing away"
    await consumer.close()


async def test_many_streams_and_consumers_are_cut_and_the_whole_number_is_told(broker: MessageBroker) -> None:
    for name in ("AAA", "POLARIS_B", "POLARIS_A"):
        await broker.ensure_stream(StreamSpec(name=name, subjects=(f"{name.lower()}.>",)))
    for name in ("b", "a", "c"):
        await broker.consumer(ConsumerSpec(stream="POLARIS_A", durable=name, pattern="polaris_a.>"))
    told = await survey(broker, streams_max=2, consumers_max=2)
    assert ([stream.name for stream in told.streams], told.streams_total) == (["POLARIS_A", "POLARIS_B"], 3)
    assert (len(told.streams[0].consumers), told.streams[0].consumers_total) == (2, 3)


async def test_dead_letters_are_counted_without_the_bytes_that_are_kept_apart(broker: MessageBroker) -> None:
    await broker.ensure_stream(LETTERS)
    letters = DeadLetters(broker, stream=LETTERS)
    assert await letters.waiting() == 0
    await store(broker, "polaris.dead_letter.polaris.telemetry.web", 2)
    await store(broker, BODY_TOPIC)
    assert await letters.waiting() == 2


async def test_an_unknown_stream_is_an_error_and_so_is_a_broker_that_is_away(broker: MessageBroker) -> None:
    assert isinstance(broker, SurveyedBroker)
    with pytest.raises(MessageBusError):
        await broker.count_stored("NONE")
    await broker.disconnect()
    with pytest.raises(BusConnectionError):
        await survey(broker)


async def test_a_consumer_that_somebody_paused_is_told_as_paused(nats_server: EmbeddedNATSServer) -> None:
    broker = NATSMessageBroker(nats_server.client_config("paused"))
    await broker.connect()
    await broker.ensure_stream(StreamSpec(name="PAUSED", subjects=("paused.>",)))
    await broker.consumer(ConsumerSpec(stream="PAUSED", durable="reader", pattern="paused.>"))
    client = await nats.connect(nats_server.url, token=nats_server.token)
    until = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    body = f'{{"pause_until": "{until}"}}'.encode()
    await client.request("$JS.API.CONSUMER.PAUSE.PAUSED.reader", body)
    await client.close()
    told = {stream.name: stream for stream in (await survey(broker, streams_max=100)).streams}
    assert [consumer.paused for consumer in told["PAUSED"].consumers] == [True]
    await broker.disconnect()
