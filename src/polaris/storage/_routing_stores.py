"""The stores that a routed store is made of: their life, and the list that they record."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import TracebackType
from typing import Self

import msgspec

from polaris.clock import Clock
from polaris.exceptions import ConfigurationError, StoreConnectionError
from polaris.storage._backend import StoreHealth
from polaris.storage._data_store import PolarisDataStore
from polaris.storage._placement import StoreList
from polaris.storage._placement_book import PlacementBook
from polaris.storage._placement_list import adopt as adopt_list
from polaris.storage._placement_list import check, drop, prepare, read_record
from polaris.storage._placement_steps import named
from polaris.storage._rollups import RetentionPolicy
from polaris.storage._routing_fanout import asked


class RoutedStores:
    """Several stores that know of each other. Connected together; each may be away for itself."""

    def __init__(
        self,
        stores: Mapping[str, PolarisDataStore],
        listing: StoreList,
        *,
        is_shared_given: bool,
        answer_s_max: float,
        clock: Clock,
    ) -> None:
        self.stores: Mapping[str, PolarisDataStore] = dict(stores)
        self._is_shared_given = is_shared_given
        self._answer_s_max = answer_s_max
        self._clock = clock
        self._book = PlacementBook(stores, listing, clock)
        self._changing = asyncio.Lock()

    async def connect(self, *, adopt: bool = False) -> None:
        """Connect the stores and check that they are the recorded ones. Idempotent; failing, it leaves none open.

        The first list ever is recorded, and systems that the stores have already are placed where they are. Later a
        store that does not answer is passed over as long as another one does; it is tried again when it is needed.

        `adopt` makes this list the recorded one: to add stores or to change weights. All must answer. Nodes that run
        with the former list go on with the systems that are placed, and place no new ones: restart them one by one.
        Interrupted, it has to be repeated before any other node can start.

        Raises `ConfigurationError` with every difference between this list and the recorded one.
        """
        async with self._changing:
            if self._book.is_open:
                return
            before = [store for store in self.stores.values() if store.is_connected]
            try:
                await self._connect(adopt=adopt)
                self._book.is_open = True
            except BaseException:  # boundary: undone, then raised again
                for store in self.stores.values():
                    if store.is_connected and store not in before:
                        await store.disconnect()
                raise

    async def _connect(self, *, adopt: bool) -> None:
        away: dict[str, StoreConnectionError] = {}
        for name, store in self.stores.items():
            try:
                with named(name):
                    async with asyncio.timeout(self._answer_s_max):
                        await store.connect()
            except (StoreConnectionError, TimeoutError) as error:
                failure = error if isinstance(error, StoreConnectionError) else _slow(name, self._answer_s_max)
                away[name] = failure
        here = {name: store for name, store in self.stores.items() if name not in away}
        if not here or (adopt and away):
            raise next(iter(away.values()))
        await self._know_shared(here)
        if adopt:
            await adopt_list(here, self._book.wanted)
        await check(here, away, self._book.wanted)
        for name, store in here.items():
            if not store.engines[0].read_only:
                await prepare(store, name, self._book.wanted)

    async def _know_shared(self, here: Mapping[str, PolarisDataStore]) -> None:
        if not self._is_shared_given:
            for name, store in here.items():
                record = await read_record(store, name)
                if record is not None:
                    self._book.wanted = msgspec.structs.replace(self._book.wanted, shared=record.stores.shared)
                    return

    async def disconnect(self) -> None:
        """Finish what was accepted and close every store, whatever fails; the first failure is raised. Idempotent."""
        async with self._changing:
            self._book.is_open = False
            outcomes = await asyncio.gather(
                *(store.disconnect() for store in self.stores.values()), return_exceptions=True
            )
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.disconnect()

    @property
    def is_connected(self) -> bool:
        """Whether it was connected; single stores may be away all the same."""
        return self._book.is_open

    @property
    def shared(self) -> PolarisDataStore:
        """The store for what belongs to no system: dependencies and patterns."""
        return self.stores[self._book.wanted.shared]

    async def set_retention(self, collection: str, policy: RetentionPolicy) -> None:
        """Set the same policy in every store. Idempotent: repeat it when a store did not answer."""
        await asked(
            self._book,
            tuple(self.stores),
            lambda _, store: store.time_series.set_retention(collection, policy),
            self._answer_s_max,
        )

    async def remove_store(self, name: str) -> None:
        """Take a store without systems out of the list of all, having given it the weight 0 (`connect(adopt=True)`).

        Afterwards nodes are to be started without it. Raises `ConfigurationError` with what is in the way.
        """
        if name not in self.stores:
            raise ConfigurationError(f"store {name!r} is none of {', '.join(sorted(self.stores))}")
        await asked(self._book, tuple(self.stores), lambda one, _: self._book.refresh(one), self._answer_s_max)
        await drop(self.stores, name)

    async def health(self) -> dict[str, StoreHealth]:
        """The health of every store by its name; never raises."""
        names = list(self.stores)
        return dict(zip(names, await asyncio.gather(*(self.stores[name].health() for name in names)), strict=True))

    async def stats(self) -> dict[str, dict[str, dict[str, int | float]]]:
        """The statistics of every store that is connected, by its name."""
        return {name: await store.stats() for name, store in self.stores.items() if store.is_connected}


def _slow(name: str, answer_s_max: float) -> StoreConnectionError:
    return StoreConnectionError(f"store {name!r} did not answer within {answer_s_max} s", {"store": name})
