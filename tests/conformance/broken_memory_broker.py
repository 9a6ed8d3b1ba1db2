"""Single promises of the in-memory broker, each broken in one place: the suite must notice exactly that."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from polaris.messaging import _patterns
from polaris.messaging._broker import MESSAGE_ID_HEADER, AckPolicy, ConsumerSpec, DeliveryClass
from polaris.messaging.brokers import _memory, _memory_hub
from polaris.messaging.brokers._memory import InMemoryMessageBroker
from polaris.messaging.brokers._memory_core import MemorySubscription
from polaris.messaging.brokers._memory_deliveries import CoreDelivery, MemoryCoreSubscription, StreamDelivery
from polaris.messaging.brokers._memory_hub import InMemoryHub
from polaris.messaging.brokers._memory_streams import ConsumerPosition, MemoryStream

Break = Callable[[pytest.MonkeyPatch], None]
BREAKS: dict[str, Break] = {}


def breaks(promise: str) -> Callable[[Break], Break]:
    def register(function: Break) -> Break:
        BREAKS[promise] = function
        return function

    return register


async def _nothing(*_: Any, **__: Any) -> None:
    """A settlement that is forgotten."""


@breaks("test_an_ended_subscription_receives_nothing")
def unsubscribing_does_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(MemoryCoreSubscription, "unsubscribe", _nothing)


@breaks("test_a_drained_subscription_finishes_what_it_received")
def draining_a_subscription_drops(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(MemoryCoreSubscription, "drain", MemoryCoreSubscription.unsubscribe)


@breaks("test_draining_the_broker_finishes_what_was_received")
def draining_the_broker_drops(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(InMemoryMessageBroker, "drain", InMemoryMessageBroker.disconnect)


@breaks("test_a_failing_callback_does_not_end_its_subscription")
def a_failure_ends_the_subscription(patch: pytest.MonkeyPatch) -> None:
    original = MemorySubscription.__init__

    def init(self: MemorySubscription, pattern: str, on_delivery: Any, group: str | None, **more: Any) -> None:
        async def fragile(delivery: Any) -> None:
            try:
                await on_delivery(delivery)
            except Exception:
                self._pending.clear()
                self._ended = True

        original(self, pattern, fragile, group, **more)

    patch.setattr(MemorySubscription, "__init__", init)


@breaks("test_each_message_goes_to_one_member_of_a_group")
def groups_are_ignored(patch: pytest.MonkeyPatch) -> None:
    original = MemorySubscription.__init__
    patch.setattr(
        MemorySubscription,
        "__init__",
        lambda self, pattern, on_delivery, group, **more: original(self, pattern, on_delivery, None, **more),
    )


@breaks("test_wildcards_match_as_nats_defines_them")
def a_star_matches_many_tokens(patch: pytest.MonkeyPatch) -> None:
    original = _patterns.matches
    patch.setattr(_memory_hub, "matches", lambda pattern, subject: original(pattern.replace("*", ">", 1), subject))


@breaks("test_subject_payload_and_headers_arrive_unchanged")
def core_headers_are_dropped(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        _memory,
        "CoreDelivery",
        lambda subject, payload, headers, reply_to: CoreDelivery(subject, payload, {}, reply_to),
    )


@breaks("test_a_core_receipt_promises_no_more_than_at_most_once")
def core_receipts_promise_too_much(patch: pytest.MonkeyPatch) -> None:
    original = InMemoryMessageBroker.publish

    async def publish(self: InMemoryMessageBroker, message: Any, **options: Any) -> Any:
        receipt = await original(self, message, **options)
        return msgspec.structs.replace(receipt, delivery=DeliveryClass.AT_LEAST_ONCE)

    patch.setattr(InMemoryMessageBroker, "publish", publish)


@breaks("test_a_listener_hears_the_state_change")
def listeners_are_not_told(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(InMemoryMessageBroker, "on_state", lambda self, listener: lambda: None)


@breaks("test_a_listener_that_was_removed_hears_nothing")
def listeners_stay(patch: pytest.MonkeyPatch) -> None:
    original = InMemoryMessageBroker.on_state

    def on_state(self: InMemoryMessageBroker, listener: Any) -> Any:
        original(self, listener)
        return lambda: None

    patch.setattr(InMemoryMessageBroker, "on_state", on_state)


@breaks("test_without_a_connection_everything_is_refused")
def a_closed_broker_goes_on(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(InMemoryMessageBroker, "_require_connection", lambda self: None)


@breaks("test_an_oversized_stored_publish_is_refused")
def stored_messages_have_no_limit(patch: pytest.MonkeyPatch) -> None:
    original = InMemoryMessageBroker._check
    patch.setattr(
        InMemoryMessageBroker,
        "_check",
        lambda self, message, message_id: (
            ({**(message.headers or {}), MESSAGE_ID_HEADER: message_id}, len(message.payload))
            if message_id
            else original(self, message, message_id)
        ),
    )


@breaks("test_a_payload_at_the_limit_passes_and_one_over_it_is_refused")
def the_limit_is_one_byte_short(patch: pytest.MonkeyPatch) -> None:
    original = InMemoryMessageBroker._check

    def check(self: InMemoryMessageBroker, message: Any, message_id: str | None) -> Any:
        return original(self, msgspec.structs.replace(message, payload=message.payload + b"x"), message_id)

    patch.setattr(InMemoryMessageBroker, "_check", check)


@breaks("test_a_request_that_nobody_listens_to_ends_at_once")
def silence_is_not_noticed(patch: pytest.MonkeyPatch) -> None:
    original = InMemoryHub.fan_out
    patch.setattr(InMemoryHub, "fan_out", lambda self, subject, delivery: original(self, subject, delivery) or 1)


@breaks("test_an_unanswered_request_ends_in_time")
def requests_wait_too_long(patch: pytest.MonkeyPatch) -> None:
    original = InMemoryMessageBroker.request

    async def request(self: InMemoryMessageBroker, message: Any, *, timeout_s: float) -> Any:
        return await original(self, message, timeout_s=10 * timeout_s)

    patch.setattr(InMemoryMessageBroker, "request", request)


@breaks("test_a_stored_publish_that_no_stream_wants_is_refused")
def nobody_misses_the_stream(patch: pytest.MonkeyPatch) -> None:
    original = InMemoryMessageBroker.publish

    async def publish(self: InMemoryMessageBroker, message: Any, **options: Any) -> Any:
        if self.hub.stream_of(message.subject) is None:
            options["delivery"] = DeliveryClass.AT_MOST_ONCE
        return await original(self, message, **options)

    patch.setattr(InMemoryMessageBroker, "publish", publish)


@breaks("test_a_message_id_is_stored_once")
def ids_are_not_remembered(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(MemoryStream, "_forget_ids", lambda self, now_s: self._seen.clear())


@breaks("test_a_core_subscriber_also_sees_what_is_stored")
def what_is_stored_is_not_pushed(patch: pytest.MonkeyPatch) -> None:
    original = InMemoryHub.fan_out
    patch.setattr(
        InMemoryHub,
        "fan_out",
        lambda self, subject, delivery: 0 if self.stream_of(subject) else original(self, subject, delivery),
    )


@breaks("test_ensuring_a_stream_again_keeps_its_messages")
def ensuring_makes_anew(patch: pytest.MonkeyPatch) -> None:
    original = InMemoryHub.ensure_stream

    def ensure(self: InMemoryHub, spec: Any) -> None:
        self.streams.pop(spec.name, None)
        original(self, spec)

    patch.setattr(InMemoryHub, "ensure_stream", ensure)


@breaks("test_a_subject_belongs_to_one_stream")
def streams_overlap(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(_memory_hub, "overlap", lambda first, second: False)


@breaks("test_at_its_bound_a_stream_drops_the_oldest")
def streams_have_no_bound(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(MemoryStream, "enforce_bounds", lambda self: None)


@breaks("test_what_is_stored_can_be_read_in_pages")
def pages_begin_at_the_beginning(patch: pytest.MonkeyPatch) -> None:
    original = InMemoryMessageBroker.read_stored

    async def read(self: InMemoryMessageBroker, stream: str, *, from_sequence: int = 1, count_max: int = 100) -> Any:
        return await original(self, stream, count_max=count_max)

    patch.setattr(InMemoryMessageBroker, "read_stored", read)


@breaks("test_an_erased_message_is_gone")
def erasing_always_succeeds(patch: pytest.MonkeyPatch) -> None:
    original = MemoryStream.erase
    patch.setattr(MemoryStream, "erase", lambda self, sequence: original(self, sequence) or True)


@breaks("test_what_is_no_name_is_refused")
def any_name_will_do(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(_memory, "check_name", lambda field, name: None)


@breaks("test_a_consumer_of_new_messages_skips_what_is_stored")
def new_means_all(patch: pytest.MonkeyPatch) -> None:
    original = MemoryStream.first_of
    patch.setattr(MemoryStream, "first_of", lambda self, start: 1 if start.new else original(self, start))


@breaks("test_a_consumer_begins_with_the_message_of_a_sequence")
def any_sequence_means_all(patch: pytest.MonkeyPatch) -> None:
    original = MemoryStream.first_of
    patch.setattr(MemoryStream, "first_of", lambda self, start: 1 if start.sequence else original(self, start))


@breaks("test_a_consumer_begins_with_the_first_message_stored_at_or_after_a_time")
def any_time_means_all(patch: pytest.MonkeyPatch) -> None:
    original = MemoryStream.first_of
    patch.setattr(MemoryStream, "first_of", lambda self, start: 1 if start.time else original(self, start))


@breaks("test_a_consumer_sees_its_pattern_only")
def patterns_are_ignored(patch: pytest.MonkeyPatch) -> None:
    original = MemoryStream.position
    patch.setattr(
        MemoryStream, "position", lambda self, spec: original(self, msgspec.structs.replace(spec, pattern=">"))
    )


@breaks("test_an_acknowledged_message_never_comes_again")
def unconfirmed_acknowledgements_are_lost(patch: pytest.MonkeyPatch) -> None:
    original = StreamDelivery.ack

    async def ack(self: StreamDelivery, *, confirm: bool = False) -> None:
        if confirm:
            await original(self, confirm=True)

    patch.setattr(StreamDelivery, "ack", ack)


@breaks("test_an_unsettled_message_comes_again")
def what_is_unsettled_stays_away(patch: pytest.MonkeyPatch) -> None:
    original = ConsumerPosition._schedule

    def schedule(self: ConsumerPosition, sequence: int, unsettled: Any, delay_s: float) -> None:
        late = delay_s == self.spec.ack_wait_s
        original(self, sequence, unsettled, 3600.0 if late else delay_s)

    patch.setattr(ConsumerPosition, "_schedule", schedule)


@breaks("test_a_heartbeat_keeps_a_message_from_coming_again")
def heartbeats_are_not_heard(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(StreamDelivery, "in_progress", _nothing)


@breaks("test_a_message_handed_back_comes_again_after_its_delay")
def handed_back_comes_at_once(patch: pytest.MonkeyPatch) -> None:
    original = StreamDelivery.nak

    async def nak(self: StreamDelivery, *, delay_s: float) -> None:
        await original(self, delay_s=0.0)

    patch.setattr(StreamDelivery, "nak", nak)


@breaks("test_a_message_given_up_never_comes_again")
def giving_up_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(StreamDelivery, "term", _nothing)


@breaks("test_a_message_delivered_as_often_as_allowed_never_comes_again")
def a_message_given_up_is_new_again(patch: pytest.MonkeyPatch) -> None:
    original = ConsumerPosition._give_up

    def give_up(self: ConsumerPosition, sequence: int, deliveries: int) -> None:
        if deliveries > 1:
            self._next_sequence = sequence
        original(self, sequence, deliveries)

    patch.setattr(ConsumerPosition, "_give_up", give_up)


@breaks("test_that_a_message_is_given_up_is_announced_once")
def giving_up_is_silent(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(InMemoryHub, "announce", lambda self, subject, payload: None)


@breaks("test_with_ack_all_a_settlement_covers_everything_before_it")
def a_settlement_covers_one_message(patch: pytest.MonkeyPatch) -> None:
    def settle(self: ConsumerPosition, number: int, sequence: int) -> None:
        self._unsettled.pop(sequence, None)

    patch.setattr(ConsumerPosition, "_settle_up_to", settle)


@breaks("test_with_ack_all_what_is_handed_back_comes_again_and_settles_nothing")
def handing_back_settles_what_came_before(patch: pytest.MonkeyPatch) -> None:
    original = ConsumerPosition.hand_back

    def hand_back(self: ConsumerPosition, sequence: int, number: int, delay_s: float) -> None:
        if self.spec.ack is AckPolicy.ALL:
            self._settle_up_to(number - 1, sequence - 1)
        original(self, sequence, number, delay_s)

    patch.setattr(ConsumerPosition, "hand_back", hand_back)


@breaks("test_with_ack_none_delivered_is_settled")
def none_means_each(patch: pytest.MonkeyPatch) -> None:
    original = MemoryStream.position

    def position(self: MemoryStream, spec: Any) -> Any:
        known = self.positions.get(spec.durable)
        if spec.ack is AckPolicy.NONE and (known is None or known.spec.ack is AckPolicy.EACH):
            spec = msgspec.structs.replace(spec, ack=AckPolicy.EACH)
        return original(self, spec)

    patch.setattr(MemoryStream, "position", position)


@breaks("test_a_position_keeps_its_ack_policy")
def any_ack_policy_will_do(patch: pytest.MonkeyPatch) -> None:
    original = MemoryStream.position

    def position(self: MemoryStream, spec: Any) -> Any:
        if spec.durable in self.positions:
            self.positions[spec.durable].spec = spec
        return original(self, spec)

    patch.setattr(MemoryStream, "position", position)


@breaks("test_deliveries_are_numbered_over_all_clients_without_a_gap")
def each_client_counts_for_itself(patch: pytest.MonkeyPatch) -> None:
    original = ConsumerPosition.attach

    def attach(self: ConsumerPosition) -> None:
        original(self)
        self._delivered = 0

    patch.setattr(ConsumerPosition, "attach", attach)


@breaks("test_a_consumer_goes_on_where_another_client_left_it")
def closing_forgets_the_position(patch: pytest.MonkeyPatch) -> None:
    original = ConsumerPosition.detach

    def detach(self: ConsumerPosition) -> None:
        original(self)
        self.stream.positions.pop(self.spec.durable, None)

    patch.setattr(ConsumerPosition, "detach", detach)


@breaks("test_no_more_than_in_flight_max_are_unsettled")
def any_number_may_be_unsettled(patch: pytest.MonkeyPatch) -> None:
    original = MemoryStream.position
    patch.setattr(
        MemoryStream,
        "position",
        lambda self, spec: original(self, msgspec.structs.replace(spec, in_flight_max=10**6)),
    )


@breaks("test_a_position_is_forgotten_when_nobody_attends_to_it")
def positions_are_kept_for_ever(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(MemoryStream, "_forget_positions", lambda self: None)


@breaks("test_two_consumers_each_get_everything")
def all_consumers_are_one(patch: pytest.MonkeyPatch) -> None:
    original = MemoryStream.position

    def position(self: MemoryStream, spec: ConsumerSpec) -> ConsumerPosition:
        only = original(self, msgspec.structs.replace(spec, durable="only"))
        only.spec = spec
        return only

    patch.setattr(MemoryStream, "position", position)


@breaks("test_a_consumer_says_what_waits")
def the_backlog_is_not_told(patch: pytest.MonkeyPatch) -> None:
    original = ConsumerPosition.info
    patch.setattr(ConsumerPosition, "info", lambda self: msgspec.structs.replace(original(self), pending=0))


@breaks("test_a_stuck_callback_does_not_hold_up_another_subscription")
def callbacks_run_one_after_the_other(patch: pytest.MonkeyPatch) -> None:
    original = MemorySubscription.__init__
    turns: dict[asyncio.AbstractEventLoop, asyncio.Lock] = {}

    def init(self: MemorySubscription, pattern: str, on_delivery: Any, group: str | None, **more: Any) -> None:
        turn = turns.setdefault(asyncio.get_running_loop(), asyncio.Lock())

        async def in_turn(delivery: Any) -> None:
            async with turn:
                await on_delivery(delivery)

        original(self, pattern, in_turn, group, **more)

    patch.setattr(MemorySubscription, "__init__", init)


@breaks("test_what_cannot_travel_is_refused")
def any_subject_will_do(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(_memory, "check_subject", lambda subject: None)


@breaks("test_a_stored_message_carries_its_id_as_a_header")
def ids_are_not_shown(patch: pytest.MonkeyPatch) -> None:
    original = InMemoryMessageBroker.read_stored

    async def read(self: InMemoryMessageBroker, stream: str, **options: Any) -> Any:
        found = await original(self, stream, **options)
        shown = [{k: v for k, v in one.headers.items() if k != MESSAGE_ID_HEADER} for one in found]
        return [msgspec.structs.replace(one, headers=kept) for one, kept in zip(found, shown, strict=True)]

    patch.setattr(InMemoryMessageBroker, "read_stored", read)


@breaks("test_a_core_publish_is_not_deduplicated")
def core_publishes_have_ids(patch: pytest.MonkeyPatch) -> None:
    original = InMemoryMessageBroker._check
    patch.setattr(InMemoryMessageBroker, "_check", lambda self, message, _: original(self, message, message.message_id))


@breaks("test_the_first_settlement_of_a_delivery_counts")
def every_settlement_counts(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(StreamDelivery, "_settles", lambda self: self._require_connection() or True)


@breaks("test_what_is_erased_while_it_is_out_needs_no_settlement")
def erasing_settles_nothing(patch: pytest.MonkeyPatch) -> None:
    original = ConsumerPosition.settle

    def erase(self: MemoryStream, sequence: int) -> bool:
        record = self.records.pop(sequence, None)
        self._bytes -= 0 if record is None else record.size_bytes
        return record is not None

    def take_due(self: ConsumerPosition, count_max: int) -> Any:
        for sequence in list(self._unsettled):
            if sequence not in self.stream.records:
                original(self, sequence)
        return original_take(self, count_max)

    original_take = ConsumerPosition._take_due
    patch.setattr(MemoryStream, "erase", erase)
    patch.setattr(ConsumerPosition, "_take_due", take_due)
