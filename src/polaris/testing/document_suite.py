"""The contract of `DocumentStorageBackend` as tests: every engine passes all of them.

Derive a class named `Test...` from `DocumentSuite` and give it a fixture `backend`: a connected, empty backend.
"""

from __future__ import annotations

from typing import Any

import pytest

from polaris.exceptions import ConflictError, InvalidValueError, QueryError
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


class DocumentSuite:
    """The promises of the document port."""

    async def test_a_document_comes_back_with_its_id_and_version(self, backend: DocumentStorageBackend) -> None:
        document = {"a": [1, 2.0, None, True, "é\u2028"], "b": {"c.d": {}, "$e": -0.5}, "big": 2**63 - 1, "": "empty"}
        document_id = await backend.insert_document("d", document)
        found = await backend.get_document("d", document_id)
        assert found == {**document, "_id": document_id, "_version": 1}
        assert found is not None
        assert [type(value) for value in found["a"]] == [int, float, type(None), bool, str]

    async def test_ids_given_are_kept_and_others_are_fresh(self, backend: DocumentStorageBackend) -> None:
        assert await backend.insert_document("d", {"_id": "mine"}) == "mine"
        assert len({await backend.insert_document("d", {}) for _ in range(3)}) == 3

    async def test_an_id_in_use_is_a_conflict(self, backend: DocumentStorageBackend) -> None:
        await backend.insert_document("d", {"_id": "x", "a": 1})
        with pytest.raises(ConflictError):
            await backend.insert_document("d", {"_id": "x", "a": 2})
        assert await backend.get_document("d", "x") == {"_id": "x", "_version": 1, "a": 1}

    async def test_documents_are_inserted_all_or_none(self, backend: DocumentStorageBackend) -> None:
        with pytest.raises(ConflictError):
            await backend.insert_documents("d", [{"_id": "x"}, {"_id": "y"}, {"_id": "x"}])
        assert await backend.count("d") == 0

    async def test_what_callers_do_to_a_document_does_not_reach_the_store(
        self, backend: DocumentStorageBackend
    ) -> None:
        inner = {"n": [1]}
        await backend.insert_document("d", {"_id": "x", "inner": inner})
        inner["n"].append(2)
        found = await backend.get_document("d", "x")
        assert found is not None
        found["inner"]["n"].append(3)
        assert await backend.get_document("d", "x") == {"_id": "x", "_version": 1, "inner": {"n": [1]}}

    async def test_nothing_is_found_where_nothing_is(self, backend: DocumentStorageBackend) -> None:
        assert await backend.get_document("d", "x") is None
        assert await backend.find_documents("d") == []
        assert await backend.count("d", {"a": 1}) == 0
        assert await backend.delete_document("d", "x") is False
        assert await backend.update_document("d", "x", {"a": 1}) is False

    async def test_putting_replaces_everything_and_counts_versions(self, backend: DocumentStorageBackend) -> None:
        await backend.put_document("d", "x", {"a": 1, "b": 1})
        await backend.put_document("d", "x", {"a": 2})
        assert await backend.get_document("d", "x") == {"_id": "x", "_version": 2, "a": 2}

    async def test_updating_replaces_the_named_keys_and_keeps_the_others(self, backend: DocumentStorageBackend) -> None:
        await backend.insert_document("d", {"_id": "x", "a": {"b": 1, "c": 2}, "k": 1})
        assert await backend.update_document("d", "x", {"a": {"b": 9}, "n": None}) is True
        assert await backend.get_document("d", "x") == {"_id": "x", "_version": 2, "a": {"b": 9}, "k": 1, "n": None}

    async def test_an_unexpected_version_is_a_conflict_and_changes_nothing(
        self, backend: DocumentStorageBackend
    ) -> None:
        await backend.put_document("d", "x", {"a": 1}, expected_version=0)
        await backend.put_document("d", "x", {"a": 2}, expected_version=1)
        assert await backend.update_document("d", "x", {"a": 3}, expected_version=2)
        for wrong in (0, 2):
            with pytest.raises(ConflictError):
                await backend.put_document("d", "x", {"a": 9}, expected_version=wrong)
        with pytest.raises(ConflictError):
            await backend.update_document("d", "x", {"a": 9}, expected_version=2)
        assert await backend.get_document("d", "x") == {"_id": "x", "_version": 3, "a": 3}

    async def test_a_deleted_document_is_gone(self, backend: DocumentStorageBackend) -> None:
        await backend.insert_document("d", {"_id": "x"})
        assert await backend.delete_document("d", "x") is True
        assert await backend.get_document("d", "x") is None
        assert await backend.delete_document("d", "x") is False

    async def test_collections_do_not_see_each_other(self, backend: DocumentStorageBackend) -> None:
        await backend.insert_document("d", {"_id": "x"})
        await backend.insert_document("e", {"_id": "x"})
        await backend.delete_document("d", "x")
        assert (await backend.count("d"), await backend.count("e")) == (0, 1)

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
            "a",
        ],
    )
    async def test_a_query_that_cannot_be_understood_is_refused(
        self, backend: DocumentStorageBackend, query: Any
    ) -> None:
        with pytest.raises(QueryError):
            await backend.find_documents("people", query)

    async def test_documents_come_in_order_of_their_ids(self, backend: DocumentStorageBackend) -> None:
        for document_id in ("c", "a", "B", "é"):
            await backend.insert_document("d", {"_id": document_id})
        assert [one["_id"] for one in await backend.find_documents("d")] == ["B", "a", "c", "é"]

    async def test_sorting_puts_missing_first_then_numbers_then_texts(self, backend: DocumentStorageBackend) -> None:
        await _fill(backend)
        assert await _ids(backend, {}, sort="age") == ["cyd", "ada", "bob", "dan"]
        assert await _ids(backend, {}, sort="-age") == ["dan", "bob", "ada", "cyd"]

    async def test_sorting_by_several_keys_settles_ties(self, backend: DocumentStorageBackend) -> None:
        await backend.insert_documents("d", [{"_id": str(n), "a": n % 2, "b": n} for n in range(6)])
        found = await backend.find_documents("d", sort=["a", "-b"])
        assert [one["_id"] for one in found] == ["4", "2", "0", "5", "3", "1"]

    async def test_a_limit_takes_the_first_of_the_order(self, backend: DocumentStorageBackend) -> None:
        await _fill(backend)
        assert await _ids(backend, {}, limit=2) == ["ada", "bob"]
        assert await _ids(backend, {}, limit=1, sort="-name") == ["cyd"]
        assert await _ids(backend, {}, limit=0) == []

    @pytest.mark.parametrize("sort", [None, "a", "-a", ["a", "-b"], ["-a", "b"]])
    async def test_pages_follow_each_other_without_gap_or_repetition(
        self, backend: DocumentStorageBackend, sort: Any
    ) -> None:
        values = [None, 1, True, "x", 2.5, [1], "x", None, 0, {"k": 1}]
        documents: list[dict[str, Any]] = [{"_id": f"{n:02}", "a": value, "b": n % 3} for n, value in enumerate(values)]
        await backend.insert_documents("d", [*documents, {"_id": "zz"}])
        whole = await backend.find_documents("d", sort=sort)
        pages: list[dict[str, Any]] = []
        after: dict[str, Any] | None = None
        while page := await backend.find_documents("d", limit=3, sort=sort, after=after):
            pages += page
            after = page[-1]
        assert pages == whole
        assert len(whole) == 11

    async def test_a_page_goes_on_behind_a_document_that_is_gone(self, backend: DocumentStorageBackend) -> None:
        await _fill(backend)
        (first,) = await backend.find_documents("people", limit=1)
        await backend.delete_document("people", "ada")
        assert await _ids(backend, {}, after=first) == ["bob", "cyd", "dan"]
        assert await _ids(backend, {}, after="bob") == ["cyd", "dan"]

    async def test_indexes_change_no_answer(self, backend: DocumentStorageBackend) -> None:
        await _fill(backend)
        await backend.create_index("people", "age")
        await backend.create_index("people", ["home.city", "name"])
        await backend.create_index("people", "age")
        assert await _ids(backend, {"age": {"$gte": 36}}) == ["ada", "bob"]
        assert await _ids(backend, {"on": 1}) == ["dan"]
        assert await _ids(backend, {"home.city": "London", "name": "Ada"}) == ["ada"]

    async def test_a_unique_index_refuses_a_second_document(self, backend: DocumentStorageBackend) -> None:
        await backend.create_index("d", ["a", "b.c"], unique=True)
        await backend.insert_document("d", {"_id": "x", "a": 1, "b": {"c": "z"}})
        for document in ({"a": 1, "b": {"c": "z"}}, {"a": 1.0, "b": {"c": "z"}}):
            with pytest.raises(ConflictError):
                await backend.insert_document("d", document)
        await backend.insert_document("d", {"_id": "y", "a": 2, "b": {"c": "z"}})
        with pytest.raises(ConflictError):
            await backend.update_document("d", "y", {"a": 1})
        with pytest.raises(ConflictError):
            await backend.put_document("d", "y", {"a": 1, "b": {"c": "z"}})
        assert await backend.get_document("d", "y") == {"_id": "y", "_version": 1, "a": 2, "b": {"c": "z"}}

    async def test_a_unique_index_lets_missing_values_pass(self, backend: DocumentStorageBackend) -> None:
        await backend.create_index("d", "a", unique=True)
        for _ in range(2):
            await backend.insert_documents("d", [{}, {"a": None}])
        assert await backend.count("d") == 4

    async def test_a_unique_index_cannot_be_had_over_documents_that_break_it(
        self, backend: DocumentStorageBackend
    ) -> None:
        await backend.insert_documents("d", [{"a": 1}, {"a": 1}])
        with pytest.raises(ConflictError):
            await backend.create_index("d", "a", unique=True)
        await backend.insert_document("d", {"a": 1})

    @pytest.mark.parametrize("text", ["'; DROP TABLE documents; --", '"', "\\", "%", "$set", "🦉", "a.b", "?1"])
    async def test_hostile_ids_keys_and_values_are_only_text(self, backend: DocumentStorageBackend, text: str) -> None:
        document = {"_id": text, text: text, "v": text}
        await backend.insert_document("d", document)
        assert await backend.get_document("d", text) == {**document, "_version": 1}
        assert await backend.find_documents("d", {"v": text}) == [{**document, "_version": 1}]
        assert await backend.update_document("d", text, {text: 1})
        assert await backend.delete_document("d", text)

    @pytest.mark.parametrize("name", ["", "a b", "x'; DROP TABLE d; --", "doc\0", "n" * 129, 7])
    async def test_bad_names_of_collections_are_refused(self, backend: DocumentStorageBackend, name: Any) -> None:
        with pytest.raises(InvalidValueError, match="collection"):
            await backend.insert_document(name, {})
        with pytest.raises(InvalidValueError, match="collection"):
            await backend.find_documents(name)

    async def test_documents_that_are_none_are_refused(self, backend: DocumentStorageBackend) -> None:
        deep: Any = 0
        for _ in range(20):
            deep = [deep]
        bad: list[Any] = [{"a": float("nan")}, {"a": object()}, {"a": 2**63}, {1: 2}, [], {"a": deep}, {"_id": ""}]
        bad.append({"a": "x" * (1 << 20)})
        for document in bad:
            with pytest.raises(InvalidValueError):
                await backend.insert_document("d", document)
        assert await backend.count("d") == 0
