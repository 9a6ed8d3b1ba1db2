"""A turn is one node's at a time, and goes on to the next within a bound, by nobody's wall clock."""

from __future__ import annotations

import asyncio

import pytest

from polaris.exceptions import StoreConnectionError
from polaris.runtime._lease import BEAT_S, HELD_S, LEASE_S, LEASES, Always, Lease
from polaris.storage import PolarisDataStore
from polaris.testing import run_virtual, running_clock


class Rig:
    def __init__(self) -> None:
        self.clock = running_clock()
        self.store = PolarisDataStore.memory(clock=self.clock)

    def lease(self, holder: str) -> Lease:
        return Lease(self.store.documents, LEASES, "outbox", holder, clock=self.clock)

    async def beats(self, *leases: Lease, times: int = 1) -> None:
        for _ in range(times):
            for lease in leases:
                await lease.attempt()
            await self.clock.sleep(BEAT_S)


def test_a_free_turn_is_taken_at_once_and_kept_by_who_renews_it() -> None:
    async def scenario() -> None:
        rig = Rig()
        await rig.store.connect()
        first, second = rig.lease("first"), rig.lease("second")
        assert not first.is_held
        assert await first.attempt()
        for _ in range(20):
            assert not await second.attempt()
            assert await first.attempt()
            assert first.is_held
            assert not second.is_held
            await rig.clock.sleep(BEAT_S)

    run_virtual(scenario())


def test_a_turn_whose_holder_is_gone_is_taken_within_the_bound_and_never_before_he_stops_counting_on_it() -> None:
    async def scenario() -> None:
        rig = Rig()
        await rig.store.connect()
        gone, heir = rig.lease("gone"), rig.lease("heir")
        await gone.attempt()
        await heir.attempt()
        killed_s = rig.clock.monotonic()
        while not heir.is_held:
            await rig.clock.sleep(BEAT_S)
            await heir.attempt()
            assert not (gone.is_held and heir.is_held)
        assert rig.clock.monotonic() - killed_s <= LEASE_S + 2 * BEAT_S
        assert not await gone.attempt()
        assert gone.is_lost

    run_virtual(scenario())


def test_who_could_not_renew_does_not_count_on_it_though_nobody_took_it() -> None:
    async def scenario() -> None:
        rig = Rig()
        await rig.store.connect()
        lease = rig.lease("one")
        await lease.attempt()
        await rig.clock.sleep(HELD_S)
        assert not lease.is_held
        assert not lease.is_lost
        assert await lease.attempt()
        assert lease.is_held

    run_virtual(scenario())


def test_a_turn_that_is_given_up_is_free_at_once() -> None:
    async def scenario() -> None:
        rig = Rig()
        await rig.store.connect()
        first, second = rig.lease("first"), rig.lease("second")
        await first.attempt()
        assert not await second.attempt()
        await first.release()
        await first.release()
        assert not first.is_held
        assert await second.attempt()

    run_virtual(scenario())


def test_what_is_done_in_a_turn_is_cancelled_when_the_turn_ends() -> None:
    async def scenario() -> None:
        rig = Rig()
        await rig.store.connect()
        lease, ended = rig.lease("one"), []

        async def work() -> None:
            try:
                await asyncio.sleep(3600)
            finally:
                ended.append(rig.clock.monotonic())

        assert not await lease.while_held(work)
        assert not ended
        await lease.attempt()
        begun_s = rig.clock.monotonic()
        working = asyncio.create_task(lease.while_held(work))
        await rig.beats(lease, times=10)
        assert not working.done()
        renewed_s = begun_s + 9 * BEAT_S
        assert await working is False
        assert ended == [pytest.approx(renewed_s + HELD_S)]

    run_virtual(scenario())


def test_what_is_done_in_a_turn_is_cancelled_when_somebody_else_has_it() -> None:
    async def scenario() -> None:
        rig = Rig()
        await rig.store.connect()
        lease = rig.lease("one")
        await lease.attempt()
        working = asyncio.create_task(lease.while_held(lambda: asyncio.sleep(3600)))
        await rig.clock.sleep(0.1)
        await rig.store.documents.put_document(LEASES, "outbox", {"holder": "robber"})
        begun_s = rig.clock.monotonic()
        await lease.attempt()
        assert await working is False
        assert rig.clock.monotonic() - begun_s < 0.1

    run_virtual(scenario())


@pytest.mark.parametrize("error", [TimeoutError("its own"), ValueError("its own")])
def test_an_error_of_the_work_comes_out(error: Exception) -> None:
    async def scenario() -> None:
        rig = Rig()
        await rig.store.connect()
        lease = rig.lease("one")
        await lease.attempt()

        async def work() -> None:
            raise error

        for turn in (lease, Always()):
            with pytest.raises(type(error)):
                await turn.while_held(work)

    run_virtual(scenario())


def test_a_renewal_whose_confirmation_was_lost_is_found_again() -> None:
    async def scenario() -> None:
        rig = Rig()
        await rig.store.connect()
        lease, other = rig.lease("one"), rig.lease("other")
        await lease.attempt()
        # It was written, and nobody said so: the version is another than the holder knows.
        await rig.store.documents.put_document(LEASES, "outbox", lease.document(), expected_version=1)
        assert not await lease.attempt()
        assert not lease.is_held
        assert not await other.attempt()
        assert await lease.attempt()
        assert lease.is_held

    run_virtual(scenario())


def test_a_store_that_is_away_is_told_and_changes_nothing() -> None:
    async def scenario() -> None:
        rig = Rig()
        await rig.store.connect()
        lease = rig.lease("one")
        await lease.attempt()
        await rig.store.disconnect()
        with pytest.raises(StoreConnectionError):
            await lease.attempt()
        assert lease.is_held
        await lease.release()
        assert not lease.is_held

    run_virtual(scenario())
