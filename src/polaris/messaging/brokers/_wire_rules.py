"""What a NATS server or its client would refuse: subjects, patterns and headers that cannot travel."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from polaris.exceptions import InvalidTopicError, InvalidValueError

HEADER_BLOCK_BYTES = 12
_PART = r"[^\s.>\x00-\x1f\x7f\ud800-\udfff]"
_PATTERN = re.compile(rf"{_PART}+(\.{_PART}+)*(\.>)?|>")
_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


def check_subject(subject: str) -> None:
    """Raise `InvalidTopicError` unless a message can be published on `subject`."""
    if not isinstance(subject, str) or not _is_subject(subject):
        raise InvalidTopicError(
            f"{subject!r:.200} is not a subject: tokens without spaces or wildcards, joined by dots"
        )


def check_pattern(pattern: str) -> None:
    """Raise `InvalidTopicError` unless one can subscribe to `pattern`: `*` is any token, a last `>` the rest."""
    if not isinstance(pattern, str) or not _is_pattern(pattern):
        raise InvalidTopicError(f"{pattern!r:.200} is not a subject pattern")


def check_headers(headers: Mapping[str, str]) -> None:
    """Raise `InvalidValueError` for a name that is no HTTP token, and for a value that would not arrive unchanged."""
    for name, value in headers.items():
        if not isinstance(name, str) or not _is_header_name(name):
            raise InvalidValueError("headers", "names of letters, digits and -_.!#$%&'*+^`|~", name)
        if not isinstance(value, str) or _CONTROL.search(value) is not None or value != value.strip():
            field = f"headers[{name}]"
            raise InvalidValueError(field, "a text without control characters or white space at its ends", value)


def headers_bytes(headers: Mapping[str, str]) -> int:
    """How long headers are on the wire: a first and a last line, and four bytes round each name and value."""
    if not headers:
        return 0
    size = HEADER_BLOCK_BYTES
    for name, value in headers.items():
        size += len(name) + 4 + (len(value) if value.isascii() else len(value.encode()))
    return size


@lru_cache(maxsize=1_024)
def _is_header_name(name: str) -> bool:
    return _HEADER_NAME.fullmatch(name) is not None


@lru_cache(maxsize=65_536)
def _is_subject(subject: str) -> bool:
    return "*" not in subject and ">" not in subject and _PATTERN.fullmatch(subject) is not None


@lru_cache(maxsize=4_096)
def _is_pattern(pattern: str) -> bool:
    if _PATTERN.fullmatch(pattern) is None:
        return False
    return "*" not in pattern or all(part == "*" or "*" not in part for part in pattern.split("."))
