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


class Not(msgspec.Struct, frozen=True):
    """The exact opposite."""

    term: Filter


class Every(msgspec.Struct, frozen=True):
    """All terms hold; true when there are none."""

    terms: tuple[Filter, ...]


class Some(msgspec.Struct, frozen=True):
    """At least one term holds."""

    terms: tuple[Filter, ...]


Filter = Equals | Compares | Exists | Not | Every | Some

EVERYTHING = Every(())
_ORDERINGS: dict[str, Ordering] = {"$lt": "<", "$lte": "<=", "$gt": ">", "$gte": ">="}
_OPERATORS = "$eq $ne $gt $gte $lt $lte $in $nin $exists $not"


def parse_query(query: Mapping[str, Any] | None) -> Filter:
    """The filter that an operator dictionary means. Raises `QueryError` that names the offender."""
    if query is None:
        return EVERYTHING
    return _Parser().parse(query, 0)


class _Parser:
    """Parses one query and counts its terms, so that no query grows beyond what engines can compile."""

    __slots__ = ("_terms",)

    def __init__(self) -> None:
        self._terms = 0

    def parse(self, query: object, depth: int) -> Filter:
        if not isinstance(query, Mapping):
            raise QueryError(f"a query is a mapping, got {type(query).__name__}")
        if depth > FILTER_DEPTH_MAX:
            raise QueryError(f"a query nests at most {FILTER_DEPTH_MAX} levels")
        return _every([self._entry(key, value, depth) for key, value in query.items()])

    def _entry(self, key: object, value: object, depth: int) -> Filter:
        self._terms += 1
        if self._terms > FILTER_TERMS_MAX:
            raise QueryError(f"a query has at most {FILTER_TERMS_MAX} terms")
        if key in ("$and", "$or"):
            if not isinstance(value, (list, tuple)) or not value:
                raise QueryError(f"{key} takes a list of at least one query")
            terms = tuple(self.parse(item, depth + 1) for item in value)
            return Every(terms) if key == "$and" else Some(terms)
        if key == "$not":
            return Not(self.parse(value, depth + 1))
        if isinstance(key, str) and key.startswith("$"):
            raise QueryError(f"unknown operator {key[:64]!r} at the top of a query; known: $and $or $not")
        return self._condition(check_path(key), value, depth)

    def _condition(self, path: Path, value: object, depth: int) -> Filter:
        if not isinstance(value, Mapping):
            return Equals(path, (_scalar(path, value),))
        if depth > FILTER_DEPTH_MAX:
            raise QueryError(f"a query nests at most {FILTER_DEPTH_MAX} levels")
        if not value or not all(isinstance(key, str) and key.startswith("$") for key in value):
            raise QueryError(
                f"{'.'.join(path)}: compare the fields of an object by dotted paths, not the object itself"
            )
        self._terms += len(value) - 1
        return _every([self._operator(path, name, operand, depth) for name, operand in value.items()])

    def _operator(self, path: Path, name: str, operand: object, depth: int) -> Filter:
        if name == "$eq":
            return Equals(path, (_scalar(path, operand),))
        if name == "$ne":
            return Not(Equals(path, (_scalar(path, operand),)))
        if name in _ORDERINGS:
            bound = _scalar(path, operand)
            if bound is None or isinstance(bound, bool):
                raise QueryError(f"{'.'.join(path)}: {name} takes a number or a string")
            return Compares(path, _ORDERINGS[name], bound)
        if name in ("$in", "$nin"):
            if not isinstance(operand, (list, tuple, set, frozenset)) or len(operand) > FILTER_VALUES_MAX:
                raise QueryError(f"{'.'.join(path)}: {name} takes a list of at most {FILTER_VALUES_MAX} values")
            member = Equals(path, tuple(_scalar(path, item) for item in operand))
            return member if name == "$in" else Not(member)
        if name == "$exists":
            if not isinstance(operand, bool):
                raise QueryError(f"{'.'.join(path)}: $exists takes true or false")
            return Exists(path) if operand else Not(Exists(path))
        if name == "$not":
            if not isinstance(operand, Mapping):
                raise QueryError(f"{'.'.join(path)}: $not takes operators")
            return Not(self._condition(path, operand, depth + 1))
        raise QueryError(f"{'.'.join(path)}: unknown operator {name[:64]!r}; known: {_OPERATORS}")


def _every(terms: list[Filter]) -> Filter:
    return terms[0] if len(terms) == 1 else Every(tuple(terms))


def _scalar(path: Path, value: object) -> Scalar:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise QueryError(f"{'.'.join(path)}: a string that UTF-8 can express") from error
        return str.__str__(value)
    if isinstance(value, int) and -INTEGER_MAX - 1 <= value <= INTEGER_MAX:
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise QueryError(f"{'.'.join(path)}: null, bool, finite 64-bit number or string, got {type(value).__name__}")
