"""One series in memory, and the series of a collection with an index of their tags."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence

from polaris.storage._points import FieldValue, TimeSeriesPoint
from polaris.storage._ranges import from_micros
from polaris.storage._tag_filter import TagFilter, TagIn
from polaris.storage._timeseries_requests import Micros, SeriesKey

Fields = dict[str, FieldValue]


class Series:
    """The points of one series."""

    __slots__ = ("fields", "key", "points", "tags", "times")

    def __init__(self, key: SeriesKey) -> None:
        self.key = key
        self.tags = dict(key)
        self.times: list[int] = []
        self.points: dict[int, Fields] = {}
        self.fields: set[str] = set()
        """Every field that it has ever had."""

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

    def point(self, time_us: int, fields: Fields) -> TimeSeriesPoint:
        return TimeSeriesPoint(from_micros(time_us), self.tags, fields)


class Collection:
    """Series by their tags; those that have a tag of some value are found without looking at the others."""

    __slots__ = ("_by_tag", "series")

    def __init__(self) -> None:
        self.series: dict[SeriesKey, Series] = {}
        self._by_tag: dict[tuple[str, str], dict[SeriesKey, Series]] = {}

    def add(self, series: Series) -> None:
        self.series[series.key] = series
        for tag in series.key:
            self._by_tag.setdefault(tag, {})[series.key] = series

    def remove(self, series: Series) -> None:
        del self.series[series.key]
        for tag in series.key:
            del self._by_tag[tag][series.key]
            if not self._by_tag[tag]:
                del self._by_tag[tag]

    def chosen(self, tags: TagFilter) -> list[Series]:
        """The series that pass, in order of their tags."""
        passed = [series for series in self._candidates(tags) if tags.matches(series.tags)]
        return sorted(passed, key=lambda series: series.key)

    def _candidates(self, tags: TagFilter) -> Iterable[Series]:
        for term in tags.terms:
            if isinstance(term, TagIn):
                homes = [self._by_tag.get((term.key, value), {}) for value in term.values]
                return [series for home in homes for series in home.values()]
        return self.series.values()
