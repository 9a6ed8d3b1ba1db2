"""Time series of the engine in memory: a sorted list of times for each series."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from heapq import merge
from itertools import islice

from polaris.storage._aggregates import Sample, aggregate, bucket_start, bucket_time, is_number
from polaris.storage._operation import AggregateRequest, Micros
from polaris.storage._ranges import from_micros, to_micros
from polaris.storage._timeseries import AggregatedPoint, FieldValue, TimeSeriesPoint
from polaris.storage.backends.memory._journal import Journal

Fields = dict[str, FieldValue]
SeriesKey = tuple[tuple[str, str], ...]


class _Series:
    """The points of one series."""

    __slots__ = ("key", "points", "tags", "times")

    def __init__(self, key: SeriesKey) -> None:
        self.key = key
        self.tags = dict(key)
        self.times: list[int] = []
        self.points: dict[int, Fields] = {}

    def between(self, micros: Micros) -> list[int]:
        return self.times[bisect_left(self.times, micros[0]) : bisect_left(self.times, micros[1])]

    def put(self, time_us: int, fields: Fields) -> None:
        if time_us not in self.points:
            if self.times and time_us < self.times[-1]:
                insort(self.times, time_us)
            else:
                self.times.append(time_us)
        self.points[time_us] = fields

    def put_all(self, points: Sequence[tuple[int, Fields]]) -> None:
        for time_us, fields in points:
            self.put(time_us, fields)

    def drop(self, time_us: int) -> Fields:
        del self.times[bisect_left(self.times, time_us)]
        return self.points.pop(time_us)

    def point(self, time_us: int, fields: Fields | None = None) -> TimeSeriesPoint:
        return TimeSeriesPoint(from_micros(time_us), self.tags, self.points[time_us] if fields is None else fields)


class MemoryTimeSeries:
    """Collections of series, each in order of its tags when asked."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._collections: dict[str, dict[SeriesKey, _Series]] = {}

    @property
    def series_count(self) -> int:
        return sum(len(collection) for collection in self._collections.values())

    @property
    def points_count(self) -> int:
        return sum(len(series.times) for collection in self._collections.values() for series in collection.values())

    def store_many(self, collection: str, points: Sequence[TimeSeriesPoint]) -> None:
        for point in points:
            self._store(self._series(collection, tuple(sorted(point.tags.items()))), point)

    def _store(self, series: _Series, point: TimeSeriesPoint) -> None:
        time_us = to_micros(point.timestamp)
        former = series.points.get(time_us)
        series.put(time_us, dict(point.fields))
        if former is None:
            self._journal.note(lambda: series.drop(time_us))
        else:
            self._journal.note(lambda: series.put(time_us, former))

    def _series(self, collection: str, key: SeriesKey) -> _Series:
        home = self._collections.setdefault(collection, {})
        found = home.get(key)
        if found is None:
            found = home[key] = _Series(key)
            self._journal.note(lambda: home.pop(key))
        return found

    def _chosen(self, collection: str, tags: dict[str, str]) -> list[_Series]:
        """The series that have all of the tags, in order."""
        wanted = tags.items()
        home = self._collections.get(collection, {})
        return sorted(
            (series for series in home.values() if wanted <= series.tags.items()), key=lambda series: series.key
        )

    def query(
        self,
        collection: str,
        micros: Micros,
        tags: dict[str, str],
        *,
        limit: int,
        descending: bool,
        fields: frozenset[str] | None,
    ) -> list[TimeSeriesPoint]:
        streams = [
            self._stream(rank, series, micros, descending=descending, fields=fields)
            for rank, series in enumerate(self._chosen(collection, tags))
        ]
        return [point for _, _, point in islice(merge(*streams, key=lambda row: row[:2]), limit)]

    def _stream(
        self, rank: int, series: _Series, micros: Micros, *, descending: bool, fields: frozenset[str] | None
    ) -> Iterator[tuple[int, int, TimeSeriesPoint]]:
        times = series.between(micros)
        for time_us in reversed(times) if descending else times:
            chosen = series.points[time_us]
            if fields is not None:
                chosen = {name: value for name, value in chosen.items() if name in fields}
            if chosen:
                yield -time_us if descending else time_us, rank, series.point(time_us, chosen)

    def aggregate(self, collection: str, request: AggregateRequest) -> list[AggregatedPoint]:
        wanted = None if request.fields is None else frozenset(request.fields)
        start_us = request.micros[0]
        cells: dict[tuple[int, SeriesKey, str], list[Sample]] = {}
        for rank, series in enumerate(self._chosen(collection, request.tags)):
            group = tuple((key, series.tags[key]) for key in request.group_by if key in series.tags)
            for time_us in series.between(request.micros):
                bucket = start_us if request.bucket_us is None else bucket_start(time_us, request.bucket_us)
                for name, value in series.points[time_us].items():
                    if is_number(value) and (wanted is None or name in wanted):
                        assert not isinstance(value, (str, bool))  # noqa: S101 # for the type checker
                        assert value is not None  # noqa: S101
                        cells.setdefault((bucket, group, name), []).append((time_us, rank, value))
        found: list[AggregatedPoint] = []
        for (bucket, group, name), samples in sorted(cells.items(), key=lambda cell: cell[0]):
            value = aggregate(request.aggregation, samples)
            if value is not None:
                found.append(AggregatedPoint(bucket_time(bucket), name, value, len(samples), dict(group)))
        return found

    def latest(self, collection: str, tags: dict[str, str]) -> list[TimeSeriesPoint]:
        return [series.point(series.times[-1]) for series in self._chosen(collection, tags) if series.times]

    def delete_range(self, collection: str, micros: Micros, tags: dict[str, str]) -> int:
        deleted = 0
        for series in self._chosen(collection, tags):
            deleted += self._drop(series, series.between(micros))
        return deleted

    def retain(self, collection: str, since_us: int, rows_max: int) -> int:
        deleted = 0
        for series in self._chosen(collection, {}):
            old = series.times[: min(bisect_left(series.times, since_us), len(series.times) - 1)]
            deleted += self._drop(series, old[: rows_max - deleted])
        return deleted

    def _drop(self, series: _Series, times: Sequence[int]) -> int:
        gone = [(time_us, series.drop(time_us)) for time_us in times]
        self._journal.note(lambda: series.put_all(gone))
        return len(gone)

    def list_series(self, collection: str, tags: dict[str, str]) -> list[dict[str, str]]:
        return [dict(series.tags) for series in self._chosen(collection, tags)]
