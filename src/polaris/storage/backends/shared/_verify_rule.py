"""A law of the store that SQL can check."""

from __future__ import annotations

import msgspec

FINDINGS_MAX = 20
"""Of each rule, at most so many findings are told."""


class Rule(msgspec.Struct, frozen=True):
    """A law of the store: `sql` selects what breaks it, told with `text`, whose places are the columns."""

    name: str
    text: str
    sql: str
    since: int = 1
    """The version of the schema that brought what it asks for."""
