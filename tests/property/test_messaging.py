"""What holds for all ids, all bytes and all fates of a message."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from polaris.domain import EVENTS, HealthEvent, HealthStatus, MetricValue, PolarisEvent, SystemState, TelemetryEvent
from polaris.exceptions import ConflictError, InvalidTopicError, MessageDecodeError, StoreConnectionError
from polaris.messaging import (
    EventCodec,
    InMemoryHub,
    InMemoryMessageBroker,
    PolarisMessageBus,
    RedeliveryPolicy,
    Undecodable,
    decode_token,
    encode_token,
    telemetry_topic,
)
from polaris.messaging._batches import BATCH_EVENTS, cut
from polaris.messaging._patterns import covers, matches, overlap
from polaris.messaging._subjects import check_pattern, check_topic
from polaris.testing import run_virtual, running_clock

CODEC = EventCodec()
EXAMPLE = HealthEvent("c", HealthStatus.HEALTHY, "m", event_id="1", correlation_id="x")

ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=256)
tokens = st.sampled_from(["a", "b", "c", "*", ">"])
patterns = st.lists(tokens, min_size=1, max_size=4).map(".".join)
subjects = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=4).map(".".join)


@given(ids)
def test_every_id_becomes_one_token_and_comes_back(text: str) -> None:
    token = encode_token(text)
    assert decode_token(token) == text
    assert check_topic(f"x.{token}") == f"x.{token}"
    assert "." not in token
    assert token not in ("*", ">")


@given(ids, ids)
def test_different_ids_have_different_topics(one: str, other: str) -> None:
    assert (telemetry_topic(one) == telemetry_topic(other)) is (one == other)
    assert matches(telemetry_topic(one), telemetry_topic(other)) is (one == other)


@given(st.text(max_size=40))
def test_a_token_decodes_or_is_refused(token: str) -> None:
    try:
        text = decode_token(token)
    except InvalidTopicError:
        return
    assert decode_token(encode_token(text)) == text


@given(patterns, patterns, st.lists(subjects, max_size=20))
def test_covering_and_overlapping_agree_with_matching(wide: str, narrow: str, found: list[str]) -> None:
    try:
        check_pattern(wide)
        check_pattern(narrow)
    except InvalidTopicError:
        return
    for subject in found:
        if matches(narrow, subject):
            assert not covers(wide, narrow) or matches(wide, subject)
            assert overlap(narrow, wide) or not matches(wide, subject)
    assert overlap(wide, narrow) is overlap(narrow, wide)


def refuse_politely(payload: bytes) -> None:
    """Either events come out, or one typed error of bounded size."""
    try:
        found = CODEC.decode_batch(payload) if CODEC.is_batch(payload) else [CODEC.decode(payload)]
    except MessageDecodeError as error:
        assert len(str(error)) < 400
        return
    for member in found:
        assert isinstance(member, Undecodable) or isinstance(member.event, PolarisEvent)


@given(st.binary(max_size=300))
def test_no_bytes_upset_the_decoder(payload: bytes) -> None:
    refuse_politely(payload)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)
attributes = st.sampled_from(
    ["specversion", "type", "id", "source", "time", "data", "correlationid", "traceparent", "subject", "x"]
)
types = st.sampled_from([entry.name for entry in EVENTS])


@given(st.dictionaries(attributes, json_values, max_size=8), types, st.booleans())
def test_no_json_upsets_the_decoder(envelope: dict[str, Any], name: str, batch: bool) -> None:
    envelope = {"specversion": "1.0", "type": name, "id": "1", "source": "s", **envelope}
    payload = json.dumps([envelope, envelope] if batch else envelope).encode()
    refuse_politely(payload)


@given(st.data())
def test_no_damage_to_a_good_message_upsets_the_decoder(data: st.DataObject) -> None:
    payload = bytearray(CODEC.encode(EXAMPLE))
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(payload) - 1))
        match data.draw(st.integers(0, 2)):
            case 0:
                payload[at] = data.draw(st.integers(0, 255))
            case 1:
                del payload[at : at + data.draw(st.integers(1, 20))]
            case _:
                payload[at:at] = data.draw(st.binary(max_size=10))
        if not payload:
            break
    refuse_politely(bytes(payload))


scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | ids
states = st.builds(
    lambda system_id, readings, status: TelemetryEvent(
        SystemState(
            system_id, EXAMPLE.timestamp, {name: MetricValue(name, value) for name, value in readings.items()}, status
        ),
        timestamp=EXAMPLE.timestamp,
        correlation_id=None,
    ),
    st.text("abc.*> é", min_size=1, max_size=20),
    st.dictionaries(st.text("abc_é", min_size=1, max_size=10), scalars, max_size=5),
    st.sampled_from(HealthStatus),
)


@given(states)
def test_every_telemetry_event_comes_back_equal(event: TelemetryEvent) -> None:
    try:
        found = CODEC.decode(CODEC.encode(event)).event
    except MessageDecodeError as error:
        raise AssertionError(error) from error
    assert found == event


@given(st.lists(st.integers(1, 400), max_size=1_200), st.integers(100, 2_000))
def test_batches_hold_all_events_in_order_within_their_bounds(sizes: list[int], bytes_max: int) -> None:
    events = [msgspec.structs.replace(EXAMPLE, event_id=str(n)) for n in range(len(sizes))]
    encoded = [b"x" * size for size in sizes]
    batches = list(cut(events, encoded, bytes_max=bytes_max))
    assert [event for batch in batches for event in batch.events] == events
    assert [payload for batch in batches for payload in batch.encoded] == encoded
    for batch in batches:
        assert 1 <= len(batch.events) <= BATCH_EVENTS
        assert len(CODEC.join(batch.encoded)) <= bytes_max or len(batch.events) == 1
    assert len({batch.message_id for batch in batches}) == len(batches)


@given(
    st.integers(1, 200),
    st.floats(0, 1),
    st.floats(0.001, 10),
    st.floats(1, 4),
    st.none() | st.floats(allow_nan=True, allow_infinity=True),
)
def test_delays_stay_within_their_bounds(
    attempt: int, jitter: float, base_s: float, multiplier: float, retry_after: float | None
) -> None:
    policy = RedeliveryPolicy(base_delay_s=base_s, max_delay_s=20.0, multiplier=multiplier, jitter=jitter)
    error = StoreConnectionError("x")
    error.retry_after = retry_after  # type: ignore[attr-defined]
    delay_s = policy.delay_s(attempt, error)
    ceiling_s = min(20.0, base_s * multiplier ** min(attempt - 1, 500))
    asked = retry_after if retry_after is not None and 0 < retry_after < float("inf") else 0.0
    assert jitter * ceiling_s * 0.999 <= delay_s <= max(ceiling_s, asked) * 1.001
    assert delay_s >= asked


Fate = tuple[str, ...]
fates = st.lists(
    st.lists(st.sampled_from(["ok", "fail", "refuse", "hang", "cancel"]), min_size=1, max_size=4).map(tuple),
    min_size=1,
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(fates, st.booleans(), st.booleans(), st.integers(1, 4), st.lists(st.floats(0.1, 20), max_size=3))
def test_every_event_is_handled_once_or_put_aside_once(
    plan: list[Fate], as_batch: bool, batch_handler: bool, concurrency: int, restarts: list[float]
) -> None:
    """Whatever the handler does, and however often the bus is stopped meanwhile."""
    run_virtual(live_through(plan, as_batch, batch_handler, concurrency, restarts))


async def live_through(
    plan: list[Fate], as_batch: bool, batch_handler: bool, concurrency: int, restarts: list[float]
) -> None:
    clock = running_clock()
    hub = InMemoryHub(clock=clock)
    handled: list[str] = []
    tries: dict[str, int] = {}

    async def suffer(event: PolarisEvent) -> None:
        fate = plan[int(event.event_id)]
        tries[event.event_id] = tries.get(event.event_id, 0) + 1
        match fate[min(tries[event.event_id], len(fate)) - 1]:
            case "fail":
                raise StoreConnectionError("no store")
            case "refuse":
                raise ConflictError("no")
            case "hang":
                await asyncio.sleep(1_000)
            case "cancel":
                raise asyncio.CancelledError
        await asyncio.sleep(0.1)

    async def one(event: TelemetryEvent) -> None:
        await suffer(event)
        handled.append(event.event_id)

    async def many(events: list[TelemetryEvent]) -> None:
        for event in events:
            await suffer(event)
        handled.extend(event.event_id for event in events)

    now = clock.now()
    events = [TelemetryEvent(SystemState("web", now), event_id=str(n)) for n in range(len(plan))]
    policy = RedeliveryPolicy(max_deliveries=6, base_delay_s=0.5)
    bus = PolarisMessageBus(InMemoryMessageBroker(hub), redelivery=policy, grace_s=1.0, clock=clock)
    await bus.start()
    if as_batch:
        await bus.publish_many(events)
    else:
        for event in events:
            await bus.publish_telemetry(event)
    aside: list[str] = []
    for lifetime_s in [*restarts, 1_500.0]:
        await bus.subscribe(
            "polaris.telemetry.*",
            many if batch_handler else one,
            durable="d",
            concurrency=concurrency,
            handler_timeout_s=10.0,
            batch_max=3,
        )
        await asyncio.sleep(lifetime_s)
        await bus.stop()
        await bus.start()
    info = await (await bus.broker.consumer(_reader())).info()
    assert (info.pending, info.ack_pending) == (0, 0)
    for record in await bus.dead_letters.list(count_max=1_000):
        shown = await bus.dead_letters.show(record.sequence)
        payload = shown.entry.payload
        members = CODEC.decode_batch(payload) if CODEC.is_batch(payload) else [CODEC.decode(payload)]
        aside.extend(member.event.event_id for member in members if not isinstance(member, Undecodable))
    await bus.stop()
    assert set(handled) | set(aside) == {event.event_id for event in events}
    if not restarts and not batch_handler:
        assert sorted(handled + aside) == sorted(event.event_id for event in events)


def _reader() -> Any:
    from polaris.messaging import ConsumerSpec

    return ConsumerSpec(stream="POLARIS_TELEMETRY", durable="d", pattern="polaris.telemetry.*")
