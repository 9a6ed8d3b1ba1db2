"""Which series a query means: conditions on tags, parsed once into plain data, with the evaluator that defines them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from polaris.exceptions import InvalidValueError, QueryError
from polaris.storage._limits import FILTER_VALUES_MAX, TAG_CHARS_MAX, TAGS_MAX, check_name


class TagIn(msgspec.Struct, frozen=True):
    """The series has the tag, with one of these values; none of none."""

    key: str
    values: tuple[str, ...]


class TagPrefix(msgspec.Struct, frozen=True):
    """The series has the tag, and its value begins so."""

    key: str
    prefix: str


class TagExists(msgspec.Struct, frozen=True):
    """The series has the tag."""

    key: str


class TagNot(msgspec.Struct, frozen=True):
    """The exact opposite: so also every series without the tag, unless it is asked for as well."""

    term: TagIn | TagPrefix | TagExists


TagTerm = TagIn | TagPrefix | TagExists | TagNot


class TagFilter(msgspec.Struct, frozen=True):
    """The series for which every term holds: all of the collection when there is none."""

    terms: tuple[TagTerm, ...] = ()

    def matches(self, tags: Mapping[str, str]) -> bool:
        """Whether a series of these tags is meant. This is the definition; engines must equal it."""
        return all(_holds(term, tags) for term in self.terms)


ALL_SERIES = TagFilter()

_OPERATORS = "$eq $ne $in $nin $exists $prefix"


def parse_tags(tags: object) -> TagFilter:
    """The filter that a mapping means: of each key to a string (equality) or to a dictionary of operators.

    `{"zone": "a", "host": {"$prefix": "web-", "$ne": "web-9"}, "rack": {"$exists": False}}`. All must hold. `$ne` and
    `$nin` are the exact opposites of `$eq` and `$in`: a series without the tag passes them. At most 64 keys and 1 000
    values of one `$in`. Raises `QueryError` for an unknown operator, `InvalidValueError` for what cannot be a tag.
    """
    if tags is None:
        return ALL_SERIES
    if not isinstance(tags, Mapping):
        raise InvalidValueError("tags", "a mapping of names to strings or operators", tags)
    if len(tags) > TAGS_MAX:
        raise InvalidValueError("tags", f"at most {TAGS_MAX} tags (found {len(tags)})", tags)
    terms: list[TagTerm] = []
    for key, condition in tags.items():
        check_name("tags", key, chars_max=TAG_CHARS_MAX)
        if isinstance(condition, Mapping):
            if not condition:
                raise QueryError(f"tags.{key}: an empty dictionary of operators; one of {_OPERATORS}")
            terms.extend(_parse(key, operator, operand) for operator, operand in condition.items())
        else:
            terms.append(TagIn(key, (_text(key, condition),)))
    return TagFilter(tuple(terms))


def prefix_end(prefix: str) -> str | None:
    """The least string behind all that begin with the prefix, by code points; None when nothing is behind them."""
    for place in range(len(prefix) - 1, -1, -1):
        code = ord(prefix[place]) + 1
        if code <= 0x10FFFF:
            return prefix[:place] + chr(0xE000 if code == 0xD800 else code)  # surrogates are no characters
    return None


def _parse(key: str, operator: object, operand: object) -> TagTerm:
    if operator == "$eq":
        return TagIn(key, (_text(key, operand),))
    if operator == "$ne":
        return TagNot(TagIn(key, (_text(key, operand),)))
    if operator == "$in":
        return TagIn(key, _texts(key, operator, operand))
    if operator == "$nin":
        return TagNot(TagIn(key, _texts(key, operator, operand)))
    if operator == "$prefix":
        return TagPrefix(key, _text(key, operand))
    if operator == "$exists":
        if not isinstance(operand, bool):
            raise QueryError(f"tags.{key}: $exists takes true or false, got {type(operand).__name__}")
        return TagExists(key) if operand else TagNot(TagExists(key))
    raise QueryError(f"tags.{key}: unknown operator {str(operator)[:64]!r}; one of {_OPERATORS}")


def _text(key: str, value: object) -> str:
    if value != "":
        check_name(f"tags.{key}", value, chars_max=TAG_CHARS_MAX)
    return str(value)


def _texts(key: str, operator: object, values: Any) -> tuple[str, ...]:
    if isinstance(values, str) or not isinstance(values, (list, tuple, set, frozenset)):
        raise QueryError(f"tags.{key}: {operator} takes a list of strings, got {type(values).__name__}")
    if len(values) > FILTER_VALUES_MAX:
        raise QueryError(f"tags.{key}: {operator} takes at most {FILTER_VALUES_MAX} values (found {len(values)})")
    return tuple(sorted({_text(key, value) for value in values}))


def _holds(term: TagTerm, tags: Mapping[str, str]) -> bool:
    if isinstance(term, TagNot):
        return not _holds(term.term, tags)
    value = tags.get(term.key)
    if isinstance(term, TagIn):
        return value in term.values
    if isinstance(term, TagPrefix):
        return value is not None and value.startswith(term.prefix)
    return value is not None
