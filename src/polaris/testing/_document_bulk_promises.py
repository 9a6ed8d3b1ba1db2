"""What every document backend promises of writes to many documents and to parts of them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from polaris.exceptions import ConflictError, InvalidValueError, QueryError
from polaris.storage import DocumentChanges, DocumentStorageBackend


class BulkPromises:
    """Writes by query, and changes to what paths lead to."""

    async def test_documents_are_put_many_at_once(self, backend: DocumentStorageBackend) -> None:
        await backend.insert_document("d", {"_id": "x", "old": 1})
        ids = await backend.put_documents("d", [{"_id": "x", "a": 1}, {"a": 2}, {"_id": "y", "a": 3}, {"_id": "y"}])
        assert (ids[0], ids[2:]) == ("x", ["y", "y"])
        found = {document.pop("_id"): document for document in await backend.find_documents("d")}
        assert found == {"x": {"_version": 2, "a": 1}, ids[1]: {"_version": 1, "a": 2}, "y": {"_version": 2}}

    async def test_documents_are_put_all_or_none(self, backend: DocumentStorageBackend) -> None:
        await backend.create_index("d", "a", unique=True)
        await backend.insert_document("d", {"_id": "x", "a": 1})
        with pytest.raises(ConflictError):
            await backend.put_documents("d", [{"_id": "y", "a": 2}, {"_id": "z", "a": 1}])
        assert [document["_id"] for document in await backend.find_documents("d")] == ["x"]

    async def test_an_update_by_query_changes_what_matches_and_counts_it(self, backend: DocumentStorageBackend) -> None:
        await backend.insert_documents("d", [{"_id": str(n), "n": n} for n in range(6)])
        assert await backend.update_documents("d", {"n": {"$gte": 4}}, {"big": True}) == 2
        assert await backend.update_documents("d", {"n": 9}, {"big": True}) == 0
        assert await backend.update_documents("nobody", {}, {"big": True}) == 0
        found = await backend.find_documents("d")
        assert [(one["_version"], one.get("big")) for one in found] == [(1, None)] * 4 + [(2, True)] * 2

    async def test_a_deletion_by_query_removes_what_matches_and_counts_it(
        self, backend: DocumentStorageBackend
    ) -> None:
        await backend.insert_documents("d", [{"_id": str(n), "n": n} for n in range(6)])
        assert await backend.delete_documents("d", {"n": {"$lt": 2}}) == 2
        assert await backend.delete_documents("d", {"n": {"$lt": 2}}) == 0
        assert [one["n"] for one in await backend.find_documents("d")] == [2, 3, 4, 5]
        assert await backend.delete_documents("d", {}) == 4
        assert await backend.delete_documents("nobody", {}) == 0

    async def test_a_write_by_query_takes_the_first_ids_up_to_its_limit(self, backend: DocumentStorageBackend) -> None:
        await backend.insert_documents("d", [{"_id": str(n), "n": n} for n in (3, 1, 0, 2)])
        assert await backend.update_documents("d", {"n": {"$gt": 0}}, {"done": 1}, limit=2) == 2
        assert [one["_id"] for one in await backend.find_documents("d", {"done": 1})] == ["1", "2"]
        assert await backend.delete_documents("d", {}, limit=1) == 1
        assert await backend.delete_documents("d", {}, limit=0) == 0
        assert [one["_id"] for one in await backend.find_documents("d")] == ["1", "2", "3"]

    async def test_a_write_by_query_is_done_entirely_or_not_at_all(self, backend: DocumentStorageBackend) -> None:
        await backend.create_index("d", "key", unique=True)
        await backend.insert_documents("d", [{"_id": str(n), "n": n} for n in range(3)])
        with pytest.raises(ConflictError):
            await backend.update_documents("d", {}, {"key": "same"})
        await backend.update_document("d", "2", {"n": "text"})
        with pytest.raises(InvalidValueError):
            await backend.update_documents("d", {}, DocumentChanges(increment={"n": 1}))
        assert [one["n"] for one in await backend.find_documents("d")] == [0, 1, "text"]

    async def test_a_write_by_query_names_its_query(self, backend: DocumentStorageBackend) -> None:
        await backend.insert_document("d", {"_id": "x"})
        nothing: Any = None
        for limit in (-1, 100_001, True):
            with pytest.raises(QueryError):
                await backend.delete_documents("d", {}, limit=limit)
        with pytest.raises(QueryError):
            await backend.delete_documents("d", nothing)
        with pytest.raises(QueryError):
            await backend.update_documents("d", nothing, {"a": 1})
        assert await backend.count("d") == 1

    async def test_changes_reach_what_paths_lead_to(self, backend: DocumentStorageBackend) -> None:
        await backend.insert_document("d", {"_id": "x", "a": {"b": 1, "c": 2}, "n": 1, "list": [1], "s": "t"})
        changes = DocumentChanges(
            set={"a.b": [9], "new.deep.er": None, "list": {}},
            unset=["a.c", "gone.x", "s.x"],
            increment={"count.of": 2, "n": 0.5},
        )
        assert await backend.update_document("d", "x", changes, expected_version=1) is True
        assert await backend.get_document("d", "x") == {
            "_id": "x",
            "_version": 2,
            "a": {"b": [9]},
            "n": 1.5,
            "list": {},
            "s": "t",
            "new": {"deep": {"er": None}},
            "count": {"of": 2},
        }
        assert await backend.update_document("d", "y", changes) is False

    async def test_increments_of_many_tasks_all_count(self, backend: DocumentStorageBackend) -> None:
        await backend.insert_document("d", {"_id": "x"})
        more = DocumentChanges(increment={"n": 1})
        await asyncio.gather(*(backend.update_document("d", "x", more) for _ in range(50)))
        assert await backend.get_document("d", "x") == {"_id": "x", "_version": 51, "n": 50}

    @pytest.mark.parametrize(
        "changes",
        [
            DocumentChanges(set={"text.x": 1}),
            DocumentChanges(set={"list.0": 1}),
            DocumentChanges(increment={"text": 1}),
            DocumentChanges(increment={"yes": 1}),
            DocumentChanges(increment={"most": 1}),
            DocumentChanges(increment={"huge": 1e308}),
            DocumentChanges(set={"many": [0] * 9_000}),
            DocumentChanges(set={"body": "x" * (1 << 20)}),
        ],
    )
    async def test_changes_that_cannot_be_carried_out_change_nothing(
        self, backend: DocumentStorageBackend, changes: DocumentChanges
    ) -> None:
        document = {"text": "a", "list": [1], "yes": True, "most": 2**63 - 1, "huge": 1e308, "few": [0] * 5_000}
        await backend.put_document("d", "x", document)
        with pytest.raises(InvalidValueError):
            await backend.update_document("d", "x", changes)
        assert await backend.get_document("d", "x") == {**document, "_id": "x", "_version": 1}

    @pytest.mark.parametrize(
        "changes",
        [
            DocumentChanges(),
            DocumentChanges(set={"a": 1}, unset=["a"]),
            DocumentChanges(set={"a": {}, "a.b": 2}),
            DocumentChanges(set={"a.b": 1}, increment={"a": 1}),
            DocumentChanges(set={"_id": "y"}),
            DocumentChanges(unset=["_version"]),
            DocumentChanges(set={"a b": 1}),
            DocumentChanges(increment={"a": True}),
            DocumentChanges(increment={"a": float("inf")}),
            DocumentChanges(set={"a": float("nan")}),
            DocumentChanges(set={".".join("a" * 16): [[]]}),
            DocumentChanges(set={f"a{n}": n for n in range(257)}),
            {"_version": 3},
            {"a": object()},
            [],
        ],
    )
    async def test_changes_that_say_nothing_sensible_are_refused(
        self, backend: DocumentStorageBackend, changes: Any
    ) -> None:
        await backend.insert_document("d", {"_id": "x"})
        with pytest.raises((QueryError, InvalidValueError)):
            await backend.update_document("d", "x", changes)
        assert await backend.get_document("d", "x") == {"_id": "x", "_version": 1}
