"""What every document backend promises of single documents: kept, replaced, versioned, refused."""

from __future__ import annotations

from typing import Any

import pytest

from polaris.exceptions import ConflictError, InvalidValueError
from polaris.storage import DocumentStorageBackend


class SingleDocumentPromises:
    """Documents by their ids."""

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
        with pytest.raises(ConflictError):
            await backend.delete_document("d", "x", expected_version=2)
        assert await backend.get_document("d", "x") == {"_id": "x", "_version": 3, "a": 3}
        assert await backend.delete_document("d", "x", expected_version=3)

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

    async def test_what_callers_do_before_the_commit_does_not_reach_the_store(
        self, backend: DocumentStorageBackend
    ) -> None:
        inner: dict[str, Any] = {"n": [1]}
        async with backend.transaction() as transaction:
            await transaction.documents.insert_document("d", {"_id": "x", "inner": inner})
            await transaction.documents.put_document("d", "y", {"inner": inner})
            await transaction.documents.update_document("d", "y", {"more": inner})
            inner["n"].append(object())
            await transaction.commit()
        assert await backend.get_document("d", "x") == {"_id": "x", "_version": 1, "inner": {"n": [1]}}
        assert await backend.get_document("d", "y", fields="more") == {"_id": "y", "_version": 2, "more": {"n": [1]}}

    async def test_no_documents_at_all_are_stored_without_a_trace(self, backend: DocumentStorageBackend) -> None:
        assert await backend.insert_documents("d", []) == []
        assert await backend.put_documents("d", []) == []
        assert await backend.count("d") == 0
