"""The one context variable that ties events, logs, spans and errors of a causal chain together."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
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


@contextmanager
def correlation_scope(correlation_id: str | None = None) -> Iterator[str]:
    """Run the body under a correlation id and restore the former one afterwards, whatever happens.

    Without an argument the surrounding id is kept, and a new one is made only when there is none. Tasks started inside
    inherit the id (PEP 567). Ids longer than 128 characters are cut, and characters that are not printable become `_`:
    an id that came from outside must not break a header or a log line.
    """
    chosen = (correlation_id or _correlation_id.get() or new_correlation_id())[:CORRELATION_ID_CHARS_MAX]
    if not chosen.isprintable():
        chosen = "".join(character if character.isprintable() else "_" for character in chosen)
    token = _correlation_id.set(chosen)
    try:
        yield chosen
    finally:
        _correlation_id.reset(token)
