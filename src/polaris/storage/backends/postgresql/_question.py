"""What an aggregate query is about, in numbers: series with their groups, fields with their places, and buckets."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from polaris.storage._aggregates import group_of
from polaris.storage._buckets import FixedBuckets
from polaris.storage._timeseries_requests import AggregateRequest, Micros
from polaris.storage.backends.postgresql._parameters import Parameters
from polaris.storage.backends.postgresql._series import StoredSeries

Places = tuple[int | None, int | None]
"""Where a series keeps a field: among its floats, and among its integers."""
NOWHERE: Places = (None, None)


class Numbering:
    """The buckets of a request, which have numbers in SQL."""

    def __init__(self, request: AggregateRequest, starts: Sequence[int]) -> None:
        """`starts`: of the buckets of a calendar, in order."""
        self._micros = request.micros
        self._starts = starts
        self._fixed = request.buckets if isinstance(request.buckets, FixedBuckets) else None
        self._is_one = request.buckets is None
        # From here on all times of the range are counted, so that no remainder is negative.
        self._origin = 0 if self._fixed is None else self._fixed.start_of(request.micros[0])

    @property
    def starts(self) -> Sequence[int]:
        """Of the buckets of a calendar, in order."""
        return self._starts

    @property
    def is_one(self) -> bool:
        """Whether the range is the only bucket."""
        return self._is_one

    def sql(self, parameters: Parameters) -> str:
        """The number of the bucket of `p.ts`."""
        if self._is_one:
            return "0"
        if self._fixed is not None:
            origin, width = (parameters.bind(value, "bigint") for value in (self._origin, self._fixed.width_us))
            return f"(p.ts - {origin}) / {width}"
        return f"width_bucket(p.ts, {parameters.bind(self._starts, 'bigint[]')}) - 1"

    def bucket_of(self, time_us: int) -> int:
        """The start of the bucket of an instant of the range."""
        if self._is_one:
            return self._micros[0]
        if self._fixed is not None:
            return self._fixed.start_of(time_us)
        return self._starts[bisect_right(self._starts, time_us) - 1]

    def start_of(self, number: int) -> int:
        """The start of a bucket."""
        if self._is_one:
            return self._micros[0]
        return self._starts[number] if self._fixed is None else self._origin + number * self._fixed.width_us

    def span_of(self, start: int) -> Micros:
        """What of the range is in the bucket that starts there."""
        low, high = self._micros
        if self._fixed is not None:
            return max(low, start), min(high, start + self._fixed.width_us)
        if self._is_one:
            return low, high
        place = bisect_right(self._starts, start)
        return max(low, start), high if place == len(self._starts) else self._starts[place]


class Question:
    """A request and the series that it is about. Groups and fields are numbered in the order of their rows."""

    def __init__(self, table: str, series: Sequence[StoredSeries], request: AggregateRequest) -> None:
        self.table = table
        self.series = series
        self.request = request
        keys = [group_of(one.tags, request.group_by) for one in series]
        self.names = sorted(set(keys))
        numbers = {key: number for number, key in enumerate(self.names)}
        self.groups = [numbers[key] for key in keys]
        self.is_alone = len(self.names) == len(series)
        """Whether each group is one series."""
        known = {name for one in series for name, kind in one.layout.slots if kind != "x"}
        self.fields = sorted(known if request.fields is None else known.intersection(request.fields))

    def places(self, field: str) -> list[Places]:
        """Where each of the series keeps the field."""
        of_layouts: dict[int, Places] = {}
        found: list[Places] = []
        for one in self.series:
            layout = one.layout
            places = of_layouts.get(layout.number)
            if places is None:
                places = of_layouts[layout.number] = layout.floats.get(field), layout.integers.get(field)
            found.append(places)
        return found
