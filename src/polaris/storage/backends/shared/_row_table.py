"""Rows of aggregates made column by column: a result of many thousand rows costs little more than its objects."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import chain, repeat, starmap
from operator import lt, truediv
from typing import Any, NamedTuple

from msgspec.structs import force_setattr

from polaris.storage._aggregates import Number, bucket_time, too_many_rows
from polaris.storage._aggregation import AggregatedPoint, AggregatedRow, AggregationType
from polaris.storage._limits import LIMIT_MAX
from polaris.storage._ranges import TIME_MIN, to_micros
from polaris.storage._timeseries_requests import AggregateRequest, SeriesKey

_TIME_MIN_US = to_micros(TIME_MIN)

Counted = tuple[int, int, int, float, Number, Number, int]
"""A cell, the start of a bucket, and of its numbers: count, sum, least, greatest; whether a window is cut."""

COUNTED: frozenset[str] = frozenset(
    (AggregationType.COUNT, AggregationType.SUM, AggregationType.AVG, AggregationType.MIN, AggregationType.MAX)
)
"""The aggregations that can be told from what is counted."""


class Columns(NamedTuple):
    """The same of one cell as columns, each at least as long as the first; what is not asked for may be anything."""

    starts: Sequence[int]
    counts: Sequence[int]
    totals: Iterable[Any]
    lows: Iterable[Any]
    highs: Iterable[Any]
    cuts: Iterable[int]


NONE_IS_CUT = repeat(0)


class _Stamps(dict[int, datetime]):
    """The starts of buckets as datetimes, each made once."""

    def __missing__(self, start: int) -> datetime:
        found = self[start] = bucket_time(start)
        return found


class RowTable:
    """The rows of one request. A cell is a group and a field, numbered in the order in which rows of a bucket come."""

    def __init__(self, request: AggregateRequest, groups: Sequence[SeriesKey], fields: Sequence[str]) -> None:
        self._request = request
        self._fields = fields
        self._tags = [dict(group) for group in groups]
        self._groups = {group: number for number, group in enumerate(groups)}
        self._places = {field: place for place, field in enumerate(fields)}
        self._stamps = _Stamps()
        self._runs: list[tuple[Sequence[int], list[Any]]] = []
        asked = {name for field in fields for name in request.of(field)}
        self._makes_points = request.as_points and COUNTED.issuperset(asked)
        self._rows: dict[tuple[int, int], AggregatedRow] = {}
        """Those that `put` will ask for."""
        self._count = 0

    def add(self, cell: int, found: Sequence[Counted]) -> None:
        """Make the rows of a cell, one for each bucket; cells come in ascending order. What is not counted is None.

        Raises `QueryError` beyond 1 000 000 rows.
        """
        _, *columns = zip(*found, strict=True)
        self.add_columns(cell, Columns(*columns))

    def add_columns(self, cell: int, known: Columns) -> None:
        """The same of columns."""
        starts, counts = known.starts, known.counts
        self._count += len(starts)
        if self._count > LIMIT_MAX:
            raise too_many_rows()
        group, place = divmod(cell, len(self._fields))
        field = self._fields[place]
        names = self._request.of(field)
        columns = [self._column(name, known) for name in names]
        stamps = map(self._stamps.__getitem__, starts)
        cuts = () if known.cuts is NONE_IS_CUT else (map(bool, known.cuts),)
        made: list[Any]
        if self._makes_points:
            made = list(
                map(AggregatedPoint, stamps, repeat(field), columns[0], counts, repeat(self._tags[group]), *cuts)
            )
        else:
            tags = starmap(self._tags[group].copy, repeat((), len(starts)))
            values: Iterable[dict[str, Any]]
            if len(names) == 1:
                (name,) = names
                values = ({name: value} for value in columns[0])
            else:
                values = (dict(zip(names, told, strict=True)) for told in zip(*columns, strict=True))
            made = list(map(AggregatedRow, stamps, repeat(field), values, counts, tags, *cuts))
        self._runs.append((starts, made))
        if not COUNTED.issuperset(names):
            self._rows.update(((cell, max(start, _TIME_MIN_US)), row) for start, row in zip(starts, made, strict=True))

    @staticmethod
    def _column(name: str, known: Columns) -> Iterable[Number | None]:
        if name == AggregationType.COUNT:
            return known.counts
        if name == AggregationType.SUM:
            return known.totals
        if name == AggregationType.AVG:
            return map(truediv, known.totals, known.counts)
        if name == AggregationType.MIN:
            return known.lows
        return known.highs if name == AggregationType.MAX else repeat(None, len(known.counts))

    def put(
        self, group: int, field: str, start: int, name: str, value: Number | None, *, approximate: bool = False
    ) -> None:
        """Fill in a value of a row that is there."""
        row = self._row(group, field, start)
        row.values[name] = value
        if approximate:
            force_setattr(row, "approximate", True)

    def take(self, found: Iterable[AggregatedRow]) -> None:
        """Fill in what other rows tell of those that are there."""
        for other in found:
            row = self._row(self._groups[tuple(other.tags.items())], other.field, to_micros(other.timestamp))
            row.values.update(other.values)

    def _row(self, group: int, field: str, start: int) -> AggregatedRow:
        return self._rows[group * len(self._fields) + self._places[field], max(start, _TIME_MIN_US)]

    def rows(self) -> list[Any]:
        """All rows in order; where points were asked for and all is counted, as points."""
        runs = self._runs
        if not runs:
            return []
        first = runs[0][0]
        if all(starts == first for starts, _ in runs) and all(map(lt, first, first[1:])):
            return list(chain.from_iterable(zip(*(made for _, made in runs), strict=True)))
        by_start: defaultdict[int, list[Any]] = defaultdict(list)
        for starts, made in runs:
            for start, row in zip(starts, made, strict=True):
                by_start[start].append(row)
        return list(chain.from_iterable(by_start[start] for start in sorted(by_start)))
