"""What a check found: how grave it is, what is wrong, and what to do about it."""

from __future__ import annotations

from typing import Literal

import msgspec

Grade = Literal["ok", "note", "warning", "problem"]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at. `do` is empty when nothing needs doing."""

    subject: str
    grade: Grade
    what: str
    do: str = ""


def fine(subject: str, what: str) -> Finding:
    """Nothing is wrong with it."""
    return Finding(subject=subject, grade="ok", what=what)


def note(subject: str, what: str, do: str = "") -> Finding:
    """Worth knowing, nothing wrong."""
    return Finding(subject=subject, grade="note", what=what, do=do)


def warning(subject: str, what: str, do: str) -> Finding:
    """It works, and will not for long or not as wanted."""
    return Finding(subject=subject, grade="warning", what=what, do=do)


def problem(subject: str, what: str, do: str) -> Finding:
    """It does not work."""
    return Finding(subject=subject, grade="problem", what=what, do=do)
