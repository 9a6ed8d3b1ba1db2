"""The endpoints of the documents that describe the bus and its events."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from starlette.responses import Response

from polaris.api._answers import SchemaEntry, SchemasAnswer
from polaris.api._endpoints import Arguments, Context, Endpoint, found, json_response
from polaris.api._parameters import identifier, number
from polaris.domain import EventRegistry, event_schema
from polaris.domain._schemas import EventVersion, event_versions
from polaris.exceptions import NotFoundError

SCHEMA_TYPE = "application/schema+json"


async def _asyncapi(context: Context, _: Arguments) -> Response:
    async with context.rendering:
        document = await asyncio.to_thread(context.view.asyncapi)
    if document is None:
        raise NotFoundError("this node offers no AsyncAPI document")
    return json_response(document)


async def _schemas(context: Context, _: Arguments) -> SchemasAnswer:
    async with context.rendering:
        versions = await asyncio.to_thread(lambda: tuple(event_versions(context.registry)))
    return SchemasAnswer(schemas=tuple(_schema_entry(version) for version in versions))


async def _schema(context: Context, arguments: Arguments) -> Response:
    async with context.rendering:
        schema = await asyncio.to_thread(_schema_of, context.registry, arguments["event_type"], arguments["version"])
    return Response(msgspec.json.encode(schema), media_type=SCHEMA_TYPE)


def _schema_entry(version: EventVersion) -> SchemaEntry:
    path = f"/api/v1/schemas/{version.name}/{version.version}"
    return SchemaEntry(id=version.uri, event_type=version.name, version=version.version, path=path)


def _schema_of(registry: EventRegistry, name: str, version: int) -> dict[str, Any]:
    fitting = (one for one in event_versions(registry) if (one.name, one.version) == (name, version))
    return event_schema(found(next(fitting, None), "no event type with this name and version has a schema"))


DOCUMENT_ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint(
        "/asyncapi.json",
        "asyncapi",
        "The AsyncAPI 3.0 document of the bus: topics, streams, events.",
        _asyncapi,
        problems=(404,),
    ),
    Endpoint("/api/v1/schemas", "schemas", "The JSON Schemas of the events, by type.", _schemas, SchemasAnswer),
    Endpoint(
        "/api/v1/schemas/{event_type}/{version}",
        "schema",
        "The JSON Schema (2020-12) of the data of one event type; its anchor `cloudevent` describes the whole event.",
        _schema,
        media_type=SCHEMA_TYPE,
        parameters=(
            identifier("event_type", "The event type, such as polaris.telemetry.", place="path"),
            number("version", "The version of its data."),
        ),
    ),
)
