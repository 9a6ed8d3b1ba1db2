"""JSON as the server can search it: its texts hold no NUL, so NULs are written otherwise without changing any order."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import msgspec

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode

_SUSPECTS = ("\\u0000", "\\u0001")
_WHOLE_FROM = 2.0**53
_INTEGERS_END = 2.0**63


def searchable(body: str) -> tuple[str, str | None]:
    """The JSON to be searched, and the exact one where it differs."""
    if not any(suspect in body for suspect in _SUSPECTS):
        return body, None
    document = _decode(body)
    found = _without_nul(document)
    return (body, None) if found == document else (_encode(found).decode(), body)


def text_operand(text: str) -> str:
    """A text as it stands in searchable JSON.

    NUL becomes 1 1 and 1 becomes 1 2: different texts stay different, and in their order by code point.
    """
    if "\0" not in text and "\1" not in text:
        return text
    return text.replace("\1", "\1\2").replace("\0", "\1\1")


def number_operand(value: float) -> Decimal:
    """A number as the function `exact` of the schema makes it from its JSON."""
    if isinstance(value, int):
        return Decimal(value)
    if abs(value) >= _WHOLE_FROM and -_INTEGERS_END <= value < _INTEGERS_END:
        return Decimal(int(value))
    return Decimal(repr(value))


def sort_text_operand(text: str) -> str:
    """The text of a sort key; that of an array or object is JSON, in which NUL is written as six characters."""
    if text[:1] in ("[", "{") and any(suspect in text for suspect in _SUSPECTS):
        try:
            return _encode(_without_nul(_decode(text))).decode()
        except msgspec.DecodeError:
            pass
    return text_operand(text)


def _without_nul(value: Any) -> Any:
    if isinstance(value, str):
        return text_operand(value)
    if isinstance(value, Mapping):
        return {text_operand(key): _without_nul(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nul(item) for item in value]
    return value
