"""Documents with indexes, and which queries these have to serve on every engine."""

from __future__ import annotations

from typing import Any

COUNT = 3_000
INDEXES = (("a",), ("s",), ("rare",), ("z",), ("b.c", "t"))


def document(number: int) -> dict[str, Any]:
    """One of `COUNT`: what most have is hardly ever the same, and some lack it or have null or a boolean there."""
    made: dict[str, Any] = {
        "_id": f"{number:04}",
        "a": number if number % 2 else f"x{number:04}",
        "b": {"c": str(number % 50)},
        "t": number,
        "z": [number],
    }
    if number % 200 != 1:
        made["s"] = None if number % 200 == 3 else f"name-{number:04}"
    if number % 150 == 0:
        made["rare"] = None if number % 300 == 0 else number
    if number % 300 == 5:
        made["a"] = number % 600 == 5
    return made


SERVED: list[dict[str, Any]] = [
    {"a": 7},
    {"a": "x0008"},
    {"a": True},
    {"s": None},
    {"a": {"$eq": 7}},
    {"a": {"$eq": False}},
    {"s": {"$eq": None}},
    {"a": {"$gt": 2980}},
    {"a": {"$gte": 2980.5}},
    {"a": {"$lt": 9}},
    {"a": {"$lte": 9}},
    {"a": {"$gt": "x2990"}},
    {"a": {"$gte": "x2990"}},
    {"a": {"$lt": "x0009"}},
    {"a": {"$lte": "x0008"}},
    {"a": {"$gte": 3, "$lt": 9}},
    {"a": {"$gt": "x0003", "$lte": "x0009"}},
    {"a": {"$in": [1, 3]}},
    {"a": {"$in": ["x0002", 3]}},
    {"s": {"$in": ["name-0010", 2, True, None]}},
    {"s": {"$exists": False}},
    {"s": {"$prefix": "name-00"}},
    {"rare": {"$ne": None}},
    {"b.c": "3"},
    {"b.c": "3", "t": {"$gt": 2900}},
    {"b.c": "3", "t": {"$in": [3, 53]}},
    {"$and": [{"a": 7}, {"z": {"$size": 1}}]},
    {"$or": [{"a": 7}, {"s": "name-0008"}]},
    {"$or": [{"a": {"$in": [1, 3]}}, {"b.c": "7", "t": {"$lt": 99}}]},
    {"$not": {"rare": None}},
    {"$not": {"s": {"$exists": True}}},
]

SERVED_BY_SQLITE: list[dict[str, Any]] = [
    {"rare": {"$exists": True}},
]
"""An index of PostgreSQL cannot tell null from missing."""

SERVED_BY_POSTGRESQL: list[dict[str, Any]] = [
    {"$or": [{"a": {"$lt": 3}}, {"a": {"$gt": "x2998"}}]},
]
"""SQLite does not know how few documents are in a range."""

UNSERVED: list[dict[str, Any]] = [
    {"a": {"$ne": 7}},
    {"a": {"$nin": [1, 3]}},
    {"a": {"$not": {"$gt": 5}}},
    {"$not": {"a": {"$gt": 5}}},
    {"z": {"$contains": 7}},
    {"z": {"$all": [7]}},
    {"z": {"$size": 1}},
    {"z": {"$elemMatch": {"$gt": 2995}}},
    {"$or": [{"s": "name-0008"}, {"z": {"$contains": 9}}]},
]


def operators(query: Any) -> set[str]:
    """The operators that a query is made of."""
    if isinstance(query, dict):
        return {key for key in query if key.startswith("$")}.union(*map(operators, query.values()))
    return set().union(*map(operators, query)) if isinstance(query, list) else set()
