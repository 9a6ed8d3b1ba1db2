"""The OpenAPI document as others see it: kept in the tree, and judged by tools that are not ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from polaris.api._app import ALL_ENDPOINTS
from polaris.api._openapi import PROBLEMS, openapi_document

GOLDEN = Path(__file__).resolve().parents[3] / "docs" / "reference" / "openapi.json"
RENEW = "the API is not what the document says; run: polaris export openapi --output docs/reference/openapi.json"


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(openapi_document(ALL_ENDPOINTS)))
    return found


def operations(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{method} {path}", operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def test_the_document_in_the_tree_is_that_of_the_code(document: dict[str, Any]) -> None:
    kept = json.loads(GOLDEN.read_text())
    assert kept == document, RENEW
    assert list(kept["paths"]) == list(document["paths"]), RENEW


def test_an_outside_tool_finds_nothing_wrong(document: dict[str, Any]) -> None:
    assert [error.message for error in OpenAPIV31SpecValidator(document).iter_errors()] == []


def test_an_outside_tool_would_find_what_is_wrong(document: dict[str, Any]) -> None:
    broken = json.loads(json.dumps(document))
    del broken["paths"]["/healthz"]["get"]["responses"]["200"]["description"]
    broken["paths"]["/readyz"]["get"]["operationId"] = "liveness"
    assert len(list(OpenAPIV31SpecValidator(broken).iter_errors())) >= 2


def test_every_schema_is_one_of_json_schema_2020_12(document: dict[str, Any]) -> None:
    schemas = [
        *document["components"]["schemas"].values(),
        *(parameter["schema"] for _, one in operations(document) for parameter in one.get("parameters", ())),
    ]
    assert len(schemas) > 50
    for schema in schemas:
        jsonschema.Draft202012Validator.check_schema(schema)


def test_every_operation_says_with_which_problems_it_may_end(document: dict[str, Any]) -> None:
    used = set()
    for name, operation in operations(document):
        statuses = set(operation["responses"])
        assert "default" not in statuses, f"{name}: a default would hide every status that is not said"
        assert {"400", "401", "421", "500", "503"} <= statuses, name
        assert ("{" in name) == ("404" in statuses) or "asyncapi" in name, name
        assert (not name.startswith("get")) == ("429" in statuses), name
        used |= {int(status) for status in statuses if int(status) >= 400}
    assert used == set(PROBLEMS)


def test_every_parameter_and_answer_is_described(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        assert len(operation["summary"]) > 10, name
        for parameter in operation.get("parameters", ()):
            assert len(parameter["description"]) > 10, (name, parameter["name"])
    for name, schema in document["components"]["schemas"].items():
        assert schema.get("description"), name
