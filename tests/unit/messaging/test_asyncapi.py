"""The AsyncAPI document: which topics, streams, messages and servers it tells of. (tests/interop asks the parser.)"""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from polaris.domain import EVENTS, EventRegistry, HealthEvent, PolarisEvent, TelemetryEvent
from polaris.exceptions import (
    ConfigurationError,
    InvalidTopicError,
    InvalidValueError,
    PolarisException,
    UnknownEventTypeError,
)
from polaris.messaging import (
    STANDARD_STREAMS,
    TELEMETRY_STREAM,
    EventCodec,
    StreamSpec,
    asyncapi_document,
    dead_letter_topic,
    execution_topic,
    health_topic,
    topic_of,
)
from polaris.messaging._asyncapi_examples import EXAMPLES


class OvenMeasured(PolarisEvent, frozen=True):
    celsius: float
    corner: tuple[int, str] = (0, "")


@pytest.fixture
def registry() -> EventRegistry:
    registry = EventRegistry(parent=EVENTS)
    registry.register(OvenMeasured, "acme.oven.measured", version=2)
    return registry


def resolved(document: dict[str, Any], reference: dict[str, str]) -> Any:
    place: Any = document
    for part in reference["$ref"].removeprefix("#/").split("/"):
        place = place[part]
    return place


def references(tree: Any) -> list[dict[str, str]]:
    if isinstance(tree, dict):
        own = [tree] if isinstance(tree.get("$ref"), str) else []
        return own + [found for value in tree.values() for found in references(value)]
    return [found for item in tree for found in references(item)] if isinstance(tree, list) else []


def test_every_standard_topic_is_a_channel_with_its_parameter() -> None:
    channels = asyncapi_document()["channels"]
    told = {channel["address"]: list(channel.get("parameters", ())) for channel in channels.values()}
    assert told == {
        "polaris.telemetry.{system_id}": ["system_id"],
        "polaris.adaptations.{system_id}": ["system_id"],
        "polaris.executions.{system_id}": ["system_id"],
        "polaris.health.{component}": ["component"],
        "polaris.config.updates": [],
        "polaris.dead_letter.{topic}": ["topic"],
        None: [],
    }


def test_the_addresses_are_those_that_the_library_publishes_to() -> None:
    channels = asyncapi_document()["channels"]

    def address(key: str, value: str) -> str:
        (parameter,) = channels[key]["parameters"]
        filled: str = channels[key]["address"].replace("{" + parameter + "}", value)
        return filled

    events = {type(event): event for event in (make() for make in EXAMPLES.values())}
    assert address("telemetry", "boiler") == topic_of(events[TelemetryEvent])
    assert address("health", "store") == topic_of(events[HealthEvent]) == health_topic("store")
    assert address("executions", "web") == execution_topic("web")
    assert address("deadLetters", "a.b.c") == dead_letter_topic("a.b.c")


def test_every_reference_leads_somewhere(registry: EventRegistry) -> None:
    document = asyncapi_document(registry)
    found = references(document)
    assert len(found) > 50
    for reference in found:
        assert resolved(document, reference), reference


def test_streams_tell_what_is_kept_and_which_guarantee_a_channel_gives() -> None:
    channels = asyncapi_document()["channels"]
    guarantees = {key: channel.get("x-polaris-delivery") for key, channel in channels.items()}
    assert guarantees == {
        "telemetry": "at_least_once",
        "adaptations": "at_least_once",
        "executions": "at_least_once",
        "health": "at_most_once",
        "config": "at_most_once",
        "deadLetters": "at_least_once",
        "replies": None,
    }
    assert channels["telemetry"]["x-polaris-stream"] == {
        "name": "POLARIS_TELEMETRY",
        "subjects": ["polaris.telemetry.>"],
        "max_age_s": 86_400.0,
        "max_bytes": 1 << 30,
        "duplicate_window_s": 120.0,
        "replicas": 1,
    }


def test_the_streams_given_are_the_ones_told_of() -> None:
    everything = StreamSpec(name="ALL", subjects=("polaris.health.*", "polaris.config.>"), replicas=3)
    channels = asyncapi_document(streams=(everything,))["channels"]
    stored = {
        key: channel["x-polaris-stream"]["name"] for key, channel in channels.items() if "x-polaris-stream" in channel
    }
    assert stored == {"health": "ALL", "config": "ALL"}
    assert asyncapi_document(streams=())["channels"]["telemetry"]["x-polaris-delivery"] == "at_most_once"


def test_what_is_received_and_sent_are_operations_on_the_messages_of_their_channel() -> None:
    document = asyncapi_document()
    for name, operation in document["operations"].items():
        channel = resolved(document, operation["channel"])
        assert name.startswith(operation["action"])
        assert [resolved(document, one) for one in operation["messages"]] == list(channel["messages"].values())
        assert operation["bindings"] == {"nats": {"bindingVersion": "0.1.0"}}
    actions = {name for name in document["operations"] if not name.startswith("receive")}
    assert "sendDeadLetters" in actions
    assert "receiveDeadLetters" not in document["operations"]


def test_messages_are_cloudevents_single_and_in_batches() -> None:
    document = asyncapi_document()
    messages = document["components"]["messages"]
    single = messages["polaris.adaptation.v1"]
    assert (single["name"], single["contentType"]) == ("polaris.adaptation", "application/cloudevents+json")
    assert single["x-polaris-dataschema"] == "urn:polaris:schema:polaris.adaptation:1"
    (trait,) = (resolved(document, one) for one in single["traits"])
    assert trait["correlationId"]["location"] == "$message.payload#/correlationid"
    assert list(trait["headers"]["properties"]) == ["Nats-Msg-Id"]
    batch = messages["telemetry.batched"]
    assert batch["contentType"] == "application/cloudevents-batch+json"
    kinds = [resolved(document, one)["properties"]["type"]["const"] for one in batch["payload"]["items"]["anyOf"]]
    assert kinds == ["polaris.telemetry", "polaris.telemetry.batch"]
    assert "deadLetters.batched" not in messages


def validator(document: dict[str, Any], message: str) -> jsonschema.Draft7Validator:
    payload = document["components"]["messages"][message]["payload"]
    return jsonschema.Draft7Validator({**payload, "components": document["components"]})


@pytest.mark.parametrize("event_class", EXAMPLES, ids=lambda event_class: event_class.__name__)
def test_the_examples_are_real_events_that_fit_their_schema(event_class: type[PolarisEvent]) -> None:
    document = asyncapi_document()
    name = f"{EVENTS.require(event_class).name}.v1"
    (example,) = document["components"]["messages"][name]["examples"]
    validator(document, name).validate(example["payload"])
    assert EventCodec().decode(json.dumps(example["payload"]).encode()).event == EXAMPLES[event_class]()


def test_the_schemas_of_the_document_refuse_what_is_broken() -> None:
    document = asyncapi_document()
    (example,) = document["components"]["messages"]["polaris.telemetry.v1"]["examples"]
    payload = example["payload"]
    reading = payload["data"]["system_state"]["metrics"]["flow"]
    assert reading == {"name": "flow", "unit": "l/min", "quality": "missing"}
    check = validator(document, "polaris.telemetry.v1")
    for wrong in ({"value": 0.0}, {"quality": "good"}, {"name": ""}):
        broken = json.loads(json.dumps(payload))
        broken["data"]["system_state"]["metrics"]["flow"] |= wrong
        assert not check.is_valid(broken), wrong
    batch = validator(document, "telemetry.batched")
    assert batch.is_valid([payload, payload])
    assert not batch.is_valid([payload, {}])


def test_types_of_ones_own_stand_in_a_channel_without_an_address(registry: EventRegistry) -> None:
    document = asyncapi_document(registry)
    channel = document["channels"]["applications"]
    assert channel["address"] is None
    assert "acme.oven.measured.v2" in channel["messages"]
    assert "polaris.telemetry.v1" not in channel["messages"]
    assert "x-polaris-delivery" not in channel


def test_topics_of_ones_own_are_channels_with_parameters(registry: EventRegistry) -> None:
    ovens = StreamSpec(name="OVENS", subjects=("acme.ovens.>",))
    topics: dict[str, list[type[PolarisEvent]]] = {"acme.ovens.{site}.{oven}": [OvenMeasured, HealthEvent]}
    document = asyncapi_document(registry, (*STANDARD_STREAMS, ovens), topics=topics)
    channel = document["channels"]["acme-ovens-site-oven"]
    assert channel["address"] == "acme.ovens.{site}.{oven}"
    assert list(channel["parameters"]) == ["site", "oven"]
    assert list(channel["messages"]) == ["acme.oven.measured.v2", "polaris.health.v1", "acme-ovens-site-oven.batched"]
    assert channel["x-polaris-stream"]["name"] == "OVENS"
    assert "acme.oven.measured.v2" not in document["channels"].get("applications", {"messages": ()})["messages"]


class Stray(PolarisEvent, frozen=True):
    pass


@pytest.mark.parametrize(
    ("topics", "error"),
    [
        ({"polaris.telemetry.{system_id}": [OvenMeasured]}, ConfigurationError),
        ({"telemetry": [OvenMeasured]}, ConfigurationError),
        ({"acme.ovens": [OvenMeasured], "acme-ovens": [OvenMeasured]}, ConfigurationError),
        ({"acme.*": [OvenMeasured]}, InvalidTopicError),
        ({"acme..ovens": [OvenMeasured]}, InvalidTopicError),
        ({"acme.ovens": [Stray]}, UnknownEventTypeError),
    ],
)
def test_a_topic_that_is_none_or_taken_is_refused(
    registry: EventRegistry, topics: dict[str, list[type[PolarisEvent]]], error: type[PolarisException]
) -> None:
    with pytest.raises(error):
        asyncapi_document(registry, topics=topics)


def test_tuples_are_spelled_as_draft_07_does(registry: EventRegistry) -> None:
    schema = asyncapi_document(registry)["components"]["schemas"]["acme.oven.measured.v2.data"]
    corner = schema["properties"]["corner"]
    assert corner["items"] == [{"type": "integer"}, {"type": "string"}]
    assert corner["additionalItems"] is False
    assert "prefixItems" not in corner


def test_a_type_that_json_cannot_carry_is_left_out(registry: EventRegistry) -> None:
    class Opaque:
        pass

    class Impossible(PolarisEvent, frozen=True):
        thing: Opaque

    registry.register(Impossible, "acme.impossible.event")
    assert "acme.impossible.event" not in json.dumps(asyncapi_document(registry))
    with pytest.raises(ConfigurationError, match=r"JSON cannot carry acme\.impossible\.event"):
        asyncapi_document(registry, topics={"acme.x": [Impossible]})


def test_a_registry_without_the_standard_types_has_only_its_own() -> None:
    own = EventRegistry()
    own.register(OvenMeasured, "acme.oven.measured")
    document = asyncapi_document(own)
    assert list(document["channels"]) == ["applications"]
    assert list(document["components"]["messages"]) == ["acme.oven.measured.v1", "applications.batched"]


@pytest.mark.parametrize(
    ("address", "server"),
    [
        ("nats://127.0.0.1:4222", {"host": "127.0.0.1:4222", "protocol": "nats"}),
        ("nats.example:4222", {"host": "nats.example:4222", "protocol": "nats"}),
        ("nats://anna:hunter2@[::1]:4222", {"host": "[::1]:4222", "protocol": "nats"}),
        ("nats://anna:[REDACTED]@nats.example:4222", {"host": "nats.example:4222", "protocol": "nats"}),
        ("tls://s3cr3t@nats.example", {"host": "nats.example", "protocol": "nats", "description": "Over TLS."}),
        ("wss://nats.example:443", {"host": "nats.example:443", "protocol": "wss", "description": "Over TLS."}),
    ],
)
def test_servers_are_told_without_what_opens_them(address: str, server: dict[str, str]) -> None:
    document = asyncapi_document(servers={"node": address})
    assert document["servers"] == {"node": server}
    assert "hunter2" not in json.dumps(document)
    assert "s3cr3t" not in json.dumps(document)


@pytest.mark.parametrize(
    "address", ["", "http://x", "nats://", "nats://x:port", "nats://x:0", "nats://[::1", "nats://x:70000"]
)
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(InvalidValueError, match=r"servers\.node"):
        asyncapi_document(servers={"node": address})


def test_the_same_arguments_give_the_same_document(registry: EventRegistry) -> None:
    one, other = (json.dumps(asyncapi_document(registry, (TELEMETRY_STREAM,))) for _ in range(2))
    assert one == other


def test_the_document_is_plain_json(registry: EventRegistry) -> None:
    document = asyncapi_document(registry, servers={"node": "nats://127.0.0.1:4222"})
    assert json.loads(json.dumps(document, allow_nan=False)) == document
