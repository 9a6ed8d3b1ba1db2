"""The parameters of the API: one description each, which both checks what comes in and documents it."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar
from urllib.parse import parse_qsl

import msgspec

from polaris.exceptions import InvalidValueError, RequestError

ID_CHARS_MAX = 256
QUERY_BYTES_MAX = 4096
CURSOR_CHARS_MAX = 1024
INTEGER_MAX = 10**15 - 1
NO_CONTROL = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$"
"""As a regular expression of JSON Schema, that is of ECMA-262."""

Key = TypeVar("Key", bound=msgspec.Struct)

# A "+" that was not percent-encoded arrives as a space; in a time it can only have meant the sign of the offset.
_BARE_PLUS = re.compile(r"(T[\d:.]+) (\d\d:?\d\d)$")
_NUMBER = re.compile(r"[0-9]{1,15}(\.[0-9]{1,20})?", re.ASCII)
# The path segments `.` and `..` are steps of the way, percent-encoded too: clients and proxies take them out (RFC 3986,
# 5.2.4; WHATWG URL, 4.4). As ids they are written with a tilde before them, which nobody touches.
_DOTTED = re.compile(r"~+\.{1,2}")
_INTEGER = re.compile(r"[0-9]{1,15}", re.ASCII)


@dataclass(frozen=True)
class Parameter:
    """One parameter: where it stands, what JSON Schema it has, and how its text becomes a value.

    `parse` gets the decoded text and raises `InvalidValueError` naming the parameter.
    """

    name: str
    description: str
    schema: dict[str, Any]
    parse: Callable[[str], Any]
    place: Literal["path", "query", "header"] = "query"
    required: bool = False
    default: Any = None


def identifier(name: str, description: str, *, place: Literal["path", "query"] = "query") -> Parameter:
    """An id: 1 to 256 characters of any kind but control characters; in a path `.` is `~.`, `..` is `~..`.

    And `~.` is `~~.`: of tildes before one or two dots, which are all there is, the first is taken away.
    """
    expected = f"a string of 1 to {ID_CHARS_MAX} characters without control characters"
    if place == "path":
        description = f"{description} `.` is written `~.`, `..` is written `~..`."

    def parse(text: str) -> str:
        if place == "path" and _DOTTED.fullmatch(text):
            text = text[1:]
        if not 0 < len(text) <= ID_CHARS_MAX or any(ord(char) < 32 or 127 <= ord(char) < 160 for char in text):
            raise InvalidValueError(name, expected, text)
        return text

    schema = {"type": "string", "minLength": 1, "maxLength": ID_CHARS_MAX, "pattern": NO_CONTROL}
    return Parameter(name, description, schema, parse, place, required=place == "path")


def metric(description: str) -> Parameter:
    """The name of a metric, required."""
    found = identifier("metric", description)
    return Parameter(found.name, found.description, found.schema, found.parse, required=True)


def limit(*, default: int, maximum: int) -> Parameter:
    """How many items at most, from 1."""
    expected = f"an integer from 1 to {maximum}"

    def parse(text: str) -> int:
        if not _INTEGER.fullmatch(text) or not 1 <= int(text) <= maximum:
            raise InvalidValueError("limit", expected, text)
        return int(text)

    schema = {"type": "integer", "minimum": 1, "maximum": maximum, "default": default}
    return Parameter("limit", "How many items at most.", schema, parse, default=default)


def number(name: str, description: str) -> Parameter:
    """A whole number from 1, of at most 15 digits, in the path."""

    def parse(text: str) -> int:
        if not _INTEGER.fullmatch(text) or int(text) < 1:
            raise InvalidValueError(name, f"an integer from 1 to {INTEGER_MAX}", text)
        return int(text)

    schema = {"type": "integer", "minimum": 1, "maximum": INTEGER_MAX}
    return Parameter(name, description, schema, parse, "path", required=True)


def seconds(name: str, description: str, *, default: float, minimum: float, maximum: float) -> Parameter:
    """A duration in seconds, decimal."""
    expected = f"seconds, from {minimum:g} to {maximum:g}"

    def parse(text: str) -> float:
        if not _NUMBER.fullmatch(text) or not minimum <= float(text) <= maximum:
            raise InvalidValueError(name, expected, text)
        return float(text)

    schema = {"type": "number", "minimum": minimum, "maximum": maximum, "default": default}
    return Parameter(name, description, schema, parse, default=default)


def instant(name: str, description: str) -> Parameter:
    """An instant: RFC 3339 with an offset; anything without one is refused, because it names no instant."""

    def parse(text: str) -> datetime:
        expected = "an RFC 3339 time with an offset, such as 2026-01-31T12:00:00Z"
        try:
            value = datetime.fromisoformat(_BARE_PLUS.sub(r"\1+\2", text))
            if value.tzinfo is None:
                raise InvalidValueError(name, expected, text)
            return value.astimezone(UTC)
        except (ValueError, OverflowError) as error:
            raise InvalidValueError(name, expected, text) from error

    return Parameter(name, description, {"type": "string", "format": "date-time"}, parse)


def choice(name: str, description: str, options: Sequence[str], *, default: str) -> Parameter:
    """One of a few words."""

    def parse(text: str) -> str:
        if text not in options:
            raise InvalidValueError(name, "one of " + ", ".join(options), text)
        return text

    return Parameter(
        name, description, {"type": "string", "enum": list(options), "default": default}, parse, default=default
    )


def key_cursor(key: type[Key]) -> Parameter:
    """The `next_cursor` of a former page, made of the place of its last item: opaque to clients."""

    def parse(text: str) -> Key:
        try:
            if len(text) > CURSOR_CHARS_MAX:
                raise ValueError(text[:16])
            raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
            return msgspec.json.decode(raw, type=key)
        except (ValueError, binascii.Error, msgspec.DecodeError) as error:
            raise InvalidValueError("cursor", "the next_cursor of a former answer", text) from error

    schema = {"type": "string", "maxLength": CURSOR_CHARS_MAX}
    return Parameter("cursor", "Go on after a former page: its `next_cursor`.", schema, parse)


def sequence_cursor() -> Parameter:
    """The `next_cursor` of a former page of dead letters."""

    def parse(text: str) -> int:
        if not _INTEGER.fullmatch(text) or int(text) < 1:
            raise InvalidValueError("cursor", "the next_cursor of a former answer", text)
        return int(text)

    schema = {"type": "string", "pattern": "^[1-9][0-9]{0,14}$"}
    return Parameter("cursor", "Go on after a former page: its `next_cursor`.", schema, parse)


def encode_cursor(key: msgspec.Struct) -> str:
    """The cursor text for `key`, safe in a URL as it is."""
    return base64.urlsafe_b64encode(msgspec.json.encode(key)).rstrip(b"=").decode()


def parse_query(query: bytes, parameters: Sequence[Parameter]) -> dict[str, Any]:
    """All query parameters as values, defaults filled in.

    A parameter that is unknown, given twice, missing though required, or out of bounds is refused by name, so that a
    misspelt one never means "the default".
    """
    if len(query) > QUERY_BYTES_MAX:
        raise RequestError(f"the query has {len(query)} bytes, the limit is {QUERY_BYTES_MAX} bytes")
    known = {parameter.name: parameter for parameter in parameters if parameter.place == "query"}
    values: dict[str, Any] = {}
    for name, text in _pairs(query):
        parameter = known.get(name)
        if parameter is None:
            expected = "one of the parameters " + ", ".join(known) if known else "no parameter at all"
            raise InvalidValueError(name[:64], expected, text)
        if name in values:
            raise InvalidValueError(name, "one value, not several", text)
        values[name] = parameter.parse(text)
    for name, parameter in known.items():
        if name not in values:
            if parameter.required:
                raise InvalidValueError(name, "a value (the parameter is required)")
            values[name] = parameter.default
    return values


def _pairs(query: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=32)
    except ValueError as error:
        raise RequestError("the query is not percent-encoded UTF-8 of at most 32 parameters") from error
