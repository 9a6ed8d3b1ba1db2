"""What may have been meant by a name that is not known."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher, get_close_matches

NEAR_MAX = 3
SHOWN_MAX = 8
PART_CHARS_MIN = 3


def near_names(name: str, known: Iterable[str]) -> list[str]:
    """Up to three known names that `name` may stand for: similarly spelt ones, else those that share a part of it."""
    names = list(known)
    found = get_close_matches(name, names, n=NEAR_MAX)
    if not found:
        parts = [part for part in re.split(r"[\W_]+", name.casefold()) if len(part) >= PART_CHARS_MIN]
        # A part cut short or typed too long still counts: `cpu.percen` means something with `cpu`.
        sharing = [known_name for known_name in names if any(part in known_name.casefold() for part in parts)]
        found = sorted(sharing, key=lambda known_name: -SequenceMatcher(None, name, known_name).ratio())
    return found[:NEAR_MAX]


def hint(name: str, known: Sequence[str], what: str) -> str:
    """The end of a message about an unknown name: near names, else the first known ones after `what`."""
    near = near_names(name, known)
    if near:
        return f"; did you mean {' or '.join(near)}?"
    more = f" and {len(known) - SHOWN_MAX} more" if len(known) > SHOWN_MAX else ""
    return f"; {what} {', '.join(known[:SHOWN_MAX]) or 'none'}{more}"
