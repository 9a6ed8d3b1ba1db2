"""The JSON Schemas of the events: what they say, and that they are JSON Schema 2020-12."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import msgspec
import pytest

from polaris.domain import (
    EVENTS,
    EventRegistry,
    EventType,
    HealthStatus,
    PolarisEvent,
    TelemetryEvent,
    event_schema,
    event_schemas,
    event_type,
)
from polaris.exceptions import ConfigurationError

STANDARD = [entry for entry in EVENTS if entry.name.startswith("polaris.")]


def references(tree: Any) -> set[str]:
    if isinstance(tree, dict):
        own = {tree["$ref"]} if isinstance(tree.get("$ref"), str) else set()
        return own.union(*map(references, tree.values()))
    return set().union(*map(references, tree)) if isinstance(tree, list) else set()


@pytest.mark.parametrize("entry", STANDARD, ids=lambda entry: entry.name)
def test_every_schema_is_named_by_the_dataschema_of_its_events(entry: EventType) -> None:
    schema = event_schema(entry)
    assert schema["$id"] == entry.schema_uri
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["title"] == entry.name
    jsonschema.Draft202012Validator.check_schema(schema)
    assert json.loads(json.dumps(schema, allow_nan=False)) == schema


@pytest.mark.parametrize("entry", STANDARD, ids=lambda entry: entry.name)
def test_every_reference_leads_to_a_part_and_every_part_is_referred_to(entry: EventType) -> None:
    schema = event_schema(entry)
    parts = {f"#/$defs/{name}" for name in schema["$defs"]}
    assert references(schema) == parts - {"#/$defs/cloudevents.structured"} | {"#"}


def test_the_data_have_the_events_own_fields_and_none_of_the_envelope() -> None:
    schema = event_schema(EVENTS.require(TelemetryEvent))
    assert list(schema["properties"]) == schema["required"] == ["system_state"]
    whole = schema["$defs"]["cloudevents.structured"]
    assert list(whole["properties"]) == [
        "specversion", "type", "id", "source", "time", "subject", "datacontenttype", "dataschema", "correlationid",
        "traceparent", "tracestate", "sequence", "data",
    ]  # fmt: skip
    assert whole["properties"]["data"] == {"$ref": "#"}
    assert whole["properties"]["type"] == {"const": "polaris.telemetry"}
    assert whole["required"] == ["specversion", "type", "id", "source", "data"]


def test_descriptions_speak_json_and_not_python() -> None:
    reading = event_schema(EVENTS.require(TelemetryEvent))["$defs"]["MetricValue"]
    assert reading["description"] == (
        "One reading. Missing is not zero: a reading that could not be taken has the value null and the quality "
        "`missing`."
    )


def test_a_type_of_ones_own_with_renamed_fields_and_defaults_alone() -> None:
    registry = EventRegistry()

    @event_type("acme.order.shipped", version=4, registry=registry)
    class OrderShipped(PolarisEvent, frozen=True, kw_only=True, rename="camel"):
        """An order has left.

        Nobody reads this.
        """

        order_id: str = ""
        items: tuple[Item, ...] = ()

    (schema,) = event_schemas(registry).values()
    assert schema["$id"] == "urn:polaris:schema:acme.order.shipped:4"
    assert schema["description"] == "An order has left."
    assert list(schema["properties"]) == ["orderId", "items"]
    assert schema["$defs"]["cloudevents.structured"]["required"] == ["specversion", "type", "id", "source"]
    assert list(schema["$defs"]) == ["Item", "cloudevents.structured"]


class Item(msgspec.Struct):
    weight_kg: float


class OrderOfOld(msgspec.Struct):
    order_id: int


def test_older_versions_have_a_schema_when_their_shape_is_known() -> None:
    registry = EventRegistry()

    @event_type("acme.order.shipped", version=4, registry=registry)
    class OrderShipped(PolarisEvent, frozen=True):
        order: str

    registry.upcast("acme.order.shipped", 1, lambda data: data, data_type=dict[str, int])
    registry.upcast("acme.order.shipped", 2, lambda data: data, data_type=OrderOfOld)
    registry.upcast("acme.order.shipped", 3, lambda data: data)
    found = event_schemas(registry)
    assert [uri.rpartition(":")[2] for uri in found] == ["1", "2", "4"]
    assert found["urn:polaris:schema:acme.order.shipped:1"]["additionalProperties"] == {"type": "integer"}
    older = found["urn:polaris:schema:acme.order.shipped:2"]
    assert (older["title"], older["required"]) == ("acme.order.shipped", ["order_id"])


def test_a_type_that_json_cannot_carry_has_no_schema_and_harms_no_other() -> None:
    registry = EventRegistry()

    class Opaque:
        pass

    @event_type("acme.impossible.event", registry=registry)
    class Impossible(PolarisEvent, frozen=True):
        thing: Opaque

    @event_type("acme.possible.event", registry=registry)
    class Possible(PolarisEvent, frozen=True):
        status: HealthStatus

    assert list(event_schemas(registry)) == ["urn:polaris:schema:acme.possible.event:1"]
    with pytest.raises(ConfigurationError, match=r"no JSON Schema can be made for acme\.impossible\.event"):
        event_schema(registry.require(Impossible))


def test_the_envelope_is_no_part_of_the_data_even_when_a_type_insists_on_it() -> None:
    registry = EventRegistry()

    @event_type("acme.order.signed", registry=registry)
    class Signed(PolarisEvent, frozen=True, kw_only=True):
        source: str
        signature: str

    schema = event_schema(registry.require(Signed))
    assert list(schema["properties"]) == schema["required"] == ["signature"]


def test_a_type_that_refers_to_itself_has_a_schema() -> None:
    registry = EventRegistry()
    event_type("acme.tree.grown", registry=registry)(Tree)
    (schema,) = event_schemas(registry).values()
    jsonschema.Draft202012Validator(schema).validate({"branches": [{"branches": []}]})
    assert list(jsonschema.Draft202012Validator(schema).iter_errors({"branches": [{"branches": 7}]}))


class Tree(PolarisEvent, frozen=True):
    branches: tuple[Tree, ...] = ()
