"""What every document backend promises of documents that expire."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, cast

import pytest

from polaris.exceptions import ConflictError, InvalidValueError
from polaris.storage import DocumentChanges, DocumentStorageBackend
from polaris.testing._virtual_clock import EPOCH, VirtualClock

MINUTE = timedelta(minutes=1)


@contextmanager
def virtual_time(backend: DocumentStorageBackend) -> Iterator[VirtualClock]:
    """A clock in the place of the engine's, which is asked at every call."""
    engine = cast(Any, backend.engine)
    former, engine.clock = engine.clock, VirtualClock()
    try:
        yield engine.clock
    finally:
        engine.clock = former


async def _ids(backend: DocumentStorageBackend) -> list[str]:
    return [document["_id"] for document in await backend.find_documents("d")]


class ExpiryPromises:
    """Documents that are not there any more from an instant on."""

    async def test_an_expired_document_is_not_there_for_any_operation(self, backend: DocumentStorageBackend) -> None:
        with virtual_time(backend) as clock:
            await backend.insert_document("d", {"_id": "x", "a": 1}, ttl=MINUTE)
            await backend.insert_document("d", {"_id": "y", "a": 1})
            clock.advance(59)
            assert await _ids(backend) == ["x", "y"]
            assert await backend.get_document("d", "x") == {"_id": "x", "_version": 1, "a": 1}
            clock.advance(1)
            assert await _ids(backend) == ["y"]
            assert await backend.get_document("d", "x") is None
            assert await backend.count("d", {"a": 1}) == 1
            assert await backend.update_document("d", "x", {"a": 2}) is False
            assert await backend.update_documents("d", {"a": 1}, {"b": 1}) == 1
            assert await backend.delete_document("d", "x") is False
            assert await backend.delete_documents("d", {}) == 1
            assert await backend.purge_expired("d") == 1

    async def test_every_way_to_write_takes_an_instant_or_a_span(self, backend: DocumentStorageBackend) -> None:
        with virtual_time(backend) as clock:
            spans: list[dict[str, Any]] = [{"ttl": MINUTE}, {"expires_at": EPOCH + MINUTE}]
            for name, expiry in zip("ab", spans, strict=True):
                await backend.insert_document("d", {"_id": f"insert {name}"}, **expiry)
                await backend.insert_documents("d", [{"_id": f"inserts {name}"}], **expiry)
                await backend.put_document("d", f"put {name}", {}, **expiry)
                await backend.put_documents("d", [{"_id": f"puts {name}"}], **expiry)
                await backend.insert_documents("d", [{"_id": f"update {name}"}, {"_id": f"updates {name}"}])
                assert await backend.update_document("d", f"update {name}", {}, **expiry)
                assert await backend.update_documents("d", {"_id": f"updates {name}"}, {}, **expiry) == 1
            assert await backend.count("d") == 12
            clock.advance(60)
            assert await _ids(backend) == []

    async def test_what_has_expired_already_is_accepted_and_not_there(self, backend: DocumentStorageBackend) -> None:
        with virtual_time(backend):
            assert await backend.insert_document("d", {"_id": "x"}, expires_at=EPOCH) == "x"
            assert await _ids(backend) == []

    async def test_the_id_of_an_expired_document_is_free(self, backend: DocumentStorageBackend) -> None:
        with virtual_time(backend) as clock:
            await backend.insert_documents("d", [{"_id": name, "old": 1} for name in "xyz"], ttl=MINUTE)
            with pytest.raises(ConflictError):
                await backend.insert_document("d", {"_id": "x"})
            clock.advance(60)
            await backend.put_document("d", "y", {}, expected_version=0)
            await backend.put_documents("d", [{"_id": "z"}])
            await backend.insert_document("d", {"_id": "x"})
            clock.advance(60)
            assert await backend.find_documents("d") == [{"_id": name, "_version": 1} for name in "xyz"]

    async def test_the_unique_values_of_an_expired_document_are_free(self, backend: DocumentStorageBackend) -> None:
        with virtual_time(backend) as clock:
            await backend.create_index("d", "a", unique=True)
            await backend.insert_documents("d", [{"_id": str(n), "a": n} for n in range(3)], ttl=MINUTE)
            await backend.insert_document("d", {"_id": "x"})
            with pytest.raises(ConflictError):
                await backend.update_document("d", "x", {"a": 0})
            clock.advance(60)
            await backend.update_document("d", "x", {"a": 0})
            await backend.insert_document("d", {"_id": "y", "a": 1})
            await backend.put_document("d", "z", {"a": 2})
            assert [one["a"] for one in await backend.find_documents("d")] == [0, 1, 2]

    async def test_a_put_ends_an_expiry_and_an_update_keeps_or_moves_it(self, backend: DocumentStorageBackend) -> None:
        with virtual_time(backend) as clock:
            await backend.insert_documents("d", [{"_id": name} for name in "abcd"], ttl=MINUTE)
            await backend.put_document("d", "a", {})
            await backend.update_document("d", "b", {"n": 1})
            await backend.update_document("d", "c", DocumentChanges(set={"n": 1}), ttl=2 * MINUTE)
            await backend.update_documents("d", {"_id": "d"}, {"n": 1}, expires_at=EPOCH + 2 * MINUTE)
            clock.advance(60)
            assert await _ids(backend) == ["a", "c", "d"]
            clock.advance(60)
            assert await _ids(backend) == ["a"]

    async def test_who_deletes_a_document_deletes_its_expiry(self, backend: DocumentStorageBackend) -> None:
        with virtual_time(backend) as clock:
            await backend.insert_documents("d", [{"_id": "x"}, {"_id": "y"}], ttl=MINUTE)
            await backend.delete_document("d", "x")
            await backend.delete_documents("d", {"_id": "y"})
            await backend.insert_documents("d", [{"_id": "x"}, {"_id": "y"}])
            clock.advance(60)
            assert await _ids(backend) == ["x", "y"]

    async def test_a_purge_gives_back_what_has_expired_and_nothing_else(self, backend: DocumentStorageBackend) -> None:
        with virtual_time(backend) as clock:
            await backend.insert_documents("d", [{"n": n} for n in range(1_001)], ttl=MINUTE)
            await backend.insert_document("d", {"_id": "later"}, ttl=2 * MINUTE)
            await backend.insert_document("d", {"_id": "never"})
            await backend.insert_document("e", {}, ttl=MINUTE)
            assert await backend.purge_expired() == 0
            clock.advance(60)
            assert await backend.purge_expired("nobody") == 0
            assert await backend.purge_expired("d") == 1_001
            assert await backend.purge_expired() == 1
            assert await backend.purge_expired() == 0
            assert await _ids(backend) == ["later", "never"]

    async def test_a_transaction_tells_the_time_at_every_call(self, backend: DocumentStorageBackend) -> None:
        with virtual_time(backend) as clock:
            async with backend.transaction() as transaction:
                await transaction.documents.insert_document("d", {"_id": "x"}, ttl=MINUTE)
                assert await transaction.documents.count("d") == 1
                clock.advance(60)
                assert await transaction.documents.count("d") == 0
                await transaction.documents.insert_document("d", {"_id": "y"}, ttl=MINUTE)
                await transaction.commit()
            assert await _ids(backend) == ["y"]
            clock.advance(60)
            assert await _ids(backend) == []

    @pytest.mark.parametrize(
        "expiry",
        [
            {"expires_at": EPOCH, "ttl": MINUTE},
            {"expires_at": datetime(2030, 1, 1)},  # noqa: DTZ001 - a naive time is the point
            {"expires_at": 5},
            {"ttl": timedelta(0)},
            {"ttl": -MINUTE},
            {"ttl": 60},
            {"ttl": timedelta.max},
        ],
    )
    async def test_an_expiry_that_cannot_be_is_refused(
        self, backend: DocumentStorageBackend, expiry: dict[str, Any]
    ) -> None:
        with pytest.raises(InvalidValueError):
            await backend.insert_document("d", {"_id": "x"}, **expiry)
        assert await _ids(backend) == []
