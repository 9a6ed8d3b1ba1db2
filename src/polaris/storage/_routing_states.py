"""Writing the states of many systems of one store at once, behind the same repository as everywhere."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from polaris.domain import SystemState
from polaris.exceptions import (
    ConflictError,
    DataStoreError,
    InvalidValueError,
    StoreConnectionError,
    StoreFullError,
    TransactionConflictError,
)
from polaris.storage._backend import StorageTransaction
from polaris.storage._data_store import PolarisDataStore
from polaris.storage._limits import BATCH_POINTS_MAX
from polaris.storage._placement import PLACEMENTS, Placement, document_of
from polaris.storage._placement_book import KnownRecord, Place, PlacementBook
from polaris.storage._placement_marks import ALL_TIME, Mark, make_marks, windows_of
from polaris.storage._placement_steps import named
from polaris.storage._points import TimeSeriesPoint
from polaris.storage._ranges import to_micros
from polaris.storage._routing_passing import PassingTimeSeries
from polaris.storage._timeseries import TimeSeriesStorageBackend
from polaris.storage._turns import in_turns
from polaris.storage.repositories import SystemStateRepository
from polaris.storage.repositories._state_codec import SYSTEM_TAG
from polaris.storage.repositories._states import STATES

ATTEMPTS_MAX = 20
SYSTEMS_NAMED_MAX = 100
MARKS_MAX = 1_000
"""Marks that one write makes; a write that would make more marks all of time of its systems."""


class RoutedStates(PassingTimeSeries):
    """The time series of a store; states are written only while their systems are in this store.

    Raises `TransactionConflictError` with nothing written when one of them is elsewhere, or was moved meanwhile.
    """

    def __init__(self, inner: TimeSeriesStorageBackend, book: PlacementBook, name: str) -> None:
        super().__init__(inner)
        self._book = book
        self._name = name

    async def store_many(self, collection: str, points: Sequence[TimeSeriesPoint]) -> None:
        port = cast(TimeSeriesStorageBackend, self.inner)
        if collection != STATES or not points:
            await port.store_many(collection, points)
            return
        systems = {point.tags[SYSTEM_TAG] for point in points}
        places = await self._book.writable(systems)
        async with port.engine.transaction() as transaction:
            known = await self._book.enter(transaction, self._name)
            if known is None or not all(self._is_here(places[system_id], known) for system_id in systems):
                raise TransactionConflictError("a system is in another store now")
            await transaction.time_series.store_many(STATES, points)
            new = sorted(system_id for system_id in systems if cast(Place, places[system_id]).version == 0)
            await self._place(transaction, new)
            if known.record.moves:
                await make_marks(transaction, _marks(known, points))
            await transaction.commit()
        for system_id in new:
            self._book.placed(system_id, self._name, known.version)

    def _is_here(self, place: object, known: KnownRecord) -> bool:
        return isinstance(place, Place) and place.store == self._name and place.seen == known.version

    async def _place(self, transaction: StorageTransaction, systems: Sequence[str]) -> None:
        if systems:
            documents = [{**document_of(Placement(one, self._name)), "_id": one} for one in systems]
            # Another node may have placed one of them meanwhile: a conflict, and all is looked up and done again.
            await transaction.documents.insert_documents(PLACEMENTS, documents)


def _marks(known: KnownRecord, points: Sequence[TimeSeriesPoint]) -> list[Mark]:
    times: dict[str, list[int]] = {}
    for point in points:
        if point.tags[SYSTEM_TAG] in known.record.moves:
            times.setdefault(point.tags[SYSTEM_TAG], []).append(to_micros(point.timestamp))
    marks = [Mark(key, STATES, *span) for key, chosen in times.items() for span in windows_of(chosen)]
    return marks if len(marks) <= MARKS_MAX else [Mark(key, STATES, *ALL_TIME) for key in times]


def routed_states(store: PolarisDataStore, book: PlacementBook, name: str) -> SystemStateRepository:
    """The repository of states of one store that writes only what is placed there."""
    make = cast(Callable[..., Any], RoutedStates)
    return SystemStateRepository(make(store.time_series, book, name))


class StateWriter:
    """Writes states where their systems are, wherever that is by the time they are written."""

    def __init__(self, book: PlacementBook) -> None:
        self._book = book
        self._repositories = {name: routed_states(store, book, name) for name, store in book.stores.items()}

    async def save(self, states: Sequence[SystemState]) -> None:
        """Save the states: those of one store in one transaction, all stores at once."""
        pending = list(states)
        if len(pending) > BATCH_POINTS_MAX:
            raise InvalidValueError("states", f"at most {BATCH_POINTS_MAX} states (found {len(pending)})", states)
        async for state in in_turns(pending):
            if state.__class__ is not SystemState:
                raise InvalidValueError("states", "SystemState objects", state)
        failed: dict[str, DataStoreError] = {}
        unsaved: list[SystemState] = []
        attempt = 0
        while pending:
            attempt += 1
            groups, lost = await self._grouped(pending)
            outcomes = await self._save_groups(groups)
            pending = []
            for name, error in [*outcomes.items(), *((name, error) for name, (error, _) in lost.items())]:
                group = groups[name] if name in outcomes else lost[name][1]
                if isinstance(error, ConflictError):
                    pending += group
                elif error is not None:
                    failed[name] = error
                    unsaved += group
            if pending:
                if attempt >= ATTEMPTS_MAX:
                    raise TransactionConflictError("systems move all the time; save their states again later")
                self._book.forget({state.system_id for state in pending})
                await self._book.pause(attempt)
        if failed:
            raise _failure(failed, unsaved)

    async def _grouped(
        self, states: Sequence[SystemState]
    ) -> tuple[dict[str, list[SystemState]], dict[str, tuple[StoreConnectionError, list[SystemState]]]]:
        """The states by the store of their system; those whose place cannot be known, by the store that would."""
        places = await self._book.writable({state.system_id for state in states})
        groups: dict[str, list[SystemState]] = {}
        lost: dict[str, tuple[StoreConnectionError, list[SystemState]]] = {}
        async for state in in_turns(states):
            place = places[state.system_id]
            if isinstance(place, Place):
                groups.setdefault(place.store, []).append(state)
            else:
                lost.setdefault(str(place.context.get("store", "")), (place, []))[1].append(state)
        return groups, lost

    async def _save_groups(self, groups: Mapping[str, list[SystemState]]) -> dict[str, DataStoreError | None]:
        async def one(name: str, states: list[SystemState]) -> DataStoreError | None:
            try:
                await self._book.store(name)
                with named(name):
                    await self._repositories[name].save_many(states)
            except DataStoreError as error:
                return error
            return None

        if len(groups) == 1:
            return {name: await one(name, states) for name, states in groups.items()}
        outcomes = await asyncio.gather(*(one(name, states) for name, states in groups.items()))
        return dict(zip(groups, outcomes, strict=True))


def _failure(failed: Mapping[str, DataStoreError], unsaved: Sequence[SystemState]) -> DataStoreError:
    """One error for all stores that failed; what is no trouble of a store is left as it is."""
    first = next((error for error in failed.values() if type(error) not in _TROUBLES), None)
    if first is not None:
        return first
    first = next(iter(failed.values()))
    systems = sorted({state.system_id for state in unsaved})
    context = {"stores": sorted(failed), "systems": systems[:SYSTEMS_NAMED_MAX]}
    kind = type(first) if len({type(error) for error in failed.values()}) == 1 else DataStoreError
    return kind(f"states of {len(systems)} systems were not saved; {first.message}", context, cause=first)


_TROUBLES = (StoreConnectionError, StoreFullError)
