"""Conditions on tags as SQL: the index of the tags finds the series, values are parameters."""

from __future__ import annotations

from typing import Any

import msgspec

from polaris.storage._tag_filter import TagExists, TagFilter, TagIn, TagNot, TagPrefix, TagTerm, prefix_end
from polaris.storage._timeseries_requests import SeriesKey

_END = "\x01"  # below every character of a tag, so canonical texts sort as the tags do

LOOKED_UP_MAX = 8
"""Values that are looked up one by one for each series; of more a list is made."""

Positive = TagIn | TagPrefix | TagExists


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


def series_sql(collection: str, tags: TagFilter, columns: str) -> tuple[str, list[Any]]:
    """A statement that reads columns of the chosen series (`s`), without an order, and its parameters.

    One term that says what a series has is walked, the most exact one, in the index of the tags. The other ones are
    looked up for each series that it finds, in the same index: few values one by one, the others in a list made once.
    Only where no term says what a series has are all of the collection walked.
    """
    walked = _walked(tags)
    if walked is None:
        sql, parameters = f"SELECT {columns} FROM ts_series s WHERE s.collection = ?", [collection]  # noqa: S608
    else:
        condition, parameters = _condition(collection, walked, "t")
        # The first table is walked first: CROSS JOIN keeps SQLite from turning them round.
        sql = f"SELECT {columns} FROM ts_tags t CROSS JOIN ts_series s WHERE {condition} AND s.id = t.series"  # noqa: S608
    for term in tags.terms:
        if term is not walked:
            condition, more = _also(collection, term)
            sql += f" AND {condition}"
            parameters += more
    return sql, parameters


def _walked(tags: TagFilter) -> Positive | None:
    return min((term for term in tags.terms if not isinstance(term, TagNot)), key=_breadth, default=None)


def _breadth(term: Positive) -> tuple[int, int]:
    if isinstance(term, TagIn):
        return 0, len(term.values)
    return (1, -len(term.prefix)) if isinstance(term, TagPrefix) else (2, 0)


def _also(collection: str, term: TagTerm) -> tuple[str, list[Any]]:
    """One more condition on the series."""
    negation = ""
    if isinstance(term, TagNot):
        negation, term = "NOT ", term.term
    condition, parameters = _condition(collection, term, "x")
    if isinstance(term, TagIn) and len(term.values) <= LOOKED_UP_MAX:
        return f"{negation}EXISTS (SELECT 1 FROM ts_tags x WHERE {condition} AND x.series = s.id)", parameters  # noqa: S608
    return f"s.id {negation}IN (SELECT x.series FROM ts_tags x WHERE {condition})", parameters  # noqa: S608


def _condition(collection: str, term: Positive, table: str) -> tuple[str, list[Any]]:
    """A range of the primary key of the tags: collection, key, value."""
    sql, parameters = f"{table}.collection = ? AND {table}.key = ?", [collection, term.key]
    if isinstance(term, TagIn):
        if len(term.values) == 1:
            return f"{sql} AND {table}.value = ?", [*parameters, term.values[0]]
        values = msgspec.json.encode(term.values).decode()
        return f"{sql} AND {table}.value IN (SELECT value FROM json_each(?))", [*parameters, values]  # noqa: S608
    if isinstance(term, TagPrefix):
        sql, parameters = f"{sql} AND {table}.value >= ?", [*parameters, term.prefix]
        end = prefix_end(term.prefix)
        return (sql, parameters) if end is None else (f"{sql} AND {table}.value < ?", [*parameters, end])
    return sql, parameters
