"""The AsyncAPI 3.0 document of the bus: what travels on which topic, how it looks, and who keeps it how long."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec

from polaris.domain import EVENTS, EventRegistry, PolarisEvent
from polaris.domain._schemas import EventVersion, cloudevent, components, event_versions
from polaris.exceptions import ConfigurationError, InvalidValueError
from polaris.messaging._asyncapi_examples import EXAMPLES
from polaris.messaging._broker import MESSAGE_ID_HEADER, DeliveryClass, StreamSpec
from polaris.messaging._cloudevents import BATCH_EVENTS_MAX, EventCodec
from polaris.messaging._patterns import covers
from polaris.messaging._streams import STANDARD_STREAMS
from polaris.messaging._subjects import (
    ADAPTATION_PREFIX,
    CONFIG_TOPIC,
    DEAD_LETTER_PREFIX,
    EXECUTION_PREFIX,
    HEALTH_PREFIX,
    TELEMETRY_PREFIX,
    check_topic,
)
from polaris.messaging._wire_format import BATCH_CONTENT_TYPE, CONTENT_TYPE

API_VERSION = "1.0.0"
NATS_BINDING = {"nats": {"bindingVersion": "0.1.0"}}
"""AsyncAPI gives NATS no more than a queue's name; what a stream promises is told by extensions of the channel."""

_SCHEMA = "#/components/schemas/{name}"
_TRAIT = "#/components/messageTraits/cloudevent"
_SCHEMES = {"nats": "nats", "tls": "nats", "ws": "ws", "wss": "wss"}
_PARAMETER = re.compile(r"\{([A-Za-z0-9_-]+)\}")
_ENCODING = (
    "As one subject token: ASCII letters, digits and -_~:@=+, stay, every other byte of its UTF-8 form is written %XX."
)
_ABOUT = (
    "Events are CloudEvents 1.0 in structured JSON mode over NATS; a message that is a JSON array holds many of them "
    "(the CloudEvents JSON batch format). Operations are told from the side of POLARIS: what it receives others may "
    "publish, what it sends others may subscribe to. A channel with a stream is published to with an "
    f"acknowledgement by JetStream, with the event's id as {MESSAGE_ID_HEADER}; publishing again with the same id "
    "stores nothing twice. A server may ask for a token, a user, an nkey or a certificate, which no document holds."
)


class _Channel(NamedTuple):
    """Topics of one address, and the event types that travel there. No address: it is told at run time."""

    key: str
    address: str | None
    title: str
    types: tuple[str, ...]
    actions: tuple[str, ...] = ("receive", "send")
    parameter: str = ""
    batched: bool = True

    @property
    def batch(self) -> str:
        """The name of the message that holds many events of the channel."""
        return f"{self.key}.batched"


_CHANNELS = (
    _Channel(
        "telemetry",
        TELEMETRY_PREFIX + "{system_id}",
        "What managed systems report of themselves",
        ("polaris.telemetry", "polaris.telemetry.batch"),
        parameter=f"The managed system. {_ENCODING}",
    ),
    _Channel(
        "adaptations",
        ADAPTATION_PREFIX + "{system_id}",
        "What managed systems are asked to do",
        ("polaris.adaptation",),
        parameter=f"The managed system. {_ENCODING}",
    ),
    _Channel(
        "executions",
        EXECUTION_PREFIX + "{system_id}",
        "What came of the actions",
        ("polaris.execution",),
        parameter=f"The managed system. {_ENCODING}",
    ),
    _Channel(
        "health",
        HEALTH_PREFIX + "{component}",
        "How components do",
        ("polaris.health",),
        parameter=f"The component. {_ENCODING}",
    ),
    _Channel("config", CONFIG_TOPIC, "Changes of the configuration", ("polaris.config.changed",)),
    _Channel(
        "deadLetters",
        DEAD_LETTER_PREFIX + "{topic}",
        "What could not be handled, with its bytes",
        ("polaris.dead_letter",),
        ("send",),
        "The topic that the message was published on, with its dots: it may span many tokens.",
        batched=False,
    ),
    _Channel(
        "replies",
        None,
        "Failures of requests, on the subject that the request names for its reply",
        ("polaris.request.failure",),
        ("send",),
        batched=False,
    ),
)


def asyncapi_document(
    registry: EventRegistry = EVENTS,
    streams: Sequence[StreamSpec] = STANDARD_STREAMS,
    servers: Mapping[str, str] | None = None,
    *,
    topics: Mapping[str, Sequence[type[PolarisEvent]]] | None = None,
    title: str = "POLARIS bus",
) -> dict[str, Any]:
    """The document for the event types of `registry`. The same arguments give the same document.

    Args:
        registry: its types are the messages. Those of applications stand in a channel without an address, unless
            `topics` says where they travel. A type that JSON cannot carry is left out.
        streams: which topics are stored, and how long; told by the extensions `x-polaris-stream` and
            `x-polaris-delivery` of a channel.
        servers: addresses such as `nats://127.0.0.1:4222`, by a name of your choice. What they hold of user, password
            or token is left out.
        topics: for types of your own: topics with parameters in braces, such as `acme.orders.{order_id}`.

    Raises `ConfigurationError` when one of `topics` names a standard topic or a type that is not registered, and
    `InvalidTopicError` or `InvalidValueError` when a topic or address is none.
    """
    versions = {version.name: version for version in event_versions(registry) if _is_current(version, registry)}
    channels = [channel for channel in _all_channels(registry, versions, topics or {}) if channel.types]
    roots, parts = components(list(versions.values()), _SCHEMA)
    schemas: dict[str, Any] = {}
    for version, root in zip(versions.values(), roots, strict=True):
        data = _name_of(version) + ".data"
        whole = cloudevent(version, {"$ref": _SCHEMA.format(name=data)}, data_optional=not root.get("required"))
        schemas[_name_of(version)] = whole
        schemas[data] = root
    codec = EventCodec(registry)
    return {
        "asyncapi": "3.0.0",
        "id": "urn:polaris:bus",
        "info": {
            "title": title,
            "version": API_VERSION,
            "description": _ABOUT,
            "license": {"name": "Apache-2.0"},
            "tags": [{"name": "self-adaptive systems"}, {"name": "CloudEvents"}],
        },
        "defaultContentType": CONTENT_TYPE,
        "servers": {name: _server(name, address) for name, address in (servers or {}).items()},
        "channels": {channel.key: _channel(channel, versions, streams) for channel in channels},
        "operations": dict(operation for channel in channels for operation in _operations(channel, versions)),
        "components": {
            "messages": {
                **{_name_of(version): _message(version, codec) for version in versions.values()},
                **{channel.batch: _batch(channel, versions) for channel in channels if channel.batched},
            },
            "messageTraits": {"cloudevent": _trait()},
            "schemas": {name: _draft_07(schema) for name, schema in {**schemas, **parts}.items()},
        },
    }


def _is_current(version: EventVersion, registry: EventRegistry) -> bool:
    entry = registry.find(version.name)
    return entry is not None and entry.version == version.version


def _all_channels(
    registry: EventRegistry,
    versions: Mapping[str, EventVersion],
    topics: Mapping[str, Sequence[type[PolarisEvent]]],
) -> Iterator[_Channel]:
    """The standard channels whose types are registered, those of `topics`, and one for the types left over."""
    standard = [
        channel._replace(types=tuple(name for name in channel.types if name in versions)) for channel in _CHANNELS
    ]
    yield from standard
    placed = {name for channel in standard for name in channel.types}
    keys = {channel.key for channel in standard} | {"applications"}
    for address, classes in topics.items():
        check_topic(_PARAMETER.sub("x", address))
        key = re.sub(r"[^A-Za-z0-9]+", "-", address).strip("-")
        if key in keys or any(channel.address == address for channel in standard):
            raise ConfigurationError(f"{address!r} is a topic of POLARIS, or cannot be told apart from another topic")
        keys.add(key)
        names = tuple(registry.require(event_class).name for event_class in classes)
        if left_out := [name for name in names if name not in versions]:
            raise ConfigurationError(f"JSON cannot carry {', '.join(left_out)}")
        placed.update(names)
        yield _Channel(key, address, f"Events on {address}", names)
    left = tuple(name for name in versions if name not in placed)
    yield _Channel("applications", None, "Events of applications, on topics of their own", left)


def _channel(channel: _Channel, versions: Mapping[str, EventVersion], streams: Sequence[StreamSpec]) -> dict[str, Any]:
    names = _messages_of(channel, versions)
    described: dict[str, Any] = {
        "address": channel.address,
        "title": channel.title,
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names},
    }
    if channel.address is None:
        return described
    parameters = _PARAMETER.findall(channel.address)
    if parameters:
        described["parameters"] = {name: {"description": channel.parameter or _ENCODING} for name in parameters}
    stream = _stream_of(_PARAMETER.sub("*", channel.address), streams)
    guarantee = DeliveryClass.AT_MOST_ONCE if stream is None else DeliveryClass.AT_LEAST_ONCE
    described["x-polaris-delivery"] = guarantee.value
    if stream is not None:
        described["x-polaris-stream"] = {**msgspec.to_builtins(stream), "subjects": list(stream.subjects)}
    return described


def _stream_of(pattern: str, streams: Sequence[StreamSpec]) -> StreamSpec | None:
    return next((one for one in streams if any(covers(subject, pattern) for subject in one.subjects)), None)


def _messages_of(channel: _Channel, versions: Mapping[str, EventVersion]) -> list[str]:
    return [*(_name_of(versions[name]) for name in channel.types), *([channel.batch] if channel.batched else [])]


def _operations(channel: _Channel, versions: Mapping[str, EventVersion]) -> Iterator[tuple[str, dict[str, Any]]]:
    names = _messages_of(channel, versions)
    for action in channel.actions:
        yield (
            f"{action}{channel.key[0].upper()}{channel.key[1:]}",
            {
                "action": action,
                "channel": {"$ref": f"#/channels/{channel.key}"},
                "title": channel.title,
                "messages": [{"$ref": f"#/channels/{channel.key}/messages/{name}"} for name in names],
                "bindings": NATS_BINDING,
            },
        )


def _message(version: EventVersion, codec: EventCodec) -> dict[str, Any]:
    message: dict[str, Any] = {
        "name": version.name,
        "title": f"{version.name}, version {version.version}",
        "contentType": CONTENT_TYPE,
        "payload": {"$ref": _SCHEMA.format(name=_name_of(version))},
        "traits": [{"$ref": _TRAIT}],
        "x-polaris-dataschema": version.uri,
    }
    make = EXAMPLES.get(version.data_type)
    if make is not None:
        payload = msgspec.json.decode(codec.encode(make()))
        message["examples"] = [{"name": version.name.rpartition(".")[2], "payload": payload}]
    return message


def _batch(channel: _Channel, versions: Mapping[str, EventVersion]) -> dict[str, Any]:
    kinds = [{"$ref": _SCHEMA.format(name=_name_of(versions[name]))} for name in channel.types]
    return {
        "name": channel.batch,
        "title": "Many of these events in one message, each with an id of its own",
        "contentType": BATCH_CONTENT_TYPE,
        "payload": {"type": "array", "maxItems": BATCH_EVENTS_MAX, "items": {"anyOf": kinds}},
    }


def _trait() -> dict[str, Any]:
    words = "The id of the event: a stream stores it once, however often it is published within its duplicate window."
    return {
        "headers": {"type": "object", "properties": {MESSAGE_ID_HEADER: {"type": "string", "description": words}}},
        "correlationId": {
            "description": "Ties the events of one causal chain together.",
            "location": "$message.payload#/correlationid",
        },
        "externalDocs": {
            "url": "https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/nats-protocol-binding.md"
        },
    }


def _server(name: str, address: str) -> dict[str, Any]:
    scheme, _, rest = address.rpartition("://")
    try:
        # What stands before the @ opens the server, or has been struck out already.
        parts = urlsplit(f"{scheme or 'nats'}://{rest.rpartition('@')[2]}")
        known = parts.scheme in _SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError:
        known = False
    if not known:
        raise InvalidValueError(f"servers.{name}", "an address such as nats://127.0.0.1:4222", address)
    server: dict[str, Any] = {"host": parts.netloc, "protocol": _SCHEMES[parts.scheme]}
    if parts.scheme in ("tls", "wss"):
        server["description"] = "Over TLS."
    return server


def _name_of(version: EventVersion) -> str:
    return f"{version.name}.v{version.version}"


def _draft_07(schema: Any) -> Any:
    """The schema in the words of AsyncAPI's schema object, which stands on draft 07: tuples are spelled otherwise."""
    if isinstance(schema, list):
        return [_draft_07(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    turned = {key: _draft_07(value) for key, value in schema.items()}
    if "prefixItems" in turned and isinstance(schema["prefixItems"], list):
        turned["additionalItems"] = turned.pop("items", True)
        turned["items"] = turned.pop("prefixItems")
    return turned
