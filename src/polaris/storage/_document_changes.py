"""Changes to parts of a document, understood and carried out: the same for every engine."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from polaris.domain._checks import INTEGER_MAX, TREE_NODES_MAX, check_tree
from polaris.exceptions import InvalidValueError, QueryError
from polaris.storage._documents import ID_KEY, VERSION_KEY, Document, DocumentChanges
from polaris.storage._filter import Path
from polaris.storage._limits import check_path, checked_tree
from polaris.storage._rows import encoded

CHANGES_MAX = 256
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class Changes(msgspec.Struct, frozen=True):
    """What to do to a document: top-level keys to replace, paths to set, to take out, and to add to.

    Values are kept as JSON, so that nothing a caller does to them meanwhile can reach the store.
    """

    replaced: bytes
    """The new top-level keys as one object."""
    set: tuple[tuple[Path, bytes], ...] = ()
    unset: tuple[Path, ...] = ()
    increment: tuple[tuple[Path, int | float], ...] = ()


def parse_changes(updates: Mapping[str, Any] | DocumentChanges) -> Changes:
    """The changes that a caller asks for. Raises `InvalidValueError` or `QueryError`."""
    if isinstance(updates, DocumentChanges):
        return _parse_paths(updates)
    if not isinstance(updates, Mapping):
        raise InvalidValueError("updates", "a mapping with string keys, or DocumentChanges", updates)
    keys = checked_tree("updates", updates)
    for key in (ID_KEY, VERSION_KEY):
        if key in keys:
            raise InvalidValueError(f"updates.{key}", "a key of the document's own", updates)
    return Changes(_encode(keys))


def _parse_paths(updates: DocumentChanges) -> Changes:
    for field, value in (("set", updates.set), ("increment", updates.increment)):
        if not isinstance(value, Mapping):
            raise InvalidValueError(f"updates.{field}", "a mapping of dotted paths", value)
    if not isinstance(updates.unset, (list, tuple)):
        raise InvalidValueError("updates.unset", "a list of dotted paths", updates.unset)
    assigned = [(check_path(name), value) for name, value in updates.set.items()]
    unset = tuple(check_path(name) for name in updates.unset)
    added = tuple((check_path(name), value) for name, value in updates.increment.items())
    _check_apart([path for path, _ in assigned] + list(unset) + [path for path, _ in added])
    for path, value in assigned:
        nested: Any = value
        for segment in reversed(path):
            nested = {segment: nested}
        check_tree("updates.set", nested)
    for path, amount in added:
        if not _is_number(amount):
            raise InvalidValueError(f"updates.increment.{'.'.join(path)}", "a finite number of 64 bits", amount)
    return Changes(b"{}", tuple((path, _encode(value)) for path, value in assigned), unset, added)


def _check_apart(paths: list[Path]) -> None:
    """Refuse paths of which one leads through another: the outcome would hang on the order."""
    if not 1 <= len(paths) <= CHANGES_MAX:
        raise QueryError(f"updates: 1 to {CHANGES_MAX} paths to change")
    known = set(paths)
    for path in paths:
        if path[0] in (ID_KEY, VERSION_KEY):
            raise QueryError(f"updates: {path[0]} is a key of the document's own")
        if any(path[:length] in known for length in range(1, len(path))):
            raise QueryError(f"updates: {'.'.join(path)} lies within another path that changes")
    if len(known) != len(paths):
        raise QueryError("updates: a path is changed once")


def carried_out(changes: Changes, body: str) -> str:
    """The JSON of the changed document. Raises `InvalidValueError` when it cannot be changed so, or grows too large."""
    document: Document = _decode(body)
    document.update(_decode(changes.replaced))
    for path, value in changes.set:
        _home(document, path)[path[-1]] = _decode(value)
    for path in changes.unset:
        _take_out(document, path)
    for path, amount in changes.increment:
        home = _home(document, path)
        home[path[-1]] = _sum(path, home.get(path[-1]), amount)
    changed = encoded(document)
    if len(changed) >= 2 * TREE_NODES_MAX:  # as for a new document
        check_tree("document", document)
    return changed


def _home(document: Document, path: Path) -> dict[str, Any]:
    """The object in which the path ends; objects that are missing on the way are made."""
    node: Any = document
    for segment in path[:-1]:
        inner = node.get(segment)
        if inner is None:
            inner = node[segment] = {}
        elif not isinstance(inner, dict):
            raise InvalidValueError(
                f"updates.{'.'.join(path)}", f"a path through objects, but {segment} is none", inner
            )
        node = inner
    found: dict[str, Any] = node
    return found


def _take_out(document: Document, path: Path) -> None:
    node: Any = document
    for segment in path[:-1]:
        node = node.get(segment)
        if not isinstance(node, dict):
            return
    node.pop(path[-1], None)


def _sum(path: Path, value: Any, amount: float) -> int | float:
    if value is None:
        value = 0
    if not _is_number(value):
        raise InvalidValueError(f"updates.increment.{'.'.join(path)}", "a document with a number there", value)
    total: int | float = value + amount
    if not _is_number(total):
        raise InvalidValueError(f"updates.increment.{'.'.join(path)}", "a sum of 64 bits", total)
    return total


def _is_number(value: object) -> bool:
    if isinstance(value, bool):
        return False
    if isinstance(value, int):
        return -INTEGER_MAX - 1 <= value <= INTEGER_MAX
    return isinstance(value, float) and math.isfinite(value)
