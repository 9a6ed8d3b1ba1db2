"""Dead letters of single members of a batch: with the bytes they came with, whatever the reader knows of them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from tests.unit.messaging.doubles import STORED, eventually, number_of, publish_raw, running_bus, telemetry
from zstandard import ZstdCompressor

from polaris.domain import TelemetryEvent
from polaris.exceptions import InvalidValueError
from polaris.messaging import TELEMETRY_STREAM, EventCodec, OutgoingMessage
from polaris.messaging._wire_format import array_head

TOPIC = "polaris.telemetry.web"


def foreign(number: int) -> dict[str, Any]:
    """An event of a newer version by another hand, with an extension and fields that nobody here knows."""
    metric = {"name": "n", "value": float(number), "new_field": "precious"}
    return {
        "newer": [1, None],
        "specversion": "1.0",
        "id": f"foreign-{number}",
        "source": "/foreign",
        "type": "polaris.telemetry",
        "time": "2026-01-01T00:00:00Z",
        "dataschema": "urn:polaris:schema:polaris.telemetry:9",
        "myext": "kept",
        "data": {
            "system_state": {"system_id": "web", "timestamp": "2026-01-01T00:00:00Z", "metrics": {"n": metric}},
            "newer": 1,
        },
    }


async def refusing_two(event: TelemetryEvent) -> None:
    if number_of(event) == 2:
        raise InvalidValueError("n", "another number", 2)


async def refusing_two_of_many(events: list[TelemetryEvent]) -> None:
    for event in events:
        await refusing_two(event)


@pytest.mark.parametrize("handler", [refusing_two, refusing_two_of_many])
@pytest.mark.parametrize("written", ["json", "msgpack", "zstd"])
async def test_a_member_put_aside_and_replayed_has_the_bytes_it_came_with(handler: Any, written: str) -> None:
    encode = msgspec.msgpack.encode if written == "msgpack" else indented
    members = [encode(foreign(number)) for number in (1, 2, 3)]
    headers = {"content-type": "application/cloudevents-batch+json", "x-kept": "yes"}
    if written == "msgpack":
        payload = array_head(3) + b"".join(members)
        headers["content-type"] = "application/cloudevents-batch+msgpack"
    else:
        payload = b" [ " + b" ,\n".join(members) + b" ] "
    if written == "zstd":
        payload = ZstdCompressor().compress(payload)
        headers["content-encoding"] = "zstd"
    async with running_bus() as bus:
        subscription = await bus.subscribe("polaris.telemetry.*", handler)
        await bus.broker.publish(OutgoingMessage(TOPIC, payload, None, headers), delivery=STORED)
        await eventually(lambda: subscription.stats.dead_lettered == 1 and subscription.in_flight == 0)
        await subscription.unsubscribe()
        (record,) = await bus.dead_letters.list()
        assert record.entry.payload == members[1]
        await bus.dead_letters.replay(record.sequence)
        (_, replayed) = await bus.broker.read_stored(TELEMETRY_STREAM.name)
    kind = "msgpack" if written == "msgpack" else "json"
    assert replayed.payload == members[1]
    sent = {name: value for name, value in replayed.headers.items() if not name.startswith("Nats-")}
    assert sent == {"content-type": f"application/cloudevents+{kind}", "x-kept": "yes"}


def indented(value: object) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=3)


async def test_the_members_of_a_batch_are_cut_out_once_however_many_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    cuts = 0
    split = EventCodec.split

    def counting(codec: EventCodec, payload: bytes) -> list[msgspec.Raw]:
        nonlocal cuts
        cuts += 1
        return split(codec, payload)

    monkeypatch.setattr(EventCodec, "split", counting)
    codec = EventCodec()
    async with running_bus() as bus:
        subscription = await bus.subscribe("polaris.telemetry.*", refusing_two)
        await publish_raw(bus, TOPIC, codec.join([codec.encode(telemetry(2)) for _ in range(50)]))
        await eventually(lambda: subscription.stats.dead_lettered == 50)
        assert cuts == 1
        await bus.publish_many([telemetry(1) for _ in range(50)])
        await eventually(lambda: subscription.stats.handled == 50)
    assert cuts == 1, "where nothing fails nothing is cut"
