"""Promises of the unit of work: parts that are undone alone, and repetition when others were in the way."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from polaris.domain import HealthEvent, HealthStatus
from polaris.exceptions import ConflictError, TransactionConflictError, UnitOfWorkError
from polaris.storage import PolarisDataStore, PolarisUnitOfWork

EVENT = HealthEvent(component="store", status=HealthStatus.HEALTHY)


class SavepointPromises:
    """Savepoints, and units of work that are repeated."""

    async def test_what_fails_in_a_savepoint_is_undone_alone(self, store: PolarisDataStore) -> None:
        async with store.unit_of_work() as work:
            await work.documents.insert_document("d", {"_id": "before"})
            with pytest.raises(LookupError, match="mine"):
                async with work.savepoint():
                    await work.documents.insert_document("d", {"_id": "inside"})
                    await work.publish("polaris.health.store", EVENT)
                    raise LookupError("mine")
            await work.documents.insert_document("d", {"_id": "after"})
            await work.commit()
        assert [one["_id"] for one in await store.documents.find_documents("d")] == ["after", "before"]
        assert await store.outbox.count() == 0

    async def test_a_savepoint_left_without_an_error_is_kept(self, store: PolarisDataStore) -> None:
        async with store.unit_of_work() as work:
            async with work.savepoint():
                await work.documents.insert_document("d", {"_id": "inside"})
                await work.graph.add_node("inside")
                await work.publish("polaris.health.store", EVENT)
            await work.commit()
        assert await store.documents.count("d") == 1
        assert await store.graph.get_node("inside") is not None
        assert await store.outbox.count() == 1

    async def test_savepoints_nest(self, store: PolarisDataStore) -> None:
        async with store.unit_of_work() as work:
            async with work.savepoint():
                await work.documents.insert_document("d", {"_id": "outer"})
                with suppress(LookupError):
                    async with work.savepoint():
                        await work.documents.insert_document("d", {"_id": "inner"})
                        raise LookupError
                assert await work.documents.count("d") == 1
            with suppress(LookupError):
                async with work.savepoint():
                    async with work.savepoint():
                        await work.documents.insert_document("d", {"_id": "lost"})
                    raise LookupError
            await work.commit()
        assert [one["_id"] for one in await store.documents.find_documents("d")] == ["outer"]

    async def test_errors_of_writes_come_at_the_end_of_their_savepoint(self, store: PolarisDataStore) -> None:
        await store.documents.insert_document("d", {"_id": "taken"})
        async with store.unit_of_work() as work:
            with pytest.raises(ConflictError):
                async with work.savepoint():
                    await work.documents.insert_document("d", {"_id": "taken"})
            await work.documents.insert_document("d", {"_id": "free"})
            await work.commit()
        assert await store.documents.count("d") == 2

    async def test_a_commit_within_a_savepoint_is_refused(self, store: PolarisDataStore) -> None:
        async with store.unit_of_work() as work:
            with pytest.raises(UnitOfWorkError):
                async with work.savepoint():
                    await work.documents.insert_document("d", {"_id": "inside"})
                    await work.commit()
            assert work.is_open
        assert await store.documents.count("d") == 0

    async def test_what_was_read_in_a_savepoint_that_failed_still_counts(self, store: PolarisDataStore) -> None:
        """Write skew: each saw the store without what the other did, so they cannot both have been first."""
        await store.documents.insert_document("d", {"_id": "stock", "left": 1})
        await store.documents.insert_document("d", {"_id": "sold", "n": 0})
        async with store.unit_of_work() as one:
            with suppress(LookupError):
                async with one.savepoint():
                    assert await one.documents.get_document("d", "stock") is not None
                    raise LookupError
            async with store.unit_of_work() as other:
                assert await other.documents.get_document("d", "sold") is not None
                await other.documents.update_document("d", "stock", {"left": 0})
                await other.commit()
            with pytest.raises(TransactionConflictError):
                await one.documents.update_document("d", "sold", {"n": 1})
                await one.commit()

    async def test_a_transaction_conflict_says_that_repeating_helps(self, store: PolarisDataStore) -> None:
        await store.documents.insert_document("d", {"_id": "n", "count": 0})
        async with store.unit_of_work() as work:
            document = await work.documents.get_document("d", "n")
            assert document is not None
            await store.documents.update_document("d", "n", {"count": 7})
            with pytest.raises(TransactionConflictError) as caught:
                await work.documents.update_document("d", "n", {"count": document["count"] + 1})
                await work.commit()
        assert caught.value.retryable is True

    async def test_units_of_work_that_meet_are_repeated_until_each_was_alone(self, store: PolarisDataStore) -> None:
        await store.documents.insert_document("d", {"_id": "n", "count": 0})

        async def count_up(work: PolarisUnitOfWork) -> int:
            document = await work.documents.get_document("d", "n")
            assert document is not None
            await work.documents.update_document("d", "n", {"count": document["count"] + 1})
            return int(document["count"])

        told = await asyncio.gather(*(store.in_unit_of_work(count_up, attempts_max=100) for _ in range(8)))
        assert sorted(told) == list(range(8))
        document = await store.documents.get_document("d", "n")
        assert document is not None
        assert document["count"] == 8

    async def test_an_error_of_the_body_is_not_repeated(self, store: PolarisDataStore) -> None:
        calls = 0

        async def body(work: PolarisUnitOfWork) -> None:
            nonlocal calls
            calls += 1
            await work.documents.insert_document("d", {"_id": "x"})
            raise LookupError("mine")

        with pytest.raises(LookupError, match="mine"):
            await store.in_unit_of_work(body)
        assert calls == 1
        assert await store.documents.count("d") == 0
