"""The limits of what a store takes, and the checks that name the field, the type found and the limit."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isfinite
from typing import Any, TypeVar

from polaris.domain._checks import INTEGER_MAX, check_id, check_tree
from polaris.exceptions import InvalidValueError, QueryError

T = TypeVar("T")

COLLECTION_CHARS_MAX = 128
COLLECTIONS_MAX = 1_000
"""Document collections of one store; each has a table of its own."""
FIELDS_MAX = 10_240
"""Fields of one point: 10 000 metrics and room for what belongs to the state as a whole."""
FIELD_CHARS_MAX = 512
TAGS_MAX = 64
TAG_CHARS_MAX = 256
TEXT_CHARS_MAX = 262_144
"""Characters of one string field of a point."""
BATCH_POINTS_MAX = 100_000
BATCH_DOCUMENTS_MAX = 100_000
LIMIT_MAX = 1_000_000
"""The most rows of one answer. What would be more, where no limit was given, is refused and not cut."""
DOCUMENT_BYTES_MAX = 1 << 20
FILTER_DEPTH_MAX = 16
FILTER_TERMS_MAX = 256
FILTER_VALUES_MAX = 1_000
SORT_KEYS_MAX = 4
INDEX_FIELDS_MAX = 8
INDEXES_MAX = 32
DEPTH_MAX = 64
"""Hops of one graph traversal."""
NODES_VISITED_MAX = 1_000_000
EDGES_VISITED_MAX = 5_000_000
"""Edges that one walk may meet, each counted as often as it is met."""
BATCH_NODES_MAX = 100_000
BATCH_EDGES_MAX = 100_000
RELATIONSHIP_TYPES_MAX = 64
"""Types that one walk may be limited to."""
ROUTES_MAX = 10_000
"""Paths or cycles that one query may ask for."""
FLAT_KEYS_MAX = 64
"""Keys of an object up to which it is looked at in the quick way first."""

_COLLECTION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]*")
_PATH_SEGMENT = re.compile(r"[A-Za-z0-9_@:/+-]{1,128}")
# Names of collections that were checked and found good: a program has few.
_collections_known: set[str] = set()
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def check_collection(collection: object) -> None:
    """Refuse what is not 1 to 128 characters of letters, digits, `_ . : -`, starting with a letter, digit or `_`."""
    if type(collection) is str and collection in _collections_known:
        return
    if not isinstance(collection, str):
        raise InvalidValueError("collection", "a string", collection)
    if len(collection) > COLLECTION_CHARS_MAX or not _COLLECTION.fullmatch(collection):
        raise InvalidValueError(
            "collection", f"1 to {COLLECTION_CHARS_MAX} ASCII letters, digits, '_', '.', ':' or '-'", collection
        )
    if len(_collections_known) >= COLLECTIONS_MAX:
        _collections_known.clear()
    _collections_known.add(collection)


def check_name(field: str, value: object, *, chars_max: int) -> None:
    """Refuse what is not a string of 1 to `chars_max` characters without control characters and surrogates."""
    if type(value) is str and 0 < len(value) <= chars_max and value.isascii() and value.isprintable():
        return
    if not isinstance(value, str):
        raise InvalidValueError(field, "a string", value)
    if not 0 < len(value) <= chars_max:
        raise InvalidValueError(field, f"1 to {chars_max} characters (found {len(value)})", value)
    if _CONTROL.search(value):
        raise InvalidValueError(field, "a string without control characters and surrogates", value)


def check_path(path: object) -> tuple[str, ...]:
    """The segments of a dotted path into a document; at most 16 of letters, digits and `_ @ : / + -`.

    Raises `QueryError`: a path is part of a query.
    """
    if not isinstance(path, str):
        raise QueryError(f"a field path is a string, got {type(path).__name__}")
    segments = tuple(path.split("."))
    if len(segments) > FILTER_DEPTH_MAX or not all(_PATH_SEGMENT.fullmatch(segment) for segment in segments):
        raise QueryError(
            f"field path {path[:64]!r}: at most {FILTER_DEPTH_MAX} segments of ASCII letters, digits, '_@:/+-'"
        )
    return segments


def check_limit(limit: object) -> int:
    """`limit` itself, an integer from 0 to 1 000 000. Raises `QueryError`."""
    if type(limit) is not int or not 0 <= limit <= LIMIT_MAX:
        raise QueryError(f"limit: an integer from 0 to {LIMIT_MAX}, got {limit!r}")
    return limit


def rows_wanted(limit: object) -> int:
    """How many rows a read looks for: `limit`, or for None one more than an answer may have. Raises `QueryError`."""
    return LIMIT_MAX + 1 if limit is None else check_limit(limit)


def whole_answer(rows: list[T], kind: str, instead: str = "give a limit, and go on with `after`") -> list[T]:
    """The rows that were found where `rows_wanted` were looked for.

    Raises `QueryError` that says what to do `instead` when they are more than 1 000 000: there was no limit then, and
    the answer would be cut without anybody knowing.
    """
    if len(rows) > LIMIT_MAX:
        raise QueryError(f"the answer has more than {LIMIT_MAX} {kind}: {instead}")
    return rows


def check_depth(max_depth: object, *, field: str = "max_depth") -> int:
    """`max_depth` itself, an integer from 0 to 64. Raises `QueryError`."""
    if type(max_depth) is not int or not 0 <= max_depth <= DEPTH_MAX:
        raise QueryError(f"{field}: an integer from 0 to {DEPTH_MAX}, got {max_depth!r}")
    return max_depth


def check_document_id(document_id: object) -> None:
    """Refuse what cannot be the id of a document or node: 1 to 256 characters without control characters."""
    check_id("id", document_id)


def checked_tree(field: str, value: object) -> dict[str, Any]:
    """A changeable copy of a JSON object; None is the empty one. Raises `InvalidValueError`."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidValueError(field, "a mapping with string keys", value)
    if not _is_flat(value):
        check_tree(field, value)
    return dict(value)


def _is_flat(value: Mapping[Any, Any]) -> bool:
    """Whether this is a small object of plain texts and numbers, as properties mostly are; found out quickly."""
    if type(value) is not dict or len(value) > FLAT_KEYS_MAX:
        return False
    for key, item in value.items():
        kind = type(item)
        if type(key) is not str or not key.isascii():
            return False
        if kind is str:
            if not item.isascii():
                return False
        elif kind is int:
            if not -INTEGER_MAX - 1 <= item <= INTEGER_MAX:
                return False
        elif kind is float:
            if not isfinite(item):
                return False
        elif item is not None and kind is not bool:
            return False
    return True
