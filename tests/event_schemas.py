"""Checks whole messages against the published JSON Schemas, with a JSON Schema library and nothing of POLARIS."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import jsonschema
import referencing
import referencing.jsonschema

FORMATS = jsonschema.FormatChecker(formats=())


@FORMATS.checks("date-time", raises=ValueError)
def is_instant(value: object) -> bool:
    """A time of RFC 3339 has an offset."""
    return not isinstance(value, str) or datetime.fromisoformat(value).tzinfo is not None


class Schemas:
    """The schemas by `$id`, as `event_schemas` gives them and `polaris export schemas` prints them."""

    def __init__(self, schemas: Mapping[str, Mapping[str, Any]]) -> None:
        dialect = referencing.jsonschema.DRAFT202012
        resources = [(uri, dialect.create_resource(dict(schema))) for uri, schema in schemas.items()]
        self._registry: Any = referencing.Registry().with_resources(resources)

    def problems(self, message: bytes, uri: str | None = None) -> list[str]:
        """What is wrong with a whole event, by default against the schema that it names itself."""
        event = json.loads(message)
        reference = f"{event['dataschema'] if uri is None else uri}#cloudevent"
        validator = jsonschema.Draft202012Validator(
            {"$ref": reference}, registry=self._registry, format_checker=FORMATS
        )
        return [f"{error.json_path}: {error.message[:200]}" for error in validator.iter_errors(event)]
