"""What needs the numbers beside rollups one by one: they pass in order, series by series, and none of them is kept."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter

import apsw

from polaris.storage._aggregates import Number, total_of
from polaris.storage._aggregation import AggregationType, percent_of
from polaris.storage._buckets import Edges, FixedBuckets
from polaris.storage._rollup_sketches import Bins, bins_of, decode_bins, percentile
from polaris.storage._rollup_summaries import ExactSum, Rising, Summary, of_sample
from polaris.storage._timeseries_requests import AggregateRequest
from polaris.storage.backends.shared._row_table import RowTable
from polaris.storage.backends.sqlite._rollups import SUMMARY_COLUMNS
from polaris.storage.backends.sqlite._series import COLUMNS, StoredSeries

IN_ORDER = (AggregationType.RATE, AggregationType.INCREASE)
SKETCHED_TOGETHER = 4_096
"""Numbers that are counted into a sketch at once."""

_when = attrgetter("first_us", "last_us")


class Rate:
    """The rises of one series within one bucket."""

    __slots__ = ("first_us", "last_us", "rises", "rising")

    def __init__(self, first_us: int) -> None:
        self.first_us = self.last_us = first_us
        self.rising = Rising()
        self.rises = ExactSum()

    def take(self, one: Summary) -> None:
        self.first_us, self.last_us = min(self.first_us, one.first_us), max(self.last_us, one.last_us)
        step = self.rising.step(one)
        if step is not None:
            self.rises.add(step)

    @property
    def per_second(self) -> float | None:
        """None where no time passed."""
        elapsed_us = self.last_us - self.first_us
        return self.rises.total / (elapsed_us / 1e6) if elapsed_us > 0 else None


class _Sketch:
    """What is known of the distribution of one bucket."""

    __slots__ = ("bins", "high", "low")

    def __init__(self, low: Number, high: Number) -> None:
        self.bins = Bins({}, {})
        self.low, self.high = low, high

    def take(self, bins: Bins, low: Number, high: Number) -> None:
        self.bins.add(bins)
        self.low, self.high = min(self.low, low), max(self.high, high)


class StreamedRead:
    """One request, its series with their groups, and the widths of the rollups in its range.

    Of what passes there is kept: for rates and increases a few numbers for each bucket, for percentiles a sketch of
    each bucket that has rollups.
    """

    def __init__(
        self,
        connection: apsw.Connection,
        series: Sequence[StoredSeries],
        groups: Sequence[int],
        request: AggregateRequest,
        widths: Sequence[int],
        edges: Sequence[tuple[int, int, int]] | None,
    ) -> None:
        self._connection = connection
        self._series = series
        self._groups = groups
        self._request = request
        self._widths = widths
        self._ends = {start: high for start, _, high in edges or ()}
        self._bucket_of = self._starts(edges)

    def put_rises(self, field: str, names: Sequence[str], table: RowTable) -> None:
        """Fill in rates and increases, by the law of `risen`."""
        rates: dict[tuple[int, int], list[float]] = {}
        increases: dict[tuple[int, int], ExactSum] = {}
        for group, one, place in self._having(field):
            of_buckets: dict[int, Rate] = {}
            rising = Rising()
            for at, summary in self._in_order(one.number, place):
                bucket = self._bucket_of(at)
                if AggregationType.RATE in names:
                    rate = of_buckets.get(bucket)
                    if rate is None:
                        rate = of_buckets[bucket] = Rate(summary.first_us)
                    rate.take(summary)
                step = rising.step(summary) if AggregationType.INCREASE in names else None
                if step is not None:
                    increases.setdefault((group, bucket), ExactSum()).add(step)
            for bucket, rate in of_buckets.items():
                if rate.per_second is not None:
                    rates.setdefault((group, bucket), []).append(rate.per_second)
        for (group, bucket), found in rates.items():
            table.put(group, field, bucket, AggregationType.RATE, total_of(found))
        for (group, bucket), total in increases.items():
            table.put(group, field, bucket, AggregationType.INCREASE, total.total)

    def put_percentiles(self, field: str, names: Sequence[str], table: RowTable) -> None:
        """Put what sketches tell in the place of the percentiles of buckets that have rollups."""
        sketches: dict[int, dict[int, _Sketch]] = {}
        for group, one, place in self._having(field):
            for start, low, high, data in self._sketches(one.number, place):
                of_group = sketches.setdefault(group, {})
                of_bucket = of_group.setdefault(self._bucket_of(start), _Sketch(low, high))
                of_bucket.take(decode_bins(data), low, high)
        for group, one, place in self._having(field):
            known = sketches.get(group)
            if known:
                for bucket, values in self._chunks(one.number, place, known):
                    known[bucket].take(bins_of(values), min(values), max(values))
        for group, of_group in sketches.items():
            for bucket, sketch in of_group.items():
                for name in names:
                    percent = percent_of(name)
                    assert percent is not None  # noqa: S101 # by the caller
                    found = percentile(sketch.bins, percent, sketch.low, sketch.high)
                    table.put(group, field, bucket, name, found, approximate=True)

    def _starts(self, edges: Sequence[tuple[int, int, int]] | None) -> Callable[[int], int]:
        """What gives the start of the bucket of each instant of the range."""
        buckets = self._request.buckets
        if buckets is None:
            return lambda _: self._request.micros[0]
        if isinstance(buckets, FixedBuckets):
            return buckets.start_of
        return Edges([start for start, _, _ in edges or ()]).start_of

    def _end_of(self, bucket: int) -> int:
        buckets = self._request.buckets
        if isinstance(buckets, FixedBuckets):
            return min(bucket + buckets.width_us, self._request.micros[1])
        return self._ends.get(bucket, self._request.micros[1])

    def _having(self, field: str) -> Iterator[tuple[int, StoredSeries, int]]:
        """The series that have the field, with their groups and its place."""
        for group, one in zip(self._groups, self._series, strict=True):
            if field in one.shape:
                yield group, one, one.shape.index(field)

    def _in_order(self, series: int, place: int) -> Iterator[tuple[int, Summary]]:
        """All numbers and rollups of a field of a series, each with the instant where it counts."""
        streams = [
            ((ts, of_sample(ts, value)) for ts, value in self._numbers(table, series, place, *self._request.micros))
            for table in ("ts_hot", "ts_cold")
        ]
        streams += [
            ((start, Summary(*rest)) for start, *rest in self._rollups(series, place, width, SUMMARY_COLUMNS))
            for width in self._widths
        ]
        return heapq.merge(*streams, key=lambda entry: _when(entry[1]))

    def _numbers(self, table: str, series: int, place: int, start: int, end: int) -> Iterator[tuple[int, Number]]:
        column = f"c{place % COLUMNS}"
        yield from self._connection.execute(
            f"SELECT ts, {column} FROM {table} WHERE series = ? AND ts >= ? AND ts < ? AND part = ?"  # noqa: S608
            f" AND {column} < '' ORDER BY ts",  # numbers are what sorts before all texts
            (series, start, end, place // COLUMNS),
        )

    def _rollups(self, series: int, place: int, width: int, columns: str) -> apsw.Cursor:
        return self._connection.execute(
            f"SELECT start, {columns} FROM ts_rollups WHERE series = ? AND place = ? AND width = ?"  # noqa: S608
            " AND start >= ? AND start < ? ORDER BY first_ts, last_ts",
            (series, place, width, *self._request.micros),
        )

    def _sketches(self, series: int, place: int) -> Iterator[tuple[int, Number, Number, bytes]]:
        for width in self._widths:
            yield from self._rollups(series, place, width, "low, high, sketch")

    def _chunks(self, series: int, place: int, known: dict[int, _Sketch]) -> Iterator[tuple[int, list[Number]]]:
        """The numbers in these buckets, some of one bucket at a time."""
        start, end = max(min(known), self._request.micros[0]), self._end_of(max(known))
        for table in ("ts_hot", "ts_cold"):
            bucket, values = start, list[Number]()
            for ts, value in self._numbers(table, series, place, start, end):
                its_bucket = self._bucket_of(ts)
                if values and (its_bucket != bucket or len(values) == SKETCHED_TOGETHER):
                    yield bucket, values
                    values = []
                bucket = its_bucket
                if bucket in known:
                    values.append(value)
            if values:
                yield bucket, values
