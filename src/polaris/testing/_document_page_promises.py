"""What every document backend promises of orders, pages and projections."""

from __future__ import annotations

from typing import Any

import pytest

from polaris.exceptions import InvalidValueError, QueryError
from polaris.storage import DocumentStorageBackend
from polaris.testing._document_query_promises import _fill, _ids


class PagePromises:
    """In which order documents come, how far, and which parts of them."""

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

    @pytest.mark.parametrize("sort", [None, "a", "-a", ["a", "-b"], ["-a", "b"], ["-a", "-_id"]])
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

    @pytest.mark.parametrize("sort", [None, "n", "-n", ["k", "-n"]])
    async def test_pages_stay_right_while_documents_come_go_and_change(
        self, backend: DocumentStorageBackend, sort: Any
    ) -> None:
        numbers = range(0, 60, 3)
        await backend.insert_documents("d", [{"_id": f"{n:02}", "n": n, "k": n % 2} for n in numbers])
        seen: list[str] = []
        after: dict[str, Any] | None = None
        turn = 0
        while page := await backend.find_documents("d", limit=4, sort=sort, after=after):
            seen += [document["_id"] for document in page]
            after = page[-1]
            await backend.delete_document("d", after["_id"])
            for new in (turn, 59 - turn):
                await backend.put_document("d", f"{new - new % 3 + 1:02}", {"n": new, "k": turn % 2})
            turn += 5
        for n in numbers:
            assert seen.count(f"{n:02}") == 1

    async def test_fields_choose_what_comes_back(self, backend: DocumentStorageBackend) -> None:
        await backend.insert_document("d", {"_id": "x", "a": {"b": 1, "c": [{"d": 2}]}, "e": None, "f": 3})
        keys = {"_id": "x", "_version": 1}
        for fields, expected in (
            (["a.b", "e"], {"a": {"b": 1}, "e": None}),
            ("a.c", {"a": {"c": [{"d": 2}]}}),
            (["a.c.d", "a.x", "g", "f.x"], {}),
            (["a", "a.b"], {"a": {"b": 1, "c": [{"d": 2}]}}),
            (["a.b", "a.c", "a.b"], {"a": {"b": 1, "c": [{"d": 2}]}}),
            ([], {}),
        ):
            assert await backend.find_documents("d", fields=fields) == [{**keys, **expected}]
            assert await backend.get_document("d", "x", fields=fields) == {**keys, **expected}
        with pytest.raises(QueryError):
            await backend.find_documents("d", fields=["a b"])
        with pytest.raises(QueryError):
            await backend.find_documents("d", fields=[f"a{n}" for n in range(257)])

    async def test_what_was_projected_serves_as_a_cursor(self, backend: DocumentStorageBackend) -> None:
        await backend.insert_documents("d", [{"_id": f"{9 - n}", "a": {"n": n}, "b": n} for n in range(6)])
        first = await backend.find_documents("d", limit=3, sort="-a.n", fields="b")
        rest = await backend.find_documents("d", sort="-a.n", fields="b", after=first[-1])
        assert [document["b"] for document in first + rest] == [5, 4, 3, 2, 1, 0]

    @pytest.mark.parametrize(
        "after", ["", {"a": 1}, {"_id": 1}, 1, {"_id": "x", "a": float("nan")}, {"_id": "x", "a": 2**70}]
    )
    async def test_a_bad_cursor_is_refused(self, backend: DocumentStorageBackend, after: Any) -> None:
        await _fill(backend)
        with pytest.raises((QueryError, InvalidValueError)):
            await backend.find_documents("people", sort=None if after == "" else "a", after=after)
