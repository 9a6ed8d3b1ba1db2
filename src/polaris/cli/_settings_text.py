"""The settings as text for people: a commented `polaris.toml`, and a schema that describes every setting.

Sections, keys, defaults and bounds are those of the settings' types, the words their docstrings.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from polaris.runtime import settings_schema
from polaris.runtime._settings import Section, Settings
from polaris.runtime._settings_said import descriptions

SCHEMA_FILE = "polaris.schema.json"
WIDTH = 100
HEAD = """\
# The configuration of a POLARIS node. Every line that is commented out shows a default: what is not set here needs no
# line. Variables go over this file: POLARIS_HTTP__PORT=8080 is http.port. Check it with: polaris check"""
_BOUNDS = (("ge", "at least"), ("gt", "more than"), ("le", "at most"), ("lt", "less than"))


def described_schema() -> dict[str, Any]:
    """The JSON Schema of `polaris.toml` with what every setting means."""
    schema = settings_schema()
    said = descriptions()
    for name, definition in schema["$defs"].items():
        for key, shape in definition.get("properties", {}).items():
            text = said.get(name, {}).get(key)
            if text:
                shape["description"] = text
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "polaris.toml", **schema}


def commented_settings(systems: str) -> str:
    """A `polaris.toml` in which every setting stands as a comment with its default; `systems` is its live part."""
    blocks = [
        f"#:schema ./{SCHEMA_FILE}\n{HEAD}",
        systems.rstrip(),
    ]
    said = descriptions()
    for field in msgspec.structs.fields(Settings):
        if isinstance(field.type, type) and issubclass(field.type, Section):
            blocks += _section(field.type, field.encode_name, said)
    return "\n\n".join(blocks) + "\n"


def _section(section: type[Section], path: str, said: Mapping[str, Mapping[str, str]]) -> list[str]:
    """The section's block, and those of the sections in it."""
    words = said[section.__name__]
    # The first line names the section, as its header does.
    text = words[""].partition(": ")[2].replace("\n\n", " ").replace("\n", " ")
    lines = [*_comment(text[:1].upper() + text[1:]), f"[{path}]"]
    inner: list[str] = []
    hints = get_type_hints(section, include_extras=True)
    for field in msgspec.structs.fields(section):
        if isinstance(field.type, type) and issubclass(field.type, Section):
            inner += _section(field.type, f"{path}.{field.encode_name}", said)
            continue
        notes = [text for text in (words.get(field.encode_name, ""), _limits(hints[field.name])) if text]
        lines += _comment(" ".join(note if note.endswith(".") else f"{note}." for note in notes))
        lines.append(f"# {field.encode_name} = {_value(field, hints[field.name])}")
    return ["\n".join(lines), *inner]


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text.replace("`", ""), WIDTH)]


def _value(field: msgspec.structs.FieldInfo, hint: Any) -> str:
    """The default as TOML; of a setting that has none, something of its kind, marked as such."""
    default = field.default
    if field.default_factory is not msgspec.NODEFAULT:
        default = field.default_factory()
    if default is None or default is msgspec.NODEFAULT:
        return f"{json.dumps(_example(hint))}  # not set"
    return json.dumps(msgspec.to_builtins(default))


def _example(hint: Any) -> object:
    parts = list(_parts(hint))
    for part in parts:
        if get_origin(part) is Literal:
            return get_args(part)[0]
    if int in parts:
        return max((meta.ge for meta in parts if isinstance(meta, msgspec.Meta) and meta.ge), default=1)
    if float in parts:
        return 30.0
    return "." * max((meta.min_length or 0 for meta in parts if isinstance(meta, msgspec.Meta)), default=0) or "..."


def _limits(hint: Any) -> str:
    parts = list(_parts(hint))
    choices = [str(choice) for part in parts if get_origin(part) is Literal for choice in get_args(part)]
    if choices:
        return f"One of: {', '.join(choices)}"
    bounds = [
        f"{word} {getattr(meta, name):g}" if isinstance(getattr(meta, name), float) else f"{word} {getattr(meta, name)}"
        for meta in parts
        if isinstance(meta, msgspec.Meta)
        for name, word in _BOUNDS
        if getattr(meta, name) is not None
    ]
    return ", ".join(bounds)[:1].upper() + ", ".join(bounds)[1:]


def _parts(hint: Any) -> Iterator[Any]:
    """The type and what is said about it, of each alternative."""
    yield hint
    if get_origin(hint) is Annotated or type(hint).__name__ in ("UnionType", "Union", "_UnionGenericAlias"):
        for part in get_args(hint):
            yield from _parts(part)
