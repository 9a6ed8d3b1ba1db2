"""Finding dead letters: newest and oldest first, by filters, in pages, past what was erased."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, cast

import pytest
from tests.unit.messaging.doubles import STORED, running_bus

from polaris.domain import EVENTS
from polaris.messaging import (
    DEAD_LETTER_STREAM,
    DeadLetter,
    DeadLetterReason,
    DeadLetters,
    Delivery,
    EventCodec,
    InMemoryMessageBroker,
    OutgoingMessage,
    Receipt,
    StoredMessage,
    StreamSpec,
)
from polaris.messaging._dead_letter_entry import DeadLetterFilter
from polaris.messaging._dead_letters import DeadLetterWriter, Failure
from polaris.testing import running_clock

CODEC = EventCodec(EVENTS)
TELEMETRY = StreamSpec(name="T", subjects=("polaris.telemetry.>",))


async def stream_of(broker: InMemoryMessageBroker, count: int, *, every_s: float = 1.0) -> DeadLetters:
    """Entries 1 to `count`, one every second; the odd ones of another topic than the even ones."""
    await broker.connect()
    await broker.ensure_stream(DEAD_LETTER_STREAM)
    clock = running_clock()
    for number in range(1, count + 1):
        topic = f"polaris.telemetry.{'odd' if number % 2 else 'even'}"
        entry = DeadLetter(
            topic=topic,
            subscription="s1" if number % 3 else "s3",
            reason=DeadLetterReason.REFUSED if number % 5 else DeadLetterReason.UNDECODABLE,
            error_code="c",
            error_message="",
            attempts=number,
            first_at=clock.now(),
            failed_at=clock.now(),
        )
        message = OutgoingMessage(f"polaris.dead_letter.{topic}", CODEC.encode(entry))
        await broker.publish(message, delivery=STORED)
        await clock.sleep(every_s)
    return DeadLetters(broker)


@pytest.mark.parametrize("newest_first", [True, False])
async def test_pages_joined_are_the_whole_in_order(newest_first: bool) -> None:
    letters = await stream_of(InMemoryMessageBroker(clock=running_clock()), 237)
    seen: list[int] = []
    after = None
    while True:
        page = await letters.find(newest_first=newest_first, after=after, count_max=50)
        seen += [record.sequence for record in page.records]
        after = page.after
        if after is None:
            break
        assert len(page.records) == 50
    assert seen == (list(range(237, 0, -1)) if newest_first else list(range(1, 238)))


@pytest.mark.parametrize("newest_first", [True, False])
async def test_filters_narrow_and_agree_with_each_other(newest_first: bool) -> None:
    letters = await stream_of(InMemoryMessageBroker(clock=running_clock()), 60)
    start = (await letters.list(count_max=1))[0].stored_at

    async def found(**wanted: Any) -> set[int]:
        page = await letters.find(DeadLetterFilter(**wanted), newest_first=newest_first)
        return {record.sequence for record in page.records}

    everything = set(range(1, 61))
    assert await found(topic="polaris.telemetry.odd") == {n for n in everything if n % 2}
    assert await found(topic="polaris.*.even") == {n for n in everything if n % 2 == 0}
    assert await found(topic="polaris.telemetry") == set()
    assert await found(subscription="s3") == {n for n in everything if n % 3 == 0}
    assert await found(reason=DeadLetterReason.UNDECODABLE) == {n for n in everything if n % 5 == 0}
    assert await found(error_code="other") == set()
    assert await found(since=start + timedelta(seconds=50)) == set(range(51, 61))
    assert await found(since=start - timedelta(days=1)) == everything
    assert await found(since=start + timedelta(days=1)) == set()
    both = {n for n in range(51, 61) if n % 10 == 0}
    assert (
        await found(reason=DeadLetterReason.UNDECODABLE, topic="*.*.even", since=start + timedelta(seconds=49.5))
        == both
    )


async def test_an_empty_stream_and_one_erased_to_the_last_have_nothing() -> None:
    broker = InMemoryMessageBroker(clock=running_clock())
    letters = await stream_of(broker, 0)
    for newest_first in (True, False):
        assert await letters.find(newest_first=newest_first) == ([], None)
    await stream_of(broker, 3)
    for sequence in (1, 2, 3):
        assert await letters.drop(sequence)
    for newest_first in (True, False):
        assert await letters.find(newest_first=newest_first) == ([], None)


async def test_gaps_wider_than_a_page_are_passed_over_with_few_questions() -> None:
    class Counting(InMemoryMessageBroker):
        reads = 0

        async def read_stored(self, stream: str, **options: Any) -> Sequence[StoredMessage]:
            self.reads += 1
            return await super().read_stored(stream, **options)

    broker = Counting(clock=running_clock())
    letters = await stream_of(broker, 5_000, every_s=0.0)
    kept = {3, 4, 2_500, 4_990}
    for sequence in range(1, 5_001):
        if sequence not in kept:
            await broker.erase_stored(DEAD_LETTER_STREAM.name, sequence)
    broker.reads = 0
    page = await letters.find()
    assert [record.sequence for record in page.records] == sorted(kept, reverse=True)
    assert broker.reads < 120


async def test_a_page_that_ends_with_the_last_entry_names_no_further_one() -> None:
    letters = await stream_of(InMemoryMessageBroker(clock=running_clock()), 10)
    page = await letters.find(count_max=10)
    assert (len(page.records), page.after) == (10, None)
    page = await letters.find(count_max=9)
    assert (len(page.records), page.after) == (9, 2)


async def test_whoever_waits_is_told_of_everything_that_was_looked_at() -> None:
    letters = await stream_of(InMemoryMessageBroker(clock=running_clock()), 10)
    looked: list[int] = []
    page = await letters.find(DeadLetterFilter(subscription="s3"), count_max=2, on_look=looked.append)
    assert [record.sequence for record in page.records] == [9, 6]
    assert looked == list(range(10, 2, -1))


async def test_one_entry_is_had_by_its_number_or_not_at_all() -> None:
    letters = await stream_of(InMemoryMessageBroker(clock=running_clock()), 2)
    found = await letters.get(2)
    assert found is not None
    assert (found.sequence, found.entry.attempts) == (2, 2)
    assert await letters.get(3) is None
    assert await letters.get(0) is None


class _Delivery:
    """A message as a consumer hands it out."""

    subject = "polaris.telemetry.web"
    reply_to = None
    attempt = 1
    sequence = 7

    def __init__(self, payload: bytes, headers: dict[str, str]) -> None:
        self.payload = payload
        self.headers = headers
        self.stored_at = running_clock().now()


async def put_aside(broker: InMemoryMessageBroker, delivery: _Delivery) -> Receipt:
    writer = DeadLetterWriter(broker, CODEC, clock=running_clock())
    failure = Failure(DeadLetterReason.UNDECODABLE, ValueError("x"))
    return await writer.store(cast(Delivery, delivery), failure, subscription="s", stream="T")


@pytest.mark.parametrize("left_over", [0, 40, 75, 76, 200])
async def test_the_largest_message_is_put_aside_and_replayed_though_its_id_finds_no_room(left_over: int) -> None:
    broker = InMemoryMessageBroker(clock=running_clock(), payload_bytes_max=5_000)
    letters = await stream_of(broker, 0)
    await broker.ensure_stream(TELEMETRY)
    payload = b"\xff" * (5_000 - left_over)
    receipt = await put_aside(broker, _Delivery(payload, {}))
    assert (await letters.show(receipt.sequence or 0)).entry.payload == payload
    again = await letters.replay(receipt.sequence or 0)
    (stored,) = await broker.read_stored("T", from_sequence=again.sequence or 0)
    assert stored.payload == payload
    assert list(await broker.read_stored(DEAD_LETTER_STREAM.name)) == []


async def test_the_largest_message_put_aside_twice_leaves_one_entry_with_its_bytes() -> None:
    broker = InMemoryMessageBroker(clock=running_clock(), payload_bytes_max=5_000)
    letters = await stream_of(broker, 0)
    delivery = _Delivery(b"\xff" * 5_000, {})
    first = await put_aside(broker, delivery)
    again = await put_aside(broker, delivery)
    assert again.duplicate
    (record,) = await letters.list()
    assert record.sequence == first.sequence
    assert (await letters.show(record.sequence)).entry.payload == delivery.payload
    assert len(await broker.read_stored(DEAD_LETTER_STREAM.name)) == 2


async def test_headers_too_long_for_an_entry_are_cut_and_the_bytes_are_kept() -> None:
    broker = InMemoryMessageBroker(clock=running_clock(), payload_bytes_max=5_000)
    letters = await stream_of(broker, 0)
    headers = {f"H{n}": "\x01" * 300 for n in range(8)}
    receipt = await put_aside(broker, _Delivery(b"\xff" * 100, headers))
    record = await letters.show(receipt.sequence or 0)
    assert record.entry.payload == b"\xff" * 100
    assert record.entry.headers == {name: value[:32] for name, value in headers.items()}


async def test_a_bus_finds_what_it_put_aside() -> None:
    from tests.unit.messaging.test_dead_letters import put_aside as refuse_some

    async with running_bus() as bus:
        await refuse_some(bus, 3)
        await asyncio.sleep(1)
        page = await bus.dead_letters.find(DeadLetterFilter(topic="polaris.telemetry.>"))
        assert [record.entry.sequence for record in page.records] == [3, 2, 1]
