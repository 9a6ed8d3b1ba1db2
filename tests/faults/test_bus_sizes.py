"""Payloads round the server's limit and far beyond it, and very many systems: nothing breaks or grows for ever."""

from __future__ import annotations

import asyncio
import gc
import random
import sys
from collections import Counter
from collections.abc import Callable

import pytest
from prometheus_client import CollectorRegistry
from tests.awake import within
from tests.conftest import MakeNATSServer
from tests.faults.sizes import size

from polaris.clock import utc_now
from polaris.domain import EVENTS, EventRegistry, PolarisEvent, SystemState, TelemetryEvent, event_type
from polaris.exceptions import InvalidValueError, PayloadTooLargeError
from polaris.messaging import (
    DEAD_LETTER_STREAM,
    CompressionMiddleware,
    DeduplicationMiddleware,
    DeliveryClass,
    MetricsMiddleware,
    NATSMessageBroker,
    PolarisMessageBus,
    StreamSpec,
)
from polaris.messaging._sequences import NUMBERS_MAX
from polaris.observability import MetricsCollector

MIB = 1 << 20
SIZES = {"0.9": int(0.9 * MIB), "1.0": MIB, "1.1": int(1.1 * MIB), "2": 2 * MIB, "8": 8 * MIB}
BULK_STREAM = StreamSpec(name="BULK", subjects=("bulk.>",))
STREAMS = (BULK_STREAM, DEAD_LETTER_STREAM)
REGISTRY = EventRegistry(parent=EVENTS)
SYSTEMS = size(20_000, 100_000)
PUBLISHERS = 256
NAMES_KEPT = 13
"""Blocks of memory for the names of a system that were checked and the count of its events, in caches with bounds."""
BLOCKS_A_NUMBER = 4
"""Of the number of an event, which is kept while it is one of the last 65 536."""
SLACK_BLOCKS = 15_000
"""Less than one for every event of a pass."""
PASSES = size(2, 4)
"""Caches with bounds are renewed by halves when there are more systems than they hold: that is levelled out."""
SERIES_MAX = 100
PATIENCE_S = size(60, 1_200)


@event_type("tests.bulk", registry=REGISTRY)
class Bulk(PolarisEvent, frozen=True):
    text: str


def bulk_of(payload_bytes: int, bus: PolarisMessageBus, *, letters: str = "x") -> Bulk:
    """An event that is just so long on the wire, under a correlation id of its own."""
    event = Bulk(text="", correlation_id="c")
    room = payload_bytes - len(bus._codec.encode(event))
    text = letters * room if len(letters) == 1 else "".join(random.Random(room).choices(letters, k=room))
    return Bulk(text=text, correlation_id="c", event_id=event.event_id, timestamp=event.timestamp)


def a_bus(broker: NATSMessageBroker, *middlewares: CompressionMiddleware) -> PolarisMessageBus:
    return PolarisMessageBus(broker, middlewares, streams=STREAMS, registry=REGISTRY)


class Inbox:
    """Takes what comes, and refuses it when asked to."""

    def __init__(self, *, refuses: bool = False) -> None:
        self.taken: list[Bulk] = []
        self._refuses = refuses

    async def handle(self, event: Bulk) -> None:
        self.taken.append(event)
        if self._refuses:
            raise InvalidValueError("text", "something else", "this")

    async def holds(self, count: int) -> list[Bulk]:
        async with within(10.0):
            while len(self.taken) < count:
                await asyncio.sleep(0.005)
        return self.taken


async def test_what_fits_arrives_whole_and_what_does_not_is_refused_before_it_is_sent(
    make_nats_server: MakeNATSServer,
) -> None:
    server = await make_nats_server()
    broker, inbox, core = NATSMessageBroker(server.client_config()), Inbox(), Inbox()
    async with a_bus(broker) as bus:
        await bus.subscribe("bulk.a", inbox.handle, durable="worker")
        await bus.subscribe("core.a", core.handle)
        events = {name: bulk_of(length, bus) for name, length in SIZES.items()}
        for name, event in events.items():
            # A stored message has its id in a header, which leaves no room for it at the very limit.
            for topic, fits in (("bulk.a", name == "0.9"), ("core.a", name in ("0.9", "1.0"))):
                async with within(10.0):
                    if fits:
                        await bus.publish(topic, event)
                    else:
                        with pytest.raises(PayloadTooLargeError) as caught:
                            await bus.publish(topic, event)
                        assert caught.value.context["payload_bytes_max"] == MIB
        assert await inbox.holds(1) == [events["0.9"]]
        assert await core.holds(2) == [events["0.9"], events["1.0"]]
        after = bulk_of(1_000, bus)
        await bus.publish("bulk.a", after)
        assert await inbox.holds(2) == [events["0.9"], after]
        assert broker.reconnects == 0


async def test_a_server_with_a_higher_limit_carries_all_of_them_and_their_dead_letters(
    make_nats_server: MakeNATSServer,
) -> None:
    server = await make_nats_server(payload_bytes_max=8 * MIB + 64 * 1024)
    broker, inbox = NATSMessageBroker(server.client_config()), Inbox(refuses=True)
    async with a_bus(broker) as bus:
        await bus.subscribe("bulk.a", inbox.handle, durable="worker")
        events = [bulk_of(length, bus) for length in SIZES.values()]
        for event in events:
            receipt = await bus.publish("bulk.a", event)
            assert receipt.delivery is DeliveryClass.AT_LEAST_ONCE
        assert await inbox.holds(len(events)) == events
        async with within(10.0):
            while len(found := await bus.dead_letters.list()) < len(events):
                await asyncio.sleep(0.02)
        for letter, event in zip(found, events, strict=True):
            assert (await bus.dead_letters.show(letter.sequence)).entry.payload == bus._codec.encode(event)
        assert broker.reconnects == 0


async def test_what_is_too_large_as_it_is_fits_when_it_can_be_compressed(make_nats_server: MakeNATSServer) -> None:
    server = await make_nats_server()
    inbox = Inbox()
    async with a_bus(NATSMessageBroker(server.client_config()), CompressionMiddleware()) as bus:
        await bus.subscribe("bulk.a", inbox.handle, durable="worker")
        event = bulk_of(SIZES["2"], bus)
        await bus.publish("bulk.a", event)
        assert await inbox.holds(1) == [event]
        with pytest.raises(PayloadTooLargeError):
            await bus.publish("bulk.a", bulk_of(SIZES["2"], bus, letters="".join(map(chr, range(0x4E00, 0x9E00)))))


@pytest.mark.slow
async def test_the_events_of_very_many_systems_are_handled_once_each_and_leave_nothing_behind(
    make_nats_server: MakeNATSServer, record_property: Callable[[str, object], None]
) -> None:
    server = await make_nats_server()
    collector = MetricsCollector(registry=CollectorRegistry())
    handled: Counter[str] = Counter()

    async def handle(event: TelemetryEvent) -> None:
        handled[event.system_state.system_id] += 1

    async def publish(bus: PolarisMessageBus, systems: range) -> None:
        for system in systems:
            event = TelemetryEvent(SystemState(f"system-{system}", utc_now()))
            receipt = await bus.publish_telemetry(event, timeout_s=30.0)
            assert receipt.delivery is DeliveryClass.AT_LEAST_ONCE

    middlewares = [MetricsMiddleware(collector), DeduplicationMiddleware(ids_max=1_000)]
    left: list[int] = []
    async with (
        within(PATIENCE_S),
        PolarisMessageBus(NATSMessageBroker(server.client_config()), middlewares, collector=collector) as bus,
    ):
        subscription = await bus.subscribe(
            "polaris.telemetry.*", handle, durable="worker", concurrency=16, ordered_by="topic"
        )
        for _ in range(PASSES):
            before = blocks() - BLOCKS_A_NUMBER * numbers_kept(bus)
            async with asyncio.TaskGroup() as group:
                for first in range(PUBLISHERS):
                    group.create_task(publish(bus, range(first, SYSTEMS, PUBLISHERS)))
            while (info := await subscription.info()) is None or info.pending or info.ack_pending:
                await asyncio.sleep(0.05)
            assert len(handled) == SYSTEMS
            assert set(handled.values()) == {1}
            handled.clear()
            left.append(blocks() - BLOCKS_A_NUMBER * numbers_kept(bus) - before)
        assert subscription.in_flight == 0
        assert subscription.stats.redelivered == 0
        assert await bus.dead_letters.list() == []
        assert sum(len(metric.samples) for metric in collector.registry.collect()) < SERIES_MAX
    record_property("left", left)
    assert left[0] < NAMES_KEPT * SYSTEMS + SLACK_BLOCKS
    assert sum(left[1:]) < SLACK_BLOCKS * (PASSES - 1)


def numbers_kept(bus: PolarisMessageBus) -> int:
    numbering = bus._outbound._numbering
    kept = len(numbering._numbers) + len(numbering._older_numbers)
    assert kept <= NUMBERS_MAX
    return kept


def blocks() -> int:
    """How many blocks of memory Python holds, without garbage."""
    gc.collect()
    return sys.getallocatedblocks()
