"""`polaris publish`: one event from the command line, with the receipt that tells its guarantee."""

from __future__ import annotations

import asyncio
import sys
from difflib import get_close_matches
from typing import TYPE_CHECKING

import msgspec

from polaris.cli import _exit
from polaris.cli._bus import connected_bus
from polaris.cli._output import print_json
from polaris.domain import EVENTS, PolarisEvent
from polaris.exceptions import InvalidValueError, MessageDecodeError, UnknownEventTypeError

if TYPE_CHECKING:
    from polaris.runtime import Settings

INPUT_BYTES_MAX = 64 << 20
_TYPE_OF_TOPIC = {
    "polaris.telemetry.": "polaris.telemetry",
    "polaris.adaptations.": "polaris.adaptation",
    "polaris.executions.": "polaris.execution",
    "polaris.health.": "polaris.health",
    "polaris.config.": "polaris.config.changed",
}


def publish_event(settings: Settings, topic: str, text: str, *, type_name: str | None, as_json: bool) -> int:
    """Publish the event in `text` (or standard input for `-`) on `topic` and print the receipt."""
    raw = sys.stdin.buffer.read(INPUT_BYTES_MAX) if text == "-" else text.encode()
    event = read_event(raw, topic, type_name)
    receipt = asyncio.run(_publish(settings, topic, event))
    if as_json:
        print_json({"event_id": event.event_id, **msgspec.to_builtins(receipt)})
    else:
        where = f" as {receipt.stream} #{receipt.sequence}" if receipt.stream else ""
        print(f"{event.event_id}  {receipt.delivery}{where}{' (duplicate)' if receipt.duplicate else ''}")
    return _exit.OK


async def _publish(settings: Settings, topic: str, event: PolarisEvent):  # type: ignore[no-untyped-def]
    async with connected_bus(settings) as bus:
        return await bus.publish(topic, event)


def read_event(raw: bytes, topic: str, type_name: str | None) -> PolarisEvent:
    """The event in a CloudEvent, or in the bare fields of the type named or natural for the topic."""
    try:
        document = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        raise MessageDecodeError(f"the event is not valid JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidValueError("event", "a JSON object", document)
    if "specversion" in document:
        from polaris.messaging import EventCodec

        return EventCodec().decode(raw)[0]
    name = type_name or next((kind for prefix, kind in _TYPE_OF_TOPIC.items() if topic.startswith(prefix)), None)
    if name is None:
        raise UnknownEventTypeError(f"no event type is natural for {topic!r}; name one with --type")
    entry = EVENTS.find(name)
    if entry is None:
        near = get_close_matches(name, [known.name for known in EVENTS], n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UnknownEventTypeError(f"no event type {name!r} is registered{hint}")
    try:
        return msgspec.convert(document, entry.event_class)
    except (msgspec.ValidationError, RecursionError) as error:
        raise MessageDecodeError(f"not a {name}: {error}") from error
