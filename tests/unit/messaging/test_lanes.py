"""Which of two brokers a message, a subscription, a position and a stream take."""

from __future__ import annotations

import pytest
from tests.unit.messaging.doubles import STORED

from polaris.exceptions import BusConnectionError
from polaris.messaging import (
    ConnectionState,
    ConsumerSpec,
    Delivery,
    InMemoryHub,
    InMemoryMessageBroker,
    LanedMessageBroker,
    OutgoingMessage,
    StreamSpec,
)
from polaris.testing import running_clock

STREAM = StreamSpec(name="ALL", subjects=("polaris.telemetry.>", "polaris.adaptations.>"))


class Lanes:
    """Two brokers that lead to servers of their own, so that what takes the other lane is seen to be missing."""

    def __init__(self) -> None:
        self.control_hub = InMemoryHub(clock=running_clock())
        self.bulk_hub = InMemoryHub(clock=running_clock())
        self.control = InMemoryMessageBroker(self.control_hub)
        self.bulk = InMemoryMessageBroker(self.bulk_hub)
        self.broker = LanedMessageBroker(self.control, self.bulk)


@pytest.mark.parametrize(
    ("subject", "is_bulk"),
    [
        ("polaris.telemetry.web", True),
        ("polaris.telemetry.a.b", True),
        ("polaris.telemetry", False),
        ("polaris.telemetryx.web", False),
        ("polaris.adaptations.web", False),
        ("polaris.dead_letter.polaris.telemetry.web", False),
        ("_INBOX.1", False),
    ],
)
async def test_a_message_takes_the_lane_of_its_subject(subject: str, is_bulk: bool) -> None:
    lanes = Lanes()
    await lanes.broker.connect()
    for hub in (lanes.control_hub, lanes.bulk_hub):
        hub.ensure_stream(StreamSpec(name="EVERYTHING", subjects=(">",)))
    await lanes.broker.publish(OutgoingMessage(subject, b"x"), delivery=STORED)
    assert len(lanes.bulk_hub.streams["EVERYTHING"].records) == int(is_bulk)
    assert len(lanes.control_hub.streams["EVERYTHING"].records) == int(not is_bulk)
    await lanes.broker.disconnect()


@pytest.mark.parametrize(
    ("pattern", "is_bulk"),
    [
        ("polaris.telemetry.web", True),
        ("polaris.*.web", True),
        ("polaris.>", True),
        (">", True),
        ("polaris.adaptations.>", False),
        ("polaris.telemetry", False),
        ("*.*", False),
    ],
)
async def test_a_subscription_takes_the_bulk_lane_if_it_can_match_anything_of_bulk(pattern: str, is_bulk: bool) -> None:
    async def ignore(_: Delivery) -> None: ...

    lanes = Lanes()
    await lanes.broker.connect()
    await lanes.broker.subscribe(pattern, ignore)
    subject = pattern.replace("*", "x").replace(">", "x")
    assert (lanes.bulk_hub.fan_out(subject, _delivery(subject)) == 1) is is_bulk
    assert (lanes.control_hub.fan_out(subject, _delivery(subject)) == 1) is not is_bulk
    await lanes.broker.disconnect()


async def test_a_stream_is_known_to_each_lane_that_reads_it() -> None:
    lanes = Lanes()
    await lanes.broker.connect()
    await lanes.broker.ensure_stream(STREAM)
    for pattern in ("polaris.telemetry.*", "polaris.adaptations.*"):
        consumer = await lanes.broker.consumer(ConsumerSpec(stream="ALL", durable="d", pattern=pattern))
        await consumer.close()
    assert list(lanes.bulk_hub.streams["ALL"].positions) == list(lanes.control_hub.streams["ALL"].positions) == ["d"]
    await lanes.broker.disconnect()


async def test_the_state_is_the_worse_one_whichever_lane_it_is_of() -> None:
    lanes = Lanes()
    told: list[ConnectionState] = []
    lanes.broker.on_state(told.append)
    await lanes.broker.connect()
    assert told == [ConnectionState.CONNECTED]
    await lanes.bulk.disconnect()
    assert lanes.broker.state is ConnectionState.CLOSED
    await lanes.control.disconnect()
    assert told == [ConnectionState.CONNECTED, ConnectionState.CLOSED]


async def test_a_lane_that_cannot_connect_takes_the_other_down() -> None:
    class Unreachable(InMemoryMessageBroker):
        async def connect(self) -> None:
            raise BusConnectionError("nobody there")

    control = InMemoryMessageBroker(clock=running_clock())
    with pytest.raises(BusConnectionError):
        await LanedMessageBroker(control, Unreachable(clock=running_clock())).connect()
    assert control.state is ConnectionState.CLOSED


def _delivery(subject: str) -> Delivery:
    from polaris.messaging.brokers._memory_deliveries import CoreDelivery

    return CoreDelivery(subject, b"", {}, None)
