"""A law of the store that SQL can check."""

from __future__ import annotations

import msgspec

NOT_CHECKED = "not checked from"
"""What is in a finding that tells of no damage, but of what was not looked at to its end."""
FINDINGS_MAX = 20
"""Of each rule, at most so many findings are told."""


class Rule(msgspec.Struct, frozen=True):
    """A law of the store: `sql` selects what breaks it, told with `text`, whose places are the columns."""

    name: str
    text: str
    sql: str
    since: int = 1
    """The version of the schema that brought what it asks for."""
