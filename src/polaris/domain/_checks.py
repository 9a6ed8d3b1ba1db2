"""The limits of domain values and the checks that name the field, the type found and the limit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from polaris.exceptions import InvalidValueError

ID_CHARS_MAX = 256
NAME_CHARS_MAX = 256
TEXT_CHARS_MAX = 8192
TREE_DEPTH_MAX = 16
TREE_NODES_MAX = 10_000
INTEGER_MAX = 2**63 - 1
METRICS_MAX = 10_000
TAGS_MAX = 64


def check_id(field: str, value: object) -> None:
    """Refuse what cannot be an id: not a string, empty, over 256 characters, with control characters or surrogates."""
    if type(value) is str and value.isascii() and value.isprintable() and 0 < len(value) <= ID_CHARS_MAX:
        return
    _check_text(field, value, chars_max=ID_CHARS_MAX, empty_allowed=False)


def check_text(field: str, value: object, *, chars_max: int = TEXT_CHARS_MAX) -> None:
    """Refuse what is not a string of at most `chars_max` characters; empty is allowed."""
    if not isinstance(value, str):
        raise InvalidValueError(field, "a string", value)
    if len(value) > chars_max:
        raise InvalidValueError(field, f"at most {chars_max} characters (found {len(value)})", value)
    _check_encodable(field, value)


def _check_text(field: str, value: object, *, chars_max: int, empty_allowed: bool) -> None:
    if not isinstance(value, str):
        raise InvalidValueError(field, "a string", value)
    if not value and not empty_allowed:
        raise InvalidValueError(field, "a string that is not empty", value)
    if len(value) > chars_max:
        raise InvalidValueError(field, f"at most {chars_max} characters (found {len(value)})", value)
    if any(ord(char) < 32 or 127 <= ord(char) < 160 for char in value):
        raise InvalidValueError(field, "a string without control characters", value)
    _check_encodable(field, value)


def _check_encodable(field: str, value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidValueError(field, "a string that UTF-8 can express (no lone surrogates)", value) from error


def utc(field: str, value: object) -> datetime:
    """`value` as UTC; a naive datetime is refused, because nobody can tell which instant it means."""
    if not isinstance(value, datetime):
        raise InvalidValueError(field, "a timezone-aware datetime", value)
    if value.tzinfo is UTC:
        return value
    offset = value.utcoffset()
    if offset is None:
        raise InvalidValueError(field, "a timezone-aware datetime, such as datetime.now(UTC), not a naive one", value)
    try:
        return value.astimezone(UTC)
    except OverflowError as error:
        raise InvalidValueError(field, "a datetime that UTC can express", value) from error


def check_fraction(field: str, value: object) -> None:
    """Refuse what is not a number from 0 to 1."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.0 <= value <= 1.0:
        raise InvalidValueError(field, "a number from 0 to 1", value)


def check_tree(field: str, value: object) -> None:
    """Refuse what JSON cannot carry unchanged.

    Allowed: None, bool, finite float, 64-bit int, str, list, and mappings with string keys; at most 16 levels deep and
    10 000 nodes wide in all. Names the path of the first offender.
    """
    remaining = TREE_NODES_MAX
    stack: list[tuple[str, object, int]] = [(field, value, 0)]
    while stack:
        path, node, depth = stack.pop()
        remaining -= 1
        if remaining < 0:
            raise InvalidValueError(field, f"at most {TREE_NODES_MAX} values in all", value)
        if node is None or isinstance(node, bool):
            continue
        if isinstance(node, str):
            _check_encodable(path, node)
        elif isinstance(node, int):
            if not -INTEGER_MAX - 1 <= node <= INTEGER_MAX:
                raise InvalidValueError(path, "an integer of at most 64 bits", node)
        elif isinstance(node, float):
            if not math.isfinite(node):
                raise InvalidValueError(path, "a finite number", node)
        elif isinstance(node, (Mapping, list, tuple)):
            if depth >= TREE_DEPTH_MAX:
                raise InvalidValueError(path, f"at most {TREE_DEPTH_MAX} levels", node)
            stack.extend(_children(path, node, depth + 1))
        else:
            raise InvalidValueError(path, "a JSON value (null, bool, number, string, list or object)", node)


def _children(path: str, node: Mapping[Any, object] | list[object] | tuple[object, ...], depth: int) -> Any:
    if isinstance(node, Mapping):
        for key, item in node.items():
            if not isinstance(key, str):
                raise InvalidValueError(path, "string keys", key)
            _check_encodable(path, key)
            yield f"{path}.{key[:64]}", item, depth
    else:
        for index, item in enumerate(node):
            yield f"{path}[{index}]", item, depth
