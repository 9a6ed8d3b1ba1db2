from __future__ import annotations

import json
import re
from typing import Any

import httpx2
import pytest
from tests.living_view import LivingView

from polaris.api._app import READING_ENDPOINTS as ENDPOINTS


@pytest.fixture
async def document(client: httpx2.AsyncClient) -> dict[str, Any]:
    answer = await client.get("/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    found: dict[str, Any] = answer.json()
    return found


def references(tree: Any) -> list[str]:
    if isinstance(tree, dict):
        own = [tree["$ref"]] if isinstance(tree.get("$ref"), str) else []
        return own + [found for value in tree.values() for found in references(value)]
    if isinstance(tree, list):
        return [found for value in tree for found in references(value)]
    return []


async def test_the_document_is_openapi_3_1_and_lists_every_endpoint(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1.")
    assert list(document["paths"]) == [endpoint.path for endpoint in ENDPOINTS]
    names = [path["get"]["operationId"] for path in document["paths"].values()]
    assert len(set(names)) == len(names)


async def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    found = set(references(document))
    assert found
    for reference in found:
        hash_sign, _, kind, name = reference.split("/")
        assert hash_sign == "#"
        assert name in document["components"][kind]


async def test_every_path_parameter_is_described(document: dict[str, Any]) -> None:
    for path, item in document["paths"].items():
        described = {item["name"] for item in item["get"].get("parameters", []) if item["in"] == "path"}
        assert described == set(re.findall(r"{(\w+)}", path))


async def test_the_answers_have_the_fields_that_the_document_promises(
    client: httpx2.AsyncClient, document: dict[str, Any], view: LivingView
) -> None:
    examples = {
        "/healthz": "/healthz",
        "/readyz": "/readyz",
        "/api/v1/node": "/api/v1/node",
        "/api/v1/schemas": "/api/v1/schemas",
        "/api/v1/systems": "/api/v1/systems",
        "/api/v1/systems/{system_id}": "/api/v1/systems/host",
        "/api/v1/systems/{system_id}/series": "/api/v1/systems/host/series?metric=system.cpu.utilization",
        "/api/v1/systems/{system_id}/aggregates": "/api/v1/systems/host/aggregates?metric=system.cpu.utilization",
        "/api/v1/actions": "/api/v1/actions",
        "/api/v1/actions/{action_id}": "/api/v1/actions/action-00000",
        "/api/v1/components": "/api/v1/components",
        "/api/v1/bus": "/api/v1/bus",
        "/api/v1/dependencies": "/api/v1/dependencies",
        "/api/v1/traces": "/api/v1/traces",
        "/api/v1/traces/{trace_id}": f"/api/v1/traces/{1:032x}",
        "/api/v1/logs": "/api/v1/logs",
        "/api/v1/health": "/api/v1/health",
        "/api/v1/health/history": "/api/v1/health/history",
        "/api/v1/configuration": "/api/v1/configuration",
        "/api/v1/bus/streams": "/api/v1/bus/streams",
    }
    typed = {endpoint.path for endpoint in ENDPOINTS if endpoint.answer is not None}
    assert typed == set(examples)
    for path, example in examples.items():
        schema = document["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        answer = (await client.get(example)).json()
        check(answer, schema, document["components"]["schemas"], path)


def check(value: Any, schema: dict[str, Any], schemas: dict[str, Any], where: str) -> None:
    """A small JSON Schema checker for the keywords that the document uses; it knows no others and says so."""
    if "$ref" in schema:
        schema = schemas[schema["$ref"].removeprefix("#/components/schemas/")]
    if "anyOf" in schema:
        errors = []
        for option in schema["anyOf"]:
            try:
                check(value, option, schemas, where)
            except AssertionError as error:
                errors.append(error)
        assert len(errors) < len(schema["anyOf"]), f"{where}: {json.dumps(value)[:80]} matches no option"
        return
    if "enum" in schema:
        assert value in schema["enum"], where
        return
    kinds: dict[str, Any] = {
        "object": dict, "array": list, "string": str, "boolean": bool, "null": type(None), "integer": int,
        "number": (int, float),
    }  # fmt: skip
    if "type" in schema:
        assert isinstance(value, kinds[schema["type"]]), f"{where}: {value!r} is no {schema['type']}"
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        assert set(schema.get("required", ())) <= set(value), where
        extra = schema.get("additionalProperties", not properties)
        for name, item in value.items():
            if name in properties:
                check(item, properties[name], schemas, f"{where}.{name}")
            else:
                assert extra is not False, f"{where}: {name} is not in the document"
                if isinstance(extra, dict):
                    check(item, extra, schemas, f"{where}.{name}")
    if isinstance(value, list):
        for item in value:
            check(item, schema.get("items", {}), schemas, f"{where}[]")


async def test_the_document_tells_of_the_other_documents(document: dict[str, Any]) -> None:
    assert "AsyncAPI 3.0" in document["paths"]["/asyncapi.json"]["get"]["summary"]
    content = document["paths"]["/api/v1/schemas/{event_type}/{version}"]["get"]["responses"]["200"]["content"]
    assert content == {"application/schema+json": {"schema": {"type": "object"}}}


async def test_the_document_is_always_the_same(client: httpx2.AsyncClient) -> None:
    assert (await client.get("/openapi.json")).content == (await client.get("/openapi.json")).content
