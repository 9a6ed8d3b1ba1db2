"""Events of older and newer versions: what is read, what is refused, and what is put aside."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import pytest
from tests.unit.messaging.doubles import eventually, publish_raw, running_bus

from polaris.domain import EVENTS, EventRegistry, PolarisEvent
from polaris.exceptions import MessageDecodeError, UnknownEventTypeError
from polaris.messaging import DeadLetterReason, EventCodec, StreamSpec, Undecodable
from polaris.messaging._streams import STANDARD_STREAMS

NAME = "acme.oven.measured"
URI = f"urn:polaris:schema:{NAME}:"
TOPIC = "acme.ovens.one"
Step = Callable[[dict[str, Any]], Mapping[str, Any]]


class OvenMeasured(PolarisEvent, frozen=True):
    """The third version: version 1 told degrees Fahrenheit in `value`, version 2 degrees Celsius."""

    oven: str
    celsius: float
    door: str = "unknown"


def to_celsius(data: dict[str, Any]) -> Mapping[str, Any]:
    return {**data, "value": (data["value"] - 32) / 1.8}


def to_named(data: dict[str, Any]) -> Mapping[str, Any]:
    data["celsius"] = data.pop("value")
    return data


def registry_with(first: Step | None = to_celsius, second: Step | None = to_named) -> EventRegistry:
    registry = EventRegistry(parent=EVENTS)
    registry.register(OvenMeasured, NAME, version=3)
    for version, function in ((1, first), (2, second)):
        if function is not None:
            registry.upcast(NAME, version, function)
    return registry


def message(version: int | None, data: Any, event_id: str = "1", **attributes: Any) -> bytes:
    named = {} if version is None else {"dataschema": f"{URI}{version}"}
    envelope = {"specversion": "1.0", "id": event_id, "source": "/oven", "type": NAME, "data": data}
    return json.dumps({**envelope, **named, **attributes}).encode()


OLD = {"oven": "one", "value": 392.0}
READ = {
    "version 1": message(1, OLD),
    "version 2": message(2, {"oven": "one", "value": 200.0}),
    "version 3": message(3, {"oven": "one", "celsius": 200.0}),
    "no version": message(None, {"oven": "one", "celsius": 200.0}),
    "a newer version": message(4, {"oven": "one", "celsius": 200.0, "humidity": {"percent": 7}}),
    "a foreign schema": message(None, {"oven": "one", "celsius": 200.0}, dataschema="https://acme.example/oven.json"),
    "an unknown field in an older version": message(1, {**OLD, "humidity": {"percent": 7}}),
    "an unknown attribute in an older version": message(1, OLD, acmepriority=[1]),
}


@pytest.mark.parametrize("payload", READ.values(), ids=READ.keys())
def test_every_version_becomes_the_event_of_today(payload: bytes) -> None:
    found = EventCodec(registry_with()).decode(payload)
    assert found.event_type == NAME
    assert isinstance(found.event, OvenMeasured)
    assert (found.event.oven, found.event.celsius, found.event.event_id) == ("one", 200.0, "1")


def test_older_data_that_happen_to_fit_are_upcast_all_the_same() -> None:
    registry = EventRegistry()
    registry.register(OvenMeasured, NAME, version=2)
    registry.upcast(NAME, 1, lambda data: {**data, "celsius": (data["celsius"] - 32) / 1.8})
    found = EventCodec(registry).decode(message(1, {"oven": "one", "celsius": 392.0}))
    assert isinstance(found.event, OvenMeasured)
    assert found.event.celsius == 200.0


def test_the_envelope_of_an_older_event_is_kept() -> None:
    attributes = {
        "time": "2026-03-01T12:00:00Z",
        "correlationid": "c-1",
        "traceparent": "00-a-b-01",
        "tracestate": "v=1",
    }
    codec = EventCodec(registry_with())
    old, new = (
        codec.decode(message(1, OLD, **attributes)),
        codec.decode(message(3, {"oven": "one", "celsius": 200.0}, **attributes)),
    )
    assert old == new
    assert old.event.correlation_id == "c-1"


def test_versions_may_be_mixed_in_a_batch_and_one_bad_one_harms_no_other() -> None:
    codec = EventCodec(registry_with())
    bad = message(1, {"oven": "one"}, event_id="bad")
    found = codec.decode_batch(codec.join([*READ.values(), bad, message(2, {"oven": "two", "value": 1})]))
    assert isinstance(found[len(READ)], Undecodable)
    ovens = [
        one.event.celsius for one in found if not isinstance(one, Undecodable) if isinstance(one.event, OvenMeasured)
    ]
    assert ovens == [200.0] * len(READ) + [1.0]


def broken(_: dict[str, Any]) -> Mapping[str, Any]:
    raise RuntimeError("x" * 10_000)


REFUSED: dict[str, tuple[bytes, EventRegistry, str]] = {
    "the step raises": (message(1, OLD), registry_with(broken), "upcasting .* from version 1 failed: RuntimeError: x"),
    "a later step raises": (message(1, OLD), registry_with(second=broken), "upcasting .* from version 2 failed"),
    "a field that the step needs is not there": (message(1, {}), registry_with(), "1 failed: KeyError: 'value'"),
    "the step gives no mapping": (message(2, OLD), registry_with(second=lambda _: 7), "gave no mapping, but a int"),  # type: ignore[arg-type, return-value]
    "the step gives what JSON cannot carry": (
        message(2, OLD),
        registry_with(second=lambda data: {**data, "celsius": object()}),
        "from version 2 gave what JSON cannot carry: TypeError",
    ),
    "the step recurses without end": (
        message(2, OLD),
        registry_with(second=lambda data: json.loads("[" * 100_000)),
        "version 2 failed: RecursionError",
    ),
    "the outcome does not fit": (message(2, {"oven": 7, "value": 1.0}), registry_with(), "Expected `str`, got `int`"),
    "the data are no object": (message(1, [1]), registry_with(), "the data of a 'acme.oven.measured' are no object"),
    "the data are absent": (message(1, 0).replace(b'"data": 0', b'"more": 0'), registry_with(), "KeyError"),
    "another type is named": (message(None, OLD, dataschema=URI.replace("oven", "x") + "1"), registry_with(), "names"),
    "no version is named": (message(None, OLD, dataschema=URI + "new"), registry_with(), "names no version of"),
    "no version is named, and all fits": (
        message(None, {"oven": "one", "celsius": 1.0}, dataschema=URI + "new"),
        registry_with(),
        "names no version of",
    ),
    "a newer version does not fit": (
        message(9, {"oven": "one"}),
        registry_with(),
        "its data are of version 9, newer than 3: Object missing required field `celsius`",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("payload", "registry", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_upcast_is_a_decode_error_that_says_why(
    payload: bytes, registry: EventRegistry, reason: str
) -> None:
    with pytest.raises(MessageDecodeError, match=reason) as caught:
        EventCodec(registry).decode(payload)
    assert type(caught.value) is MessageDecodeError
    assert len(str(caught.value)) < 400
    assert caught.value.retryable is False


@pytest.mark.parametrize("data", [OLD, {"oven": "one", "celsius": 1.0}], ids=["that do not fit", "that fit"])
def test_a_version_without_a_path_is_unknown_even_with_data(data: dict[str, Any]) -> None:
    with pytest.raises(UnknownEventTypeError, match="version 1 cannot be read: the current version is 3"):
        EventCodec(registry_with(second=None)).decode(message(1, data))


def test_a_step_registered_later_is_taken_up() -> None:
    registry = registry_with(second=None)
    codec = EventCodec(registry)
    with pytest.raises(UnknownEventTypeError):
        codec.decode(message(1, OLD))
    registry.upcast(NAME, 2, to_named)
    assert isinstance(codec.decode(message(1, OLD)).event, OvenMeasured)


def test_cancelling_and_leaving_are_never_taken_for_bad_data() -> None:
    def leave(_: dict[str, Any]) -> Mapping[str, Any]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        EventCodec(registry_with(leave)).decode(message(1, OLD))


def test_a_missing_reading_of_an_older_version_stays_missing() -> None:
    registry = EventRegistry()
    registry.register(Reading, "acme.reading.taken", version=2)
    registry.upcast("acme.reading.taken", 1, lambda data: {"celsius": data["value"]})
    old = json.dumps(
        {
            "specversion": "1.0", "id": "1", "source": "s", "type": "acme.reading.taken",
            "dataschema": "urn:polaris:schema:acme.reading.taken:1", "data": {"value": None},
        }
    ).encode()  # fmt: skip
    found = EventCodec(registry).decode(old).event
    assert isinstance(found, Reading)
    assert found.celsius is None


class Reading(PolarisEvent, frozen=True):
    celsius: float | None


OVENS = StreamSpec(name="OVENS", subjects=("acme.>",))


async def test_a_handler_gets_the_events_of_all_versions_and_what_cannot_be_read_is_put_aside_with_its_bytes() -> None:
    seen: list[float] = []
    good = [message(version, data, str(version)) for version, data in ((1, OLD), (2, {"oven": "one", "value": 200.0}))]
    bad = message(1, {"oven": "one"}, "bad")
    unknown = message(3, {}, "unknown", type="acme.nobody.knows")

    async def note(event: OvenMeasured) -> None:
        seen.append(event.celsius)

    async with running_bus(registry=registry_with(), streams=(*STANDARD_STREAMS, OVENS)) as bus:
        subscription = await bus.subscribe(TOPIC, note, durable=f"oven-{os.getpid()}")
        for payload in (good[0], bad, unknown, b"[" + b",".join([*good, bad]) + b"]"):
            await publish_raw(bus, TOPIC, payload)
        await bus.publish(TOPIC, OvenMeasured("one", 5.0))
        await eventually(lambda: seen[-1:] == [5.0] and subscription.in_flight == 0)
        letters = [record.entry for record in await bus.dead_letters.list()]
    assert seen == [200.0, 200.0, 200.0, 5.0]
    assert [(letter.payload, letter.reason) for letter in letters] == [
        (bad, DeadLetterReason.UNDECODABLE),
        (unknown, DeadLetterReason.UNKNOWN_TYPE),
        (bad, DeadLetterReason.UNDECODABLE),
    ]
    assert "upcasting 'acme.oven.measured' from version 1 failed" in letters[0].error_message


def test_what_is_sent_names_the_current_version() -> None:
    sent = msgspec.json.decode(EventCodec(registry_with()).encode(OvenMeasured("one", 1.0)))
    assert sent["dataschema"] == f"{URI}3"
