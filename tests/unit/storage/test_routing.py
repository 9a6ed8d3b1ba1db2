"""Several stores as one: who has which system, what is refused, and what goes on when a store is away."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial

import pytest
from tests.routed_stores import ALL, T0, TroubledEngine, engine_of, memory_stores, other_than, state

from polaris.domain import AdaptationAction, ExecutionResult, ExecutionStatus, LearnedPattern, SystemDependency
from polaris.exceptions import (
    ConfigurationError,
    ConflictError,
    InvalidValueError,
    StoreConnectionError,
    TransactionConflictError,
    UnitOfWorkError,
)
from polaris.storage import PolarisDataStore, TimeRange
from polaris.storage._placement import PLACEMENTS, Rendezvous
from polaris.storage._rollups import RetentionPolicy, RollupPolicy
from polaris.storage._routing import RoutedDataStore
from polaris.storage._routing_work import RoutedUnitOfWork

SYSTEMS = [f"system-{number}" for number in range(40)]


async def filled(routed: RoutedDataStore) -> None:
    await routed.save_many([state(system_id, second) for system_id in SYSTEMS for second in range(3)])


async def in_store(routed: RoutedDataStore, name: str) -> str:
    """A system that the store has."""
    return next(iter([one for one in SYSTEMS if await routed.store_of(one) == name]))


async def two_apart(routed: RoutedDataStore) -> tuple[str, str]:
    return await in_store(routed, "a"), await in_store(routed, "b")


# Placement


def test_systems_are_spread_by_weight() -> None:
    placed = Counter(Rendezvous({"a": 1, "b": 1, "c": 2}).place(f"s-{number}") for number in range(20_000))
    assert abs(placed["a"] / 20_000 - 0.25) < 0.015
    assert abs(placed["b"] / 20_000 - 0.25) < 0.015
    assert abs(placed["c"] / 20_000 - 0.50) < 0.015


def test_another_store_takes_its_share_and_moves_nothing_between_the_others() -> None:
    before, after = Rendezvous({"a": 1, "b": 1, "c": 1}), Rendezvous({"a": 1, "b": 1, "c": 1, "d": 1})
    moved = [(before.place(one), after.place(one)) for one in (f"s-{number}" for number in range(20_000))]
    gone = [pair for pair in moved if pair[0] != pair[1]]
    assert {there for _, there in gone} == {"d"}
    assert abs(len(gone) / 20_000 - 0.25) < 0.015


def test_the_hash_is_the_same_for_ever() -> None:
    ring = Rendezvous({"a": 1, "b": 2, "c": 1})
    assert "".join(ring.place(f"system-{number}") for number in range(24)) == "ccbbccbbaaccbccbcbaccacb"


def test_a_store_of_weight_0_gets_nothing() -> None:
    assert {Rendezvous({"a": 0, "b": 1}).place(one) for one in SYSTEMS} == {"b"}


# The list


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"weights": {"a": 0, "b": 0, "c": 0}}, "at least one store"),
        ({"weights": {"a": 1.5}}, "an integer from 0 to 100"),
        ({"weights": {"d": 1}}, "'d' is none of the stores"),
        ({"shared": "d"}, "'d' is none of the stores"),
        ({"series": "m"}, "a list of collections"),
        ({"series": ["no name"]}, "no name"),
        ({"documents": {"tickets": "a b"}}, "tickets"),
        ({"documents": {"adaptation_actions": "x"}}, "POLARIS's own"),
    ],
)
def test_a_wrong_list_is_refused_with_the_reason(options: dict[str, object], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        RoutedDataStore(memory_stores(), **options)  # type: ignore[arg-type] # wrong on purpose


def test_the_same_engine_twice_and_none_at_all_are_refused() -> None:
    engine = TroubledEngine()
    with pytest.raises(ConfigurationError, match="the same engine"):
        RoutedDataStore({"a": PolarisDataStore(engine), "b": PolarisDataStore(engine)})
    with pytest.raises(ConfigurationError, match="1 to 64"):
        RoutedDataStore({})
    with pytest.raises(ConfigurationError, match="ASCII"):
        RoutedDataStore({"a b": PolarisDataStore(engine)})


async def test_a_node_with_another_list_is_refused() -> None:
    stores = memory_stores("abcd")
    three = {name: stores[name] for name in "abc"}
    async with RoutedDataStore(three) as routed:
        await filled(routed)
    wrong: list[RoutedDataStore] = [
        RoutedDataStore(stores),
        RoutedDataStore({name: stores[name] for name in "ab"}),
        RoutedDataStore({"a": stores["b"], "b": stores["a"], "c": stores["c"]}),
        RoutedDataStore(three, weights={"a": 2}),
        RoutedDataStore(three, series=["m"]),
        RoutedDataStore(three, documents={"tickets": "system"}),
        RoutedDataStore(three, shared="c"),
    ]
    for node in wrong:
        with pytest.raises(ConfigurationError):
            await node.connect()
        assert not node.is_connected
        assert not any(store.is_connected for store in stores.values())
    async with RoutedDataStore(three) as routed:
        assert len(await routed.systems()) == len(SYSTEMS)


async def test_another_store_moves_nothing_and_gets_new_systems() -> None:
    stores = memory_stores("abcd")
    async with RoutedDataStore({name: stores[name] for name in "abc"}) as routed:
        await filled(routed)
        before = {one: await routed.store_of(one) for one in SYSTEMS}
    grown = RoutedDataStore(stores)
    await grown.connect(adopt=True)
    assert {one: await grown.store_of(one) for one in SYSTEMS} == before
    new = [f"new-{number}" for number in range(40)]
    await grown.save_many([state(one, 0) for one in new])
    assert "d" in {await grown.store_of(one) for one in new}
    await grown.disconnect()
    async with RoutedDataStore(stores) as again:
        assert {one: await again.store_of(one) for one in SYSTEMS} == before
        assert len(await again.systems()) == 80
        for one in SYSTEMS:
            assert len(await again.get_state_history(one, ALL)) == 3


async def test_a_node_of_the_former_list_goes_on_and_places_nothing_new() -> None:
    stores = memory_stores("abcd")
    three = RoutedDataStore({name: stores[name] for name in "abc"})
    await three.connect()
    await filled(three)
    four = RoutedDataStore(stores)
    await four.connect(adopt=True)
    await three.save_many([state(one, 9) for one in SYSTEMS])
    assert all([len(await four.get_state_history(one, ALL)) == 4 for one in SYSTEMS])
    with pytest.raises(ConfigurationError, match="the list of all"):
        await three.save_current_state(state("never seen", 0))
    await four.move_system(SYSTEMS[0], "d")
    with pytest.raises(ConfigurationError, match="'d' was added"):
        await three.get_current_state(SYSTEMS[0])
    assert await four.get_current_state(SYSTEMS[0]) == state(SYSTEMS[0], 9)


async def test_an_adoption_that_was_interrupted_is_finished_by_the_next() -> None:
    for steps in range(1, 400):
        stores = memory_stores("abcd")
        async with RoutedDataStore({name: stores[name] for name in "abc"}) as routed:
            await filled(routed)
            before = {one: await routed.store_of(one) for one in SYSTEMS}
        grown = RoutedDataStore(stores)
        for store in stores.values():
            engine_of(store).trouble = engine_of(stores["a"]).trouble
        trouble = engine_of(stores["a"]).trouble
        trouble.arm(steps, is_late=bool(steps % 2))
        try:
            await grown.connect(adopt=True)
        except StoreConnectionError:
            assert trouble.fired
        trouble.left = 0
        await grown.connect(adopt=True)
        assert {one: await grown.store_of(one) for one in SYSTEMS} == before
        assert len(await grown.systems()) == len(SYSTEMS)
        if not trouble.fired:
            return
    pytest.fail("an adoption takes more steps than this test looks at")


async def test_what_stores_had_before_stays_where_it_is() -> None:
    stores = memory_stores("ab")
    for store in stores.values():
        await store.connect()
    await stores["a"].states.save_many([state(one, 0) for one in SYSTEMS[:20]])
    await stores["b"].actions.save(AdaptationAction("a-1", "scale", "only-an-action", created_at=T0))
    async with RoutedDataStore(stores) as routed:
        assert {await routed.store_of(one) for one in SYSTEMS[:20]} == {"a"}
        assert await routed.store_of("only-an-action") == "b"


async def test_a_system_in_two_stores_is_refused() -> None:
    stores = memory_stores("ab")
    for store in stores.values():
        await store.connect()
        await store.states.save_current_state(state("web", 0))
    with pytest.raises(ConfigurationError, match="'web' is in store 'a' and in 'b'"):
        await RoutedDataStore(stores).connect()


async def test_a_store_is_drained_and_removed() -> None:
    stores = memory_stores()
    async with RoutedDataStore(stores) as routed:
        await filled(routed)
        with pytest.raises(ConfigurationError, match="still given new systems"):
            await routed.remove_store("c")
    draining = RoutedDataStore(stores, weights={"c": 0})
    await draining.connect(adopt=True)
    with pytest.raises(ConfigurationError, match="still has systems"):
        await draining.remove_store("c")
    with pytest.raises(ConfigurationError, match="belongs to no system"):
        await draining.remove_store("a")
    for one in SYSTEMS:
        if await draining.store_of(one) == "c":
            await draining.move_system(one, "b")
    await draining.remove_store("c")
    await draining.disconnect()
    async with RoutedDataStore({name: stores[name] for name in "ab"}) as two:
        assert len(await two.systems()) == len(SYSTEMS)
    with pytest.raises(ConfigurationError):
        await RoutedDataStore(stores).connect()


# Units of work


async def test_a_placement_is_recorded_with_the_first_write_and_not_without_it() -> None:
    stores = memory_stores()
    async with RoutedDataStore(stores) as routed:
        home = await routed.store_of("web")
        async with routed.unit_of_work("web") as work:
            await work.states.save(state("web", 0))
        assert await stores[home].documents.count(PLACEMENTS) == 0
        async with routed.unit_of_work("web") as work:
            await work.states.save(state("web", 0))
            await work.commit()
        assert await stores[home].documents.count(PLACEMENTS) == 1
        assert await routed.get_current_state("web") == state("web", 0)


async def test_a_unit_of_work_has_all_of_its_system() -> None:
    async with RoutedDataStore(memory_stores(), series=["m"], documents={"tickets": "about.system"}) as routed:
        async with routed.unit_of_work("web") as work:
            await work.states.save(state("web", 0))
            await work.actions.save(AdaptationAction("a-1", "scale", "web", created_at=T0))
            await work.results.save(ExecutionResult("a-1", ExecutionStatus.SUCCESS, completed_at=T0))
            await work.time_series.store_time_series("m", T0, {"system_id": "web", "cpu": "1"}, {"load": 1})
            await work.documents.insert_document("tickets", {"_id": "t", "about": {"system": "web"}})
            await work.documents.update_document("tickets", "t", {"open": True})
            assert await work.actions.find_by_id("a-1") is not None
            assert len(await work.actions.find_by_system("web")) == 1
            assert len(await work.results.find_by_actions(["a-1"])) == 1
            assert len(await work.documents.find_documents("tickets", {"about.system": "web"})) == 1
            assert len(await work.time_series.query_time_series("m", ALL, {"system_id": "web"})) == 1
            await work.commit()
        await routed.move_system("web", other_than(routed.stores, await routed.store_of("web")))
        found = await routed.read("web", lambda store: store.documents.get_document("tickets", "t"))
        assert found == {"_id": "t", "_version": 2, "about": {"system": "web"}, "open": True}
        points = await routed.read("web", lambda store: store.time_series.query_time_series("m", ALL))
        assert [point.tags["cpu"] for point in points] == ["1"]


async def test_a_unit_of_work_may_touch_another_system_of_its_store_only() -> None:
    async with RoutedDataStore(memory_stores()) as routed:
        await filled(routed)
        mine, other = await two_apart(routed)
        near = next(iter([one for one in SYSTEMS if one != mine and await routed.store_of(one) == "a"]))
        async with routed.unit_of_work(mine) as work:
            await work.states.save(state(near, 7))
            await work.states.save(state(mine, 7))
            await work.commit()
        assert await routed.get_current_state(near) == state(near, 7)
        refused: list[Callable[[RoutedUnitOfWork], Awaitable[object]]] = [
            lambda work: work.states.save(state(other, 7)),
            lambda work: work.states.get_current_state(other),
            lambda work: work.states.get_state_history(other, ALL),
            lambda work: work.states.delete(other),
            lambda work: work.actions.save(AdaptationAction("a-9", "scale", other, created_at=T0)),
            lambda work: work.actions.find_by_system(other),
            lambda work: work.states.systems(),
            lambda work: work.actions.newest(),
            lambda work: work.time_series.store_time_series("loose", T0, {"system_id": mine}, {"v": 1}),
            lambda work: work.time_series.store_time_series("system_states", T0, {}, {"v": 1}),
            lambda work: work.time_series.apply_retention("system_states", T0),
            lambda work: work.documents.delete_documents("adaptation_actions", {"target_system": mine}),
            lambda work: work.documents.insert_document("polaris.placements", {"_id": "x"}),
        ]
        for act in refused:
            with pytest.raises(UnitOfWorkError):
                async with routed.unit_of_work(mine) as work:
                    await act(work)
        assert await routed.get_current_state(other) == state(other, 2)


async def test_what_belongs_to_no_system_is_kept_in_the_shared_store() -> None:
    async with RoutedDataStore(memory_stores(), shared="b") as routed:
        await filled(routed)
        far, near = await two_apart(routed)
        pattern = LearnedPattern("p", "peak", {}, {}, 0.5, T0, 1)
        async with routed.unit_of_work(near) as work:
            await work.patterns.save(pattern)
            await work.dependencies.save(SystemDependency("web", "db", "calls"))
            await work.commit()
        assert await routed.shared.patterns.find_by_id("p") == pattern
        assert routed.shared is routed.stores["b"]
        async with routed.unit_of_work(far) as work:
            with pytest.raises(UnitOfWorkError, match="'b'"):
                await work.patterns.save(pattern)
            with pytest.raises(UnitOfWorkError, match="'b'"):
                await work.dependencies.save(SystemDependency("web", "db", "calls"))


async def test_a_document_does_not_change_its_system_and_does_not_expire() -> None:
    async with RoutedDataStore(memory_stores(), documents={"tickets": "system"}) as routed:
        async with routed.unit_of_work("web") as work:
            await work.documents.insert_document("tickets", {"_id": "t", "system": "web"})
            await work.commit()
        async with routed.unit_of_work("web") as work:
            with pytest.raises(UnitOfWorkError, match="stays with its system"):
                await work.documents.update_document("tickets", "t", {"system": "db"})
            with pytest.raises(UnitOfWorkError, match="expire"):
                await work.documents.put_document("tickets", "u", {"system": "web"}, ttl=timedelta(1))
            with pytest.raises(UnitOfWorkError, match="names its system"):
                await work.documents.insert_document("tickets", {"text": "whose?"})


async def test_a_unit_of_work_that_meets_a_move_is_refused_and_then_done_at_the_new_place() -> None:
    async with RoutedDataStore(memory_stores()) as routed:
        await filled(routed)
        mine, _ = await two_apart(routed)
        async with routed.unit_of_work(mine) as work:
            await work.states.save(state(mine, 50))
            await routed.move_system(mine, "b")
            with pytest.raises(TransactionConflictError):
                await work.commit()
        assert await routed.get_current_state(mine) == state(mine, 2)
        tries: list[str] = []

        async def body(work: RoutedUnitOfWork) -> int:
            tries.append(work.store_name)
            await work.states.save(state(mine, 60))
            if len(tries) == 1:
                await routed.move_system(mine, "c")
            return len(tries)

        assert await routed.in_unit_of_work(mine, body) == 2
        assert tries == ["b", "c"]
        assert await routed.get_current_state(mine) == state(mine, 60)


async def test_wrong_states_are_refused_before_anything_is_done() -> None:
    async with RoutedDataStore(memory_stores()) as routed:
        with pytest.raises(InvalidValueError):
            await routed.save_many([state("web", 0), "no state"])  # type: ignore[list-item] # wrong on purpose
        with pytest.raises(InvalidValueError):
            await routed.get_current_state("")
        with pytest.raises(ConfigurationError):
            await routed.move_system("web", "z")
        with pytest.raises(InvalidValueError):
            await routed.systems(stores=["z"])
        assert await routed.systems() == []
        await routed.save_many([])


# Stores that are away


async def test_one_store_away_holds_up_its_own_systems_only() -> None:
    stores = memory_stores()
    async with RoutedDataStore(stores) as routed:
        await filled(routed)
        near, far = await two_apart(routed)
        engine_of(stores["b"]).is_away = True
        await routed.save_current_state(state(near, 9))
        assert await routed.get_current_state(near) == state(near, 9)
        await routed.in_unit_of_work(near, lambda work: work.states.save(state(near, 10)))
        for asked in (routed.save_current_state(state(far, 9)), routed.get_current_state(far)):
            with pytest.raises(StoreConnectionError, match="'b'"):
                await asked
        with pytest.raises(StoreConnectionError) as raised:
            await routed.save_many([state(one, 11) for one in SYSTEMS])
        assert raised.value.context["stores"] == ["b"]
        there = [one for one in SYSTEMS if await routed.store_of(one) == "b"]
        assert raised.value.context["systems"] == sorted(there)
        for one in SYSTEMS:
            if one not in there:
                assert await routed.get_current_state(one) == state(one, 11)
        engine_of(stores["b"]).is_away = False
        assert await routed.get_current_state(far) == state(far, 2)


async def test_a_question_to_all_names_the_stores_that_did_not_answer() -> None:
    stores = memory_stores()
    async with RoutedDataStore(stores) as routed:
        await filled(routed)
        engine_of(stores["b"]).is_away = True
        for asked in (routed.systems(), routed.aggregate_time_series("system_states", ALL, "count")):
            with pytest.raises(StoreConnectionError) as raised:
                await asked
            assert raised.value.context["stores"] == ["b"]
            assert raised.value.context["answered"] == ["a", "c"]
        there = [one for one in SYSTEMS if await routed.store_of(one) == "b"]
        answering = raised.value.context["answered"]
        assert [one.system_id for one in await routed.systems(stores=answering)] == sorted(set(SYSTEMS) - set(there))
        (point,) = await routed.aggregate_time_series("system_states", ALL, "count", stores=answering)
        assert point.value == 3 * (len(SYSTEMS) - len(there))


async def test_a_store_that_never_answers_counts_as_away() -> None:
    stores = memory_stores()
    routed = RoutedDataStore(stores, answer_s_max=0.02)
    async with routed:
        await filled(routed)
        never = asyncio.Event()

        async def hang(_: object) -> None:
            await never.wait()

        engine_of(stores["c"])._around = hang  # type: ignore[method-assign,assignment] # a frozen server
        with pytest.raises(StoreConnectionError, match="did not answer within") as raised:
            await routed.systems()
        assert raised.value.context["stores"] == ["c"]


async def test_a_node_starts_while_a_store_is_away_and_uses_it_when_it_is_back() -> None:
    stores = memory_stores()
    async with RoutedDataStore(stores) as routed:
        await filled(routed)
        near, far = await two_apart(routed)
    engine_of(stores["b"]).is_away = True
    async with RoutedDataStore(stores) as routed:
        assert await routed.get_current_state(near) == state(near, 2)
        with pytest.raises(StoreConnectionError, match="'b'"):
            await routed.get_current_state(far)
        await routed.move_system(near, "c")
        engine_of(stores["b"]).is_away = False
        with pytest.raises(StoreConnectionError, match="a moment ago"):
            await routed.get_current_state(far)
        routed._book._down.clear()  # as if half a second had passed
        assert await routed.get_current_state(far) == state(far, 2)


async def test_the_first_start_needs_all_stores() -> None:
    stores = memory_stores()
    engine_of(stores["b"]).is_away = True
    with pytest.raises(StoreConnectionError, match="'b'"):
        await RoutedDataStore(stores).connect()
    assert not any(store.is_connected for store in stores.values())


async def test_a_system_is_found_while_the_store_that_the_hash_names_is_away() -> None:
    stores = memory_stores()
    async with RoutedDataStore(stores) as routed:
        await filled(routed)
        moved = await in_store(routed, "b")
        await routed.move_system(moved, "c")
    engine_of(stores["b"]).is_away = True
    async with RoutedDataStore(stores) as routed:
        assert await routed.store_of(moved) == "c"
        assert len(await routed.get_state_history(moved, ALL)) == 3
        with pytest.raises(StoreConnectionError, match="'b'"):
            await routed.store_of(next(f"x-{n}" for n in range(99) if routed._book.hashed(f"x-{n}") == "b"))


# Moves


async def test_moving_to_where_it_is_does_nothing_and_back_again_works() -> None:
    async with RoutedDataStore(memory_stores()) as routed:
        await filled(routed)
        mine = SYSTEMS[0]
        home = await routed.store_of(mine)
        await routed.move_system(mine, home)
        for to in ("a", "b", "c", "a", "c", home):
            await routed.move_system(mine, to)
            assert await routed.store_of(mine) == to
            assert len(await routed.get_state_history(mine, ALL)) == 3
            assert await routed.moves() == {}


async def _put(count: int, work: RoutedUnitOfWork) -> None:
    await work.documents.put_document("tickets", "t", {"system": "web", "n": count})


async def test_versions_of_documents_never_go_back() -> None:
    async with RoutedDataStore(memory_stores(), documents={"tickets": "system"}) as routed:
        for count in range(7):
            await routed.in_unit_of_work(
                "web",
                partial(_put, count),
            )
        for to in ("a", "b", "c", "a"):
            await routed.move_system("web", to)
            found = await routed.read("web", lambda store: store.documents.get_document("tickets", "t"))
            assert found is not None
            assert found["_version"] == 7
            assert found["n"] == 6


async def test_a_move_between_other_stores_is_refused_while_one_is_under_way_and_may_be_given_up() -> None:
    stores = memory_stores()
    async with RoutedDataStore(stores) as routed:
        await filled(routed)
        mine = await in_store(routed, "a")
        trouble = engine_of(stores["b"]).trouble
        trouble.arm(6, is_late=False)
        with pytest.raises(StoreConnectionError):
            await routed.move_system(mine, "b")
        (move,) = (await routed.moves()).items()
        assert move[0] == mine
        assert move[1][:2] == ("a", "b")
        with pytest.raises(ConflictError):
            await routed.move_system(mine, "c")
        await routed.save_current_state(state(mine, 30))
        await routed.abandon_move(mine)
        assert await routed.moves() == {}
        assert await stores["b"].states.get_state_history(mine, ALL) == []
        assert len(await routed.get_state_history(mine, ALL)) == 4
        with pytest.raises(ConflictError):
            await routed.abandon_move(mine)
        await routed.move_system(mine, "c")
        assert len(await routed.get_state_history(mine, ALL)) == 4


async def test_a_history_of_several_slices_moves_whole() -> None:
    async with RoutedDataStore(memory_stores()) as routed:
        states = [state("web", second, second, unit=f"u{second % 3}") for second in range(5_000)]
        await routed.save_many(states)
        to = other_than(routed.stores, await routed.store_of("web"))
        await routed.move_system("web", to)
        assert await routed.get_state_history("web", ALL) == states
        span = TimeRange(T0, states[10].timestamp)
        assert len(await routed.get_state_history("web", span)) == 10


async def test_history_of_which_only_rollups_are_left_is_not_lost_unasked() -> None:
    async with RoutedDataStore(memory_stores()) as routed:
        policy = RetentionPolicy(timedelta(minutes=5), [RollupPolicy(timedelta(minutes=1))])
        await routed.set_retention("system_states", policy)
        await routed.save_many([state("web", second, second) for second in range(0, 1_200, 10)])
        to = other_than(routed.stores, await routed.store_of("web"))
        await routed.move_system("web", to)
        assert len(await routed.get_state_history("web", ALL)) == 120
        await routed.stores[to].time_series.apply_retention("system_states", T0 + timedelta(minutes=10))
        with pytest.raises(ConflictError, match="drop_rollups"):
            await routed.move_system("web", other_than(routed.stores, to))
        assert await routed.moves() == {}
        (point,) = await routed.aggregate_time_series("system_states", ALL, "count", fields=["x"])
        assert point.value == 120
        await routed.move_system("web", other_than(routed.stores, to), drop_rollups=True)
        (point,) = await routed.aggregate_time_series("system_states", ALL, "count", fields=["x"])
        assert point.value == 60


async def test_a_system_that_moves_between_two_answers_is_counted_once() -> None:
    stores = memory_stores("ab")
    async with RoutedDataStore(stores) as routed:
        await filled(routed)
        mine, _ = await two_apart(routed)
        late = engine_of(stores["b"])
        reached, moved = asyncio.Event(), asyncio.Event()
        around, calls = late._around, 0

        async def wait_for_the_move(act: Callable[[], Awaitable[object]]) -> object:
            nonlocal calls
            calls += 1
            if calls == 2:  # the first reads what is recorded of moves, the second answers
                reached.set()
                await moved.wait()
            return await around(act)

        late._around = wait_for_the_move  # type: ignore[method-assign] # a store that takes its time
        question = asyncio.create_task(routed.aggregate_time_series("system_states", ALL, "count", fields=["x"]))
        await reached.wait()
        await routed.move_system(mine, "b")
        moved.set()
        (point,) = await question
        assert point.value == 3 * len(SYSTEMS)
