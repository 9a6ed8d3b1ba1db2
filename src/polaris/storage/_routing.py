"""One data store made of several: each managed system is kept by one of them, and may be moved to another."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import TypeVar

from polaris.clock import SYSTEM_CLOCK, Clock
from polaris.domain import SystemState
from polaris.domain._checks import check_id
from polaris.exceptions import ConfigurationError, ConflictError, StoreConnectionError, TransactionConflictError
from polaris.resilience import Backoff
from polaris.storage._aggregation import AggregatedPoint, AggregatedRow, AggregationType, Fill
from polaris.storage._buckets import CalendarUnit
from polaris.storage._data_store import PolarisDataStore
from polaris.storage._gaps import filled
from polaris.storage._placement import MoveRecord
from polaris.storage._placement_book import Place
from polaris.storage._placement_steps import named
from polaris.storage._ranges import TimeRange
from polaris.storage._routing_fanout import View, asked, checked_names, consistent
from polaris.storage._routing_merge import Question, united_rows
from polaris.storage._routing_moves import SystemMove
from polaris.storage._routing_options import store_list
from polaris.storage._routing_states import StateWriter
from polaris.storage._routing_stores import RoutedStores
from polaris.storage._routing_work import RoutedUnitOfWork, opened
from polaris.storage._timeseries import Order, TagQuery
from polaris.storage._turns import in_turns
from polaris.storage.backends.shared._timeseries_arguments import checked_aggregations, checked_fill
from polaris.storage.repositories import SystemSummary
from polaris.storage.repositories._state_codec import HEALTH, SYSTEM_TAG, health_of
from polaris.storage.repositories._states import STATES

T = TypeVar("T")

READS_MAX = 20
"""Times that a read is made again because its system moved meanwhile."""
_BACKOFF = Backoff(0.002, 0.1)


class RoutedDataStore(RoutedStores):
    """Managed systems spread over several stores, each with one engine of its own.

    A system belongs to the store that a hash gives it (rendezvous hashing, by `weights`: integers from 0 to 100, 1
    unless given) from the first time it is written; that is recorded in the transaction of the write, so adding a
    store later moves nothing. `move_system` moves it. Everything of one system is in one store: a unit of work stays
    there, and what belongs to no system (dependencies, patterns) is in the store named `shared`.

    `stores`: 1 to 64 by names that stay. `series`: collections of points, besides the states, that belong to systems:
    each point has the tag `system_id`. `documents`: collections of documents, besides actions and results, that belong
    to systems, and the path of the system's id in them. All nodes must be started with the same: the stores record it,
    and another list is refused (`ConfigurationError`). What a move has to carry is found by these lists alone.

    A store that does not answer holds up its own systems only. Questions to all stores are either answered by all or
    raise `StoreConnectionError`, whose context names under "stores" those that did not; ask the others by name then.

    `connect` and `disconnect` (or `async with`) do so for all stores. Safe for many tasks at once; any number of nodes
    may use the stores, as far as the engines allow it. Nothing may be written around it: it would not be moved.
    """

    def __init__(
        self,
        stores: Mapping[str, PolarisDataStore],
        *,
        weights: Mapping[str, int] | None = None,
        shared: str | None = None,
        series: Sequence[str] = (),
        documents: Mapping[str, str] | None = None,
        answer_s_max: float = 30.0,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        listing = store_list(stores, weights, shared, series, documents or {})
        super().__init__(stores, listing, is_shared_given=shared is not None, answer_s_max=answer_s_max, clock=clock)
        self._states = StateWriter(self._book)

    async def store_of(self, system_id: str) -> str:
        """The name of the store that has the system now, or will have it when it is written.

        While that store does not answer, the one that last had it as far as this node knows.
        """
        check_id("system_id", system_id)
        for _ in range(READS_MAX):
            place = await self._book.place(system_id)
            try:
                if await self._book.has_stayed(system_id, place):
                    return place.store
            except StoreConnectionError:
                return place.store
        raise TransactionConflictError(f"{system_id!r} moves all the time; ask again later")

    async def read(self, system_id: str, body: Callable[[PolarisDataStore], Awaitable[T]]) -> T:
        """What `body` reads of one system in the store that has it; read again when the system moved meanwhile.

            actions = await routed.read("web", lambda store: store.actions.find_by_system("web"))

        So it sees all of the system, never a part of it. `body` must ask for this system alone, and may run again.
        """
        check_id("system_id", system_id)
        for _ in range(READS_MAX):
            place = await self._book.place(system_id)
            store = await self._book.store(place.store)
            with named(place.store):
                result = await body(store)
            if await self._book.has_stayed(system_id, place):
                return result
        raise TransactionConflictError(f"{system_id!r} moves all the time; read it again later")

    @asynccontextmanager
    async def unit_of_work(self, system_id: str) -> AsyncIterator[RoutedUnitOfWork]:
        """A unit of work in the store of the system, to be used with `async with` like any other: `RoutedUnitOfWork`.

        Waits, at most 5 s, while the system is in the last step of a move.
        """
        check_id("system_id", system_id)
        async with await opened(self._book, system_id) as work:
            yield work

    async def in_unit_of_work(
        self, system_id: str, body: Callable[[RoutedUnitOfWork], Awaitable[T]], *, attempts_max: int = 10
    ) -> T:
        """Run `body` in a unit of work of the system, commit it, and give what it gave.

        Done again, all of it, when others changed what it was based on or the system was moved meanwhile, as
        `PolarisDataStore.in_unit_of_work` does.
        """
        attempt = 0
        while True:
            attempt += 1
            try:
                async with self.unit_of_work(system_id) as work:
                    result = await body(work)
                    if work.is_open:
                        await work.commit()
                    return result
            except TransactionConflictError:
                if attempt >= attempts_max:
                    raise
            await self._clock.sleep(_BACKOFF.delay_s(attempt))

    async def save_current_state(self, state: SystemState) -> None:
        """Keep a state in the store of its system."""
        await self._states.save([state])

    async def save_many(self, states: Sequence[SystemState]) -> None:
        """Keep up to 100 000 states, each in the store of its system: those of one store in one transaction.

        Not one transaction over all stores: when one fails, the others have theirs, and the error names under "stores"
        those that failed and under "systems" (at most 100 of them) whose states are missing. Idempotent: repeat it.
        """
        await self._states.save(states)

    async def get_current_state(self, system_id: str) -> SystemState | None:
        """The latest state of the system, however old, or None."""
        return await self.read(system_id, lambda store: store.states.get_current_state(system_id))

    async def get_state_history(
        self, system_id: str, time_range: TimeRange, *, limit: int | None = None, order: Order = "asc"
    ) -> list[SystemState]:
        """The states of the system in the range, by time; `limit` as `SystemStateRepository` has it."""
        return await self.read(
            system_id, lambda store: store.states.get_state_history(system_id, time_range, limit=limit, order=order)
        )

    async def systems(self, *, stores: Collection[str] | None = None) -> list[SystemSummary]:
        """Every system that ever reported, of all stores or those that are named, in order of their ids."""

        async def collect(view: View) -> list[SystemSummary]:
            answers = await view.ask(
                lambda name, store: store.time_series.latest(STATES, view.tags_at(name, None), fields=[HEALTH])
            )
            found = [
                SystemSummary(point.tags[SYSTEM_TAG], point.timestamp, health_of(point.fields))
                for points in answers.values()
                async for point in in_turns(points)
            ]
            return sorted(found, key=lambda summary: summary.system_id)

        return await self._consistent(stores, collect)

    async def _consistent(self, stores: Collection[str] | None, work: Callable[[View], Awaitable[T]]) -> T:
        names = checked_names(stores, self.stores)
        return await consistent(self._book, names, work, self._answer_s_max)

    async def aggregate_time_series(
        self,
        collection: str,
        time_range: TimeRange,
        aggregation: AggregationType | str,
        group_by: str | Sequence[str] | None = None,
        *,
        bucket: timedelta | CalendarUnit | None = None,
        timezone: str | None = None,
        origin: datetime | None = None,
        fill: Fill = "none",
        tags: TagQuery | None = None,
        fields: Sequence[str] | None = None,
        stores: Collection[str] | None = None,
    ) -> list[AggregatedPoint]:
        """As the port of time series has it, over all stores or those that are named: as if they were one."""
        (name,), _ = checked_aggregations([aggregation])
        rows = await self.aggregate_many(
            collection,
            time_range,
            [name],
            group_by,
            bucket=bucket,
            timezone=timezone,
            origin=origin,
            fill=fill,
            tags=tags,
            fields=fields,
            stores=stores,
        )
        return [
            AggregatedPoint(row.timestamp, row.field, row.values[name], row.count, row.tags, row.approximate)
            async for row in in_turns(rows)
            if fill != "none" or row.values[name] is not None
        ]

    async def aggregate_many(
        self,
        collection: str,
        time_range: TimeRange,
        aggregations: Sequence[AggregationType | str] | Mapping[str, Sequence[AggregationType | str]],
        group_by: str | Sequence[str] | None = None,
        *,
        bucket: timedelta | CalendarUnit | None = None,
        timezone: str | None = None,
        origin: datetime | None = None,
        fill: Fill = "none",
        tags: TagQuery | None = None,
        fields: Sequence[str] | None = None,
        stores: Collection[str] | None = None,
    ) -> list[AggregatedRow]:
        """As the port of time series has it, over all stores or those that are named: as if they were one.

        A system that is being moved counts once. Each store answers on a snapshot of its own, so what is written at the
        same time counts or does not. Percentiles of a group that is spread over stores read all of its numbers, at most
        5 000 000, and are refused where only rollups are left (`QueryError`).
        """
        options = {"bucket": bucket, "timezone": timezone, "origin": origin}
        question = Question.checked(collection, time_range, aggregations, group_by, options, tags, fields)
        chosen = checked_fill(fill, question.buckets)
        rows = await self._consistent(stores, lambda view: united_rows(view, question))
        if chosen == "none" or question.buckets is None:
            return rows
        return await filled(rows, question.buckets, time_range.micros, chosen)

    async def move_system(self, system_id: str, to: str, *, drop_rollups: bool = False) -> None:
        """Move everything of a system to another store while it is used; returns when nothing is left behind.

        Its points, actions, results and the documents that belong to it; versions of documents never go back. Readers
        see all of it at every moment; writers go on, and wait some milliseconds at the end. Nothing is lost or doubled,
        however it ends: cancelled or killed it stays recorded in the stores, and the same call or `resume_moves` goes
        on with it; whoever had it before cannot do anything any more. Moving to where it is does nothing.

        Events in the outbox stay where they are and are published from there. Rollups are made anew from the points at
        the new place; where only rollups are left of points, they would be lost, so that is a `ConflictError` unless
        `drop_rollups`. `ConflictError` as well when another move of the system is under way, or goes on with this one.
        """
        check_id("system_id", system_id)
        if to not in self.stores:
            raise ConfigurationError(f"store {to!r} is none of {', '.join(sorted(self.stores))}")
        await self._book.store(to)
        self._book.forget([system_id])
        place = await self._book.place(system_id)
        await self._finish_at(system_id, place, to)
        if place.store != to:
            move = SystemMove(self._book, system_id, place.store, to)
            if not drop_rollups:
                await move.check_rollups()
            await move.run()

    async def _finish_at(self, system_id: str, place: Place, to: str) -> None:
        """An earlier move of the system may have remains that are in the way, or to be cleared as was asked."""
        for name in (to, place.store) if place.store != to else self.stores:
            if name == place.store:
                continue
            entry = (await self._book.refresh(name)).record.moves.get(system_id)
            if entry is not None and entry.phase == "gone":
                await SystemMove(self._book, system_id, name, entry.peer).finish(entry)

    async def moves(self) -> dict[str, tuple[str, str, MoveRecord]]:
        """The moves that are not finished: by system the source, the target and what the source records."""
        records = await asked(
            self._book, tuple(self.stores), lambda name, _: self._book.refresh(name), self._answer_s_max
        )
        return {
            system_id: (name, entry.peer, entry)
            for name, known in records.items()
            for system_id, entry in known.record.moves.items()
            if entry.phase != "arriving"
        }

    async def resume_moves(self) -> list[str]:
        """Finish the moves that somebody began and did not finish; gives the systems. All stores must answer.

        Takes moves over: not to be called while another node moves systems, which would then have to give up.
        """
        under_way = await self.moves()
        for system_id, (source, target, entry) in under_way.items():
            move = SystemMove(self._book, system_id, source, target)
            await (move.finish(entry) if entry.phase == "gone" else move.run())
        for name in self.stores:
            for system_id, entry in (await self._book.refresh(name)).record.moves.items():
                if entry.phase == "arriving" and not await self._is_known_at(entry.peer, system_id, name):
                    await SystemMove(self._book, system_id, entry.peer, name).clear_target()
        return sorted(under_way)

    async def _is_known_at(self, source: str, system_id: str, target: str) -> bool:
        entry = (await self._book.refresh(source)).record.moves.get(system_id)
        return entry is not None and entry.peer == target

    async def abandon_move(self, system_id: str) -> None:
        """Give up a move that has not switched yet: the system stays, and what was copied is deleted.

        For a target that is gone for good: when it does not answer, `resume_moves` deletes the copies later. Raises
        `ConflictError` when there is no such move.
        """
        check_id("system_id", system_id)
        self._book.forget([system_id])
        place = await self._book.place(system_id)
        entry = (await self._book.refresh(place.store)).record.moves.get(system_id)
        if entry is None or entry.phase not in ("copying", "frozen"):
            raise ConflictError(f"no move of {system_id!r} is under way that could be given up")
        await SystemMove(self._book, system_id, place.store, entry.peer).abandon()
