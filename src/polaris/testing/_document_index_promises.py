"""What every document backend promises of indexes."""

from __future__ import annotations

from typing import Any

import pytest

from polaris.exceptions import ConflictError, QueryError
from polaris.storage import DocumentIndex, DocumentStorageBackend
from polaris.testing._document_query_promises import _fill, _ids


class IndexPromises:
    """Indexes, unique and not."""

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

    async def test_the_values_of_a_unique_index_are_free_when_their_document_leaves_them(
        self, backend: DocumentStorageBackend
    ) -> None:
        await backend.create_index("d", "a", unique=True)
        await backend.insert_documents("d", [{"_id": "x", "a": 1}, {"_id": "y", "a": 2}])
        await backend.update_document("d", "x", {"a": 3})
        await backend.put_document("d", "z", {"a": 1})
        await backend.delete_documents("d", {"a": 2})
        await backend.insert_document("d", {"_id": "w", "a": 2})
        assert await backend.update_document("d", "w", {"b": 1})
        with pytest.raises(ConflictError):
            await backend.insert_document("d", {"a": 3})

    async def test_indexes_are_listed_and_dropped(self, backend: DocumentStorageBackend) -> None:
        assert await backend.list_indexes("d") == []
        assert await backend.drop_index("d", "a") is False
        await backend.create_index("d", ["b.c", "a"])
        await backend.create_index("d", "a", unique=True)
        await backend.create_index("d", "a")
        known = [DocumentIndex(("a",), True), DocumentIndex(("b.c", "a"), False)]
        assert await backend.list_indexes("d") == known
        assert await backend.drop_index("d", ["a", "b.c"]) is False
        assert await backend.drop_index("d", ["b.c", "a"]) is True
        assert await backend.list_indexes("d") == known[:1]
        assert await backend.list_indexes("e") == []

    async def test_a_unique_index_refuses_nothing_once_it_is_dropped(self, backend: DocumentStorageBackend) -> None:
        await backend.create_index("d", "a")
        await backend.create_index("d", "a", unique=True)
        await backend.insert_document("d", {"a": 1})
        with pytest.raises(ConflictError):
            await backend.insert_document("d", {"a": 1})
        assert await backend.drop_index("d", "a") is True
        await backend.insert_document("d", {"a": 1})
        assert await backend.count("d", {"a": 1}) == 2

    async def test_an_index_that_is_rolled_back_is_as_before(self, backend: DocumentStorageBackend) -> None:
        await backend.create_index("d", "a", unique=True)
        await backend.insert_document("d", {"a": 1})
        async with backend.transaction() as transaction:
            assert await transaction.documents.drop_index("d", "a") is True
            await transaction.documents.create_index("d", "b", unique=True)
            await transaction.documents.insert_document("d", {"a": 1})
            assert await transaction.documents.list_indexes("d") == [DocumentIndex(("b",), True)]
        assert await backend.list_indexes("d") == [DocumentIndex(("a",), True)]
        with pytest.raises(ConflictError):
            await backend.insert_document("d", {"a": 1})

    @pytest.mark.parametrize("fields", [[], ["a"] * 9, "_id", ["a", "_version"], "a'b", "", [7]])
    async def test_an_index_that_cannot_be_is_refused(self, backend: DocumentStorageBackend, fields: Any) -> None:
        with pytest.raises(QueryError):
            await backend.create_index("d", fields)
        assert await backend.list_indexes("d") == []

    async def test_a_collection_has_a_bounded_number_of_indexes(self, backend: DocumentStorageBackend) -> None:
        for number in range(32):
            await backend.create_index("d", f"a{number}")
        with pytest.raises(QueryError, match="32"):
            await backend.create_index("d", "one_more")
        await backend.create_index("d", "a0", unique=True)
        assert await backend.drop_index("d", "a1")
        await backend.create_index("d", "one_more")
        assert len(await backend.list_indexes("d")) == 32
