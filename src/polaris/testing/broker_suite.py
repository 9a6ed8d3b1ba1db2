"""The contract of `MessageBroker` as tests: every broker passes all of them.

Derive a class named `Test...` from `BrokerSuite` and give it a fixture `make_broker`: an async function without
arguments that returns a new, connected broker, each time another client of one and the same server. The fixture
disconnects them all afterwards. Every test uses names of its own, so the server may be shared.

    class TestMyBroker(BrokerSuite):
        @pytest.fixture
        async def make_broker(self):
            ...
            yield make
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import pytest

from polaris.exceptions import (
    BusConnectionError,
    MessageBusError,
    PayloadTooLargeError,
    PublishError,
    RequestTimeoutError,
    SubscriptionError,
)
from polaris.ids import new_id
from polaris.messaging._broker import (
    ConnectionState,
    ConsumerSpec,
    Delivery,
    DeliveryClass,
    MessageBroker,
    OutgoingMessage,
    PullConsumer,
    StreamSpec,
)

MakeBroker = Callable[[], Awaitable[MessageBroker]]

STORED = DeliveryClass.AT_LEAST_ONCE
PATIENCE_S = 5.0
ACK_WAIT_S = 0.6


class _Inbox:
    """Collects deliveries and waits for them."""

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []

    async def __call__(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)

    @property
    def payloads(self) -> list[bytes]:
        return [delivery.payload for delivery in self.deliveries]

    async def wait_for(self, count: int) -> None:
        await _eventually(lambda: len(self.deliveries) >= count, f"{count} deliveries")


async def _eventually(holds: Callable[[], bool], what: str) -> None:
    async def poll() -> None:
        while not holds():  # noqa: ASYNC110 # the condition has no event of its own
            await asyncio.sleep(0.01)

    try:
        await asyncio.wait_for(poll(), PATIENCE_S)
    except TimeoutError:
        pytest.fail(f"waited {PATIENCE_S:g} s in vain for {what}")


async def _settle_down() -> None:
    """Time enough for a message that must not come to come."""
    await asyncio.sleep(0.15)


async def _fetch(consumer: PullConsumer, count: int, *, wait_s: float = PATIENCE_S) -> list[Delivery]:
    """Exactly `count` deliveries, fewer only when the wait was in vain."""
    found: list[Delivery] = []
    while len(found) < count:
        more = await consumer.fetch(count - len(found), wait_s=wait_s)
        if not more:
            break
        found.extend(more)
    return found


class _Stream:
    """A fresh stream of two-token subjects, and short ways to use it."""

    def __init__(self, broker: MessageBroker, *, max_bytes: int | None = 1 << 24) -> None:
        self.broker = broker
        self.prefix = f"suite{new_id().replace('-', '')}"
        self.spec = StreamSpec(name=f"SUITE_{self.prefix}", subjects=(f"{self.prefix}.>",), max_bytes=max_bytes)

    def subject(self, last: str = "a") -> str:
        return f"{self.prefix}.{last}"

    async def publish(self, payload: bytes, *, last: str = "a", message_id: str | None = None) -> int:
        message = OutgoingMessage(self.subject(last), payload, message_id or new_id())
        receipt = await self.broker.publish(message, delivery=STORED)
        assert receipt.sequence is not None
        return receipt.sequence

    async def consumer(
        self, durable: str = "reader", *, broker: MessageBroker | None = None, **spec: object
    ) -> PullConsumer:
        options: dict[str, object] = {"ack_wait_s": ACK_WAIT_S, "pattern": f"{self.prefix}.>", **spec}
        wanted = ConsumerSpec(stream=self.spec.name, durable=durable, **options)  # type: ignore[arg-type]
        return await (broker or self.broker).consumer(wanted)


async def _stream(make_broker: MakeBroker, *, max_bytes: int | None = 1 << 24) -> _Stream:
    stream = _Stream(await make_broker(), max_bytes=max_bytes)
    await stream.broker.ensure_stream(stream.spec)
    return stream


def _subject() -> str:
    return f"suite{new_id().replace('-', '')}"


class ConnectionPromises:
    """What holds for the connection."""

    async def test_connecting_twice_is_harmless(self, make_broker: MakeBroker) -> None:
        broker = await make_broker()
        await broker.connect()
        assert broker.state is ConnectionState.CONNECTED

    async def test_disconnecting_twice_is_harmless(self, make_broker: MakeBroker) -> None:
        broker = await make_broker()
        await broker.disconnect()
        await broker.disconnect()
        assert broker.state in (ConnectionState.CLOSED, ConnectionState.DISCONNECTED)

    async def test_a_listener_hears_the_state_change(self, make_broker: MakeBroker) -> None:
        broker = await make_broker()
        heard: list[ConnectionState] = []

        def failing(state: ConnectionState) -> None:
            raise RuntimeError(state)

        broker.on_state(failing)
        broker.on_state(heard.append)
        await broker.disconnect()
        assert heard[-1:] == [broker.state]

    async def test_without_a_connection_everything_is_refused(self, make_broker: MakeBroker) -> None:
        stream = await _stream(make_broker)
        broker = stream.broker
        consumer = await stream.consumer()
        await broker.disconnect()
        message = OutgoingMessage(stream.subject(), b"x", new_id())
        for delivery in DeliveryClass:
            with pytest.raises(BusConnectionError):
                await broker.publish(message, delivery=delivery, timeout_s=1.0)
        with pytest.raises(BusConnectionError):
            await broker.subscribe(_subject(), _Inbox())
        with pytest.raises(BusConnectionError):
            await consumer.fetch(1, wait_s=0.2)
        with pytest.raises(BusConnectionError):
            await broker.request(message, timeout_s=0.5)


class CorePromises:
    """What holds for core publish and subscribe."""

    async def test_subject_payload_and_headers_arrive_unchanged(self, make_broker: MakeBroker) -> None:
        publisher, subscriber = await make_broker(), await make_broker()
        subject, inbox = _subject(), _Inbox()
        await subscriber.subscribe(subject, inbox)
        payload = bytes(range(256))
        await publisher.publish(OutgoingMessage(subject, payload, headers={"Polaris-Test": "a b=c"}))
        await inbox.wait_for(1)
        delivery = inbox.deliveries[0]
        assert (delivery.subject, delivery.payload) == (subject, payload)
        assert delivery.headers["Polaris-Test"] == "a b=c"
        assert (delivery.attempt, delivery.sequence, delivery.stored_at, delivery.reply_to) == (1, None, None, None)

    async def test_a_core_receipt_promises_no_more_than_at_most_once(self, make_broker: MakeBroker) -> None:
        broker = await make_broker()
        receipt = await broker.publish(OutgoingMessage(_subject(), b"x", "id-1"))
        assert receipt.delivery is DeliveryClass.AT_MOST_ONCE
        assert receipt.message_id == "id-1"
        assert receipt.sequence is None

    async def test_only_what_is_published_after_subscribing_arrives(self, make_broker: MakeBroker) -> None:
        publisher, subscriber = await make_broker(), await make_broker()
        subject, inbox = _subject(), _Inbox()
        await publisher.publish(OutgoingMessage(subject, b"before"))
        await _settle_down()
        await subscriber.subscribe(subject, inbox)
        await publisher.publish(OutgoingMessage(subject, b"after"))
        await inbox.wait_for(1)
        await _settle_down()
        assert inbox.payloads == [b"after"]

    async def test_messages_arrive_in_the_order_of_publishing(self, make_broker: MakeBroker) -> None:
        publisher, subscriber = await make_broker(), await make_broker()
        subject, inbox = _subject(), _Inbox()
        await subscriber.subscribe(subject, inbox)
        sent = [str(number).encode() for number in range(500)]
        for payload in sent:
            await publisher.publish(OutgoingMessage(subject, payload))
        await inbox.wait_for(len(sent))
        assert inbox.payloads == sent

    async def test_a_callback_runs_message_by_message(self, make_broker: MakeBroker) -> None:
        broker = await make_broker()
        subject, running, seen = _subject(), 0, []

        async def on_delivery(delivery: Delivery) -> None:
            nonlocal running
            running += 1
            seen.append(running)
            await asyncio.sleep(0.01)
            running -= 1

        await broker.subscribe(subject, on_delivery)
        for _ in range(5):
            await broker.publish(OutgoingMessage(subject, b"x"))
        await _eventually(lambda: len(seen) == 5, "5 calls")
        assert seen == [1] * 5

    async def test_wildcards_match_as_nats_defines_them(self, make_broker: MakeBroker) -> None:
        broker = await make_broker()
        root = _subject()
        inboxes = {pattern: _Inbox() for pattern in ("a.*", "a.*.c", "a.>", "a.b")}
        for pattern, inbox in inboxes.items():
            await broker.subscribe(f"{root}.{pattern}", inbox)
        for last in ("a", "a.b", "a.b.c", "a.b.c.d", "b.b"):
            await broker.publish(OutgoingMessage(f"{root}.{last}", last.encode()))
        await inboxes["a.>"].wait_for(3)
        await _settle_down()
        assert {pattern: inbox.payloads for pattern, inbox in inboxes.items()} == {
            "a.*": [b"a.b"],
            "a.*.c": [b"a.b.c"],
            "a.>": [b"a.b", b"a.b.c", b"a.b.c.d"],
            "a.b": [b"a.b"],
        }

    async def test_each_message_goes_to_one_member_of_a_group(self, make_broker: MakeBroker) -> None:
        publisher = await make_broker()
        members = [_Inbox() for _ in range(3)]
        alone, subject = _Inbox(), _subject()
        for inbox in members:
            await (await make_broker()).subscribe(subject, inbox, group="workers")
        await publisher.subscribe(subject, alone)
        sent = [str(number).encode() for number in range(60)]
        for payload in sent:
            await publisher.publish(OutgoingMessage(subject, payload))
        await alone.wait_for(len(sent))
        await _eventually(lambda: sum(len(inbox.deliveries) for inbox in members) >= len(sent), "all to the group")
        await _settle_down()
        assert sorted(payload for inbox in members for payload in inbox.payloads) == sorted(sent)
        assert sum(1 for inbox in members if inbox.deliveries) > 1

    async def test_an_ended_subscription_receives_nothing(self, make_broker: MakeBroker) -> None:
        broker = await make_broker()
        subject, inbox = _subject(), _Inbox()
        subscription = await broker.subscribe(subject, inbox)
        await subscription.unsubscribe()
        await subscription.unsubscribe()
        await broker.publish(OutgoingMessage(subject, b"x"))
        await _settle_down()
        assert inbox.payloads == []

    async def test_a_drained_subscription_finishes_what_it_received(self, make_broker: MakeBroker) -> None:
        broker = await make_broker()
        subject, handled, started = _subject(), [], asyncio.Event()

        async def slow(delivery: Delivery) -> None:
            started.set()
            await asyncio.sleep(0.02)
            handled.append(delivery.payload)

        arrived = _Inbox()
        await broker.subscribe(subject, arrived)
        subscription = await broker.subscribe(subject, slow)
        for number in range(5):
            await broker.publish(OutgoingMessage(subject, str(number).encode()))
        await started.wait()
        await arrived.wait_for(5)
        await subscription.drain()
        assert handled == [b"0", b"1", b"2", b"3", b"4"]
        await broker.publish(OutgoingMessage(subject, b"late"))
        await _settle_down()
        assert len(handled) == 5

    async def test_draining_the_broker_finishes_what_was_received(self, make_broker: MakeBroker) -> None:
        broker, other = await make_broker(), await make_broker()
        subject, handled, arrived = _subject(), [], _Inbox()

        async def slow(delivery: Delivery) -> None:
            await asyncio.sleep(0.02)
            handled.append(delivery.payload)

        await broker.subscribe(subject, slow)
        await broker.subscribe(subject, arrived)
        for number in range(5):
            await other.publish(OutgoingMessage(subject, str(number).encode()))
        await arrived.wait_for(5)
        await broker.drain()
        assert handled == [b"0", b"1", b"2", b"3", b"4"]
        assert broker.state in (ConnectionState.CLOSED, ConnectionState.DISCONNECTED)

    async def test_a_failing_callback_does_not_end_its_subscription(self, make_broker: MakeBroker) -> None:
        broker = await make_broker()
        subject, seen = _subject(), []

        async def failing(delivery: Delivery) -> None:
            seen.append(delivery.payload)
            raise ValueError("of the callback")

        await broker.subscribe(subject, failing)
        await broker.publish(OutgoingMessage(subject, b"1"))
        await broker.publish(OutgoingMessage(subject, b"2"))
        await _eventually(lambda: seen == [b"1", b"2"], "both messages")

    async def test_a_stuck_callback_does_not_hold_up_another_subscription(self, make_broker: MakeBroker) -> None:
        broker = await make_broker()
        subject, inbox, release = _subject(), _Inbox(), asyncio.Event()

        async def stuck(delivery: Delivery) -> None:
            await release.wait()

        await broker.subscribe(subject, stuck)
        await broker.subscribe(subject, inbox)
        for _ in range(10):
            await broker.publish(OutgoingMessage(subject, b"x"))
        await inbox.wait_for(10)
        release.set()

    async def test_a_payload_at_the_limit_passes_and_one_over_it_is_refused(self, make_broker: MakeBroker) -> None:
        broker = await make_broker()
        subject, inbox = _subject(), _Inbox()
        await broker.subscribe(subject, inbox)
        limit = broker.capabilities.payload_bytes_max
        with pytest.raises(PayloadTooLargeError) as caught:
            await broker.publish(OutgoingMessage(subject, b"x" * (limit + 1)))
        assert (caught.value.payload_bytes, caught.value.payload_bytes_max) == (limit + 1, limit)
        await broker.publish(OutgoingMessage(subject, b"y" * limit))
        await inbox.wait_for(1)
        assert [len(payload) for payload in inbox.payloads] == [limit]


class RequestPromises:
    """What holds for request and reply."""

    async def test_a_request_gets_its_reply(self, make_broker: MakeBroker) -> None:
        asking, answering = await make_broker(), await make_broker()
        subject = _subject()

        async def answer(delivery: Delivery) -> None:
            assert delivery.reply_to is not None
            await answering.publish(OutgoingMessage(delivery.reply_to, b"re: " + delivery.payload))

        await answering.subscribe(subject, answer)
        replies = await asyncio.gather(
            *(asking.request(OutgoingMessage(subject, str(n).encode()), timeout_s=PATIENCE_S) for n in range(10))
        )
        assert [reply.payload for reply in replies] == [f"re: {n}".encode() for n in range(10)]

    async def test_a_request_that_nobody_listens_to_ends_at_once(self, make_broker: MakeBroker) -> None:
        broker = await make_broker()
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(RequestTimeoutError):
                await broker.request(OutgoingMessage(_subject(), b"x"), timeout_s=60.0)

    async def test_an_unanswered_request_ends_in_time(self, make_broker: MakeBroker) -> None:
        broker = await make_broker()
        subject = _subject()
        await broker.subscribe(subject, _Inbox())
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        with pytest.raises(RequestTimeoutError):
            await broker.request(OutgoingMessage(subject, b"x"), timeout_s=0.3)
        assert 0.25 <= loop.time() - started_s <= 2.0


class StreamPromises:
    """What holds for storing."""

    async def test_a_stored_publish_says_stream_and_rising_sequence(self, make_broker: MakeBroker) -> None:
        stream = await _stream(make_broker)
        receipts = [
            await stream.broker.publish(OutgoingMessage(stream.subject(), b"x", f"id-{n}"), delivery=STORED)
            for n in range(3)
        ]
        assert [receipt.sequence for receipt in receipts] == [1, 2, 3]
        assert {receipt.stream for receipt in receipts} == {stream.spec.name}
        assert [receipt.message_id for receipt in receipts] == ["id-0", "id-1", "id-2"]
        assert all(receipt.delivery is STORED and not receipt.duplicate for receipt in receipts)

    async def test_a_stored_publish_that_no_stream_wants_is_refused(self, make_broker: MakeBroker) -> None:
        broker = await make_broker()
        with pytest.raises(PublishError):
            await broker.publish(OutgoingMessage(_subject(), b"x", new_id()), delivery=STORED, timeout_s=2.0)

    async def test_an_oversized_stored_publish_is_refused(self, make_broker: MakeBroker) -> None:
        stream = await _stream(make_broker)
        payload = b"x" * (stream.broker.capabilities.payload_bytes_max + 1)
        with pytest.raises(PayloadTooLargeError):
            await stream.publish(payload)
        assert await stream.broker.read_stored(stream.spec.name) == []

    async def test_a_message_id_is_stored_once(self, make_broker: MakeBroker) -> None:
        stream = await _stream(make_broker)
        first = await stream.broker.publish(OutgoingMessage(stream.subject(), b"1", "same"), delivery=STORED)
        again = await stream.broker.publish(OutgoingMessage(stream.subject(), b"2", "same"), delivery=STORED)
        assert (first.duplicate, again.duplicate) == (False, True)
        assert again.sequence == first.sequence
        stored = await stream.broker.read_stored(stream.spec.name)
        assert [message.payload for message in stored] == [b"1"]

    async def test_many_publishes_at_once_are_all_stored(self, make_broker: MakeBroker) -> None:
        stream = await _stream(make_broker)
        sequences = await asyncio.gather(*(stream.publish(str(n).encode()) for n in range(300)))
        assert sorted(sequences) == list(range(1, 301))

    async def test_a_core_subscriber_also_sees_what_is_stored(self, make_broker: MakeBroker) -> None:
        stream = await _stream(make_broker)
        inbox = _Inbox()
        await stream.broker.subscribe(stream.subject(), inbox)
        await stream.publish(b"x")
        await inbox.wait_for(1)

    async def test_ensuring_a_stream_again_keeps_its_messages(self, make_broker: MakeBroker) -> None:
        stream = await _stream(make_broker)
        await stream.publish(b"x")
        wider = StreamSpec(name=stream.spec.name, subjects=(*stream.spec.subjects, f"{stream.prefix}x.>"))
        await stream.broker.ensure_stream(wider)
        assert [message.payload for message in await stream.broker.read_stored(wider.name)] == [b"x"]
        await stream.broker.publish(OutgoingMessage(f"{stream.prefix}x.y", b"y", new_id()), delivery=STORED)

    async def test_a_subject_belongs_to_one_stream(self, make_broker: MakeBroker) -> None:
        stream = await _stream(make_broker)
        with pytest.raises(MessageBusError):
            await stream.broker.ensure_stream(StreamSpec(name=f"{stream.spec.name}_2", subjects=(stream.subject("a"),)))

    async def test_at_its_bound_a_stream_drops_the_oldest(self, make_broker: MakeBroker) -> None:
        stream = await _stream(make_broker, max_bytes=20_000)
        for n in range(10):
            await stream.publish(bytes([n]) * 5_000)
        stored = await stream.broker.read_stored(stream.spec.name)
        numbers = [message.payload[0] for message in stored]
        assert 1 <= len(numbers) <= 4
        assert numbers == list(range(10 - len(numbers), 10))

    async def test_what_is_stored_can_be_read_in_pages(self, make_broker: MakeBroker) -> None:
        stream = await _stream(make_broker)
        broker, name = stream.broker, stream.spec.name
        message = OutgoingMessage(stream.subject("b"), b"\x00\xff", "id-1", headers={"Polaris-Test": "v"})
        await broker.publish(message, delivery=STORED)
        for n in range(4):
            await stream.publish(str(n).encode())
        page = await broker.read_stored(name, count_max=2)
        assert [stored.sequence for stored in page] == [1, 2]
        assert (page[0].subject, page[0].payload) == (stream.subject("b"), b"\x00\xff")
        assert page[0].headers["Polaris-Test"] == "v"
        assert page[0].stored_at.utcoffset() is not None
        rest = await broker.read_stored(name, from_sequence=3)
        assert [stored.payload for stored in rest] == [b"1", b"2", b"3"]
        assert await broker.read_stored(name, from_sequence=6) == []
        with pytest.raises(MessageBusError):
            await broker.read_stored("SUITE_unknown")

    async def test_an_erased_message_is_gone(self, make_broker: MakeBroker) -> None:
        stream = await _stream(make_broker)
        broker, name = stream.broker, stream.spec.name
        for n in range(3):
            await stream.publish(str(n).encode())
        assert await broker.erase_stored(name, 2) is True
        assert await broker.erase_stored(name, 2) is False
        assert [stored.sequence for stored in await broker.read_stored(name)] == [1, 3]
        consumer = await stream.consumer()
        assert [delivery.payload for delivery in await _fetch(consumer, 2)] == [b"0", b"2"]
        await consumer.close()


class ConsumerPromises:
    """What holds for durable consumers."""

    async def test_a_consumer_begins_with_everything_stored_in_order(self, make_broker: MakeBroker) -> None:
        stream = await _stream(make_broker)
        for n in range(20):
            await stream.publish(str(n).encode(), last=f"s{n % 3}")
        consumer = await stream.consumer()
        found = await _fetch(consumer, 20)
        assert [delivery.payload for delivery in found] == [str(n).encode() for n in range(20)]
        assert [delivery.sequence for delivery in found] == list(range(1, 21))
        assert {delivery.attempt for delivery in found} == {1}
        assert all(delivery.stored_at is not None and delivery.stored_at.utcoffset() is not None for delivery in found)
        assert found[1].subject == stream.subject("s1")
        assert found[1].reply_to is None
        await consumer.close()

    async def test_a_consumer_of_new_messages_skips_what_is_stored(self, make_broker: MakeBroker) -> None:
        stream = await _stream(make_broker)
        await stream.publish(b"old")
        consumer = await stream.consumer(deliver_new=True)
        await stream.publish(b"new")
        assert [delivery.payload for delivery in await _fetch(consumer, 1)] == [b"new"]
        assert await consumer.fetch(1, wait_s=0.1) == []
        await consumer.close()

    async def test_a_consumer_sees_its_pattern_only(self, make_broker: MakeBroker) -> None:
        stream = await _stream(make_broker)
        for last in ("a.1", "b.1", "a.2", "a.2.x"):
            await stream.publish(last.encode(), last=last)
        consumer = await stream.consumer(pattern=stream.subject("a.*"))
        found = await _fetch(consumer, 3, wait_s=0.3)
        assert [delivery.payload for delivery in found] == [b"a.1", b"a.2"]
        await consumer.close()

    async def test_a_consumer_of_an_unknown_stream_is_refused(self, make_broker: MakeBroker) -> None:
        broker = await make_broker()
        with pytest.raises(SubscriptionError):
            await broker.consumer(ConsumerSpec(stream="SUITE_unknown", durable="d", pattern="x.>"))

    async def test_an_acknowledged_message_never_comes_again(self, make_broker: MakeBroker) -> None:
        stream = await _stream(make_broker)
        await stream.publish(b"1")
        await stream.publish(b"2")
        consumer = await stream.consumer()
        first, second = await _fetch(consumer, 2)
        await first.ack()
        await second.ack(confirm=True)
        assert await consumer.fetch(1, wait_s=2.5 * ACK_WAIT_S) == []
        await consumer.close()

    async def test_an_unsettled_message_comes_again(self, make_broker: MakeBroker) -> None:
        stream = await _stream(make_broker)
        await stream.publish(b"x")
        consumer = await stream.consumer()
        loop = asyncio.get_running_loop()
        (first,) = await _fetch(consumer, 1)
        taken_s = loop.time()
        (again,) = await _fetch(consumer, 1)
        assert loop.time() - taken_s >= 0.8 * ACK_WAIT_S
        assert (first.attempt, again.attempt) == (1, 2)
        assert (again.payload, again.sequence) == (b"x", first.sequence)
        await again.ack(confirm=True)
        await consumer.close()

    async def test_a_heartbeat_keeps_a_message_from_coming_again(self, make_broker: MakeBroker) -> None:
        stream = await _stream(make_broker)
        await stream.publish(b"x")
        consumer = await stream.consumer()
        (delivery,) = await _fetch(consumer, 1)
        for _ in range(6):
            await asyncio.sleep(ACK_WAIT_S / 3)
            await delivery.in_progress()
        assert await consumer.fetch(1, wait_s=0.05) == []
        await delivery.ack(confirm=True)
        await consumer.close()

    async def test_a_message_handed_back_comes_again_after_its_delay(self, make_broker: MakeBroker) -> None:
        stream = await _stream(make_broker)
        await stream.publish(b"x")
        consumer = await stream.consumer(ack_wait_s=30.0)
        loop = asyncio.get_running_loop()
        (first,) = await _fetch(consumer, 1)
        handed_back_s = loop.time()
        await first.nak(delay_s=0.5)
        (again,) = await _fetch(consumer, 1)
        assert 0.4 <= loop.time() - handed_back_s <= 3.0
        assert again.attempt == 2
        handed_back_s = loop.time()
        await again.nak(delay_s=0.0)
        (third,) = await _fetch(consumer, 1)
        assert loop.time() - handed_back_s <= 2.0
        assert third.attempt == 3
        await third.ack(confirm=True)
        await consumer.close()

    async def test_a_message_given_up_never_comes_again(self, make_broker: MakeBroker) -> None:
        stream = await _stream(make_broker)
        await stream.publish(b"x")
        consumer = await stream.consumer()
        (delivery,) = await _fetch(consumer, 1)
        await delivery.term()
        assert await consumer.fetch(1, wait_s=2.5 * ACK_WAIT_S) == []
        await consumer.close()

    async def test_a_consumer_goes_on_where_another_client_left_it(self, make_broker: MakeBroker) -> None:
        stream = await _stream(make_broker)
        for n in range(4):
            await stream.publish(str(n).encode())
        former = await stream.consumer()
        for delivery in await _fetch(former, 2):
            await delivery.ack(confirm=True)
        await former.close()
        await former.close()
        later = await stream.consumer(broker=await make_broker())
        assert [delivery.payload for delivery in await _fetch(later, 2)] == [b"2", b"3"]
        await later.close()

    async def test_clients_of_one_consumer_share_the_messages(self, make_broker: MakeBroker) -> None:
        stream = await _stream(make_broker)
        readers = [await stream.consumer(broker=await make_broker(), ack_wait_s=30.0) for _ in range(2)]
        for n in range(10):
            await stream.publish(str(n).encode())
        found = [*await _fetch(readers[0], 4), *await _fetch(readers[1], 6)]
        assert sorted(delivery.payload for delivery in found) == [str(n).encode() for n in range(10)]
        for reader in readers:
            await reader.close()

    async def test_two_consumers_each_get_everything(self, make_broker: MakeBroker) -> None:
        stream = await _stream(make_broker)
        await stream.publish(b"x")
        for durable in ("one", "two"):
            consumer = await stream.consumer(durable)
            (delivery,) = await _fetch(consumer, 1)
            await delivery.ack(confirm=True)
            await consumer.close()

    async def test_no_more_than_in_flight_max_are_unsettled(self, make_broker: MakeBroker) -> None:
        stream = await _stream(make_broker)
        for n in range(5):
            await stream.publish(str(n).encode())
        consumer = await stream.consumer(in_flight_max=2, ack_wait_s=30.0)
        held = await _fetch(consumer, 2)
        assert await consumer.fetch(5, wait_s=0.2) == []
        await held[0].ack(confirm=True)
        assert [delivery.payload for delivery in await consumer.fetch(5, wait_s=PATIENCE_S)] == [b"2"]
        await consumer.close()

    async def test_a_fetch_gives_no_more_than_asked_for(self, make_broker: MakeBroker) -> None:
        stream = await _stream(make_broker)
        for n in range(5):
            await stream.publish(str(n).encode())
        consumer = await stream.consumer()
        assert 1 <= len(await consumer.fetch(3, wait_s=PATIENCE_S)) <= 3
        await consumer.close()

    async def test_an_empty_fetch_ends_after_its_wait(self, make_broker: MakeBroker) -> None:
        stream = await _stream(make_broker)
        consumer = await stream.consumer()
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        assert await consumer.fetch(10, wait_s=0.4) == []
        assert 0.3 <= loop.time() - started_s <= 2.0
        await consumer.close()

    async def test_a_waiting_fetch_gets_what_is_published_meanwhile(self, make_broker: MakeBroker) -> None:
        stream = await _stream(make_broker)
        consumer = await stream.consumer()
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        waiting = asyncio.create_task(consumer.fetch(10, wait_s=PATIENCE_S))
        await asyncio.sleep(0.1)
        await stream.publish(b"x")
        assert [delivery.payload for delivery in await waiting] == [b"x"]
        assert loop.time() - started_s < 0.8 * PATIENCE_S
        await consumer.close()

    async def test_a_cancelled_fetch_loses_nothing(self, make_broker: MakeBroker) -> None:
        stream = await _stream(make_broker)
        consumer = await stream.consumer()
        waiting = asyncio.create_task(consumer.fetch(1, wait_s=PATIENCE_S))
        await asyncio.sleep(0.1)
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting
        await stream.publish(b"x")
        found: Sequence[Delivery] = await _fetch(consumer, 1)
        assert [delivery.payload for delivery in found] == [b"x"]
        await consumer.close()

    async def test_a_consumer_says_what_waits(self, make_broker: MakeBroker) -> None:
        stream = await _stream(make_broker)
        for n in range(5):
            await stream.publish(str(n).encode())
        consumer = await stream.consumer(ack_wait_s=30.0)
        first, *_ = await _fetch(consumer, 2)
        await first.ack(confirm=True)
        info = await consumer.info()
        assert (info.pending, info.ack_pending, info.redelivered) == (3, 1, 0)
        await consumer.close()

    async def test_a_position_is_forgotten_when_nobody_attends_to_it(self, make_broker: MakeBroker) -> None:
        stream = await _stream(make_broker)
        await stream.publish(b"x")
        consumer = await stream.consumer(inactive_s=0.4)
        (delivery,) = await _fetch(consumer, 1)
        await delivery.ack(confirm=True)
        await consumer.close()
        await asyncio.sleep(2.0)
        anew = await stream.consumer(inactive_s=0.4)
        assert [found.payload for found in await _fetch(anew, 1)] == [b"x"]
        await anew.close()


class BrokerSuite(ConnectionPromises, CorePromises, RequestPromises, StreamPromises, ConsumerPromises):
    """All promises of a broker."""
