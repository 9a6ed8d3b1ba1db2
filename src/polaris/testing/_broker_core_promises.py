"""What every broker promises of its connection, of core publish and subscribe, and of requests."""

from __future__ import annotations

import asyncio

import pytest

from polaris.exceptions import (
    BusConnectionError,
    PayloadTooLargeError,
    RequestTimeoutError,
)
from polaris.ids import new_id
from polaris.messaging import (
    ConnectionState,
    Delivery,
    DeliveryClass,
    OutgoingMessage,
)
from polaris.testing._broker_scratch import (
    PATIENCE_S,
    Inbox,
    MakeBroker,
    Turns,
    eventually,
    scratch_stream,
    scratch_subject,
    settle_down,
)


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

    async def test_a_listener_that_was_removed_hears_nothing(self, make_broker: MakeBroker) -> None:
        broker = await make_broker()
        heard: list[str] = []
        removers = [broker.on_state(lambda _, name=name: heard.append(name)) for name in "abc"]  # type: ignore[misc]
        removers[1]()
        removers[1]()
        await broker.disconnect()
        # Whether the others are told is another promise.
        assert set(heard) in (set(), {"a", "c"})

    async def test_without_a_connection_everything_is_refused(self, make_broker: MakeBroker) -> None:
        stream = await scratch_stream(make_broker)
        broker = stream.broker
        consumer = await stream.consumer()
        await broker.disconnect()
        message = OutgoingMessage(stream.subject(), b"x", new_id())
        for delivery in DeliveryClass:
            with pytest.raises(BusConnectionError):
                await broker.publish(message, delivery=delivery, timeout_s=1.0)
        with pytest.raises(BusConnectionError):
            await broker.subscribe(scratch_subject(), Inbox())
        with pytest.raises(BusConnectionError):
            await consumer.fetch(1, wait_s=0.2)
        with pytest.raises(BusConnectionError):
            await broker.request(message, timeout_s=0.5)


class CorePromises:
    """What holds for core publish and subscribe."""

    async def test_subject_payload_and_headers_arrive_unchanged(self, make_broker: MakeBroker) -> None:
        publisher, subscriber = await make_broker(), await make_broker()
        subject, inbox = scratch_subject(), Inbox()
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
        receipt = await broker.publish(OutgoingMessage(scratch_subject(), b"x", "id-1"))
        assert receipt.delivery is DeliveryClass.AT_MOST_ONCE
        assert receipt.message_id == "id-1"
        assert receipt.sequence is None

    async def test_only_what_is_published_after_subscribing_arrives(self, make_broker: MakeBroker) -> None:
        publisher, subscriber = await make_broker(), await make_broker()
        subject, inbox = scratch_subject(), Inbox()
        await publisher.publish(OutgoingMessage(subject, b"before"))
        await settle_down()
        await subscriber.subscribe(subject, inbox)
        await publisher.publish(OutgoingMessage(subject, b"after"))
        await inbox.wait_for(1)
        await settle_down()
        assert inbox.payloads == [b"after"]

    async def test_messages_arrive_in_the_order_of_publishing(self, make_broker: MakeBroker) -> None:
        publisher, subscriber = await make_broker(), await make_broker()
        subject, inbox = scratch_subject(), Inbox()
        await subscriber.subscribe(subject, inbox)
        sent = [str(number).encode() for number in range(500)]
        for payload in sent:
            await publisher.publish(OutgoingMessage(subject, payload))
        await inbox.wait_for(len(sent))
        assert inbox.payloads == sent

    async def test_a_callback_runs_message_by_message(self, make_broker: MakeBroker) -> None:
        broker = await make_broker()
        subject, running, seen = scratch_subject(), 0, []

        async def on_delivery(delivery: Delivery) -> None:
            nonlocal running
            running += 1
            seen.append(running)
            await asyncio.sleep(0.01)
            running -= 1

        await broker.subscribe(subject, on_delivery)
        for _ in range(5):
            await broker.publish(OutgoingMessage(subject, b"x"))
        await eventually(lambda: len(seen) == 5, "5 calls")
        assert seen == [1] * 5

    async def test_wildcards_match_as_nats_defines_them(self, make_broker: MakeBroker) -> None:
        broker = await make_broker()
        root = scratch_subject()
        inboxes = {pattern: Inbox() for pattern in ("a.*", "a.*.c", "a.>", "a.b")}
        for pattern, inbox in inboxes.items():
            await broker.subscribe(f"{root}.{pattern}", inbox)
        for last in ("a", "a.b", "a.b.c", "a.b.c.d", "b.b"):
            await broker.publish(OutgoingMessage(f"{root}.{last}", last.encode()))
        await inboxes["a.>"].wait_for(3)
        await settle_down()
        assert {pattern: inbox.payloads for pattern, inbox in inboxes.items()} == {
            "a.*": [b"a.b"],
            "a.*.c": [b"a.b.c"],
            "a.>": [b"a.b", b"a.b.c", b"a.b.c.d"],
            "a.b": [b"a.b"],
        }

    async def test_each_message_goes_to_one_member_of_a_group(self, make_broker: MakeBroker) -> None:
        publisher = await make_broker()
        members = [Inbox() for _ in range(3)]
        alone, subject = Inbox(), scratch_subject()
        for inbox in members:
            await (await make_broker()).subscribe(subject, inbox, group="workers")
        await publisher.subscribe(subject, alone)
        sent = [str(number).encode() for number in range(60)]
        for payload in sent:
            await publisher.publish(OutgoingMessage(subject, payload))
        await alone.wait_for(len(sent))
        await eventually(lambda: sum(len(inbox.deliveries) for inbox in members) >= len(sent), "all to the group")
        await settle_down()
        assert sorted(payload for inbox in members for payload in inbox.payloads) == sorted(sent)
        assert sum(1 for inbox in members if inbox.deliveries) > 1

    async def test_an_ended_subscription_receives_nothing(self, make_broker: MakeBroker) -> None:
        broker = await make_broker()
        subject, inbox = scratch_subject(), Inbox()
        subscription = await broker.subscribe(subject, inbox)
        await subscription.unsubscribe()
        await subscription.unsubscribe()
        await broker.publish(OutgoingMessage(subject, b"x"))
        await settle_down()
        assert inbox.payloads == []

    async def test_a_drained_subscription_finishes_what_it_received(self, make_broker: MakeBroker) -> None:
        broker = await make_broker()
        subject, handled, started = scratch_subject(), [], asyncio.Event()

        async def slow(delivery: Delivery) -> None:
            started.set()
            await asyncio.sleep(0.02)
            handled.append(delivery.payload)

        arrived = Inbox()
        await broker.subscribe(subject, arrived)
        subscription = await broker.subscribe(subject, slow)
        for number in range(5):
            await broker.publish(OutgoingMessage(subject, str(number).encode()))
        await started.wait()
        await arrived.wait_for(5)
        await subscription.drain()
        assert handled == [b"0", b"1", b"2", b"3", b"4"]
        await broker.publish(OutgoingMessage(subject, b"late"))
        await settle_down()
        assert len(handled) == 5

    async def test_draining_the_broker_finishes_what_was_received(self, make_broker: MakeBroker) -> None:
        broker, other = await make_broker(), await make_broker()
        subject, handled, arrived = scratch_subject(), [], Inbox()

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
        subject, seen = scratch_subject(), []

        async def failing(delivery: Delivery) -> None:
            seen.append(delivery.payload)
            raise ValueError("of the callback")

        await broker.subscribe(subject, failing)
        await broker.publish(OutgoingMessage(subject, b"1"))
        await broker.publish(OutgoingMessage(subject, b"2"))
        await eventually(lambda: seen == [b"1", b"2"], "both messages")

    async def test_a_stuck_callback_does_not_hold_up_another_subscription(self, make_broker: MakeBroker) -> None:
        broker = await make_broker()
        subject, inbox, release = scratch_subject(), Inbox(), asyncio.Event()

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
        subject, inbox = scratch_subject(), Inbox()
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
        subject = scratch_subject()

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
                await broker.request(OutgoingMessage(scratch_subject(), b"x"), timeout_s=60.0)

    async def test_an_unanswered_request_ends_in_time(self, make_broker: MakeBroker) -> None:
        broker = await make_broker()
        subject = scratch_subject()
        await broker.subscribe(subject, Inbox())
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        async with Turns() as turns:
            with pytest.raises(RequestTimeoutError):
                await broker.request(OutgoingMessage(subject, b"x"), timeout_s=0.3)
        assert loop.time() - started_s >= 0.25
        assert turns.seconds <= 2.0
