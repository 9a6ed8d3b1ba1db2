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
PROBLEMS = {
    400: "The request cannot be read: its head, query, path or body.",
    401: "The token is missing or wrong: changes need it, and where the node is not on loopback everything does.",
    403: "A page of another origin asks.",
    404: "There is no such thing.",
    409: "The request contradicts what was done before.",
    413: "The body is too large.",
    415: "The body is not application/json.",
    421: "The node does not answer under this host name.",
    422: "A parameter or the body has a value that is not accepted; `errors` say which, and what would be.",
    429: "Too many changes at once.",
    500: "An unexpected error of the node; its log tells the cause.",
    503: "Something that the node needs is away, or too many ask at once.",
}
PROBLEM_HEADERS: dict[int, dict[str, Any]] = {
    401: {"WWW-Authenticate": {"description": "How to come again.", "required": True, "schema": {"type": "string"}}},
    429: {
        "Retry-After": {
            "description": "Seconds to wait.",
            "required": True,
            "schema": {"type": "integer", "minimum": 1},
        }
    },
}
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
        "components": {
            "schemas": components,
            "responses": {f"problem-{status}": _problem_response(status, schemas[Problem]) for status in PROBLEMS},
            "securitySchemes": SECURITY,
        },
    }


def _operation(endpoint: Endpoint, schemas: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    schema = schemas[endpoint.answer] if endpoint.answer is not None else _plain_schema(endpoint.media_type)
    content = {endpoint.media_type: {"schema": schema}}
    responses: dict[str, Any] = {str(endpoint.status): {"description": endpoint.summary, "content": content}}
    if endpoint.status == 204:
        responses = {"204": {"description": "Done."}}
    elif endpoint.status == 202:
        responses["200"] = {"description": "Known already; this is what came of it.", "content": content}
    for status in _problem_statuses(endpoint):
        responses[str(status)] = {"$ref": f"#/components/responses/problem-{status}"}
    if endpoint.failing_answer:
        both = {**content, PROBLEM_TYPE: {"schema": schemas[Problem]}}
        responses["503"] = {"description": "Not ok; the same answer with the reasons.", "content": both}
    operation: dict[str, Any] = {"operationId": endpoint.name, "summary": endpoint.summary, "responses": responses}
    if endpoint.method != "GET":
        operation["security"] = [{name: []} for name in SECURITY]
    if endpoint.body is not None:
        operation["requestBody"] = {"required": True, "content": {JSON_TYPE: {"schema": schemas[endpoint.body]}}}
    if endpoint.parameters:
        operation["parameters"] = [_parameter(parameter) for parameter in endpoint.parameters]
    return operation


def _problem_response(status: int, schema: dict[str, Any]) -> dict[str, Any]:
    response: dict[str, Any] = {"description": PROBLEMS[status], "content": {PROBLEM_TYPE: {"schema": schema}}}
    if status in PROBLEM_HEADERS:
        response["headers"] = PROBLEM_HEADERS[status]
    return response


def _problem_statuses(endpoint: Endpoint) -> list[int]:
    """Every status that comes with a problem."""
    found = {400, 401, 421, 500, 503, *endpoint.problems}
    if any(parameter.place == "path" for parameter in endpoint.parameters):
        found.add(404)
    if endpoint.parameters or endpoint.body is not None:
        found.add(422)
    if endpoint.method != "GET":
        found |= {403, 429}
    if endpoint.body is not None:
        found |= {413, 415}
    return sorted(found)


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
