"""What may have been meant by a name that is not known."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher, get_close_matches

NEAR_MAX = 3
SHOWN_MAX = 8
PART_CHARS_MIN = 3
LIKENESS_MARGIN = 0.1
"""A name this much less alike than the best one is not worth telling."""


def near_names(name: str, known: Iterable[str]) -> list[str]:
    """Up to three known names that `name` may stand for: similarly spelt ones, else those that share a part of it."""
    names = list(known)
    likeness = {known_name: SequenceMatcher(None, name, known_name).ratio() for known_name in names}
    found = get_close_matches(name, names, n=NEAR_MAX)
    if found:
        return [near for near in found if likeness[near] > likeness[found[0]] - LIKENESS_MARGIN]
    # A part cut short or typed too long still counts: `cpu.percen` means something with `cpu`.
    parts = [part for part in re.split(r"[\W_]+", name.casefold()) if len(part) >= PART_CHARS_MIN]
    sharing = [known_name for known_name in names if any(part in known_name.casefold() for part in parts)]
    return sorted(sharing, key=lambda near: -likeness[near])[:NEAR_MAX]


def hint(name: str, known: Sequence[str], what: str) -> str:
    """The end of a message about an unknown name: near names, else the first known ones after `what`."""
    near = near_names(name, known)
    if near:
        return f"; did you mean {' or '.join(near)}?"
    more = f" and {len(known) - SHOWN_MAX} more" if len(known) > SHOWN_MAX else ""
    return f"; {what} {', '.join(known[:SHOWN_MAX]) or 'none'}{more}"
