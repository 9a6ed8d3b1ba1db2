"""Key files of NATS: what is read of them, within bounds, and refused when it is none."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from polaris.exceptions import ConfigurationError

FILE_BYTES_MAX = 64 * 1024
"""A user's token holds his permissions, and is rarely longer than a few KiB."""
_TOKEN = re.compile(rb"^-+BEGIN NATS USER JWT-+\s+([A-Za-z0-9_\-]+\.[A-Za-z0-9_\-]+\.[A-Za-z0-9_\-]+)\s", re.MULTILINE)
_SEED = re.compile(rb"^-+BEGIN USER NKEY SEED-+\s+([A-Z2-7]+)\s", re.MULTILINE)


class Credentials(NamedTuple):
    """What a credentials file holds."""

    token: bytes
    seed: bytes


def read_seed(path: str) -> bytes:
    """The seed in an nkey file. Raises `ConfigurationError` when there is none."""
    nkeys = _nkeys()
    return _checked(nkeys, "nkey", _content("nkey", path).strip())


def read_credentials(path: str) -> Credentials:
    """The token and the seed in a credentials file. Raises `ConfigurationError` when one of them is missing."""
    nkeys = _nkeys()
    content = _content("credentials", path)
    token, seed = _TOKEN.search(content), _SEED.search(content)
    if token is None or seed is None:
        raise _refusal("credentials", "does not hold the token and the seed of a user")
    return Credentials(token[1], _checked(nkeys, "credentials", seed[1]))


def _nkeys() -> Any:
    """The library, which is not typed, and there only with the extra `nkeys`; `ImportError` otherwise."""
    return import_module("nkeys")


def _content(field: str, path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise _refusal(field, f"cannot be read: {error.strerror}") from error
    if len(content) > FILE_BYTES_MAX:
        raise _refusal(field, f"is larger than {FILE_BYTES_MAX} bytes")
    return content


def _checked(nkeys: Any, field: str, seed: bytes) -> bytes:
    try:
        nkeys.from_seed(bytearray(seed)).wipe()
    except Exception as error:  # boundary: nkeys reports what is wrong with foreign bytes in many ways
        raise _refusal(field, f"holds no seed: {type(error).__name__}") from None
    return seed


def _refusal(field: str, problem: str) -> ConfigurationError:
    return ConfigurationError(problems=[f"nats.{field} names a file that {problem}"])
