"""What the fault tests do to retention: acts of several transactions, and the content that each of these leaves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from polaris.clock import SYSTEM_CLOCK
from polaris.storage import PolarisDataStore, RetentionPolicy, RollupPolicy, TimeRange, TimeSeriesPoint
from polaris.storage._operation import Operation

Act = Callable[[PolarisDataStore], Awaitable[object]]
Attempt = Callable[[Callable[[], Awaitable[Any]], int], Awaitable[tuple[bool | None, Any]]]
"""Tries a transaction for the n-th time; whether it was done (None when that is not told), and its result."""

T0 = datetime(2030, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
POINTS = 16
"""Of each series, one every 30 seconds: eight minutes."""
ROWS_MAX = 9
"""Rows of one transaction, so that an act takes several, and takes windows apart."""
POLICIES = {
    "united": RetentionPolicy(MINUTE, [RollupPolicy(MINUTE, 3 * MINUTE), RollupPolicy(2 * MINUTE)]),
    "dropped": RetentionPolicy(MINUTE, [RollupPolicy(MINUTE, 3 * MINUTE)]),
    "points": RetentionPolicy(5 * MINUTE),
}
EXACT = ("count", "sum", "min", "max", "first", "last", "increase")


class MovedClock:
    """A clock whose wall time the test sets."""

    def __init__(self, time: datetime = T0) -> None:
        self.time = time

    def now(self) -> datetime:
        return self.time

    monotonic = staticmethod(SYSTEM_CLOCK.monotonic)
    sleep = staticmethod(SYSTEM_CLOCK.sleep)


async def prepare(store: PolarisDataStore) -> None:
    """Three collections with policies and points, none of them old at T0."""
    for name, policy in POLICIES.items():
        await store.time_series.set_retention(name, policy)
        await store.time_series.store_many(
            name,
            [
                TimeSeriesPoint(T0 + n * MINUTE / 2, {"h": host}, {"v": n, "text": "t"})
                for n in range(POINTS)
                for host in "ab"
            ],
        )


def make_old(store: PolarisDataStore) -> None:
    """Let eight minutes pass: only the newest point of each series is not old."""
    store.engines[0].clock.time = T0 + POINTS * MINUTE / 2  # type: ignore[attr-defined] # the clock above


async def content(store: PolarisDataStore, names: Iterable[str] = POLICIES) -> dict[str, Any]:
    """What is known of collections: points, what is newest, aggregates over points and rollups, policies.

    Cells of a minute show in which windows the rollups are, those of two minutes are the same whatever is retired.
    """
    found: dict[str, Any] = {}
    series = store.time_series
    for name in names:
        found[f"{name} points"] = await series.query_time_series(name, TimeRange.all())
        found[f"{name} newest"] = await series.latest(name)
        found[f"{name} series"] = await series.list_series(name)
        found[f"{name} policy"] = await series.get_retention(name)
        for minutes in (1, 2):
            found[f"{name} cells of {minutes}"] = await series.aggregate_many(
                name, TimeRange(T0, T0 + 60 * MINUTE), EXACT, "h", bucket=minutes * MINUTE
            )
    return found


def united(found: dict[str, Any]) -> list[Any]:
    """The aggregates that no retention changes."""
    cells: list[Any] = found["united cells of 2"]
    return cells


async def retire_and_unite(store: PolarisDataStore) -> None:
    await store.time_series.apply_retention("united")


async def retire_and_drop(store: PolarisDataStore) -> None:
    await store.time_series.apply_retention("dropped")


async def drop_points(store: PolarisDataStore) -> None:
    await store.time_series.apply_retention("points")


async def delete_series(store: PolarisDataStore) -> None:
    """With points and with rollups."""
    await store.time_series.apply_retention("united", T0 + 3 * MINUTE)
    await store.time_series.delete_series("united", {"h": "a"})
    await store.time_series.delete_series("points")


async def delete_windows(store: PolarisDataStore) -> None:
    """A range with points and with rollups."""
    await store.time_series.apply_retention("united", T0 + 3 * MINUTE)
    await store.time_series.delete_range("united", TimeRange(T0 + MINUTE, T0 + 5 * MINUTE))


async def change_policies(store: PolarisDataStore) -> None:
    await store.time_series.apply_retention("united", T0 + 3 * MINUTE)
    await store.time_series.set_retention("united", RetentionPolicy(5 * MINUTE, [RollupPolicy(2 * MINUTE)]))
    await store.time_series.set_retention("new", RetentionPolicy(MINUTE))


async def store_late(store: PolarisDataStore) -> None:
    """Points beside rollups of the same windows, which follow them then."""
    await store.time_series.apply_retention("united", T0 + 3 * MINUTE)
    late = [TimeSeriesPoint(T0 + n * MINUTE / 4 + MINUTE / 7, {"h": "a"}, {"v": 7}) for n in range(12)]
    await store.time_series.store_many("united", late)
    await store.time_series.apply_retention("united")


ACTS: dict[Act, tuple[str, ...]] = {
    retire_and_unite: ("united",),
    retire_and_drop: ("dropped",),
    drop_points: ("points",),
    delete_series: ("united", "points"),
    delete_windows: ("united",),
    change_policies: ("united", "new"),
    store_late: ("united",),
}
"""And the collections that they change."""


class Stubborn:
    """A store's engine whose transactions are tried in a way of the test's own, again and again until they are done.

    `states` are those that a sound store goes through: what a transaction that was not done leaves is the state from
    before it, and one that was done leaves the next. When that is not told, either must be the case.
    """

    def __init__(self, store: PolarisDataStore, act: Act, states: list[dict[str, Any]], attempt: Attempt) -> None:
        self._store = store
        self._names = ACTS[act]
        self._engine = cast(Any, store.engines[0])
        self._execute = self._engine.execute
        self._states = states
        self._attempt = attempt
        self.at = 0
        """The state in which the store is."""
        self.attempts = 0
        self._engine.execute = self._stubborn

    async def _stubborn(self, operation: Operation[Any]) -> Any:
        if not operation.mutates:
            return await self._execute(operation)
        is_again = False  # done, without being told so: to do it again may do nothing
        for nth in range(1, 10_000):
            self.attempts += 1
            done, result = await self._attempt(lambda: self._execute(operation), nth)
            # Nobody else must see the content as it is while somebody tries to change it.
            self._engine.execute = self._execute
            found = await content(self._store, self._names)
            self._engine.execute = self._stubborn
            was = self.at
            self._find(found, [True, None] if is_again and done else [done])
            is_again |= self.at > was
            if done is True:
                return result
        raise AssertionError("it is never done")

    def _find(self, found: dict[str, Any], outcomes: list[bool | None]) -> None:
        here, following = self._states[self.at], self._states[min(self.at + 1, len(self._states) - 1)]
        expected = [state for state, is_done in ((here, True), (following, False)) if outcomes != [is_done]]
        differing = [name for name in found if found[name] != expected[-1][name]]
        assert found in expected, f"transaction {self.at + 1}, outcome {outcomes}, differs in {differing}"
        if found == following and (outcomes[0] or found != here):
            self.at = min(self.at + 1, len(self._states) - 1)

    def release(self) -> None:
        self._engine.execute = self._execute


async def states_of(act: Act, store: PolarisDataStore) -> list[dict[str, Any]]:
    """Do it on a prepared store; the content before it, and after each of its transactions."""
    make_old(store)
    states = [await content(store, ACTS[act])]
    engine = cast(Any, store.engines[0])
    execute = engine.execute

    async def watched(operation: Operation[Any]) -> Any:
        result = await execute(operation)
        if operation.mutates:
            engine.execute = execute
            states.append(await content(store, ACTS[act]))
            engine.execute = watched
        return result

    engine.execute = watched
    await act(store)
    engine.execute = execute
    return states
