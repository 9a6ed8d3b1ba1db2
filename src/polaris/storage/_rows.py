"""What the engines of this process agree on about stored documents."""

from __future__ import annotations

from typing import Any

import msgspec

from polaris.exceptions import ConflictError, InvalidValueError
from polaris.storage._documents import ID_KEY, VERSION_KEY, Document
from polaris.storage._limits import DOCUMENT_BYTES_MAX

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


def encoded(document: Document) -> str:
    """The JSON of a document. Raises `InvalidValueError` when it is too large."""
    body = _encode(document)
    if len(body) > DOCUMENT_BYTES_MAX:
        raise InvalidValueError("document", f"at most {DOCUMENT_BYTES_MAX} bytes as JSON (found {len(body)})", document)
    return body.decode()


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
