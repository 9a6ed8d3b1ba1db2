"""Several stores are as one: aggregates equal a single store's, and no move loses, doubles or hides a write."""

from __future__ import annotations

import asyncio
import math
from datetime import timedelta
from functools import partial
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.routed_stores import ALL, T0, check_tidy, memory_stores, state

from polaris.domain import AdaptationAction
from polaris.exceptions import ConflictError
from polaris.storage import PolarisDataStore, TimeRange, TimeSeriesPoint
from polaris.storage._routing import RoutedDataStore
from polaris.storage._routing_work import RoutedUnitOfWork

SECOND = timedelta(seconds=1)
NAMES = ["avg", "sum", "min", "max", "count", "first", "last", "stddev", "median", "p90", "p99.5", "rate", "increase"]

Key = tuple[str, int]

SYSTEMS = st.sampled_from([f"s{number}" for number in range(8)])
VALUES = st.one_of(
    st.integers(-100, 100), st.floats(-1e6, 1e6), st.none(), st.booleans(), st.sampled_from(["text", 2**62])
)
POINTS = st.builds(
    lambda system, second, zone, fields: TimeSeriesPoint(
        T0 + second * SECOND, {"system_id": system} | ({"zone": zone} if zone else {}), fields
    ),
    SYSTEMS,
    st.integers(0, 40),
    st.sampled_from(["", "x", "y"]),
    st.dictionaries(st.sampled_from(["v", "w"]), VALUES, min_size=1, max_size=2),
)


def alike(one: Any, other: Any) -> bool:
    if isinstance(one, (int, float)) and isinstance(other, (int, float)):
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-6)
    return bool(one == other)


@settings(max_examples=120, deadline=None)
@given(
    st.lists(POINTS, max_size=40),
    st.lists(st.sampled_from(NAMES), min_size=1, max_size=6, unique=True),
    st.sampled_from([None, "system_id", "zone", ["zone", "system_id"]]),
    st.sampled_from([None, timedelta(seconds=7), "day"]),
    st.sampled_from([None, {"zone": "x"}, {"system_id": {"$in": ["s1", "s2", "s3"]}}, {"system_id": "s1"}]),
    st.sampled_from(["none", "previous", "linear"]),
    st.booleans(),
)
def test_aggregates_of_several_stores_equal_those_of_one(
    points: list[TimeSeriesPoint], names: list[str], group_by: Any, bucket: Any, tags: Any, fill: str, is_moving: bool
) -> None:
    async def run() -> None:
        one = PolarisDataStore.memory()
        options: dict[str, Any] = {"group_by": group_by, "bucket": bucket, "tags": tags}
        if bucket is not None:
            options["fill"] = fill
        span = TimeRange(T0 + 2 * SECOND, T0 + 38 * SECOND)
        async with one, RoutedDataStore(memory_stores(), series=["m"]) as routed:
            await one.time_series.store_many("m", points)
            for point in points:
                await routed.in_unit_of_work(point.tags["system_id"], partial(_store, point))
            moving = asyncio.create_task(_move_about(routed)) if is_moving else None
            expected = await one.time_series.aggregate_many("m", span, names, **options)
            found = await routed.aggregate_many("m", span, names, **options)
            if moving is not None:
                moving.cancel()
                await asyncio.wait([moving])
            assert [(row.timestamp, row.field, row.tags, row.count) for row in found] == [
                (row.timestamp, row.field, row.tags, row.count) for row in expected
            ]
            for ours, theirs in zip(found, expected, strict=True):
                assert list(ours.values) == list(theirs.values)
                for name in names:
                    assert alike(ours.values[name], theirs.values[name]), (name, ours, theirs)
            for name in names:
                ours_plain = await routed.aggregate_time_series("m", span, name, **options)
                theirs_plain = await one.time_series.aggregate_time_series("m", span, name, **options)
                assert len(ours_plain) == len(theirs_plain)

    asyncio.run(run())


async def _store(point: TimeSeriesPoint, work: RoutedUnitOfWork) -> None:
    await work.time_series.store_many("m", [point])


async def _actions(system_id: str, store: PolarisDataStore) -> list[AdaptationAction]:
    return await store.actions.find_by_system(system_id)


async def _move_about(routed: RoutedDataStore) -> None:
    """One move, so that the question meets it at some step of it."""
    await routed.move_system("s1", "a")
    await routed.move_system("s1", "b")


class Told:
    """What was acknowledged to the writers, and which keys were being written when."""

    def __init__(self) -> None:
        self.states: dict[Key, float] = {}
        self.actions: dict[str, str] = {}
        self._pending: list[Key] = []
        self._touched: list[Key] = []

    def begin(self, keys: list[Key]) -> None:
        self._pending += keys
        self._touched += keys

    def end(self, keys: list[Key], value: float | None) -> None:
        for key in keys:
            self._pending.remove(key)
            if value is None:
                self.states.pop(key, None)
            else:
                self.states[key] = value

    def look(self) -> tuple[dict[Key, float], list[Key], int]:
        return dict(self.states), list(self._pending), len(self._touched)

    def since(self, looked: tuple[dict[Key, float], list[Key], int]) -> tuple[dict[Key, float], set[Key]]:
        """What nobody has written since then, with what it was then, and everything that somebody has."""
        states, pending, place = looked
        touched = {*pending, *self._touched[place:]}
        return {key: value for key, value in states.items() if key not in touched}, touched

    def of(self, system_id: str) -> dict[int, float]:
        return {second: value for (one, second), value in self.states.items() if one == system_id}


async def _write(routed: RoutedDataStore, told: Told, writer: int, random: Random, systems: list[str]) -> None:
    """Writes, overwrites and deletes at seconds of its own; tells what was acknowledged."""
    for turn in range(25):
        chosen = random.sample(systems, random.randint(1, len(systems)))
        second = random.randrange(12) * 2 + writer + random.choice([0, 1_000, 100_000])
        value = float(turn * 10 + writer)
        kind = random.randrange(4)
        keys = [(system_id, second) for system_id in chosen]
        if kind <= 1:
            told.begin(keys)
            await routed.save_many([state(system_id, second, value, f"u{turn % 3}") for system_id in chosen])
            told.end(keys, value)
        elif kind == 2:
            keys = keys[:1]
            told.begin(keys)
            span = TimeRange(T0 + second * SECOND, T0 + second * SECOND + timedelta(microseconds=1))

            async def delete(work: RoutedUnitOfWork, key: str = keys[0][0], span: TimeRange = span) -> None:
                await work.time_series.delete_range("system_states", span, {"system_id": key})

            await routed.in_unit_of_work(chosen[0], delete, attempts_max=50)
            told.end(keys, None)
        else:
            action_id = f"a-{writer}-{random.randrange(6)}-{chosen[0]}"
            gone = random.random() < 0.3

            async def act(work: RoutedUnitOfWork, key: str = chosen[0], one: str = action_id, no: bool = gone) -> None:
                if no:
                    await work.actions.delete(one)
                else:
                    await work.actions.save(AdaptationAction(one, "scale", key, created_at=T0))

            await routed.in_unit_of_work(chosen[0], act, attempts_max=50)
            if gone:
                told.actions.pop(action_id, None)
            else:
                told.actions[action_id] = chosen[0]


async def _read(routed: RoutedDataStore, told: Told, random: Random, systems: list[str], done: asyncio.Event) -> None:
    """Everything that was acknowledged is seen at every moment, and nothing that nobody wrote."""
    while not done.is_set():
        system_id = random.choice(systems)
        looked = told.look()
        history = await routed.get_state_history(system_id, ALL)
        seen = {(system_id, round((one.timestamp - T0).total_seconds())): one.metrics["x"].value for one in history}
        assert len(seen) == len(history)
        quiet, touched = told.since(looked)
        assert {key: value for key, value in seen.items() if key not in touched} == {
            key: value for key, value in quiet.items() if key[0] == system_id
        }


async def _count(routed: RoutedDataStore, told: Told, done: asyncio.Event) -> None:
    """A question to all stores counts every system once, also while it moves."""
    while not done.is_set():
        looked = told.look()
        points = await routed.aggregate_time_series("system_states", ALL, "count", fields=["x"])
        quiet, touched = told.since(looked)
        count = sum(int(point.value or 0) for point in points)
        assert len(quiet) <= count <= len(quiet) + len(touched)
        listed = [one.system_id for one in await routed.systems()]
        assert len(set(listed)) == len(listed)
        await asyncio.sleep(0)


async def _move(routed: RoutedDataStore, random: Random, systems: list[str], done: asyncio.Event) -> None:
    """Moves systems to and fro, gives up now and then, and resumes what it left."""
    while not done.is_set():
        task = asyncio.create_task(routed.move_system(random.choice(systems), random.choice("abc")))
        if random.random() < 0.4:
            for _ in range(random.randint(0, 150)):
                await asyncio.sleep(0)
            task.cancel()
        await asyncio.wait([task])
        if not task.cancelled() and task.exception() is not None:
            assert isinstance(task.exception(), ConflictError)
            await routed.resume_moves()
    await routed.resume_moves()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32))
def test_whatever_is_written_while_systems_move_is_there_once(seed: int) -> None:
    async def run() -> None:
        random = Random(seed)
        systems = ["web", "db", "mail"]
        told = Told()
        async with RoutedDataStore(memory_stores(random=random)) as routed:
            done = asyncio.Event()
            others = [
                asyncio.create_task(_move(routed, random, systems, done)),
                asyncio.create_task(_read(routed, told, random, systems, done)),
                asyncio.create_task(_count(routed, told, done)),
            ]
            try:
                await asyncio.gather(*[_write(routed, told, writer, random, systems) for writer in range(2)])
            finally:
                done.set()
                await asyncio.gather(*others)
            for system_id in systems:
                history = await routed.get_state_history(system_id, ALL)
                found = [(round((one.timestamp - T0).total_seconds()), one.metrics["x"].value) for one in history]
                assert found == sorted(told.of(system_id).items())
                newest = await routed.get_current_state(system_id)
                assert newest == (history[-1] if history else None)
                actions = await routed.read(system_id, partial(_actions, system_id))
                assert sorted(action.action_id for action in actions) == sorted(
                    action_id for action_id, owner in told.actions.items() if owner == system_id
                )
            await check_tidy(routed, systems)

    asyncio.run(run())
