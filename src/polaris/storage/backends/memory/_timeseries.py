"""Time series of the engine in memory: a sorted list of times for each series."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from heapq import merge
from itertools import islice

from polaris.storage._aggregates import Cell, Number, Sample, aggregate, group_of, is_number, rise, rows_of, total_of
from polaris.storage._aggregation import AggregatedRow, AggregationType
from polaris.storage._buckets import Edges, FixedBuckets
from polaris.storage._points import TimeSeriesPoint
from polaris.storage._ranges import to_micros
from polaris.storage._rollup_cells import SeriesContent, aggregate_united
from polaris.storage._rollup_steps import is_replaced
from polaris.storage._rollup_summaries import summarise
from polaris.storage._rollups import ALL_TIME, RetentionPolicy, floor
from polaris.storage._series_limits import SeriesLimits
from polaris.storage._tag_filter import ALL_SERIES, TagFilter
from polaris.storage._timeseries_requests import AggregateRequest, Micros, PointQuery, SeriesKey
from polaris.storage.backends.memory._journal import Journal
from polaris.storage.backends.memory._rollups import MemoryRollups
from polaris.storage.backends.memory._series import Collection, Fields, Series


class MemoryTimeSeries:
    """Collections of series, each in order of its tags when asked."""

    def __init__(self, journal: Journal, limits: SeriesLimits | None = None) -> None:
        self._journal = journal
        self._limits = limits or SeriesLimits()
        self._rollups = MemoryRollups(journal)
        self._collections: dict[str, Collection] = {}

    @property
    def series_count(self) -> int:
        return sum(len(home.series) for home in self._collections.values())

    @property
    def points_count(self) -> int:
        return sum(len(series.times) for home in self._collections.values() for series in home.series.values())

    def store_many(self, collection: str, points: Sequence[TimeSeriesPoint]) -> None:
        home = self._collections.setdefault(collection, Collection())
        for point in points:
            self._store(self._series(collection, home, tuple(sorted(point.tags.items()))), point)

    def _store(self, series: Series, point: TimeSeriesPoint) -> None:
        time_us = to_micros(point.timestamp)
        former = series.points.get(time_us)
        series.put(time_us, dict(point.fields))
        if former is None:
            self._journal.note(lambda: series.drop(time_us))
        else:
            self._journal.note(lambda: series.put(time_us, former))
        new = [name for name in point.fields if name not in series.fields]
        if new:
            series.fields.update(new)
            self._journal.note(lambda: series.fields.difference_update(new))

    def _series(self, collection: str, home: Collection, key: SeriesKey) -> Series:
        found = home.series.get(key)
        if found is None:
            self._limits.check(collection, in_collection=len(home.series) + 1, in_store=self.series_count + 1)
            found = Series(key)
            home.add(found)
            made = found
            self._journal.note(lambda: home.remove(made))
        return found

    def _chosen(self, collection: str, tags: TagFilter) -> list[Series]:
        """The series that pass, in order."""
        home = self._collections.get(collection)
        return [] if home is None else home.chosen(tags)

    def query(self, collection: str, query: PointQuery) -> list[TimeSeriesPoint]:
        streams = [
            self._stream(rank, series, query) for rank, series in enumerate(self._chosen(collection, query.tags))
        ]
        return [point for _, _, point in islice(merge(*streams, key=lambda row: row[:2]), query.limit)]

    def _stream(self, rank: int, series: Series, query: PointQuery) -> Iterator[tuple[int, int, TimeSeriesPoint]]:
        times = series.between(query.window)
        cursor = query.after
        for time_us in reversed(times) if query.descending else times:
            if cursor is not None and time_us == cursor.time_us and series.key <= cursor.key:
                continue
            chosen = _only(series.points[time_us], query.fields)
            if chosen:
                yield -time_us if query.descending else time_us, rank, series.point(time_us, chosen)

    def aggregate(self, collection: str, request: AggregateRequest) -> list[AggregatedRow]:
        wanted = None if request.fields is None else frozenset(request.fields)
        content = [
            self._content(collection, series, request.micros, wanted) for series in self._rolled_up(collection, request)
        ]
        if any(series.rollups for series in content):
            return aggregate_united(request, content)
        chosen = [(series, series.between(request.micros)) for series in self._chosen(collection, request.tags)]
        bucket_of = _bucket_of(request, [time_us for _, times in chosen for time_us in times])
        cells: dict[Cell, list[Sample]] = {}
        risen: dict[Cell, list[Number]] = {}
        for rank, (series, times) in enumerate(chosen):
            group = group_of(series.tags, request.group_by)
            earlier: dict[str, Number] = {}
            for time_us in times:
                bucket = bucket_of(time_us)
                for name, value in series.points[time_us].items():
                    if is_number(value) and (wanted is None or name in wanted):
                        assert not isinstance(value, (str, bool))  # noqa: S101 # for the type checker
                        assert value is not None  # noqa: S101
                        cell = (bucket, group, name)
                        cells.setdefault(cell, []).append((time_us, rank, value))
                        if name in earlier:
                            risen.setdefault(cell, []).append(rise(earlier[name], value))
                        earlier[name] = value
        return rows_of(
            (cell, len(samples), _values(request.of(cell[2]), samples, risen.get(cell)))
            for cell, samples in cells.items()
        )

    def _rolled_up(self, collection: str, request: AggregateRequest) -> list[Series]:
        """The chosen series, if any of the collection can have rollups."""
        return [] if self._rollups.policy(collection) is None else self._chosen(collection, request.tags)

    def _content(self, collection: str, series: Series, micros: Micros, wanted: frozenset[str] | None) -> SeriesContent:
        readings = [
            (time_us, name, value)
            for time_us in series.between(micros)
            for name, value in numbers(series.points[time_us])
            if wanted is None or name in wanted
        ]
        return SeriesContent(series.tags, readings, self._rollups.within(collection, series.key, micros, wanted))

    def latest(self, collection: str, tags: TagFilter, fields: frozenset[str] | None) -> list[TimeSeriesPoint]:
        newest = [(series, series.times[-1]) for series in self._chosen(collection, tags) if series.times]
        found = [(series, time_us, _only(series.points[time_us], fields)) for series, time_us in newest]
        return [series.point(time_us, chosen) for series, time_us, chosen in found if chosen]

    def delete_range(self, collection: str, micros: Micros, tags: TagFilter) -> int:
        deleted = 0
        chosen = self._chosen(collection, tags)
        windows = [self._rollups.check_deletable(collection, series.key, micros) for series in chosen]
        for series, inside in zip(chosen, windows, strict=True):
            self._rollups.drop(collection, series.key, inside)
            deleted += self._drop(series, series.between(micros))
        return deleted

    def delete_series(self, collection: str, tags: TagFilter, rows_max: int) -> tuple[int, bool]:
        deleted = 0
        left = rows_max
        for series in self._chosen(collection, tags):
            left -= self._drop(series, series.times[:left])
            if left <= 0:
                return deleted, False
            self._rollups.drop(collection, series.key, self._rollups.check_deletable(collection, series.key, ALL_TIME))
            self._remove(self._collections[collection], series)
            deleted, left = deleted + 1, left - 1
        return deleted, True

    def _remove(self, home: Collection, series: Series) -> None:
        home.remove(series)
        self._journal.note(lambda: home.add(series))

    def set_policy(self, collection: str, policy: RetentionPolicy) -> None:
        self._rollups.set_policy(collection, policy)

    def policy(self, collection: str) -> RetentionPolicy | None:
        return self._rollups.policy(collection)

    def thin(
        self,
        collection: str,
        since_us: int,
        into_us: int | None,
        rows_max: int,
        under: RetentionPolicy | None = None,
    ) -> int:
        if is_replaced(under, self.policy(collection)):
            return 0
        return self._rollups.thin(collection, since_us, into_us, rows_max)

    def _retire(self, collection: str, series: Series, since_us: int, width_us: int, rows_max: int) -> int:
        """Put the oldest points of a series into the rollups of their windows, and drop them."""
        bound = min(floor(since_us, width_us), floor(series.times[-1], width_us)) if series.times else since_us
        old = series.times[: bisect_left(series.times, bound)][:rows_max]
        readings: dict[tuple[int, str], list[tuple[int, Number]]] = {}
        for time_us in old:
            for name, value in numbers(series.points[time_us]):
                readings.setdefault((floor(time_us, width_us), name), []).append((time_us, value))
        for (start, name), known in readings.items():
            summary = summarise(known, sketched=True)
            self._rollups.add(collection, series.key, (start, width_us), name, summary)
        return self._drop(series, old)

    def retain(self, collection: str, since_us: int, rows_max: int, under: RetentionPolicy | None = None) -> int:
        deleted = 0
        policy = self.policy(collection)
        if is_replaced(under, policy):
            return 0
        width_us = None if policy is None else policy.window_us
        for series in self._chosen(collection, ALL_SERIES):
            if width_us is not None:
                deleted += self._retire(collection, series, since_us, width_us, rows_max - deleted)
                continue
            old = series.times[: min(bisect_left(series.times, since_us), len(series.times) - 1)]
            deleted += self._drop(series, old[: rows_max - deleted])
        return deleted

    def _drop(self, series: Series, times: Sequence[int]) -> int:
        gone = [(time_us, series.drop(time_us)) for time_us in times]
        self._journal.note(lambda: series.put_all(gone))
        return len(gone)

    def list_series(
        self, collection: str, tags: TagFilter, limit: int, after: SeriesKey | None
    ) -> list[dict[str, str]]:
        found = (series for series in self._chosen(collection, tags) if after is None or series.key > after)
        return [dict(series.tags) for series in islice(found, limit)]

    def count_series(self, collection: str | None, tags: TagFilter) -> int:
        return self.series_count if collection is None else len(self._chosen(collection, tags))

    def list_collections(self) -> list[str]:
        return sorted(name for name, home in self._collections.items() if home.series)

    def list_fields(self, collection: str, tags: TagFilter) -> list[str]:
        return sorted({name for series in self._chosen(collection, tags) for name in series.fields})

    def list_tag_keys(self, collection: str) -> list[str]:
        return sorted({key for series in self._chosen(collection, ALL_SERIES) for key in series.tags})

    def list_tag_values(self, collection: str, key: str, tags: TagFilter) -> list[str]:
        return sorted({series.tags[key] for series in self._chosen(collection, tags) if key in series.tags})


def numbers(fields: Fields) -> Iterator[tuple[str, Number]]:
    """The fields that are numbers."""
    for name, value in fields.items():
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            yield name, value


def _only(fields: Fields, wanted: frozenset[str] | None) -> Fields:
    return fields if wanted is None else {name: value for name, value in fields.items() if name in wanted}


def _bucket_of(request: AggregateRequest, times: Sequence[int]) -> Callable[[int], int]:
    """What gives the start of the bucket of each of these times."""
    buckets = request.buckets
    if buckets is None:
        return lambda _: request.micros[0]
    if isinstance(buckets, FixedBuckets):
        return buckets.start_of
    return Edges(buckets.starts(min(times), max(times))).start_of if times else lambda time_us: time_us


def _values(
    names: Sequence[str], samples: Sequence[Sample], risen: Sequence[Number] | None
) -> dict[str, Number | None]:
    return {
        name: (None if risen is None else total_of(risen))
        if name == AggregationType.INCREASE
        else aggregate(name, samples)
        for name in names
    }
