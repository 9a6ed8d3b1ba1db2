"""The parameters of one statement, in the order of their marks."""

from __future__ import annotations

from typing import Any


class Parameters:
    """Collects values; each gets a mark that stands for it in the statement."""

    __slots__ = ("values",)

    def __init__(self) -> None:
        self.values: list[Any] = []

    def bind(self, value: Any, kind: str) -> str:
        """The mark of a value of this type."""
        self.values.append(value)
        return f"${len(self.values)}::{kind}"
