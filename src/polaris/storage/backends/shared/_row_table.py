"""Rows of aggregates made column by column: a result of many thousand rows costs little more than its objects."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import chain, repeat, starmap
from operator import truediv
from typing import Any

from msgspec.structs import force_setattr

from polaris.storage._aggregates import Number, bucket_time, too_many_rows
from polaris.storage._aggregation import AggregatedRow, AggregationType
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
        self._by_start: defaultdict[int, list[AggregatedRow]] = defaultdict(list)
        self._rows: dict[tuple[int, int], AggregatedRow] = {}
        """Those that `put` will ask for."""
        self._count = 0

    def add(self, cell: int, found: Sequence[Counted]) -> None:
        """Make the rows of a cell, one for each bucket; cells come in ascending order. What is not counted is None.

        Raises `QueryError` beyond 1 000 000 rows.
        """
        self._count += len(found)
        if self._count > LIMIT_MAX:
            raise too_many_rows()
        group, place = divmod(cell, len(self._fields))
        field = self._fields[place]
        _, starts, counts, totals, lows, highs, cuts = zip(*found, strict=True)
        known: dict[str, Iterable[Number]] = {
            AggregationType.COUNT: counts,
            AggregationType.SUM: totals,
            AggregationType.AVG: map(truediv, totals, counts) if AggregationType.AVG in self._request.of(field) else (),
            AggregationType.MIN: lows,
            AggregationType.MAX: highs,
        }
        names = self._request.of(field)
        columns = [known.get(name, repeat(None, len(counts))) for name in names]
        values: Iterable[dict[str, Any]]
        if len(names) == 1:
            (name,) = names
            values = ({name: value} for value in columns[0])
        else:
            values = (dict(zip(names, told, strict=True)) for told in zip(*columns, strict=True))
        stamps = map(self._stamps.__getitem__, starts)
        tags = starmap(self._tags[group].copy, repeat((), len(starts)))
        rows = map(AggregatedRow, stamps, repeat(field), values, counts, tags, map(bool, cuts))
        by_start = self._by_start
        if COUNTED.issuperset(names):
            for start, row in zip(starts, rows, strict=True):
                by_start[start].append(row)
        else:
            for start, row in zip(starts, rows, strict=True):
                by_start[start].append(row)
                self._rows[cell, max(start, _TIME_MIN_US)] = row

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

    def rows(self) -> list[AggregatedRow]:
        """All rows in order."""
        return list(chain.from_iterable(self._by_start[start] for start in sorted(self._by_start)))
