"""Operator dictionaries, understood: what a query says as a small tree, whichever engine answers it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from polaris.domain._checks import INTEGER_MAX
from polaris.exceptions import QueryError
from polaris.storage._limits import FILTER_DEPTH_MAX, FILTER_TERMS_MAX, FILTER_VALUES_MAX, check_path

Scalar = bool | int | float | str | None
Path = tuple[str, ...]
Ordering = Literal["<", "<=", ">", ">="]


class Equals(msgspec.Struct, frozen=True):
    """The value equals one of these; None stands for null and for missing."""

    path: Path
    values: tuple[Scalar, ...]


class Compares(msgspec.Struct, frozen=True):
    """The value is of the operand's kind, a number or a string, and in this order to it."""

    path: Path
    ordering: Ordering
    operand: int | float | str


class Exists(msgspec.Struct, frozen=True):
    """The path is there; its value may be null."""

    path: Path


class StartsWith(msgspec.Struct, frozen=True):
    """The value is a string that begins with this one."""

    path: Path
    text: str


class HasSize(msgspec.Struct, frozen=True):
    """The value is an array of so many elements."""

    path: Path
    size: int


class HasElement(msgspec.Struct, frozen=True):
    """The value is an array with an element for which the term holds; with `of_objects`, an element that is an object.

    The term's paths begin at the element; the empty path is the element itself.
    """

    path: Path
    term: Filter
    of_objects: bool = False


class Not(msgspec.Struct, frozen=True):
    """The exact opposite."""

    term: Filter


class Every(msgspec.Struct, frozen=True):
    """All terms hold; true when there are none."""

    terms: tuple[Filter, ...]


class Some(msgspec.Struct, frozen=True):
    """At least one term holds."""

    terms: tuple[Filter, ...]


Filter = Equals | Compares | Exists | StartsWith | HasSize | HasElement | Not | Every | Some

EVERYTHING = Every(())
VALUES_MAX = 10_000
"""Values in all lists of one query: every engine can take as many parameters."""
_ORDERINGS: dict[str, Ordering] = {"$lt": "<", "$lte": "<=", "$gt": ">", "$gte": ">="}
JOINTS = ("$and", "$or", "$not")
OPERATORS = (
    *("$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$exists", "$prefix"),
    *("$contains", "$all", "$size", "$elemMatch", "$not"),
)


def parse_query(query: Mapping[str, Any] | None) -> Filter:
    """The filter that an operator dictionary means. Raises `QueryError` that names the offender."""
    if query is None:
        return EVERYTHING
    return _Parser().parse(query, 0)


class _Parser:
    """Parses one query and counts its terms and values, so that no query grows beyond what engines can compile."""

    __slots__ = ("_terms", "_values")

    def __init__(self) -> None:
        self._terms = 0
        self._values = 0

    def parse(self, query: object, depth: int) -> Filter:
        if not isinstance(query, Mapping):
            raise QueryError(f"a query is a mapping, got {type(query).__name__}")
        if depth > FILTER_DEPTH_MAX:
            raise QueryError(f"a query nests at most {FILTER_DEPTH_MAX} levels")
        return _every([self._entry(key, value, depth) for key, value in query.items()])

    def _entry(self, key: object, value: object, depth: int) -> Filter:
        self._count_terms(1)
        if key in ("$and", "$or"):
            if not isinstance(value, (list, tuple)) or not value:
                raise QueryError(f"{key} takes a list of at least one query")
            terms = tuple(self.parse(item, depth + 1) for item in value)
            return Every(terms) if key == "$and" else Some(terms)
        if key == "$not":
            return Not(self.parse(value, depth + 1))
        if isinstance(key, str) and key.startswith("$"):
            raise QueryError(f"unknown operator {key[:64]!r} at the top of a query; known: {' '.join(JOINTS)}")
        return self._condition(check_path(key), value, depth)

    def _condition(self, path: Path, value: object, depth: int) -> Filter:
        if not isinstance(value, Mapping):
            return Equals(path, (_scalar(path, value),))
        if depth > FILTER_DEPTH_MAX:
            raise QueryError(f"a query nests at most {FILTER_DEPTH_MAX} levels")
        if not value or not all(isinstance(key, str) and key.startswith("$") for key in value):
            raise QueryError(f"{_named(path)}: compare the fields of an object by dotted paths, not the object itself")
        self._count_terms(len(value) - 1)
        return _every([self._operator(path, name, operand, depth) for name, operand in value.items()])

    def _operator(self, path: Path, name: str, operand: object, depth: int) -> Filter:
        if name in ("$eq", "$ne"):
            equal = Equals(path, (_scalar(path, operand),))
            return equal if name == "$eq" else Not(equal)
        if name in _ORDERINGS:
            bound = _scalar(path, operand)
            if bound is None or isinstance(bound, bool):
                raise QueryError(f"{_named(path)}: {name} takes a number or a string")
            return Compares(path, _ORDERINGS[name], bound)
        if name in ("$in", "$nin"):
            member = Equals(path, self._scalars(path, name, operand, least=0))
            return member if name == "$in" else Not(member)
        if name == "$exists":
            if not isinstance(operand, bool):
                raise QueryError(f"{_named(path)}: $exists takes true or false")
            return Exists(path) if operand else Not(Exists(path))
        if name == "$prefix":
            text = _scalar(path, operand)
            if not isinstance(text, str):
                raise QueryError(f"{_named(path)}: $prefix takes a string")
            return StartsWith(path, text)
        if name == "$not":
            if not isinstance(operand, Mapping):
                raise QueryError(f"{_named(path)}: $not takes operators")
            return Not(self._condition(path, operand, depth + 1))
        return self._array_operator(path, name, operand, depth)

    def _array_operator(self, path: Path, name: str, operand: object, depth: int) -> Filter:
        if name == "$contains":
            return HasElement(path, Equals((), (_scalar(path, operand),)))
        if name == "$all":
            values = self._scalars(path, name, operand, least=1)
            self._count_terms(len(values) - 1)
            return _every([HasElement(path, Equals((), (value,))) for value in values])
        if name == "$size":
            if type(operand) is not int or not 0 <= operand <= INTEGER_MAX:
                raise QueryError(f"{_named(path)}: $size takes an integer of at least 0")
            return HasSize(path, operand)
        if name == "$elemMatch":
            if not isinstance(operand, Mapping):
                raise QueryError(f"{_named(path)}: $elemMatch takes operators or a query")
            if _is_condition(operand):
                return HasElement(path, self._condition((), operand, depth + 1))
            return HasElement(path, self.parse(operand, depth + 1), of_objects=True)
        raise QueryError(f"{_named(path)}: unknown operator {name[:64]!r}; known: {' '.join(OPERATORS)}")

    def _scalars(self, path: Path, name: str, operand: object, *, least: int) -> tuple[Scalar, ...]:
        if not isinstance(operand, (list, tuple, set, frozenset)) or not least <= len(operand) <= FILTER_VALUES_MAX:
            raise QueryError(f"{_named(path)}: {name} takes a list of {least} to {FILTER_VALUES_MAX} values")
        self._values += len(operand)
        if self._values > VALUES_MAX:
            raise QueryError(f"the lists of a query have at most {VALUES_MAX} values in all")
        return tuple(_scalar(path, item) for item in operand)

    def _count_terms(self, count: int) -> None:
        self._terms += count
        if self._terms > FILTER_TERMS_MAX:
            raise QueryError(f"a query has at most {FILTER_TERMS_MAX} terms")


def _is_condition(operand: Mapping[object, object]) -> bool:
    """Whether what `$elemMatch` was given speaks of the element itself, and not of the fields of an object."""
    if "$not" in operand and len(operand) == 1:
        inner = operand["$not"]
        return isinstance(inner, Mapping) and _is_condition(inner)
    return any(isinstance(key, str) and key.startswith("$") and key not in JOINTS for key in operand)


def _named(path: Path) -> str:
    return ".".join(path) or "an element"


def _every(terms: list[Filter]) -> Filter:
    return terms[0] if len(terms) == 1 else Every(tuple(terms))


def _scalar(path: Path, value: object) -> Scalar:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise QueryError(f"{_named(path)}: a string that UTF-8 can express") from error
        return str.__str__(value)
    if isinstance(value, int) and -INTEGER_MAX - 1 <= value <= INTEGER_MAX:
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise QueryError(f"{_named(path)}: null, bool, finite 64-bit number or string, got {type(value).__name__}")
