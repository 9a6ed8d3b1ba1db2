"""`polaris publish`: one event from the command line, with the receipt that tells its guarantee."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING

import msgspec

from polaris.cli import _exit
from polaris.cli._bus import connected_bus
from polaris.cli._near import hint
from polaris.cli._output import print_json, say_next
from polaris.cli._waiting import Doing
from polaris.domain import EVENTS, PolarisEvent
from polaris.exceptions import MessageDecodeError, UnknownEventTypeError

if TYPE_CHECKING:
    from polaris.messaging import Receipt
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
    receipt = Doing("publishing").run(_publish(settings, topic, event))
    if as_json:
        print_json({"event_id": event.event_id, **msgspec.to_builtins(receipt)})
    else:
        print(f"{event.event_id}  {guarantee_of(receipt)}")
        if receipt.stream is not None:
            say_next(f"polaris replay {shlex.quote(topic)}")
    return _exit.OK


def guarantee_of(receipt: Receipt) -> str:
    """The receipt in words."""
    if receipt.stream is None:
        return "sent to whoever listens now (at most once)"
    again = ", was there already" if receipt.duplicate else ""
    return f"stored as {receipt.stream} #{receipt.sequence}{again} (at least once)"


async def _publish(settings: Settings, topic: str, event: PolarisEvent) -> Receipt:
    async with connected_bus(settings) as bus:
        return await bus.publish(topic, event)


def read_event(raw: bytes, topic: str, type_name: str | None) -> PolarisEvent:
    """The event in a CloudEvent, or in the bare fields of the type named or natural for the topic."""
    try:
        document = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        raise MessageDecodeError(f"the event is not valid JSON: {error}") from error
    if not isinstance(document, dict):
        raise MessageDecodeError(f"the event is not a JSON object, but a {type(document).__name__}")
    if "specversion" in document:
        from polaris.messaging import EventCodec

        return EventCodec().decode(raw).event
    name = type_name or next((kind for prefix, kind in _TYPE_OF_TOPIC.items() if topic.startswith(prefix)), None)
    if name is None:
        raise UnknownEventTypeError(f"the topic {topic!r} does not tell the event type; name it with --type")
    entry = EVENTS.find(name)
    if entry is None:
        known = [kind.name for kind in EVENTS]
        raise UnknownEventTypeError(f"no event type {name!r} is registered{hint(name, known, 'registered:')}")
    try:
        return msgspec.convert(document, entry.event_class)
    except (msgspec.ValidationError, RecursionError) as error:
        raise MessageDecodeError(f"not a {name}: {error}") from error
