"""Aggregates of one dense series, read bucket by bucket: in the order of the file, so that nothing has to be sorted.

One statement for all buckets sorts every row by its bucket, which takes three times as long as reading it. A statement
for each bucket costs some microseconds instead, so it pays as soon as a bucket has some dozens of rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import groupby
from typing import Any

import apsw
import msgspec

from polaris.storage._aggregation import AggregationType, percent_of
from polaris.storage._buckets import CalendarBuckets, FixedBuckets
from polaris.storage._timeseries_requests import AggregateRequest
from polaris.storage.backends.sqlite._series import COLUMNS, StoredSeries
from polaris.storage.backends.sqlite._sql import Row, row

BUCKETS_MAX = 10_000
"""Buckets that are worth a statement each."""
ROWS_A_BUCKET_MIN = 128
"""Rows that a bucket must have on average."""

Bucket = tuple[int, int, int]
"""The start of a bucket, and the part of it that lies in the range: its first instant, and the one behind the last."""
Told = tuple[int, str, int, dict[str, Any]]
"""The start of a bucket, a field, how many numbers it has there, and values by the names of aggregations."""

_SIMPLE: dict[str, str] = {
    AggregationType.AVG: "avg({})",
    AggregationType.SUM: "total({})",
    AggregationType.MIN: "min({})",
    AggregationType.MAX: "max({})",
    AggregationType.COUNT: "count({})",
}
_RISE = "CASE WHEN x < earlier THEN x ELSE x - earlier END"
_SINGLE: dict[str, str] = {
    # Two readings, as the definition has it: one would lose the digits of small deviations of large numbers.
    AggregationType.STDDEV: (
        "SELECT sqrt(sum((x - m.mean) * (x - m.mean)) / (m.n - 1)) FROM samples,"
        " (SELECT avg(x) AS mean, count(x) AS n FROM samples) AS m"
    ),
    AggregationType.RATE: (
        f"SELECT total({_RISE}) / (nullif(max(ts) - min(ts), 0) / 1e6) FROM"  # noqa: S608
        " (SELECT ts, x, lag(x, 1, x) OVER (ORDER BY ts) AS earlier FROM samples)"
    ),
    AggregationType.FIRST: "SELECT x FROM edges ORDER BY ts LIMIT 1",
    AggregationType.LAST: "SELECT x FROM edges ORDER BY ts DESC LIMIT 1",
}
"""What reads the numbers of its field for itself; `edges` has the first or the last of each table."""
BY_CELL = frozenset(_SINGLE)
_DIFFERENCE = "(x{0} - (SELECT x{0} FROM samples WHERE x{0} IS NOT NULL LIMIT 1))"
_DIFFERENCES = (f"total({_DIFFERENCE})", f"total({_DIFFERENCE} * {_DIFFERENCE})")
"""The sums of the differences to one of the numbers, and of their squares: the deviation in a single reading."""
_LEFT_MIN = 1e-3
"""How much of the squares must be left for the deviation when the differences are taken out."""


class CellReads:
    """One request about one series. Made by `cell_reads`, which tells whether it pays."""

    def __init__(
        self, connection: apsw.Connection, series: StoredSeries, request: AggregateRequest, buckets: Sequence[Bucket]
    ) -> None:
        self._connection = connection
        self._series = series
        self._places = {name: place for place, name in enumerate(series.shape)}
        self._request = request
        self._buckets = buckets
        self._doubtful: dict[str, set[int]] = {}
        """Of each field the buckets whose deviation has to be read again."""

    def read(self, fields: Sequence[str]) -> Iterator[Told]:
        """Everything that is asked of the fields, but for increases, which look beyond their bucket."""
        known = sorted((self._places[field] // COLUMNS, field) for field in fields if field in self._places)
        for part, found in groupby(known, key=lambda one: one[0]):
            yield from self._scan(part, [field for _, field in found])

    def single(self, field: str, name: str) -> Iterator[tuple[int, Any]]:
        """One of `BY_CELL` of one field: the starts of the buckets that have it, and its values."""
        if field not in self._places:
            return
        buckets = self._buckets
        if name == AggregationType.STDDEV:
            doubtful = self._doubtful.get(field, ())
            buckets = [bucket for bucket in buckets if bucket[0] in doubtful]
        part, column = divmod(self._places[field], COLUMNS)
        if name in (AggregationType.FIRST, AggregationType.LAST):
            direction = "" if name == AggregationType.FIRST else "DESC"
            tables = " UNION ALL ".join(
                f"SELECT * FROM ({_rows(table, part, f'ts, c{column} AS x', f'AND c{column} < {_TEXT}')}"  # noqa: S608
                f" ORDER BY ts {direction} LIMIT 1)"
                for table in ("ts_hot", "ts_cold")
            )
            sql = f"WITH edges AS ({tables}) {_SINGLE[name]}"
        else:
            sql = f"WITH {_samples(part, f'ts, c{column} AS x', f'AND c{column} < {_TEXT}')} {_SINGLE[name]}"
        for start, found in self._cells(sql, {}, buckets):
            if found is not None and found[0] is not None:
                yield start, found[0]

    def _scan(self, part: int, fields: Sequence[str]) -> Iterator[Told]:
        columns = [f"c{self._places[field] % COLUMNS}" for field in fields]
        if len(fields) == 1:
            # Numbers are what sorts before all texts. Of a single field, what is no number makes no row at all.
            samples = _samples(part, f"{columns[0]} AS x0", f"AND {columns[0]} < {_TEXT}")
        else:
            selected = (f"CASE WHEN {one} < {_TEXT} THEN {one} END AS x{place}" for place, one in enumerate(columns))
            samples = _samples(part, ", ".join(selected), "")
        wanted, bindings = [], dict[str, Any]()
        names = [[name for name in self._request.of(field) if _is_scanned(name)] for field in fields]
        for place, of_field in enumerate(names):
            wanted.append(f"count(x{place})")
            wanted += [expression(name, place, bindings) for name in of_field]
            if AggregationType.STDDEV in self._request.of(fields[place]):
                wanted += [one.format(place) for one in _DIFFERENCES]
        sql = f"WITH {samples} SELECT {', '.join(wanted)} FROM samples"  # noqa: S608
        for start, found in self._cells(sql, bindings, self._buckets):
            values = iter(found or ())
            for field, of_field in zip(fields, names, strict=True):
                count = next(values)
                told = {name: next(values) for name in of_field}
                if AggregationType.STDDEV in self._request.of(field):
                    deviation = _deviation(count, next(values), next(values))
                    if deviation is not None:
                        told[AggregationType.STDDEV] = deviation
                    elif count > 1:
                        self._doubtful.setdefault(field, set()).add(start)
                if count:
                    yield start, field, count, told

    def _cells(self, sql: str, bindings: dict[str, Any], among: Sequence[Bucket]) -> Iterator[tuple[int, Row | None]]:
        """The first row of the statement for each bucket.

        The buckets come from a statement that stays open: an interruption between two others reaches the next one.
        """
        buckets = self._connection.execute(
            "SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?)",
            (msgspec.json.encode(among).decode(),),
        )
        with closing(buckets):
            for start, low, high in buckets:
                found = row(self._connection, sql, bindings | {"series": self._series.number, "low": low, "high": high})
                yield start, found


def cell_reads(
    connection: apsw.Connection,
    series: Sequence[StoredSeries],
    request: AggregateRequest,
    calendar: Callable[[], Sequence[Bucket]],
) -> CellReads | None:
    """How to read bucket by bucket; None when the request is about several series, or has too few rows for it.

    `calendar` counts out the buckets of a calendar.
    """
    if len(series) != 1:
        return None
    buckets = _counted_out(request, calendar)
    if not buckets:
        return None
    dense = "SELECT 1 FROM ts_cold WHERE series = ? AND ts >= ? AND ts < ? AND part = 0 LIMIT 1 OFFSET ?"
    if row(connection, dense, (series[0].number, *request.micros, len(buckets) * ROWS_A_BUCKET_MIN)) is None:
        return None
    return CellReads(connection, series[0], request, buckets)


def _counted_out(request: AggregateRequest, calendar: Callable[[], Sequence[Bucket]]) -> Sequence[Bucket]:
    """The buckets of the range; none when they are too many."""
    start, end = request.micros
    buckets = request.buckets
    if start >= end:
        return ()
    if buckets is None:
        return [(start, start, end)]
    if isinstance(buckets, CalendarBuckets):
        found = calendar()
        return found if len(found) <= BUCKETS_MAX else ()
    if (end - start) // buckets.width_us >= BUCKETS_MAX:
        return ()
    return _fixed(buckets, start, end)


def _fixed(buckets: FixedBuckets, start: int, end: int) -> list[Bucket]:
    firsts = range(buckets.start_of(start), end, buckets.width_us)
    return [(first, max(first, start), min(first + buckets.width_us, end)) for first in firsts]


_TEXT = "''"


def _rows(table: str, part: int, columns: str, condition: str) -> str:
    return (
        f"SELECT {columns} FROM {table}"  # noqa: S608
        f" WHERE series = :series AND ts >= :low AND ts < :high AND part = {part} {condition}"
    )


def _samples(part: int, columns: str, condition: str) -> str:
    tables = " UNION ALL ".join(_rows(table, part, columns, condition) for table in ("ts_hot", "ts_cold"))
    return f"samples AS NOT MATERIALIZED ({tables})"


def _deviation(count: int, differences: float, squares: float) -> float | None:
    """The deviation of numbers from what they differ from one of them; None where too many digits would be lost."""
    if count < 2:
        return None
    spread = squares - differences * differences / count
    if not spread >= _LEFT_MIN * squares or not math.isfinite(spread):
        return None
    return math.sqrt(spread / (count - 1))


def _is_scanned(name: str) -> bool:
    return name in _SIMPLE or percent_of(name) is not None


def expression(name: str, place: int, bindings: dict[str, Any]) -> str:
    """The expression of an aggregation that needs nothing but the numbers of a column."""
    if name in _SIMPLE:
        return _SIMPLE[name].format(f"x{place}")
    parameter = f"percent{len(bindings)}"
    bindings[parameter] = percent_of(name)
    return f"percentile(x{place}, :{parameter})"
