"""Untyped options and parameters into typed ones, with every mistake reported and a near name suggested."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from polaris.connectors._connector import ActionDescription, ConnectorOptions
from polaris.domain import AdaptationAction
from polaris.exceptions import ActionNotSupportedError, ConfigurationError

O = TypeVar("O", bound=ConnectorOptions)  # noqa: E741 # the usual letter for one type
S = TypeVar("S", bound=msgspec.Struct)


def read_options(options_type: type[O], options: Mapping[str, object]) -> O:
    """`options` as `options_type`.

    Numbers and booleans may be given as text, because environment variables cannot say them otherwise. Raises
    `ConfigurationError`; its `problems` read `key: what is wrong`, one for every mistake, also those that only several
    fields together show.
    """
    read, problems = _read(options_type, options)
    if read is not None:
        problems = list(read.problems())
    if read is None or problems:
        raise ConfigurationError(problems=problems)
    return read


def read_parameters(parameters_type: type[S], action: AdaptationAction) -> S:
    """The parameters of `action` as `parameters_type`. Raises `ActionNotSupportedError` listing every mistake."""
    read, problems = _read(parameters_type, action.parameters, strict=True)
    if read is None:
        message = f"action {action.action_type!r}: " + "; ".join(problems)
        raise ActionNotSupportedError(message, {"action_id": action.action_id, "problems": problems})
    return read


def describe_action(name: str, description: str, parameters_type: type[msgspec.Struct]) -> ActionDescription:
    """An action whose parameters are described by a type; the schema is self-contained."""
    _, definitions = msgspec.json.schema_components([parameters_type], ref_template="#/$defs/{name}")
    return ActionDescription(name, description, dict(definitions[parameters_type.__name__]))


def near(name: str, known: Sequence[str]) -> str:
    """A hint such as ` (did you mean 'workers_max'?)`, or nothing when no known name is near."""
    found = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {found[0]!r}?)" if found else ""


def _read(type_: type[S], given: Mapping[str, object], *, strict: bool = False) -> tuple[S | None, list[str]]:
    if not isinstance(given, Mapping):
        return None, [f"expected a table of options, got {type(given).__name__}"]
    fields = {field.encode_name: field for field in msgspec.structs.fields(type_)}
    values: dict[str, Any] = {}
    problems = [f"{key}: unknown key{near(str(key), list(fields))}" for key in given if key not in fields]
    for key, field in fields.items():
        if key not in given:
            if field.required:
                problems.append(f"{key}: required, but not given")
            continue
        try:
            values[field.name] = msgspec.convert(given[key], field.type, strict=strict)
        except msgspec.ValidationError as error:
            problems.append(f"{key}: {error}")
    return (type_(**values), []) if not problems else (None, problems)
