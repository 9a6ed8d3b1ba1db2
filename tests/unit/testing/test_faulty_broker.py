"""Each injected fault does what it says and nothing else, is written down, and comes again with its seed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from polaris.exceptions import (
    BusConnectionError,
    InvalidValueError,
    PublishError,
    RequestTimeoutError,
    UnconfirmedPublishError,
)
from polaris.messaging import (
    ConnectionState,
    ConsumerSpec,
    Delivery,
    DeliveryClass,
    InMemoryHub,
    InMemoryMessageBroker,
    MessageBroker,
    OutgoingMessage,
    PullConsumer,
    StreamSpec,
)
from polaris.testing import Fault, FaultPlan, FaultyBroker, running_clock

STORED = DeliveryClass.AT_LEAST_ONCE
STREAM = StreamSpec(name="S", subjects=("s.>",))
ACK_WAIT_S = 10.0


@asynccontextmanager
async def faulty(plan: FaultPlan | None = None, *, seed: int = 1) -> AsyncIterator[FaultyBroker]:
    """A connected faulty broker with the stream S, whose making was no occasion for a fault."""
    clock = running_clock()
    hub = InMemoryHub(clock=clock)
    other = InMemoryMessageBroker(hub)
    await other.connect()
    await other.ensure_stream(STREAM)
    broker = FaultyBroker(InMemoryMessageBroker(hub), plan, seed=seed, clock=clock)
    await broker.connect()
    try:
        yield broker
    finally:
        await broker.disconnect()
        await other.disconnect()


async def reader(broker: MessageBroker) -> PullConsumer:
    return await broker.consumer(ConsumerSpec(stream="S", durable="d", pattern="s.>", ack_wait_s=ACK_WAIT_S))


def message(number: int = 1, subject: str = "s.a") -> OutgoingMessage:
    return OutgoingMessage(subject, str(number).encode(), f"id-{number}")


class Inbox:
    def __init__(self) -> None:
        self.payloads: list[bytes] = []

    async def __call__(self, delivery: Delivery) -> None:
        self.payloads.append(delivery.payload)


async def received(
    plan: FaultPlan, count: int, *, seed: int = 1, pause_s: float = 1.0
) -> tuple[list[bytes], list[Fault]]:
    """What a core subscriber gets of `count` messages, with a pause between them."""
    inbox = Inbox()
    async with faulty(plan, seed=seed) as broker:
        await broker.subscribe("c", inbox)
        for number in range(count):
            await broker.publish(message(number, "c"))
            await asyncio.sleep(pause_s)
        await asyncio.sleep(10)
        return inbox.payloads, [injection.fault for injection in broker.injections]


def numbers(*wanted: int) -> list[bytes]:
    return [str(number).encode() for number in wanted]


async def test_a_lost_core_message_never_comes() -> None:
    payloads, faults = await received(FaultPlan(at={Fault.LOSS: {2, 4}}), 5)
    assert payloads == numbers(0, 2, 4)
    assert faults == [Fault.LOSS] * 2


async def test_a_duplicated_core_message_comes_twice() -> None:
    payloads, faults = await received(FaultPlan(at={Fault.DUPLICATE: {2}}), 3)
    assert payloads == numbers(0, 1, 1, 2)
    assert faults == [Fault.DUPLICATE]


async def test_a_message_out_of_order_comes_behind_the_next_one() -> None:
    payloads, _ = await received(FaultPlan(at={Fault.REORDER: {1, 3}}, delay_s_max=5.0), 5)
    assert payloads == numbers(1, 0, 2, 4, 3) or payloads == numbers(1, 0, 3, 2, 4)


async def test_a_message_out_of_order_does_not_wait_for_ever() -> None:
    payloads, _ = await received(FaultPlan(at={Fault.REORDER: {1}}, delay_s_max=0.5), 2)
    assert payloads == numbers(0, 1)


async def test_a_delayed_message_holds_up_those_behind_it_and_keeps_their_order() -> None:
    times: list[float] = []

    async def note(delivery: Delivery) -> None:
        times.append(running_clock().monotonic())

    async with faulty(FaultPlan(at={Fault.DELAY: {2}}, delay_s_max=8.0)) as broker:
        await broker.subscribe("c", note)
        began_s = running_clock().monotonic()
        for number in range(3):
            await broker.publish(message(number, "c"))
        await asyncio.sleep(20)
    waits = [at_s - began_s for at_s in times]
    assert waits[0] == 0
    assert 0 < waits[1] == waits[2] <= 8


async def test_what_is_held_back_comes_before_a_drained_subscription_ends() -> None:
    inbox = Inbox()
    async with faulty(FaultPlan(reorder=1.0, delay_s_max=100.0)) as broker:
        for end in ("drain", "unsubscribe"):
            inbox.payloads.clear()
            subscription = await broker.subscribe("c", inbox)
            await broker.publish(message(1, "c"))
            await asyncio.sleep(1)
            await getattr(subscription, end)()
            assert inbox.payloads == (numbers(1) if end == "drain" else [])
        await broker.subscribe("c", inbox)
        await broker.publish(message(2, "c"))
        await asyncio.sleep(1)
        await broker.drain()
        assert inbox.payloads == numbers(2)


async def test_a_failing_callback_ends_nothing_even_when_its_message_was_held_back() -> None:
    seen: list[bytes] = []

    async def failing(delivery: Delivery) -> None:
        seen.append(delivery.payload)
        raise ValueError("of the callback")

    async with faulty(FaultPlan(at={Fault.REORDER: {1}}, delay_s_max=0.5)) as broker:
        await broker.subscribe("c", failing)
        for number in range(3):
            await broker.publish(message(number, "c"))
            await asyncio.sleep(2)
    assert seen == numbers(0, 1, 2)


async def test_an_unconfirmed_message_is_stored_and_safe_to_repeat() -> None:
    async with faulty(FaultPlan(at={Fault.UNCONFIRMED: {1}})) as broker:
        with pytest.raises(UnconfirmedPublishError):
            await broker.publish(message(), delivery=STORED)
        receipt = await broker.publish(message(), delivery=STORED)
        assert (receipt.sequence, receipt.duplicate) == (1, True)


async def test_a_vanished_message_is_not_stored_and_looks_the_same() -> None:
    async with faulty(FaultPlan(at={Fault.VANISHED: {1}})) as broker:
        with pytest.raises(UnconfirmedPublishError):
            await broker.publish(message(), delivery=STORED)
        assert (await broker.publish(message(), delivery=STORED)).duplicate is False


async def test_a_refused_message_is_not_stored() -> None:
    async with faulty(FaultPlan(at={Fault.REFUSED: {1}})) as broker:
        with pytest.raises(PublishError):
            await broker.publish(message(), delivery=STORED)
        assert list(await broker.read_stored("S")) == []
        assert (await broker.publish(message(), delivery=STORED)).duplicate is False


async def test_a_core_publish_is_no_occasion_for_what_befalls_stored_ones() -> None:
    async with faulty(FaultPlan(refused=1.0, unconfirmed=1.0, vanished=1.0)) as broker:
        await broker.publish(message(1, "c"))
        assert not broker.injections
        with pytest.raises(PublishError):
            await broker.publish(message(), delivery=STORED)
        assert len(broker.injections) == 1


async def test_a_lost_acknowledgement_brings_the_message_again() -> None:
    async with faulty(FaultPlan(at={Fault.ACK_LOST: {1}})) as broker:
        await broker.publish(message(), delivery=STORED)
        consumer = await reader(broker)
        (first,) = await consumer.fetch(1, wait_s=1)
        await first.ack()
        await first.ack()  # it was settled as far as anybody can tell
        (again,) = await consumer.fetch(1, wait_s=2 * ACK_WAIT_S)
        assert (again.attempt, again.payload, again.sequence) == (2, b"1", 1)
        assert again.stored_at == first.stored_at
        await again.ack()
        assert list(await consumer.fetch(1, wait_s=2 * ACK_WAIT_S)) == []
        await consumer.close()


async def test_a_lost_acknowledgement_that_was_to_be_confirmed_raises_and_can_be_repeated() -> None:
    async with faulty(FaultPlan(at={Fault.ACK_LOST: {1}})) as broker:
        await broker.publish(message(), delivery=STORED)
        consumer = await reader(broker)
        (first,) = await consumer.fetch(1, wait_s=1)
        with pytest.raises(BusConnectionError):
            await first.ack(confirm=True)
        await first.ack(confirm=True)
        assert (await consumer.info()).ack_pending == 0


async def test_a_lost_term_brings_the_message_again() -> None:
    async with faulty(FaultPlan(at={Fault.ACK_LOST: {1}})) as broker:
        await broker.publish(message(), delivery=STORED)
        consumer = await reader(broker)
        (first,) = await consumer.fetch(1, wait_s=1)
        await first.term()
        (again,) = await consumer.fetch(1, wait_s=2 * ACK_WAIT_S)
        await again.term()
        assert list(await consumer.fetch(1, wait_s=2 * ACK_WAIT_S)) == []


async def test_a_lost_nak_brings_the_message_again_only_after_the_ack_wait() -> None:
    async with faulty(FaultPlan(at={Fault.NAK_LOST: {1}})) as broker:
        await broker.publish(message(), delivery=STORED)
        consumer = await reader(broker)
        for waits_s in (ACK_WAIT_S, 1.0):
            (delivery,) = await consumer.fetch(1, wait_s=2 * ACK_WAIT_S)
            began_s = running_clock().monotonic()
            await delivery.nak(delay_s=1.0)
            await delivery.in_progress()  # of no effect any more
            (again,) = await consumer.fetch(1, wait_s=2 * ACK_WAIT_S)
            assert running_clock().monotonic() - began_s == pytest.approx(waits_s)
            await again.nak(delay_s=0.0)


async def test_a_lost_delivery_comes_again_as_the_second_one() -> None:
    async with faulty(FaultPlan(at={Fault.LOSS: {1}})) as broker:
        await broker.publish(message(), delivery=STORED)
        consumer = await reader(broker)
        assert list(await consumer.fetch(1, wait_s=1)) == []
        (delivery,) = await consumer.fetch(1, wait_s=2 * ACK_WAIT_S)
        assert delivery.attempt == 2


async def test_fetched_messages_are_shuffled_and_all_there() -> None:
    async with faulty(FaultPlan(reorder=1.0)) as broker:
        for number in range(50):
            await broker.publish(message(number), delivery=STORED)
        found = await (await reader(broker)).fetch(50, wait_s=1)
        payloads = [delivery.payload for delivery in found]
        assert payloads != numbers(*range(50))
        assert sorted(payloads, key=int) == numbers(*range(50))


async def test_the_broker_says_what_it_does_to_the_order_and_nothing_more() -> None:
    async with faulty(FaultPlan(reorder=0.1)) as broker:
        assert broker.capabilities.ordered is False
        assert broker.capabilities.redelivers is True
    for plan in (FaultPlan(), FaultPlan(loss=1.0, duplicate=1.0), FaultPlan(at={Fault.REORDER: set()})):
        async with faulty(plan) as broker:
            assert broker.capabilities == broker.inner.capabilities


async def every_call(broker: FaultyBroker, consumer: PullConsumer, delivery: Delivery) -> dict[str, Any]:
    """The outcome of each call that needs a connection."""

    async def outcome(call: Any) -> Any:
        try:
            return await call
        except Exception as error:
            return type(error)

    return {
        "publish": await outcome(broker.publish(message(2, "c"))),
        "store": await outcome(broker.publish(message(2), delivery=STORED)),
        "subscribe": await outcome(broker.subscribe("x", Inbox())),
        "consumer": await outcome(reader(broker)),
        "ensure_stream": await outcome(broker.ensure_stream(STREAM)),
        "read_stored": await outcome(broker.read_stored("S")),
        "erase_stored": await outcome(broker.erase_stored("S", 99)),
        "request": await outcome(broker.request(message(2, "c"), timeout_s=1.0)),
        "fetch": await outcome(consumer.fetch(1, wait_s=0.0)),
        "info": await outcome(consumer.info()),
        "in_progress": await outcome(delivery.in_progress()),
        "nak": await outcome(delivery.nak(delay_s=0.0)),
        "connect": await outcome(broker.connect()),
    }


async def test_a_partition_closes_every_way_ends_by_itself_and_is_told_as_a_state() -> None:
    async with faulty(FaultPlan(at={Fault.PARTITION: {5}}, partition_s=30.0)) as broker:
        states: list[ConnectionState] = []
        broker.on_state(states.append)
        await broker.publish(message(), delivery=STORED)
        consumer = await reader(broker)
        (delivery,) = await consumer.fetch(1, wait_s=1)
        cut = await every_call(broker, consumer, delivery)
        assert set(cut.values()) == {BusConnectionError}
        assert broker.state is ConnectionState.RECONNECTING
        await asyncio.sleep(31)
        open_again = await every_call(broker, consumer, delivery)
        assert BusConnectionError not in open_again.values()
        assert states == [ConnectionState.RECONNECTING, broker.state] == [states[0], ConnectionState.CONNECTED]
        assert broker.counts == {Fault.PARTITION: 1}


async def test_a_partition_by_hand_lasts_until_it_is_mended() -> None:
    inbox = Inbox()
    async with faulty() as broker:
        other = InMemoryMessageBroker(broker.inner.hub)  # type: ignore[attr-defined]
        await other.connect()
        await broker.subscribe("c", inbox)
        broker.cut()
        broker.cut()
        await other.publish(message(1, "c"))
        await asyncio.sleep(3600)
        assert broker.is_cut
        broker.mend()
        broker.mend()
        await other.publish(message(2, "c"))
        await asyncio.sleep(1)
        await other.disconnect()
        assert inbox.payloads == numbers(2)
        assert [injection.fault for injection in broker.injections] == [Fault.PARTITION, Fault.LOSS]


async def test_a_partition_ends_a_fetch_that_waits_and_what_it_would_have_brought_comes_again() -> None:
    async with faulty() as broker:
        consumer = await reader(broker)
        fetching = asyncio.create_task(_outcome(consumer.fetch(1, wait_s=100.0)))
        await asyncio.sleep(1)
        began_s = running_clock().monotonic()
        broker.cut()
        assert await fetching is BusConnectionError
        assert running_clock().monotonic() == began_s
        broker.mend()
        await broker.publish(message(), delivery=STORED)
        assert len(await consumer.fetch(1, wait_s=2 * ACK_WAIT_S)) == 1


async def _outcome(call: Any) -> Any:
    try:
        return await call
    except Exception as error:
        return type(error)


async def test_a_publish_that_is_cut_off_is_unconfirmed() -> None:
    class Slow(InMemoryMessageBroker):
        async def publish(self, message: OutgoingMessage, **options: Any) -> Any:
            receipt = await super().publish(message, **options)
            await asyncio.sleep(1)
            return receipt

    broker = FaultyBroker(Slow(clock=running_clock()), clock=running_clock())
    await broker.connect()
    await broker.ensure_stream(STREAM)
    publishing = asyncio.create_task(_outcome(broker.publish(message(), delivery=STORED)))
    await asyncio.sleep(0.5)
    broker.cut()
    assert await publishing is UnconfirmedPublishError
    await broker.disconnect()


async def test_disconnecting_in_a_partition_leaves_nothing_behind_and_connecting_again_works() -> None:
    async with faulty(FaultPlan(at={Fault.PARTITION: {2}}, partition_s=1e6)) as broker:
        with pytest.raises(BusConnectionError):
            await broker.publish(message())
        await broker.disconnect()
        assert broker.state is ConnectionState.CLOSED
        await broker.connect()
        await broker.publish(message(1, "c"))


async def test_a_lost_request_ends_in_time() -> None:
    async with faulty(FaultPlan(at={Fault.LOSS: {1}})) as broker:
        began_s = running_clock().monotonic()
        with pytest.raises(RequestTimeoutError):
            await broker.request(message(1, "c"), timeout_s=3.0)
        assert running_clock().monotonic() - began_s == pytest.approx(3.0)


async def test_the_same_seed_gives_the_same_faults_and_another_one_others() -> None:
    plan = FaultPlan(loss=0.2, duplicate=0.2, reorder=0.2, delay=0.2, delay_s_max=0.3)
    first = await received(plan, 60, seed=5, pause_s=0.1)
    assert await received(plan, 60, seed=5, pause_s=0.1) == first
    assert await received(plan, 60, seed=6, pause_s=0.1) != first
    assert set(first[1]) == {Fault.LOSS, Fault.DUPLICATE, Fault.REORDER, Fault.DELAY}


async def test_probabilities_are_kept_in_the_long_run() -> None:
    payloads, faults = await received(FaultPlan(loss=0.25), 4_000, pause_s=0.0)
    assert len(payloads) + len(faults) == 4_000
    assert 900 < len(faults) < 1_100


async def test_injections_are_numbered_and_say_where_and_when() -> None:
    async with faulty(FaultPlan(at={Fault.REFUSED: {1}, Fault.UNCONFIRMED: {2}})) as broker:
        clock = running_clock()
        for error in (PublishError, UnconfirmedPublishError):
            with pytest.raises(error):
                await broker.publish(message(), delivery=STORED)
            await asyncio.sleep(1)
        one, two = broker.injections
        assert (one.number, one.fault, one.where) == (1, Fault.REFUSED, "s.a")
        assert (two.number, two.fault) == (2, Fault.UNCONFIRMED)
        assert two.monotonic_s - one.monotonic_s == pytest.approx(1.0)
        assert clock.monotonic() - two.monotonic_s == pytest.approx(1.0)
        assert broker.counts == {Fault.REFUSED: 1, Fault.UNCONFIRMED: 1}


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("loss", {"loss": 1.1}),
        ("partition", {"partition": -0.1}),
        ("refused", {"refused": float("nan")}),
        ("delay_s_max", {"delay_s_max": -1.0}),
        ("partition_s", {"partition_s": float("inf")}),
        ("at", {"at": {Fault.LOSS: {0}}}),
        ("at", {"at": {"loss": {1}}}),
    ],
)
async def test_an_impossible_plan_is_refused(field: str, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidValueError, match=field):
        FaultPlan(**options)


async def test_a_listener_that_raises_changes_nothing() -> None:
    async with faulty() as broker:

        def broken(state: ConnectionState) -> None:
            raise ValueError("of the listener")

        heard: list[ConnectionState] = []
        broker.on_state(broken)
        broker.on_state(heard.append)
        broker.cut()
        broker.mend()
        assert heard == [ConnectionState.RECONNECTING, ConnectionState.CONNECTED]
