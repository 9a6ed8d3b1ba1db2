"""The broker in memory and a real NATS server, given the same steps, show the same: receipts, deliveries, positions."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.awake import until
from tests.faults.sizes import size as size_of_test

from polaris.exceptions import PolarisException
from polaris.ids import new_id
from polaris.messaging import (
    AckPolicy,
    ConsumerSpec,
    Delivery,
    DeliveryClass,
    EmbeddedNATSConfig,
    EmbeddedNATSServer,
    InMemoryHub,
    InMemoryMessageBroker,
    MessageBroker,
    NATSMessageBroker,
    OutgoingMessage,
    PullConsumer,
    Start,
    StreamSpec,
)
from polaris.messaging._broker import GIVEN_UP_PREFIX

ACK_WAIT_S = 0.5
REST_S = 0.7
EMPTY_S = 0.03
CONFIRMED_S = 2.0
CONSUMERS = {"all": "{0}.>", "some": "{0}.a.*", "one": "{0}.b", "shared": "{0}.>", "few": "{0}.>"}
CONSUMERS.update({"upto": "{0}.>", "part": "{0}.a.*", "loose": "{0}.>"})
DURABLES = {"shared": "all"}
"""Attached as another one, whose position it shares."""
OPTIONS: dict[str, dict[str, Any]] = {"few": {"deliveries_max": 2}}
OPTIONS.update({"upto": {"ack": AckPolicy.ALL}, "part": {"ack": AckPolicy.ALL}, "loose": {"ack": AckPolicy.NONE}})
CORE, STORED = DeliveryClass.AT_MOST_ONCE, DeliveryClass.AT_LEAST_ONCE

Step = tuple[Any, ...]

subjects = st.sampled_from(["a.x", "a.y", "b", "b.c"])
ids = st.sampled_from([None, None, "i1", "i2", "i3"])
sizes = st.sampled_from([0, 1, 300, 1_500])
consumers = st.sampled_from(sorted(CONSUMERS))
index = st.integers(0, 11)
stored = st.tuples(st.just("store"), subjects, sizes, ids)
fetched = st.tuples(st.just("fetch"), consumers, st.integers(1, 6))
settled = st.tuples(st.sampled_from(["ack", "confirm", "nak", "term", "beat", "later"]), index)
steps = st.one_of(
    stored,
    stored,
    st.tuples(st.just("core"), subjects, sizes, ids),
    fetched,
    fetched,
    settled,
    settled,
    st.tuples(st.just("erase"), st.integers(1, 12)),
    st.tuples(st.just("read"), st.integers(-1, 12), st.integers(0, 6)),
    st.tuples(st.just("info"), consumers),
    st.tuples(st.just("reattach"), consumers),
    st.tuples(st.just("reconnect")),
    st.tuples(st.just("bounds"), st.sampled_from([None, 2_000, 4_000])),
    st.tuples(st.just("rest")),
)
programs = st.lists(steps, min_size=5, max_size=40)


class Refused(NamedTuple):
    """A step that raised, by the class of its error."""

    error: str


class Side:
    """One broker with a stream and consumers of this program's own; steps return what can be seen of them."""

    def __init__(self, connect: Callable[[], Awaitable[MessageBroker]], prefix: str, bounds: Mapping[str, Any]) -> None:
        self._connect = connect
        self.prefix = prefix
        self.spec = StreamSpec(name=f"DIFF_{prefix}", subjects=(f"{prefix}.>",), **{"max_bytes": None, **bounds})
        self.consumers: dict[str, PullConsumer] = {}
        self.taken: list[Delivery] = []
        self.patience_s = EMPTY_S

    async def begin(self) -> None:
        self.broker = await self._connect()
        await self.broker.ensure_stream(self.spec)
        for name in CONSUMERS:
            await self._attach(name)

    async def end(self) -> None:
        await self.broker.disconnect()

    async def _attach(self, name: str) -> None:
        await self.attach(name, CONSUMERS[name], **OPTIONS.get(name, {}))

    async def attach(self, name: str, pattern: str = "{0}.>", **options: Any) -> None:
        options = {"ack_wait_s": ACK_WAIT_S, "in_flight_max": 4, **options}
        durable = DURABLES.get(name, name)
        spec = ConsumerSpec(stream=self.spec.name, durable=durable, pattern=pattern.format(self.prefix), **options)
        self.consumers[name] = await self.broker.consumer(spec)

    async def do(self, step: Step) -> Any:
        try:
            return await getattr(self, f"do_{step[0]}")(*step[1:])
        except PolarisException as error:
            return Refused(type(error).__name__)

    async def do_store(self, subject: str, size: int, message_id: str | None) -> object:
        receipt = await self._publish(subject, size, message_id, STORED)
        return (receipt.sequence, receipt.duplicate, receipt.message_id, receipt.delivery)

    async def do_core(self, subject: str, size: int, message_id: str | None) -> object:
        receipt = await self._publish(subject, size, message_id, CORE)
        return (receipt.sequence, receipt.duplicate, receipt.delivery)

    async def newest(self) -> int:
        newest, after = 0, 1
        while page := await self.broker.read_stored(self.spec.name, from_sequence=after, count_max=10_000):
            newest, after = page[-1].sequence, page[-1].sequence + 1
        return newest

    async def _publish(self, subject: str, size: int, message_id: str | None, delivery: DeliveryClass) -> Any:
        message = OutgoingMessage(
            f"{self.prefix}.{subject}", b"x" * size, message_id, {"N": str(size)} if size else None
        )
        return await self.broker.publish(message, delivery=delivery)

    async def do_fetch(self, consumer: str, count: int) -> list[Any]:
        found = await self.consumers[consumer].fetch(count, wait_s=self.patience_s)
        self.taken.extend(found)
        return [self._seen(delivery) for delivery in found]

    def _seen(self, delivery: Delivery) -> Any:
        subject = delivery.subject.removeprefix(self.prefix)
        assert delivery.stored_at is not None
        headers = sorted(delivery.headers.items())
        return (delivery.sequence, delivery.attempt, delivery.number, subject, delivery.payload, headers)

    def _chosen(self, number: int) -> Delivery | None:
        return self.taken[-1 - number] if number < len(self.taken) else None

    async def do_ack(self, number: int) -> None:
        if (delivery := self._chosen(number)) is not None:
            await delivery.ack()

    async def do_confirm(self, number: int) -> None:
        if (delivery := self._chosen(number)) is not None:
            await delivery.ack(confirm=True)

    async def do_nak(self, number: int) -> None:
        if (delivery := self._chosen(number)) is not None:
            await delivery.nak(delay_s=0.0)

    async def do_later(self, number: int) -> None:
        if (delivery := self._chosen(number)) is not None:
            await delivery.nak(delay_s=ACK_WAIT_S)

    async def do_term(self, number: int) -> None:
        if (delivery := self._chosen(number)) is not None:
            await delivery.term()

    async def do_beat(self, number: int) -> None:
        if (delivery := self._chosen(number)) is not None:
            await delivery.in_progress()

    async def do_erase(self, sequence: int) -> object:
        return await self.broker.erase_stored(self.spec.name, sequence)

    async def do_read(self, from_sequence: int, count: int) -> list[Any]:
        found = await self.broker.read_stored(self.spec.name, from_sequence=from_sequence, count_max=count)
        return [
            (one.sequence, one.subject.removeprefix(self.prefix), one.payload, sorted(one.headers.items()))
            for one in found
        ]

    async def do_info(self, consumer: str) -> object:
        info = await self.consumers[consumer].info()
        return (info.pending, info.ack_pending, info.redelivered, info.ack_floor)

    async def do_reattach(self, consumer: str) -> None:
        await self.consumers[consumer].close()
        await self._attach(consumer)

    async def do_reconnect(self) -> object:
        """Deliveries of the former connection can be settled no more; what they say of themselves stays."""
        await self.broker.disconnect()
        self.broker = await self._connect()
        for name in CONSUMERS:
            await self._attach(name)
        kept, self.taken = self.taken, []
        return [self._seen(delivery) for delivery in kept]

    async def do_bounds(self, bytes_max: int | None) -> None:
        self.spec = StreamSpec(name=self.spec.name, subjects=self.spec.subjects, max_bytes=bytes_max)
        await self.broker.ensure_stream(self.spec)

    async def do_rest(self) -> None:
        """Until whatever was delivered and not settled is due again."""


class Server:
    """A real server for the whole file, in an event loop of its own."""

    def __init__(self, folder: Any) -> None:
        self._runner = asyncio.Runner()
        self._server = EmbeddedNATSServer(EmbeddedNATSConfig(data_dir=folder))
        self.run(self._server.start())

    def run(self, work: Any) -> Any:
        return self._runner.run(work)

    def close(self) -> None:
        self.run(self._server.stop())
        self._runner.close()

    async def connect(self) -> MessageBroker:
        broker = NATSMessageBroker(self._server.client_config("differential"))
        # Every settlement waits until the server has noted it, so that the next step finds it done.
        broker.tell = broker.confirm  # type: ignore[method-assign]
        await broker.connect()
        return broker

    async def sides(self, **bounds: Any) -> tuple[Side, Side]:
        hub = InMemoryHub()
        prefix = f"d{new_id().replace('-', '')}"

        async def in_memory() -> MessageBroker:
            broker = InMemoryMessageBroker(hub)
            await broker.connect()
            return broker

        pair = Side(in_memory, prefix, bounds), Side(self.connect, prefix, bounds)
        for side in pair:
            await side.begin()
        return pair


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("nats"))
    yield server
    server.close()


async def compare(server: Server, program: Sequence[Step]) -> None:
    """Take the steps on both sides and compare what they show; ends early where the machine was too slow to be fair."""
    memory, real = await server.sides()
    begun_s = time.monotonic()
    rests = 0
    try:
        for number, step in enumerate(program):
            if step[0] == "rest":
                rests += 1
                if rests > 2:
                    return
                await asyncio.sleep(REST_S)
                begun_s = time.monotonic()
            elif time.monotonic() - begun_s > 0.6 * ACK_WAIT_S:
                return
            here = await memory.do(step)
            # The server may need a moment for what memory has at once.
            real.patience_s = CONFIRMED_S if step[0] == "fetch" and here else EMPTY_S
            there = await real.do(step)
            deadline_s = time.monotonic() + CONFIRMED_S
            while step[0] == "core" and await memory.newest() != await real.newest() and time.monotonic() < deadline_s:
                await asyncio.sleep(0.002)  # nobody confirms it; it is in the stream when it can be read
            while step[0] == "info" and here != there and time.monotonic() < deadline_s:
                await asyncio.sleep(0.01)
                here, there = await memory.do(step), await real.do(step)
            if here != there and time.monotonic() - begun_s > 0.9 * ACK_WAIT_S:
                return  # something came due on one side during the step
            assert here == there, f"step {number}, {step}: memory {here}, NATS {there}; after {program[:number]}"
    finally:
        await memory.end()
        await real.end()


@settings(max_examples=size_of_test(40, 400))
@given(programs)
def test_the_same_steps_show_the_same_on_both(server: Server, program: list[Step]) -> None:
    server.run(compare(server, program))


Scenario = Callable[[Side], Awaitable[list[Any]]]


def both(server: Server, scenario: Scenario, **bounds: Any) -> list[Any]:
    """Run a scenario on both sides at once; what both of them show."""

    async def run() -> list[Any]:
        memory, real = await server.sides(**bounds)
        try:
            here, there = await asyncio.gather(scenario(memory), scenario(real))
        finally:
            await memory.end()
            await real.end()
        assert here == there
        return here

    found: list[Any] = server.run(run())
    return found


def test_too_old_messages_are_gone_from_stream_and_consumers_alike(server: Server) -> None:
    async def scenario(side: Side) -> list[object]:
        for step in (("store", "b", 1, "i1"), ("store", "b", 1, None), ("store", "b", 1, None), ("fetch", "one", 2)):
            await side.do(step)
        before = [await side.do(("info", "one"))]
        await asyncio.sleep(2.0)
        after = [
            await side.do(step) for step in (("read", 1, 9), ("info", "one"), ("info", "all"), ("fetch", "one", 3))
        ]
        await side.do(("nak", 0))
        return [*before, *after, await side.do(("fetch", "one", 3)), await side.do(("store", "b", 1, "i1"))]

    found = both(server, scenario, max_age_s=0.8, duplicate_window_s=60.0)
    # An id is not remembered for longer than messages are kept.
    assert found == [(1, 2, 0, 0), [], (0, 0, 0, 2), (0, 0, 0, 0), [], [], (4, False, "i1", STORED)]


def test_an_id_is_remembered_for_the_window_from_its_first_use(server: Server) -> None:
    async def scenario(side: Side) -> list[object]:
        found = [await side.do(("store", "b", 1, "i1"))]
        for pause_s in (0.6, 1.4):
            await asyncio.sleep(pause_s)
            found.append(await side.do(("store", "a.x", 300, "i1")))
        return found

    found = both(server, scenario, duplicate_window_s=1.0)
    assert found == [(1, False, "i1", STORED), (1, True, "i1", STORED), (2, False, "i1", STORED)]


@pytest.mark.parametrize("bytes_max", [600, 1_000, 1_999])
def test_at_the_bound_of_bytes_the_same_messages_remain(server: Server, bytes_max: int) -> None:
    async def scenario(side: Side) -> list[object]:
        found: list[object] = []
        for number, size in enumerate((0, 1, 300, 1, 0, 300, 1_500, 1, 300, 300)):
            found.append(await side.do(("store", "b", size, f"i{number}" if number % 2 else None)))
            found.append([seen[0] for seen in await side.do_read(1, 20)])
        found.append(await side.do(("info", "one")))
        return found

    assert both(server, scenario, max_bytes=bytes_max)


def test_a_core_subscriber_sees_the_id_of_what_is_stored_and_none_of_what_is_not(server: Server) -> None:
    async def scenario(side: Side) -> list[Any]:
        seen: list[Any] = []

        async def on_delivery(delivery: Delivery) -> None:
            seen.append((delivery.payload, sorted(delivery.headers.items()), delivery.attempt, delivery.sequence))

        await side.broker.subscribe(f"{side.prefix}.>", on_delivery)
        for step in (("store", "b", 1, "i1"), ("store", "b", 1, "i1"), ("core", "b", 0, "i1"), ("core", "b", 1, None)):
            await side.do(step)
        await until(lambda: len(seen) >= 4, "all were seen")
        await asyncio.sleep(0.1)
        return seen

    found = both(server, scenario)
    assert [len(headers) for _, headers, _, _ in found] == [2, 2, 0, 1]


def test_nothing_new_is_handed_out_at_the_bound_of_deliveries_in_flight_but_what_comes_again(server: Server) -> None:
    async def scenario(side: Side) -> list[object]:
        for _ in range(8):
            await side.do(("store", "b", 1, None))
        steps = (("fetch", "one", 6), ("fetch", "one", 1), ("nak", 1), ("fetch", "one", 6), ("info", "one"), ("ack", 0))
        found = [await side.do(step) for step in steps]
        return [*found, await side.do(("fetch", "one", 6)), await side.do(("info", "one"))]

    found = both(server, scenario)
    assert [seen[0] for seen in found[0]] == [1, 2, 3, 4]
    assert found[1] == []
    assert [seen[:2] for seen in found[3]] == [(3, 2)]
    assert [seen[0] for seen in found[6]] == [5]


def test_a_message_is_given_up_when_it_would_come_once_more_and_so_announced(server: Server) -> None:
    async def scenario(side: Side) -> list[object]:
        told: list[object] = []

        async def on_delivery(delivery: Delivery) -> None:
            advisory = json.loads(delivery.payload)
            told.append((advisory["type"], advisory["consumer"], advisory["stream_seq"], advisory["deliveries"]))

        await side.broker.subscribe(f"{GIVEN_UP_PREFIX}{side.spec.name}.*", on_delivery)
        for _ in range(3):
            await side.do(("store", "b", 1, None))
        found: list[object] = []
        steps: list[Step] = [("fetch", "few", 2), ("nak", 1), ("fetch", "few", 1), ("nak", 0), ("info", "few")]
        # The first is given up when the third is handed out; the second too, after its last delivery.
        steps += [("fetch", "few", 1), ("info", "few"), ("ack", 0), ("nak", 2), ("info", "few")]
        steps += [("fetch", "few", 1), ("nak", 0), ("fetch", "few", 1), ("info", "few"), ("fetch", "few", 1)]
        for step in [*steps, ("ack", 0), ("erase", 1), ("info", "few")]:
            found.append(await side.do(step))
            await asyncio.sleep(0.01)
            found.append(list(told))
        return found

    found = both(server, scenario)
    assert found[-1] == [("io.nats.jetstream.advisory.v1.max_deliver", "few", number, 2) for number in (1, 2)]


def test_one_settlement_covers_what_came_before_unless_it_comes_too_late(server: Server) -> None:
    async def scenario(side: Side) -> list[object]:
        for _ in range(9):
            await side.do(("store", "b", 1, None))
        await side.attach("up", ack=AckPolicy.ALL, in_flight_max=7)
        found: list[object] = [[seen[:3] for seen in await side.do_fetch("up", 9)], await side.do(("info", "up"))]
        third, fourth, fifth, sixth, seventh = side.taken[2:7]
        # The fourth comes again as the eighth delivery, and what settles it is ahead of the others.
        settlements: list[Callable[[], Awaitable[None]]] = [
            third.ack,
            lambda: fourth.nak(delay_s=0.0),
            side.taken[1].term,
            third.in_progress,
        ]
        for settle in settlements:
            await settle()
            found.append(await side.do(("info", "up")))
        found.append([seen[:3] for seen in await side.do_fetch("up", 1)])
        await side.taken[-1].ack(confirm=True)
        found.append(await side.do(("info", "up")))
        too_late: list[Callable[[], Awaitable[None]]] = [fifth.ack, sixth.term, lambda: seventh.nak(delay_s=0.0)]
        for late in too_late:
            await late()
            found.append(await side.do(("info", "up")))
        await side.do(("erase", 6))
        await asyncio.sleep(REST_S)
        found.append([seen[:3] for seen in await side.do_fetch("up", 9)])
        found.append(await side.do(("info", "up")))
        await side.taken[-1].term()
        return [*found, await side.do(("info", "up"))]

    found = both(server, scenario)
    assert found[0] == [(number, 1, number) for number in range(1, 8)]
    # Pending, unsettled, delivered more than once, and the floor.
    assert found[2:6] == [(2, 4, 0, 3)] * 4
    assert found[6] == [(4, 2, 8)]
    assert found[7:11] == [(2, 3, 0, 4)] * 4
    assert found[11] == [(5, 2, 9), (7, 2, 10), (8, 1, 11), (9, 1, 12)]
    assert found[13] == (0, 0, 0, 9)


def test_a_message_that_is_erased_takes_those_before_it_with_it_where_settlements_do(server: Server) -> None:
    async def scenario(side: Side) -> list[object]:
        for _ in range(5):
            await side.do(("store", "b", 1, None))
        found: list[object] = []
        for name, ack in (("up", AckPolicy.ALL), ("alone", AckPolicy.EACH)):
            await side.attach(name, ack=ack)
            found.append([seen[0] for seen in await side.do_fetch(name, 4)])
        await side.do(("erase", 5))
        await side.do(("erase", 3))
        await asyncio.sleep(0.1)
        return [*found, await side.do(("info", "up")), await side.do(("info", "alone"))]

    assert both(server, scenario)[2:] == [(0, 1, 0, 3), (0, 3, 0, 0)]


def test_delivered_is_settled_where_nothing_is_acknowledged(server: Server) -> None:
    async def scenario(side: Side) -> list[object]:
        for _ in range(9):
            await side.do(("store", "b", 1, None))
        await side.attach("free", ack=AckPolicy.NONE, in_flight_max=2)
        found: list[object] = [[seen[:3] for seen in await side.do_fetch("free", 6)], await side.do(("info", "free"))]
        for settlement in ("ack", "confirm", "nak", "later", "term", "beat"):
            found.append(await side.do((settlement, 0)))
        await asyncio.sleep(REST_S)
        await side.attach("free", ack=AckPolicy.NONE, in_flight_max=2)
        return [*found, [seen[:3] for seen in await side.do_fetch("free", 9)], await side.do(("info", "free"))]

    found = both(server, scenario)
    assert found[0] == [(number, 1, number) for number in range(1, 7)]
    assert found[1] == (3, 0, 0, 6)
    assert found[2:8] == [None] * 6
    assert found[8:] == [[(number, 1, number) for number in range(7, 10)], (0, 0, 0, 9)]


def test_a_position_keeps_its_ack_policy(server: Server) -> None:
    async def scenario(side: Side) -> list[object]:
        told: list[object] = []
        for had in AckPolicy:
            for wanted in AckPolicy:
                await side.attach(f"had_{had.value}", ack=had)
                try:
                    await side.attach(f"had_{had.value}", ack=wanted)
                except PolarisException as error:
                    told.append((type(error).__name__, error.message, wanted in error.message))
                else:
                    told.append(had is wanted)
        return told

    found = both(server, scenario)
    assert found.count(True) == 3
    assert found.count(False) == 0


def test_a_forgotten_position_begins_anew_and_a_kept_one_goes_on(server: Server) -> None:
    async def scenario(side: Side) -> list[object]:
        await side.attach("brief", inactive_s=0.7)
        await side.attach("kept", inactive_s=60.0)
        for _ in range(3):
            await side.do(("store", "b", 1, None))
        found: list[object] = []
        for name in ("brief", "kept"):
            found.append(await side.do(("fetch", name, 2)))
            await side.do(("ack", 0))
            await side.do(("ack", 1))
            await side.consumers[name].close()
        await asyncio.sleep(2.5)
        await side.attach("brief", inactive_s=0.7)
        await side.attach("kept", inactive_s=60.0)
        return [*found, await side.do(("fetch", "brief", 3)), await side.do(("fetch", "kept", 3))]

    found = both(server, scenario)
    assert [[seen[:2] for seen in part] for part in found[2:]] == [[(1, 1), (2, 1), (3, 1)], [(3, 1)]]


def test_a_position_begins_where_it_was_told_to(server: Server) -> None:
    async def scenario(side: Side) -> list[object]:
        for _ in range(4):
            await side.do(("store", "b", 1, None))
            await asyncio.sleep(0.05)
        await side.do(("erase", 2))
        stored = await side.broker.read_stored(side.spec.name)
        starts = {
            "s_all": Start.ALL,
            "s_new": Start.NEW,
            "s_2": Start.at_sequence(2),
            "s_9": Start.at_sequence(9),
            "s_at": Start.at_time(stored[1].stored_at),
            "s_between": Start.at_time(stored[1].stored_at + timedelta(milliseconds=10)),
            "s_early": Start.at_time(stored[0].stored_at - timedelta(hours=1)),
            "s_late": Start.at_time(stored[-1].stored_at + timedelta(milliseconds=10)),
        }
        for name, start in starts.items():
            await side.attach(name, start=start)
        await asyncio.sleep(0.05)
        await side.do(("store", "b", 1, None))
        return [(name, [seen[0] for seen in await side.do_fetch(name, 9)]) for name in starts]

    assert both(server, scenario)


def test_what_no_broker_takes_is_refused_alike(server: Server) -> None:
    async def scenario(side: Side) -> list[object]:
        found: list[object] = []
        for subject in ("", "a b", "a..b", ".a", "a.", "a.*", "a.>", "a\nb", "größe", "$x", "a*b"):
            for delivery in (CORE, STORED):
                message = OutgoingMessage(f"{side.prefix}.{subject}", b"x")
                found.append((subject, await _outcome(side.broker.publish(message, delivery=delivery, timeout_s=1.0))))
        for name, value in (("a b", "x"), ("", "x"), ("a", "x\ny"), ("a", " x"), ("a", "é"), ("a", ""), ("a:", "x")):
            message = OutgoingMessage(f"{side.prefix}.b", b"x", None, {name: value})
            found.append((name, value, await _outcome(side.broker.publish(message, delivery=STORED))))
        for pattern in ("", "a b", "a..b", "a.>.b", "a*", ">a", "*", "größe.*"):
            found.append((pattern, await _outcome(side.broker.subscribe(f"{side.prefix}.{pattern}", _ignore))))
            consumer = ConsumerSpec(stream=side.spec.name, durable="odd", pattern=f"{side.prefix}.{pattern}")
            found.append((pattern, await _outcome(side.broker.consumer(consumer))))
            await _outcome(side.broker.ensure_stream(side.spec))
        found.append(await _outcome(side.consumers["one"].fetch(0, wait_s=0.0)))
        return found

    assert both(server, scenario)


async def _outcome(work: Awaitable[object]) -> str:
    try:
        await work
    except PolarisException as error:
        return type(error).__name__
    return "done"


async def _ignore(delivery: Delivery) -> None:
    pass
