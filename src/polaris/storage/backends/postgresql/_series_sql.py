"""Conditions on tags as SQL: values are parameters, the index of the tags finds the series."""

from __future__ import annotations

from typing import Any

from polaris.storage._tag_filter import TagExists, TagFilter, TagIn, TagNot, TagPrefix, prefix_end
from polaris.storage._timeseries_requests import SeriesKey

_END = "\x01"  # below every character of a tag, so canonical texts sort as the tags do


def canonical(tags: dict[str, str]) -> str:
    """The text of a set of tags: equal for equal tags, sorting as their sorted pairs."""
    return text_of(tuple(sorted(tags.items())))


def text_of(key: SeriesKey) -> str:
    """The text of sorted pairs."""
    return "".join(f"{name}{_END}{value}{_END}" for name, value in key)


def tags_of(text: str) -> dict[str, str]:
    """The inverse of `canonical`."""
    parts = text.split(_END)
    return dict(zip(parts[:-1:2], parts[1::2], strict=True))


class SeriesWhere:
    """The condition that a series `s` is of a collection and passes a filter: SQL, and the parameters in order."""

    __slots__ = ("parameters", "sql")

    def __init__(self, collection: int, tags: TagFilter) -> None:
        self.parameters: list[Any] = [collection]
        parts = ["s.collection = $1"]
        for term in tags.terms:
            negation, inner = ("NOT ", term.term) if isinstance(term, TagNot) else ("", term)
            parts.append(f"{negation}EXISTS (SELECT 1 FROM ts_tags x WHERE x.series = s.id AND {self._has(inner)})")  # noqa: S608
        self.sql = " AND ".join(parts)

    def bind(self, value: Any, kind: str) -> str:
        """The mark of a new parameter."""
        self.parameters.append(value)
        return f"${len(self.parameters)}::{kind}"

    def _has(self, term: TagIn | TagPrefix | TagExists) -> str:
        sql = f"x.collection = $1 AND x.key = {self.bind(term.key, 'text')}"
        if isinstance(term, TagIn):
            values = list(term.values)
            if len(values) == 1:
                # As long as the server has no statistics of the tags, it looks up equality, and sifts for a list.
                return f"{sql} AND x.value = {self.bind(values[0], 'text')}"
            return f"{sql} AND x.value = ANY({self.bind(values, 'text[]')})"
        if isinstance(term, TagPrefix):
            sql += f" AND x.value >= {self.bind(term.prefix, 'text')}"
            end = prefix_end(term.prefix)
            return sql if end is None else f"{sql} AND x.value < {self.bind(end, 'text')}"
        return sql
