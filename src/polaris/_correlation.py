"""The one context variable that ties events, logs, spans and errors of a causal chain together."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from contextvars import ContextVar, Token
from random import Random

_correlation_id: ContextVar[str | None] = ContextVar("polaris_correlation_id", default=None)

CORRELATION_ID_CHARS_MAX = 128

# Identifiers are not secrets, and the system's own source costs a call of the kernel for each.
_random = Random()  # noqa: S311
os.register_at_fork(after_in_child=_random.seed)


def new_correlation_id() -> str:
    """A fresh id: 128 random bits as 32 hexadecimal digits."""
    return f"{_random.getrandbits(128):032x}"


def current_correlation_id() -> str | None:
    """The correlation id of the running task or thread, or None outside any scope."""
    return _correlation_id.get()


class _Scope:
    """A context manager written out, because one is entered for every message that passes the bus."""

    __slots__ = ("_chosen", "_token")

    def __init__(self, chosen: str) -> None:
        self._chosen = chosen
        self._token: Token[str | None] | None = None

    def __enter__(self) -> str:
        self._token = _correlation_id.set(self._chosen)
        return self._chosen

    def __exit__(self, *_: object) -> None:
        if self._token is not None:
            _correlation_id.reset(self._token)
            self._token = None


def correlation_scope(correlation_id: str | None = None) -> AbstractContextManager[str]:
    """Run the body under a correlation id and restore the former one afterwards, whatever happens.

    Without an argument the surrounding id is kept, and a new one is made only when there is none. Tasks started inside
    inherit the id (PEP 567). Ids longer than 128 characters are cut, and characters that are not printable become `_`:
    an id that came from outside must not break a header or a log line. Each scope is entered once.
    """
    chosen = (correlation_id or _correlation_id.get() or new_correlation_id())[:CORRELATION_ID_CHARS_MAX]
    if not chosen.isprintable():
        chosen = "".join(character if character.isprintable() else "_" for character in chosen)
    return _Scope(chosen)
