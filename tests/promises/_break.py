"""A promise, the one edit of the source that breaks it, and the tests that must notice."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Break:
    """One promise of the specification, broken on purpose."""

    promise: str
    """The promise, as a short sentence."""
    file: str
    """The source file, below `src/polaris`."""
    old: str
    """The text that is replaced; it occurs exactly once in the file."""
    new: str
    """What stands there instead: code that still imports, but does not keep the promise."""
    caught_by: tuple[str, ...]
    """Test ids, relative to the root of the project; every one of them must fail."""
