"""The OpenAPI 3.1 document of the API, made from the endpoints' own descriptions and the types of their answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from polaris.api._endpoints import JSON_TYPE, Endpoint
from polaris.api._parameters import Parameter
from polaris.api._problems import PROBLEM_TYPE, Problem

API_VERSION = "1.0.0"
SECURITY = {"bearer": {"type": "http", "scheme": "bearer"}, "basic": {"type": "http", "scheme": "basic"}}
_REFERENCE = "#/components/schemas/{name}"


def openapi_document(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """The document for `endpoints`. The same endpoints give the same document."""
    types: list[Any] = [endpoint.answer for endpoint in endpoints if endpoint.answer is not None]
    types += [endpoint.body for endpoint in endpoints if endpoint.body is not None] + [Problem]
    references, components = msgspec.json.schema_components(types, ref_template=_REFERENCE)
    schemas = dict(zip(types, references, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "POLARIS node",
            "version": API_VERSION,
            "summary": "What a POLARIS node knows: its managed systems, their telemetry, actions and its own health.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": SECURITY},
    }


def _operation(endpoint: Endpoint, schemas: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    schema = schemas[endpoint.answer] if endpoint.answer is not None else _plain_schema(endpoint.media_type)
    content = {endpoint.media_type: {"schema": schema}}
    responses: dict[str, Any] = {str(endpoint.status): {"description": endpoint.summary, "content": content}}
    if endpoint.status == 204:
        responses = {"204": {"description": "Done."}}
    elif endpoint.status == 202:
        responses["200"] = {"description": "Known already; this is what came of it.", "content": content}
    if endpoint.failing_answer:
        responses["503"] = {"description": "Not ok; the same answer with the reasons.", "content": content}
    problem = {PROBLEM_TYPE: {"schema": schemas[Problem]}}
    responses["default"] = {"description": "A problem (RFC 9457).", "content": problem}
    operation: dict[str, Any] = {"operationId": endpoint.name, "summary": endpoint.summary, "responses": responses}
    if endpoint.method != "GET":
        operation["security"] = [{name: []} for name in SECURITY]
    if endpoint.body is not None:
        operation["requestBody"] = {"required": True, "content": {JSON_TYPE: {"schema": schemas[endpoint.body]}}}
    if endpoint.parameters:
        operation["parameters"] = [_parameter(parameter) for parameter in endpoint.parameters]
    return operation


def _plain_schema(media_type: str) -> dict[str, Any]:
    return {"type": "object"} if media_type.endswith("json") else {"type": "string"}


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.place,
        "required": parameter.required,
        "description": parameter.description,
        "schema": parameter.schema,
    }
