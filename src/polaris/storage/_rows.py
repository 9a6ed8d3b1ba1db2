"""What the engines of this process agree on about stored documents."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

import msgspec

from polaris.domain._checks import INTEGER_MAX, TREE_DEPTH_MAX, TREE_NODES_MAX, check_tree
from polaris.exceptions import ConflictError, InvalidValueError, QueryError
from polaris.storage._documents import ID_KEY, VERSION_KEY, Document
from polaris.storage._limits import BATCH_DOCUMENTS_MAX, DOCUMENT_BYTES_MAX, checked_tree

_decode = msgspec.json.Decoder().decode
_TEXT_KEYS = {str}


def _as_dict(value: object) -> dict[Any, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(type(value).__name__)


_encode = msgspec.json.Encoder(enc_hook=_as_dict).encode


def encoded(document: Mapping[str, Any]) -> str:
    """The JSON of a document. Raises `InvalidValueError` when it is too large."""
    body = _encode(document)
    if len(body) > DOCUMENT_BYTES_MAX:
        raise InvalidValueError("document", f"at most {DOCUMENT_BYTES_MAX} bytes as JSON (found {len(body)})", document)
    return body.decode()


def encoded_checked(document: Mapping[str, Any]) -> str:
    """The JSON of what a caller gave as a document, without `_id` and `_version`.

    Raises `InvalidValueError` that names what cannot be stored. Plain content is told from the rest in a fraction of
    the time that a whole check takes; only the rest is looked at in detail.
    """
    if not _is_plain(document, 0):
        document = checked_tree("document", document)
    body = document
    if ID_KEY in document or VERSION_KEY in document:
        body = {key: value for key, value in document.items() if key not in (ID_KEY, VERSION_KEY)}
    try:
        text = encoded(body)
    except UnicodeEncodeError:
        check_tree("document", document)
        raise
    if len(text) >= 2 * TREE_NODES_MAX:  # fewer characters cannot hold too many values
        check_tree("document", document)
    return text


def _is_plain(node: object, depth: int) -> bool:
    """Whether this is made of nothing but the common types, within the limits of each value and of the depth."""
    if type(node) is dict:
        if node and set(map(type, node)) != _TEXT_KEYS:
            return False
        values: Any = node.values()
    elif type(node) is list:
        values = node
    else:
        return False
    for value in values:
        kind = type(value)
        if kind is str or value is None or kind is bool:
            continue
        if kind is int:
            if not -INTEGER_MAX - 1 <= value <= INTEGER_MAX:
                return False
        elif kind is float:
            if not isfinite(value):
                return False
        elif depth + 1 >= TREE_DEPTH_MAX or not _is_plain(value, depth + 1):
            return False
    return True


def document_of(document_id: str, version: int, body: str) -> Document:
    """What a caller gets for a stored row: a fresh copy with the id and the version."""
    document: dict[str, Any] = _decode(body)
    document[ID_KEY] = document_id
    document[VERSION_KEY] = version
    return document


def check_version(document_id: str, version: int, expected: int | None) -> None:
    """Refuse a version that is not the expected one."""
    if expected is not None and version != expected:
        raise ConflictError(
            f"document {document_id!r} has version {version}, expected {expected}",
            {"version": version, "expected_version": expected},
        )


def reach(limit: int | None) -> int:
    """How many documents a write by query has to look for: its limit, or one more than it may change without one."""
    return BATCH_DOCUMENTS_MAX + 1 if limit is None else limit


def check_reach(found: int) -> None:
    """Refuse a write by query that was given no limit and found more than one transaction takes."""
    if found > BATCH_DOCUMENTS_MAX:
        raise QueryError(f"the query matches more than {BATCH_DOCUMENTS_MAX} documents: give a limit, and repeat")
