"""Nodes of one store: what each has for itself, who is refused, and who takes over from whom."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from polaris.domain import AdaptationAction, AdaptationEvent, HealthStatus
from polaris.exceptions import ConfigurationError, DataStoreError
from polaris.observability import StructuredLogger
from polaris.runtime._health import HealthBoard
from polaris.runtime._lease import BEAT_S, LEASE_S
from polaris.runtime._ledger import ActionLedger
from polaris.runtime._place import COMPONENT, SharedPlace
from polaris.storage import PolarisDataStore
from polaris.testing import run_virtual, running_clock

LOGGER = StructuredLogger("test")


class Rig:
    def __init__(self) -> None:
        self.clock = running_clock()
        self.store = PolarisDataStore.memory(clock=self.clock)
        self.boots = 0
        self.boards: dict[str, HealthBoard] = {}

    def place(
        self, node: str, systems: Sequence[str] = (), *, home: str | None = None, own_bus: bool = False
    ) -> SharedPlace:
        self.boots += 1
        self.boards[node] = HealthBoard(clock=self.clock)
        return SharedPlace(
            self.store,
            self.boards[node],
            LOGGER,
            node=node,
            home=home or f"home of {node}",
            boot_id=f"boot-{self.boots}",
            systems=systems,
            own_bus=own_bus,
            clock=self.clock,
        )

    async def refused(self, place: SharedPlace) -> list[str]:
        with pytest.raises(ConfigurationError) as caught:
            await place.take()
        return list(caught.value.problems)


def event(action_id: str, system: str = "web") -> AdaptationEvent:
    return AdaptationEvent(AdaptationAction(action_id, "scale", system))


def test_nodes_with_systems_of_their_own_stand_side_by_side_and_one_has_each_turn() -> None:
    async def scenario() -> None:
        rig = Rig()
        await rig.store.connect()
        places = [rig.place(name, [f"{name}-1"]) for name in ("a", "b", "c")]
        begun_s = rig.clock.monotonic()
        for place in places:
            await place.take()
            await place.start()
        assert rig.clock.monotonic() - begun_s < 1
        for _ in range(50):
            assert sum(place.outbox.is_held for place in places) == 1
            assert sum(place.upkeep.is_held for place in places) == 1
            assert all(place.is_held for place in places)
            await rig.clock.sleep(0.5)
        assert set(await places[0].other_boots()) == {"boot-2", "boot-3"}
        for place in places:
            await place.stop()
            await place.release()
        assert await places[0].other_boots() == set()

    run_virtual(scenario())


def test_what_two_nodes_cannot_share_is_refused_with_all_its_reasons_and_changes_nothing() -> None:
    async def scenario() -> None:
        rig = Rig()
        await rig.store.connect()
        first = rig.place("a", ["web", "db", "cache"])
        await first.take()
        await first.start()
        both = await rig.refused(rig.place("b", ["web", "db", "other"]))
        assert [problem.split(":")[0] for problem in both] == ["systems.db", "systems.web"]
        assert all("'a'" in problem for problem in both)
        (name,) = await rig.refused(rig.place("a", home="another folder"))
        assert "node.name = 'a'" in name
        (bus,) = await rig.refused(rig.place("c", own_bus=True))
        assert "nats.servers" in bus
        assert first.is_held
        assert await rig.store.documents.count("polaris.nodes") == 1
        await first.stop()
        await first.release()
        alone = rig.place("d", own_bus=True)
        await alone.take()
        await alone.start()
        (other_bus,) = await rig.refused(rig.place("e"))
        assert "nats.servers" in other_bus
        await alone.stop()

    run_virtual(scenario())


def test_of_two_that_begin_at_once_with_the_same_system_one_gets_it() -> None:
    async def scenario() -> None:
        rig = Rig()
        await rig.store.connect()
        places = [rig.place(name, ["web"]) for name in ("a", "b")]

        async def begin(place: SharedPlace) -> None:
            await place.take()
            await place.start()

        outcomes = await asyncio.gather(*(begin(place) for place in places), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes if outcome is not None] == [ConfigurationError]
        for place in places:
            await place.stop()

    run_virtual(scenario())


def test_a_node_that_was_killed_has_its_place_again_at_once_from_the_same_folder() -> None:
    async def scenario() -> None:
        rig = Rig()
        await rig.store.connect()
        await rig.place("a", ["web"], own_bus=True).take()
        begun_s = rig.clock.monotonic()
        again = rig.place("a", ["web"], own_bus=True)
        await again.take()
        assert again.is_held
        assert rig.clock.monotonic() - begun_s < 0.1

    run_virtual(scenario())


def test_another_node_takes_over_from_one_that_is_gone_within_the_bound() -> None:
    async def scenario() -> None:
        rig = Rig()
        await rig.store.connect()
        gone = rig.place("a", ["web"])
        await gone.take()
        heir = rig.place("b", ["web"])
        begun_s = rig.clock.monotonic()
        await heir.take()
        assert not gone.is_held
        assert LEASE_S <= rig.clock.monotonic() - begun_s <= LEASE_S + 2 * BEAT_S

    run_virtual(scenario())


def test_a_node_whose_place_was_taken_begins_nothing_and_says_so() -> None:
    async def scenario() -> None:
        rig = Rig()
        await rig.store.connect()
        frozen, heir = rig.place("a", ["web"]), rig.place("b", ["web"])
        stopped: list[str] = []

        async def stop() -> None:
            stopped.append("actions")

        frozen.on_taken(stop)
        ledger = ActionLedger(rig.store, frozen.boot_id, place=frozen, clock=rig.clock)
        await frozen.take()
        _, taken = await ledger.take(event("before"))
        assert taken
        await heir.take()
        await heir.start()
        with pytest.raises(DataStoreError, match="lost its place"):
            await ledger.take(event("after"))
        (entry,) = await ActionLedger(rig.store, heir.boot_id, place=heir, clock=rig.clock).interrupted()
        with pytest.raises(DataStoreError, match="lost its place"):
            await ledger.retake(entry)
        assert await ledger.get("after") is None
        await frozen.start()
        await rig.clock.sleep(2 * BEAT_S)
        assert stopped == ["actions"]
        shown = rig.boards["a"].get(COMPONENT)
        assert shown is not None
        assert shown.status is HealthStatus.UNHEALTHY
        assert "restart" in shown.message
        assert not frozen.is_held
        assert heir.is_held
        await frozen.stop()
        await heir.stop()

    run_virtual(scenario())


def test_what_another_node_is_at_or_answers_for_is_not_settled_as_interrupted() -> None:
    async def scenario() -> None:
        rig = Rig()
        await rig.store.connect()
        ledgers = {}
        for name, system in (("a", "web"), ("b", "db")):
            place = rig.place(name, [system])
            await place.take()
            ledgers[name] = ActionLedger(rig.store, place.boot_id, place=place, clock=rig.clock)
            assert await ledgers[name].remember_lanes([system]) == [system]
            await ledgers[name].take(event(f"of-{name}", system))
        assert await ledgers["a"].interrupted() == []
        killed = rig.place("b", ["db"])
        await killed.take()
        again = ActionLedger(rig.store, killed.boot_id, place=killed, clock=rig.clock)
        await again.remember_lanes(["db"])
        # The other node knows that it is interrupted, and leaves it to the one that answers for the system.
        assert await ledgers["a"].interrupted() == []
        assert [entry.action.action_id for entry in await again.interrupted()] == ["of-b"]
        assert sorted(await again.lanes()) == ["db", "web"]

    run_virtual(scenario())
