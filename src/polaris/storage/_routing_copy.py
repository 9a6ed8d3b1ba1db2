"""What a move carries from one store to another: points, their forms and documents, in slices, each one transaction."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

import msgspec

from polaris.storage._aggregates import is_number
from polaris.storage._aggregation import AggregationType
from polaris.storage._data_store import PolarisDataStore
from polaris.storage._documents import ID_KEY, VERSION_KEY, Document
from polaris.storage._placement import PROGRESS, MoveRecord, StoreRecord, value_at
from polaris.storage._placement_marks import Mark
from polaris.storage._placement_steps import MoveTakenOverError, in_record, named
from polaris.storage._points import TimeSeriesPoint
from polaris.storage._ranges import TIME_MAX, TIME_MIN, TimeRange, from_micros, to_micros
from polaris.storage._timeseries import TimeSeriesStorageBackend
from polaris.storage._unit_of_work import PolarisUnitOfWork
from polaris.storage.repositories._state_codec import FORM, FORM_TAG, SYSTEM_TAG
from polaris.storage.repositories._states import FORMS, STATES

T = TypeVar("T")

SLICE_POINTS = 2_000
PAGE_DOCUMENTS = 100
VERSIONS_MAX = 500
"""Versions that one transaction counts up."""
_MICROSECOND = timedelta(microseconds=1)


class Progress(msgspec.Struct, frozen=True):
    """How far the first copying has come: by collection the time that follows, and the last id."""

    copy_id: str
    times_us: dict[str, int] = {}
    ids: dict[str, str] = {}
    done: bool = False


class Side:
    """A store that takes part in a move. Whatever is done here is done only while its record says that move."""

    def __init__(self, store: PolarisDataStore, name: str, system_id: str, entry: MoveRecord) -> None:
        self.store = store
        self.name = name
        self.system_id = system_id
        self.entry = entry
        self.tags = {SYSTEM_TAG: system_id}

    async def step(self, body: Callable[[PolarisUnitOfWork, StoreRecord], Awaitable[T]]) -> T:
        """One transaction. Raises `MoveTakenOverError`, with nothing written, when the record says something else."""

        async def checked(work: PolarisUnitOfWork, record: StoreRecord) -> T:
            if record.moves.get(self.system_id) != self.entry:
                raise MoveTakenOverError(
                    f"the move of {self.system_id!r} in store {self.name!r} is no longer this one: it was taken over",
                    {"system_id": self.system_id, "store": self.name},
                )
            return await body(work, record)

        return await in_record(self.store, self.name, checked)

    async def points(self, collection: str, start_us: int, end_us: int) -> tuple[list[TimeSeriesPoint], int]:
        """The next points of the system, of whole instants, and where the ones behind them begin."""
        limit = SLICE_POINTS
        span = TimeRange(from_micros(start_us), from_micros(end_us))
        while True:
            with named(self.name):
                found = await self.store.time_series.query_time_series(collection, span, self.tags, limit=limit)
            if len(found) < limit:
                return found, end_us
            last = found[-1].timestamp
            whole = [point for point in found if point.timestamp < last]
            if whole:
                return whole, _micros_after(whole[-1])
            limit *= 2

    async def clear(self, series: Sequence[str], documents: Mapping[str, str]) -> None:
        """Delete all of the system, in slices."""
        for collection in series:
            while True:
                found, _ = await self.points(collection, *WHOLE)
                if not found:
                    break
                span = TimeRange(found[0].timestamp, found[-1].timestamp + _MICROSECOND)
                await self.step(partial(_delete_range, collection=collection, span=span, tags=self.tags))
            await self.step(partial(_delete_series, collection=collection, tags=self.tags))
        for collection, path in documents.items():
            query = {path: self.system_id}
            while await self.step(partial(_delete_found, collection=collection, query=query)):
                pass


WHOLE = (to_micros(TIME_MIN), to_micros(TIME_MAX))


def _micros_after(point: TimeSeriesPoint) -> int:
    return to_micros(point.timestamp) + 1


class Copying:
    """Brings what the source has of a system to the target."""

    def __init__(self, source: Side, target: Side, series: Sequence[str], documents: Mapping[str, str]) -> None:
        self.source = source
        self.target = target
        self._series = series
        self._documents = documents
        self._forms: set[str] = set()

    async def copy_all(self) -> None:
        """The first copying. Taken up where it was left; what was there of an earlier one is deleted."""
        with named(self.target.name):
            document = await self.target.store.documents.get_document(PROGRESS, self.target.system_id)
        progress = None if document is None else msgspec.convert(document, Progress)
        if progress is None or progress.copy_id != self.target.entry.copy_id:
            await self.target.clear(self._series, self._documents)
            progress = Progress(self.target.entry.copy_id)
        if progress.done:
            return
        for collection in self._series:
            progress = await self._copy_series(collection, progress)
        for collection, path in self._documents.items():
            progress = await self._copy_documents(collection, path, progress)
        await self._note(msgspec.structs.replace(progress, done=True))

    async def _note(self, progress: Progress) -> None:
        await self.target.step(lambda work, _: _write_progress(work, self.target.system_id, progress))

    async def _copy_series(self, collection: str, progress: Progress) -> Progress:
        at_us = progress.times_us.get(collection, WHOLE[0])
        while at_us < WHOLE[1]:
            found, at_us = await self.source.points(collection, at_us, WHOLE[1])
            progress = msgspec.structs.replace(progress, times_us={**progress.times_us, collection: at_us})
            await self._carry_forms(collection, found)
            await self.target.step(partial(self._store, collection=collection, points=found, progress=progress))
        return progress

    async def _store(
        self,
        work: PolarisUnitOfWork,
        _: StoreRecord,
        *,
        collection: str,
        points: list[TimeSeriesPoint],
        progress: Progress,
    ) -> None:
        if points:
            await work.time_series.store_many(collection, points)
        await _write_progress(work, self.target.system_id, progress)

    async def _copy_documents(self, collection: str, path: str, progress: Progress) -> Progress:
        while True:
            with named(self.source.name):
                page = await self.source.store.documents.find_documents(
                    collection,
                    {path: self.source.system_id},
                    PAGE_DOCUMENTS,
                    after=progress.ids.get(collection),
                )
            if not page:
                return progress
            await self._carry_documents(collection, page)
            progress = msgspec.structs.replace(progress, ids={**progress.ids, collection: page[-1][ID_KEY]})
            await self._note(progress)

    async def _carry_forms(self, collection: str, points: Sequence[TimeSeriesPoint]) -> None:
        """The forms of states, before the states that name them. They are the same everywhere: nothing guards them."""
        if collection != STATES:
            return
        missing = {str(point.fields[FORM]) for point in points if FORM in point.fields} - self._forms
        for digest in sorted(missing):
            with named(self.source.name):
                form = await self.source.store.time_series.latest(FORMS, {FORM_TAG: digest})
            with named(self.target.name):
                await self.target.store.time_series.store_many(FORMS, form)
            self._forms.add(digest)

    async def _carry_documents(self, collection: str, documents: Sequence[Document]) -> None:
        """Put documents in their places, with versions that are as high as they were: none is ever used twice."""
        present: dict[str, int] = {}
        with named(self.target.name):
            ids = [document[ID_KEY] for document in documents]
            for found in await self.target.store.documents.find_documents(collection, {ID_KEY: {"$in": ids}}):
                present[found[ID_KEY]] = found[VERSION_KEY]
        # A version that is not higher is one that began anew: the document was deleted and inserted again.
        again = [one for one in documents if one[VERSION_KEY] <= present.get(one[ID_KEY], 0)]
        for document in again:
            present[document[ID_KEY]] = 0
        await self.target.step(lambda work, _: _delete(work, collection, again))
        steps_left = max(document[VERSION_KEY] - present.get(document[ID_KEY], 0) for document in documents)
        while steps_left > 0:
            rounds = min(steps_left, VERSIONS_MAX)
            await self.target.step(
                partial(
                    _count_up,
                    collection=collection,
                    documents=documents,
                    present=present,
                    left=steps_left,
                    rounds=rounds,
                )
            )
            steps_left -= rounds

    async def carry_mark(self, mark: Mark) -> None:
        """Make a window, or a document, at the target equal to what the source has now."""
        if mark.document_id:
            await self._carry_marked_document(mark)
            return
        at_us, end_us = max(mark.start_us, WHOLE[0]), min(mark.end_us, WHOLE[1])
        while at_us < end_us:
            start_us = at_us
            found, at_us = await self.source.points(mark.collection, start_us, end_us)
            await self._carry_forms(mark.collection, found)
            span = TimeRange(from_micros(start_us), from_micros(at_us))
            await self.target.step(partial(self._replace, collection=mark.collection, span=span, points=found))

    async def _replace(
        self,
        work: PolarisUnitOfWork,
        _: StoreRecord,
        *,
        collection: str,
        span: TimeRange,
        points: list[TimeSeriesPoint],
    ) -> None:
        await work.time_series.delete_range(collection, span, self.target.tags)
        if points:
            await work.time_series.store_many(collection, points)

    async def _carry_marked_document(self, mark: Mark) -> None:
        path = self._documents.get(mark.collection, "")
        with named(self.source.name):
            document = await self.source.store.documents.get_document(mark.collection, mark.document_id)
        if document is not None and value_at(document, path) == mark.system_id:
            await self._carry_documents(mark.collection, [document])
        else:
            await self.target.step(lambda work, _: _delete(work, mark.collection, [{ID_KEY: mark.document_id}]))


async def lacks_points(port: TimeSeriesStorageBackend, collection: str, system_id: str) -> bool:
    """Whether rollups count numbers of the system that no point has any more."""
    policy = await port.get_retention(collection)
    if policy is None or not policy.rollups:
        return False
    tags = {SYSTEM_TAG: system_id}
    # Numbers that come meanwhile make the second count greater, never the first.
    rows = await port.aggregate_time_series(collection, TimeRange.all(), AggregationType.COUNT, tags=tags)
    left = {row.field: row.count for row in rows}
    async for point in port.iterate_time_series(collection, TimeRange.all(), tags):
        for field, value in point.fields.items():
            if field in left and is_number(value):
                left[field] -= 1
    return any(count > 0 for count in left.values())


async def _delete_range(
    work: PolarisUnitOfWork, _: StoreRecord, *, collection: str, span: TimeRange, tags: Mapping[str, str]
) -> int:
    return await work.time_series.delete_range(collection, span, tags)


async def _delete_series(work: PolarisUnitOfWork, _: StoreRecord, *, collection: str, tags: Mapping[str, str]) -> int:
    return await work.time_series.delete_series(collection, tags)


async def _delete_found(work: PolarisUnitOfWork, _: StoreRecord, *, collection: str, query: Mapping[str, str]) -> int:
    return await work.documents.delete_documents(collection, query, limit=PAGE_DOCUMENTS)


async def _write_progress(work: PolarisUnitOfWork, system_id: str, progress: Progress) -> None:
    await work.documents.put_document(PROGRESS, system_id, msgspec.to_builtins(progress))


async def _delete(work: PolarisUnitOfWork, collection: str, documents: Sequence[Mapping[str, Any]]) -> None:
    if documents:
        ids = [document[ID_KEY] for document in documents]
        await work.documents.delete_documents(collection, {ID_KEY: {"$in": ids}})


async def _count_up(
    work: PolarisUnitOfWork,
    _: StoreRecord,
    *,
    collection: str,
    documents: Sequence[Document],
    present: Mapping[str, int],
    left: int,
    rounds: int,
) -> None:
    """Put each document as often as its version still has to grow, so that all reach theirs in the last round."""
    for step in range(left, left - rounds, -1):
        due = [one for one in documents if one[VERSION_KEY] - present.get(one[ID_KEY], 0) >= step]
        await work.documents.put_documents(collection, due)
