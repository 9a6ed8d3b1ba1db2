"""The definition of what a filter and a sort order mean; the memory engine runs it, other engines must equal it."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from polaris.storage._filter import (
    Compares,
    Equals,
    Every,
    Exists,
    Filter,
    HasElement,
    HasSize,
    Not,
    Ordering,
    Path,
    Scalar,
    Some,
    StartsWith,
)

MISSING = object()
_COMPARE = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}

SortKey = tuple[int, int | float | str]
"""A value's place in the order of all values: the rank of its kind, then the value."""


def lookup(document: Any, path: Path) -> Any:
    """The value at the path, or `MISSING`; paths lead through objects only, the empty path is the whole."""
    node: Any = document
    for segment in path:
        if not isinstance(node, Mapping) or segment not in node:
            return MISSING
        node = node[segment]
    return node


def matches(term: Filter, document: Any) -> bool:
    """Whether the filter holds for the document with its id and version, or for an element of an array."""
    if isinstance(term, Equals):
        found = lookup(document, term.path)
        return any(_equal(found, value) for value in term.values)
    if isinstance(term, Compares):
        return _compares(lookup(document, term.path), term.ordering, term.operand)
    if isinstance(term, Exists):
        return lookup(document, term.path) is not MISSING
    if isinstance(term, StartsWith):
        found = lookup(document, term.path)
        return isinstance(found, str) and found.startswith(term.text)
    if isinstance(term, (HasSize, HasElement)):
        found = lookup(document, term.path)
        return isinstance(found, (list, tuple)) and _holds(term, found)
    if isinstance(term, Not):
        return not matches(term.term, document)
    if isinstance(term, Every):
        return all(matches(part, document) for part in term.terms)
    return any(matches(part, document) for part in term.terms)


def _holds(term: HasSize | HasElement, elements: Sequence[Any]) -> bool:
    if isinstance(term, HasSize):
        return len(elements) == term.size
    return any(
        matches(term.term, element) for element in elements if not term.of_objects or isinstance(element, Mapping)
    )


def _equal(found: object, value: Scalar) -> bool:
    if found is MISSING or found is None:
        return value is None
    if isinstance(found, bool) or isinstance(value, bool):
        return found is value
    if isinstance(found, str):
        return isinstance(value, str) and found == value
    return isinstance(found, (int, float)) and isinstance(value, (int, float)) and found == value


def _compares(found: object, ordering: Ordering, operand: float | str) -> bool:
    if isinstance(found, bool):
        return False
    if isinstance(operand, str):
        return isinstance(found, str) and bool(_COMPARE[ordering](found, operand))
    return isinstance(found, (int, float)) and bool(_COMPARE[ordering](found, operand))


def sort_key(value: object) -> SortKey:
    """Null and missing first, then numbers with false as 0 and true as 1, then strings and compact JSON text."""
    if value is MISSING or value is None:
        return (0, 0)
    if isinstance(value, (bool, int, float)):
        return (1, value)
    if isinstance(value, str):
        return (2, value)
    return (2, msgspec.json.encode(value).decode())


__all__ = ["MISSING", "Some", "SortKey", "lookup", "matches", "sort_key"]
