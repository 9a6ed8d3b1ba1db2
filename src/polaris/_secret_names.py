"""Which names tell of a secret: of fields, variables, headers and flags of a command line."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from itertools import islice
from typing import Any

# What tells of a secret anywhere in a name, ...
WORDS = (
    r"pass(?:word|wd|phrase|code)|secret|credential|(?:api|access|private)[-_ ]?key|authorization|cookie|"
    r"session[-_ ]?id|bearer|token[-_. ]?value"
)
# ... at its end, ...
_ENDS = r"(?:(?:^|[-_. ])|db|user|my)pass|(?:^|[-_. ]|[a-z](?=T))token|signature"
# ... or at its end unless it is a count, a switch or a folder.
DOUBTFUL = r"pwd|auth|sig|tokens"
_SECRET_KEY = re.compile(rf"{WORDS}|(?:{_ENDS})$|(?:^|[-_. ])nkey|\bjwt\b|\bdsn\b", re.IGNORECASE)
_DOUBTFUL_KEY = re.compile(rf"(?:^|[-_. ])(?:{DOUBTFUL})$", re.IGNORECASE)
_LOOKED_AT_MAX = 64
_FLAG = re.compile(r"--?[A-Za-z][\w-]{0,127}")


def is_secret_key(key: str) -> bool:
    """Whether a field of this name holds a secret by its name alone."""
    return _SECRET_KEY.search(key) is not None


def holds_secret(key: str, value: object) -> bool:
    """Whether a field does: by its name, or by a name that may tell of one and a value that may be one."""
    return is_secret_key(key) or (is_doubtful_key(key) and may_be_secret(value))


def is_doubtful_key(key: str) -> bool:
    """Whether a field of this name holds a secret if `may_be_secret` says so of its value."""
    return _DOUBTFUL_KEY.search(key) is not None


def may_be_secret(value: object) -> bool:
    """Whether it is neither a count nor a switch nor the path of a folder, nor made of counts alone."""
    if isinstance(value, str):
        return not value.startswith(("/", "~"))
    if isinstance(value, Mapping):
        value = value.values()
    if isinstance(value, Collection) and not isinstance(value, (bytes, bytearray)):
        return not all(map(_is_number, islice(value, _LOOKED_AT_MAX)))
    return not _is_number(value)


def _is_number(value: object) -> bool:
    return value is None or isinstance(value, (bool, int, float))


def asks_for_secret(item: object) -> bool:
    """Whether it is a flag of a command line, such as --password, whose value is the next item."""
    if not (isinstance(item, str) and item[:1] == "-" and _FLAG.fullmatch(item)):
        return False
    return not item.endswith(("file", "path")) and holds_secret(item.lstrip("-"), "")


def names_secret(fields: Mapping[Any, object]) -> bool:
    """Whether its `value` is that of a secret which `name` or `key` names, as variables and headers are listed."""
    value = fields.get("value")
    # A metric may have any name.
    if _is_number(value):
        return False
    return any(isinstance(name, str) and holds_secret(name, value) for name in (fields.get("name"), fields.get("key")))
