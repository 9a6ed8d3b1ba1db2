"""What the tests of routing share: engines that fail or take their time, stores made of them, and their content."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, TypeVar

from polaris.domain import MetricValue, SystemState
from polaris.exceptions import StoreConnectionError
from polaris.storage import InMemoryEngine, PolarisDataStore, TimeRange
from polaris.storage._operation import Operation
from polaris.storage._placement import MARKS, PLACEMENTS, PROGRESS
from polaris.storage._routing import RoutedDataStore
from polaris.storage.backends.shared import Step

T = TypeVar("T")
T0 = datetime(2030, 1, 1, tzinfo=UTC)
ALL = TimeRange.all()


class Trouble:
    """Lets one operation of some engines fail, before it is done or after, counted over all of them."""

    def __init__(self) -> None:
        self.left = 0
        self.is_late = False
        self.fired = False

    def arm(self, nth: int, *, is_late: bool) -> None:
        self.left, self.is_late, self.fired = nth, is_late, False

    def strikes(self) -> bool:
        if self.left:
            self.left -= 1
            if self.left == 0:
                self.fired = True
                return True
        return False


class Pause:
    """Lets the task that has it as `PAUSE`, and nobody else, wait before its n-th operation until it is let go."""

    def __init__(self, nth: int) -> None:
        self.left = nth
        self.reached = asyncio.Event()
        self.over = asyncio.Event()

    async def step(self) -> None:
        self.left -= 1
        if self.left == 0:
            self.reached.set()
            await self.over.wait()


PAUSE: ContextVar[Pause | None] = ContextVar("PAUSE", default=None)


class TroubledEngine(InMemoryEngine):
    """An engine in memory that fails when it is told to, is away when it is told to, and lets others in between."""

    def __init__(self, trouble: Trouble | None = None, random: Random | None = None) -> None:
        super().__init__()
        self.trouble = trouble or Trouble()
        self.random = random
        self.is_away = False

    async def connect(self) -> None:
        if self.is_away:
            raise StoreConnectionError("away")
        await super().connect()

    async def _around(self, act: Callable[[], Any]) -> Any:
        for _ in range(self.random.randint(0, 4) if self.random else 0):
            await asyncio.sleep(0)
        pause = PAUSE.get()
        if pause is not None:
            await pause.step()
        strikes = self.trouble.strikes()
        if self.is_away or (strikes and not self.trouble.is_late):
            raise StoreConnectionError("the connection was lost before it was done")
        result = await act()
        if strikes:
            raise StoreConnectionError("the connection was lost, and nobody knows whether it was done")
        return result

    async def execute(self, operation: Operation[T]) -> T:
        result: T = await self._around(lambda: super(TroubledEngine, self).execute(operation))
        return result

    async def rehearse(self, steps: Sequence[Step]) -> Any:
        return await self._around(lambda: super(TroubledEngine, self).rehearse(steps))

    async def apply(self, steps: Sequence[Step], on_commit: Callable[[], None]) -> None:
        await self._around(lambda: super(TroubledEngine, self).apply(steps, on_commit))


def memory_stores(names: str = "abc", trouble: Trouble | None = None, random: Random | None = None) -> dict[str, Any]:
    """Stores in memory by name."""
    return {name: PolarisDataStore(TroubledEngine(trouble, random)) for name in names}


def engine_of(store: PolarisDataStore) -> TroubledEngine:
    """The engine of such a store."""
    (engine,) = store.engines
    assert isinstance(engine, TroubledEngine)
    return engine


def state(system_id: str, second: float, value: float = 1.0, unit: str | None = "s") -> SystemState:
    """A state of one metric."""
    metrics = {"x": MetricValue("x", value, unit=unit)}
    return SystemState(system_id, T0 + timedelta(seconds=second), metrics)


def other_than(stores: Mapping[str, object], name: str) -> str:
    """The first other store."""
    return next(one for one in sorted(stores) if one != name)


async def check_tidy(routed: RoutedDataStore, systems: Sequence[str]) -> None:
    """Everything of a system is in its own store, nothing of it elsewhere, and no move has left anything behind."""
    assert await routed.moves() == {}
    for system_id in systems:
        home = await routed.store_of(system_id)
        for name, store in routed.stores.items():
            if name != home:
                assert await store.states.get_state_history(system_id, ALL) == []
                assert await store.actions.find_by_system(system_id) == []
                assert await store.documents.count("execution_results", {"target_system": system_id}) == 0
                assert await store.time_series.list_series("system_states", {"system_id": system_id}) == []
        here = [
            name
            for name, store in routed.stores.items()
            if await store.documents.count(PLACEMENTS, {"system_id": system_id, "at": name})
        ]
        assert here in ([home], [])
    for name, store in routed.stores.items():
        assert await store.documents.count(MARKS) == 0, name
        assert await store.documents.count(PROGRESS) == 0, name
        document = await store.documents.get_document("polaris.routing", "store")
        assert document is not None
        assert document["moves"] == {}
