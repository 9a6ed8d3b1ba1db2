"""Subject patterns as NATS defines them: `*` stands for one token, `>` at the end for one or more."""

from __future__ import annotations

import re

from polaris.exceptions import InvalidValueError

_NAME = re.compile(r"[A-Za-z0-9_-]{1,255}")


def check_name(field: str, name: str) -> None:
    """Refuse what cannot name a stream, a consumer or a group with every broker."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidValueError(field, "1 to 255 letters, digits, - and _", name)


def has_wildcard(pattern: str) -> bool:
    """Whether a token of the pattern is `*` or `>`."""
    if "*" not in pattern and ">" not in pattern:
        return False
    return any(part in ("*", ">") for part in pattern.split("."))


def matches(pattern: str, subject: str) -> bool:
    """Whether `subject`, a concrete one, is among those that `pattern` stands for."""
    if pattern == subject:
        return True
    wanted = pattern.split(".")
    found = subject.split(".")
    for index, part in enumerate(wanted):
        if part == ">":
            return len(found) > index
        if index >= len(found) or (part != "*" and part != found[index]):
            return False
    return len(wanted) == len(found)


def overlap(first: str, second: str) -> bool:
    """Whether some subject matches both patterns."""
    left, right = first.split("."), second.split(".")
    for index in range(max(len(left), len(right))):
        if index >= len(left) or index >= len(right):
            return False
        if ">" in (left[index], right[index]):
            return True
        if left[index] != right[index] and "*" not in (left[index], right[index]):
            return False
    return True


def covers(pattern: str, narrower: str) -> bool:
    """Whether every subject of `narrower` also matches `pattern`."""
    wanted, found = pattern.split("."), narrower.split(".")
    for index, part in enumerate(wanted):
        if part == ">":
            return len(found) > index
        if index >= len(found) or found[index] == ">":
            return False
        if part != "*" and part != found[index]:
            return False
    return len(wanted) == len(found)
