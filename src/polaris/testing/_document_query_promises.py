"""What every document backend promises of its queries: each operator, on each kind of value."""

from __future__ import annotations

from typing import Any

import pytest

from polaris.exceptions import QueryError
from polaris.storage import DocumentStorageBackend, Query

PEOPLE: list[dict[str, Any]] = [
    {"_id": "ada", "name": "Ada", "age": 36, "home": {"city": "London"}, "tags": ["a", 1]},
    {"_id": "bob", "name": "Bob", "age": 36.5, "home": {"city": "Paris", "zip": None}, "on": True},
    {"_id": "cyd", "name": "cyd", "age": None, "on": False},
    {"_id": "dan", "name": "Zoë", "age": "36", "on": 1},
]


async def _ids(backend: DocumentStorageBackend, query: Query, **options: Any) -> list[str]:
    return [document["_id"] for document in await backend.find_documents("people", query, **options)]


async def _fill(backend: DocumentStorageBackend) -> None:
    await backend.insert_documents("people", PEOPLE)


class QueryPromises:
    """What queries find."""

    @pytest.mark.parametrize(
        ("query", "expected"),
        [
            ({}, "ada bob cyd dan"),
            ({"age": 36}, "ada"),
            ({"age": 36.0}, "ada"),
            ({"age": "36"}, "dan"),
            ({"home.city": "Paris"}, "bob"),
            ({"name": "Ada", "age": 36}, "ada"),
            ({"age": None}, "cyd"),
            ({"home.zip": None}, "ada bob cyd dan"),
            ({"on": True}, "bob"),
            ({"on": False}, "cyd"),
            ({"on": 1}, "dan"),
            ({"age": {"$eq": 36}}, "ada"),
            ({"age": {"$ne": 36}}, "bob cyd dan"),
            ({"age": {"$gt": 36}}, "bob"),
            ({"age": {"$gte": 36}}, "ada bob"),
            ({"age": {"$lt": 36.5}}, "ada"),
            ({"age": {"$lte": 36.5}}, "ada bob"),
            ({"age": {"$gt": "35"}}, "dan"),
            ({"name": {"$gte": "Bob", "$lt": "c"}}, "bob dan"),
            ({"name": {"$gt": "Z"}}, "cyd dan"),
            ({"on": {"$gte": 0}}, "dan"),
            ({"name": {"$in": ["Ada", "cyd", 3]}}, "ada cyd"),
            ({"age": {"$in": [None, 36.5]}}, "bob cyd"),
            ({"age": {"$in": []}}, ""),
            ({"age": {"$nin": [36, "36"]}}, "bob cyd"),
            ({"on": {"$in": [True]}}, "bob"),
            ({"age": {"$exists": True}}, "ada bob cyd dan"),
            ({"home.zip": {"$exists": True}}, "bob"),
            ({"home.zip": {"$exists": False}}, "ada cyd dan"),
            ({"home": {"$exists": True}}, "ada bob"),
            ({"tags": {"$ne": None}}, "ada"),
            ({"tags": "a"}, ""),
            ({"tags": {"$ne": "a"}}, "ada bob cyd dan"),
            ({"age": {"$ne": None}}, "ada bob dan"),
            ({"name": {"$prefix": "A"}}, "ada"),
            ({"age": {"$prefix": "3"}}, "dan"),
            ({"name": {"$prefix": ""}}, "ada bob cyd dan"),
            ({"name": {"$not": {"$prefix": "c"}}}, "ada bob dan"),
            ({"$and": [{"age": {"$gte": 36}}, {"name": {"$ne": "Ada"}}]}, "bob"),
            ({"$or": [{"name": "Ada"}, {"on": False}]}, "ada cyd"),
            ({"$not": {"age": {"$gt": 36}}}, "ada cyd dan"),
            ({"age": {"$not": {"$gte": 36}}}, "cyd dan"),
            ({"$not": {"$or": [{"name": "Ada"}, {"home.city": "Paris"}]}}, "cyd dan"),
        ],
    )
    async def test_a_query_finds_what_it_says(
        self, backend: DocumentStorageBackend, query: dict[str, Any], expected: str
    ) -> None:
        await _fill(backend)
        assert await _ids(backend, query) == expected.split()
        assert await backend.count("people", query) == len(expected.split())

    @pytest.mark.parametrize(
        "query",
        [
            {"a": {"$regex": "x"}},
            {"$where": "1"},
            {"a": {"$gt": None}},
            {"a": {"$gt": True}},
            {"a": {"$in": "abc"}},
            {"a": {"$exists": 1}},
            {"a": {"b": 1}},
            {"a": {"$gt": 1, "b": 2}},
            {"a": [1]},
            {"a": {}},
            {"a": float("nan")},
            {"a": 2**63},
            {"$or": []},
            {"$and": {}},
            {"a'b": 1},
            {'a"b': 1},
            {"a..b": 1},
            {"": 1},
            {"a.$b": 1},
            {"a[0]": 1},
            {"a": {"$in": list(range(1001))}},
            {"a": {"$not": 1}},
            {"a": {"$prefix": 1}},
            {"a": {"$size": -1}},
            {"a": {"$size": True}},
            {"a": {"$all": []}},
            {"a": {"$all": "a"}},
            {"a": {"$contains": [1]}},
            {"a": {"$elemMatch": 1}},
            {"a": {"$elemMatch": {"$gt": 1, "b": 2}}},
            {"a": {"$elemMatch": {"$or": [{"$gt": 1}]}}},
            {"$or": [{"a": {"$in": list(range(1000))}} for _ in range(11)]},
            "a",
        ],
    )
    async def test_a_query_that_cannot_be_understood_is_refused(
        self, backend: DocumentStorageBackend, query: Any
    ) -> None:
        with pytest.raises(QueryError):
            await backend.find_documents("people", query)

    @pytest.mark.parametrize(
        ("query", "expected"),
        [
            ({"v": {"$contains": 1}}, "ints mixed"),
            ({"v": {"$contains": True}}, "mixed"),
            ({"v": {"$contains": "a"}}, "mixed texts"),
            ({"v": {"$contains": None}}, "mixed"),
            ({"v": {"$not": {"$contains": 1}}}, "deep empty nested none objects text texts"),
            ({"v": {"$all": [1, 2.0]}}, "ints"),
            ({"v": {"$all": ["a"]}}, "mixed texts"),
            ({"v": {"$size": 0}}, "empty"),
            ({"v": {"$size": 2}}, "deep objects texts"),
            ({"v": {"$elemMatch": {"$gt": 1, "$lt": 3}}}, "ints"),
            ({"v": {"$elemMatch": {"$gt": 3, "$lt": 2}}}, ""),
            ({"v": {"$elemMatch": {"$prefix": "a"}}}, "mixed texts"),
            ({"v": {"$elemMatch": {"$not": {"$gt": 1}}}}, "deep ints mixed nested objects texts"),
            ({"v": {"$elemMatch": {"n": 1}}}, "objects"),
            ({"v": {"$elemMatch": {"n": 1, "m.x": 2}}}, "objects"),
            ({"v": {"$elemMatch": {"n": 2, "m.x": 2}}}, ""),
            ({"v": {"$elemMatch": {"n": None}}}, "objects"),
            ({"v": {"$elemMatch": {"$or": [{"n": 9}, {"m": "x"}]}}}, "objects"),
            ({"v": {"$elemMatch": {}}}, "objects"),
            ({"v": {"$elemMatch": {"$elemMatch": {"$eq": 1}}}}, "deep"),
            ({"v": {"$elemMatch": {"$contains": 2}}}, "deep"),
            ({"v": {"$elemMatch": {"$size": 0}}}, "nested"),
            ({"v": 1}, ""),
            ({"v": "[]"}, "text"),
            ({"v": {"$gt": "Z"}}, "text"),
            ({"v.0": {"$exists": True}}, ""),
            ({"v.n": {"$exists": True}}, ""),
            ({"v": {"$exists": True}}, "deep empty ints mixed nested objects text texts"),
        ],
    )
    async def test_arrays_are_asked_by_their_own_operators(
        self, backend: DocumentStorageBackend, query: dict[str, Any], expected: str
    ) -> None:
        values: dict[str, Any] = {
            "ints": [1, 2, 3],
            "mixed": [1, True, "a", None],
            "texts": ["a", "{"],
            "text": "[]",
            "empty": [],
            "nested": [[]],
            "deep": [[1, 2], [3]],
            "objects": [{"n": 1, "m": {"x": 2}}, {"m": "x"}],
        }
        await backend.insert_documents("people", [{"_id": name, "v": value} for name, value in values.items()])
        await backend.insert_document("people", {"_id": "none"})
        assert await _ids(backend, query) == expected.split()
        assert await backend.count("people", query) == len(expected.split())

    async def test_numbers_are_told_apart_to_the_last_digit(self, backend: DocumentStorageBackend) -> None:
        values = [2**53, 2**53 + 1, float(2**53 + 2), 2**63 - 1, -(2**63), 1e308, -0.0, 5e-324]
        await backend.insert_documents("people", [{"_id": f"n{n}", "v": value} for n, value in enumerate(values)])
        for n, value in enumerate(values):
            assert await _ids(backend, {"v": value}) == [f"n{n}"]
        assert await _ids(backend, {"v": {"$gt": 2**53, "$lt": 2**53 + 2}}) == ["n1"]
        assert await _ids(backend, {"v": 0}) == ["n6"]
        assert await _ids(backend, {"v": float(2**63)}) == []
        assert await _ids(backend, {}, sort="v") == ["n4", "n6", "n7", "n0", "n1", "n2", "n3", "n5"]

    async def test_texts_are_found_by_their_beginning_character_by_character(
        self, backend: DocumentStorageBackend
    ) -> None:
        texts = ["a", "a\0", "ab", "b", "\ud7ff!", "\ue000", "\U0001f30d", "\U0001f30d!", "\U0010ffff", "\U0010ffffx"]
        await backend.insert_documents("people", [{"_id": f"n{n}", "v": text} for n, text in enumerate(texts)])
        for prefix in ["", "a", "a\0", "\ud7ff", "\U0001f30d", "\U0010ffff"]:
            expected = [f"n{n}" for n, text in enumerate(texts) if text.startswith(prefix)]
            assert await _ids(backend, {"v": {"$prefix": prefix}}) == expected

    async def test_the_id_and_the_version_are_paths_like_others(self, backend: DocumentStorageBackend) -> None:
        await _fill(backend)
        await backend.update_document("people", "cyd", {"age": 1})
        assert await _ids(backend, {"_id": "bob"}) == ["bob"]
        assert await _ids(backend, {"_id": {"$in": ["dan", "ada", "eve"]}}) == ["ada", "dan"]
        assert await _ids(backend, {"_id": {"$prefix": "c"}}) == ["cyd"]
        assert await _ids(backend, {"_version": {"$gt": 1}}) == ["cyd"]
        assert await _ids(backend, {"_id": 1}) == []
        assert await _ids(backend, {"_version": "2"}) == []
        assert await _ids(backend, {"_id.x": {"$exists": True}}) == []
        assert await _ids(backend, {}, sort="-_id") == ["dan", "cyd", "bob", "ada"]
        assert await _ids(backend, {}, sort=["-_version", "-_id"], limit=2) == ["cyd", "dan"]
