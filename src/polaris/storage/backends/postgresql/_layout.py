"""Where the fields of a series stand in its rows: floats, integers and the rest, each among its own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from polaris.storage._points import FieldValue

Slot = tuple[str, str]
"""A field and the kind of its value: `f`, `i` or `x`. A field may have several slots; a point uses one of them."""
Fields = dict[str, FieldValue]
Content = tuple[list[float | None] | None, list[int | None] | None, str | None]
"""A point's floats, integers, and JSON of the rest by slot."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class Layout:
    """A shape, ready for reading and writing. Places among floats and integers count from 1, as arrays there do."""

    __slots__ = ("float_names", "floats", "integer_names", "integers", "number", "other_names", "others", "slots")

    def __init__(self, number: int, slots: Iterable[Slot]) -> None:
        self.number = number
        self.slots: tuple[Slot, ...] = tuple(slots)
        self.float_names = [name for name, kind in self.slots if kind == "f"]
        self.integer_names = [name for name, kind in self.slots if kind == "i"]
        self.other_names = [name for name, kind in self.slots if kind == "x"]
        self.floats = {name: place for place, name in enumerate(self.float_names, 1)}
        self.integers = {name: place for place, name in enumerate(self.integer_names, 1)}
        self.others = {name: str(place) for place, name in enumerate(self.other_names)}

    @classmethod
    def parse(cls, number: int, text: str) -> Layout:
        return cls(number, [(name, kind) for name, kind in _decode(text)])

    def names(self) -> set[str]:
        return {name for name, _ in self.slots}

    def has_any(self, fields: frozenset[str]) -> bool:
        return not (
            fields.isdisjoint(self.floats) and fields.isdisjoint(self.integers) and fields.isdisjoint(self.others)
        )

    def content(self, fields: Fields) -> Content | None:
        """A point's values in their places; None when one has no place yet."""
        floats: list[float | None] | None = None
        integers: list[int | None] | None = None
        others: dict[str, Any] = {}
        for name, value in fields.items():
            kind = value.__class__
            if kind is float:
                place = self.floats.get(name)
                if place is None:
                    return None
                if floats is None:
                    floats = [None] * len(self.float_names)
                floats[place - 1] = value  # type: ignore[assignment] # a float, as its class says
            elif kind is int:
                place = self.integers.get(name)
                if place is None:
                    return None
                if integers is None:
                    integers = [None] * len(self.integer_names)
                integers[place - 1] = value  # type: ignore[assignment] # an int, as its class says
            else:
                key = self.others.get(name)
                if key is None:
                    return None
                others[key] = value
        return floats, integers, _encode(others).decode() if others else None

    def numbers(self, row: Any) -> list[tuple[str, int | float]]:
        """The numbers of a row with their fields."""
        found: list[tuple[str, int | float]] = []
        for names, values in ((self.float_names, row["f"]), (self.integer_names, row["i"])):
            if values is not None:
                found += [(name, value) for name, value in zip(names, values, strict=False) if value is not None]
        return found

    def fields(self, row: Any, wanted: frozenset[str] | None) -> Fields:
        """The inverse of `content`, of a row that has `f`, `i` and `x`; only the wanted fields."""
        found: Fields = {}
        for names, values in ((self.float_names, row["f"]), (self.integer_names, row["i"])):
            if values is not None:
                for name, value in zip(names, values, strict=False):
                    if value is not None and (wanted is None or name in wanted):
                        found[name] = value
        if row["x"] is not None:
            for key, value in _decode(row["x"]).items():
                name = self.other_names[int(key)]
                if wanted is None or name in wanted:
                    found[name] = value
        return found


def slots_of(fields: Fields) -> list[Slot]:
    """The slots that a point needs, in order."""
    return sorted((name, _kind(value)) for name, value in fields.items())


def _kind(value: FieldValue) -> str:
    if isinstance(value, (bool, str)) or value is None:
        return "x"
    return "f" if isinstance(value, float) else "i"


def plain(fields: Fields) -> Fields:
    """The same values of the plain types, which alone have slots; what is derived from them goes."""
    found: Fields = {}
    for name, value in fields.items():
        if value is None or value.__class__ in (bool, int, float, str):
            found[name] = value
        elif isinstance(value, str):
            found[name] = str.__str__(value)
        elif isinstance(value, float):
            found[name] = float(value)
        else:
            found[name] = int(value)
    return found


def shape_text(slots: Iterable[Slot]) -> str:
    """A shape as it is stored."""
    return _encode(list(slots)).decode()
