"""Aggregates of one dense series, read bucket by bucket: in the order of the file, so that nothing has to be sorted.

One statement for all buckets sorts every row by its bucket, which takes three times as long as reading it. A statement
for each bucket costs some microseconds instead, so it pays as soon as a bucket has some dozens of rows.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import groupby, islice
from operator import itemgetter
from typing import Any

import apsw
import msgspec

from polaris.storage._aggregates import Number
from polaris.storage._aggregation import AggregationType, percent_of
from polaris.storage._buckets import CalendarBuckets, FixedBuckets
from polaris.storage._rollup_summaries import ExactSum, Rising, Summary, rise_in, summarise_columns
from polaris.storage._timeseries_requests import AggregateRequest, Micros
from polaris.storage.backends.sqlite._rollup_streams import IN_ORDER, Rate
from polaris.storage.backends.sqlite._sample_sql import hot_extent
from polaris.storage.backends.sqlite._series import COLUMNS, StoredSeries
from polaris.storage.backends.sqlite._sql import Row, row

BUCKETS_MAX = 10_000
"""Buckets that are worth a statement each."""
ROWS_A_BUCKET_MIN = 128
"""Rows that a bucket must have on average."""
ROWS_A_PIECE = 16_384
"""Rows that are fetched and told of together."""

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
_DEVIATION = (
    # Two readings, as the definition has it: one would lose the digits of small deviations of large numbers.
    "SELECT sqrt(sum((x - m.mean) * (x - m.mean)) / (m.n - 1)) FROM samples,"
    " (SELECT avg(x) AS mean, count(x) AS n FROM samples) AS m"
)
BY_CELL = (AggregationType.STDDEV, AggregationType.FIRST, AggregationType.LAST)
"""What reads the numbers of its field for itself."""
_DIFFERENCE = "(x{0} - (SELECT x{0} FROM samples WHERE x{0} IS NOT NULL LIMIT 1))"
_DIFFERENCES = (f"total({_DIFFERENCE})", f"total({_DIFFERENCE} * {_DIFFERENCE})")
"""The sums of the differences to one of the numbers, and of their squares: the deviation in a single reading."""
_LEFT_MIN = 1e-3
"""How much of the squares must be left for the deviation when the differences are taken out."""
_BOTH = ("ts_hot", "ts_cold")
Rises = dict[int, tuple[int, dict[str, Any]]]
"""Of buckets, by their starts, the count and what needs the numbers in order."""
Teller = Callable[[Sequence[int], Sequence[Number]], Summary]
"""Tells what is needed of numbers that follow each other: of their times, and of themselves."""


class CellReads:
    """One request about one series, bucket by bucket, or by parts of buckets: then each is told of for itself."""

    def __init__(
        self, connection: apsw.Connection, series: StoredSeries, request: AggregateRequest, buckets: Sequence[Bucket]
    ) -> None:
        self._connection = connection
        self._series = series
        self._places = {name: place for place, name in enumerate(series.shape)}
        self._request = request
        self._buckets = buckets
        self._hot = hot_extent(connection, request.micros)
        self._doubtful: dict[str, set[int]] = {}
        """Of each field the buckets whose deviation has to be read again."""

    def read(self, fields: Sequence[str]) -> Iterator[Told]:
        """Everything that is asked of the fields and that one reading can tell."""
        known = sorted((self._places[field] // COLUMNS, field) for field in fields if field in self._places)
        for part, found in groupby(known, key=itemgetter(0)):
            scanned: list[str] = []
            rises: dict[str, Rises] = {}
            for _, field in found:
                names = self._request.of(field)
                if not set(IN_ORDER).isdisjoint(names):
                    rises[field] = self._risen(field)
                if names and set(IN_ORDER).issuperset(names):
                    for start, (count, told) in rises[field].items():
                        yield start, field, count, {name: told[name] for name in names if name in told}
                else:
                    scanned.append(field)
            if scanned:
                yield from self._scan(part, scanned, rises)

    def single(self, field: str, name: str) -> Iterator[tuple[int, Any]]:
        """One of `BY_CELL` of one field: the starts of the buckets that have it, and its values."""
        if field not in self._places:
            return
        if name != AggregationType.STDDEV:
            for start, found in self._edge(field, "" if name == AggregationType.FIRST else "DESC"):
                if found is not None:
                    yield start, found[1]
            return
        doubtful = self._doubtful.get(field, ())
        buckets = [bucket for bucket in self._buckets if bucket[0] in doubtful]

        def sql(tables: Sequence[str]) -> str:
            wanted, condition = self._column(field)
            part = self._places[field] // COLUMNS
            return f"WITH {_samples(tables, part, wanted, condition)} {_DEVIATION}"

        for start, found in self._cells(sql, {}, buckets):
            if found is not None and found[0] is not None:
                yield start, found[0]

    def pieces(self, field: str, told: Teller) -> Iterator[tuple[int, Summary]]:
        """What is told of the numbers of each bucket in order of time, in parts where they are many."""
        if field not in self._places:
            return

        def sql(tables: Sequence[str]) -> str:
            part = self._places[field] // COLUMNS
            return " UNION ALL ".join(_rows(table, part, *self._column(field)) for table in tables) + " ORDER BY ts"

        for start, cursor in self._read(sql, {}, self._buckets):
            while found := list(islice(cursor, ROWS_A_PIECE)):
                yield start, told([ts for ts, _ in found], [value for _, value in found])

    def ends(self, field: str) -> Iterator[tuple[int, Summary]]:
        """Of the numbers of each bucket the first and the last, and nothing else."""
        edges = [self._edge(field, direction) for direction in ("", "DESC")] if field in self._places else []
        for (start, first), (_, last) in zip(*edges, strict=True):
            if first is not None and last is not None:
                yield start, Summary(2, 0.0, first[1], first[1], first[0], first[1], last[0], last[1], 0.0, 0.0)

    def _edge(self, field: str, direction: str) -> Iterator[tuple[int, Row | None]]:
        part = self._places[field] // COLUMNS

        def sql(tables: Sequence[str]) -> str:
            edges = " UNION ALL ".join(
                f"SELECT * FROM ({_rows(table, part, *self._column(field))} ORDER BY ts {direction} LIMIT 1)"  # noqa: S608
                for table in tables
            )
            return f"SELECT ts, x FROM ({edges}) ORDER BY ts {direction} LIMIT 1"  # noqa: S608

        return self._cells(sql, {}, self._buckets)

    def _column(self, field: str) -> tuple[str, str]:
        """The time and the number of a field, and the condition that it is one."""
        column = f"c{self._places[field] % COLUMNS}"
        return f"ts, {column} AS x", f"AND {column} < {_TEXT}"

    def _risen(self, field: str) -> Rises:
        """Of each bucket how many numbers it has, its rate and its increase, as far as it has them."""
        found: Rises = {}
        rising = Rising()
        for start, of_bucket in groupby(self.pieces(field, _in_order), key=itemgetter(0)):
            rate: Rate | None = None
            rises = ExactSum()
            count, is_risen = 0, False
            for _, one in of_bucket:
                rate = rate or Rate(one.first_us)
                rate.take(one)
                count += one.count
                step = rising.step(one)
                if step is not None:
                    is_risen = True
                    rises.add(step)
            told: dict[str, Any] = {AggregationType.INCREASE: rises.total} if is_risen else {}
            if rate is not None and rate.per_second is not None:
                told[AggregationType.RATE] = rate.per_second
            found[start] = (count, told)
        return found

    def _scan(self, part: int, fields: Sequence[str], rises: Mapping[str, Rises]) -> Iterator[Told]:
        columns = [f"c{self._places[field] % COLUMNS}" for field in fields]
        if len(fields) == 1:
            # Numbers are what sorts before all texts. Of a single field, what is no number makes no row at all.
            selected, condition = f"{columns[0]} AS x0", f"AND {columns[0]} < {_TEXT}"
        else:
            cases = (f"CASE WHEN {one} < {_TEXT} THEN {one} END AS x{place}" for place, one in enumerate(columns))
            selected, condition = ", ".join(cases), ""
        wanted, bindings = [], dict[str, Any]()
        names = [[name for name in self._request.of(field) if _is_scanned(name)] for field in fields]
        for place, of_field in enumerate(names):
            wanted.append(f"count(x{place})")
            wanted += [expression(name, place, bindings) for name in of_field]
            if AggregationType.STDDEV in self._request.of(fields[place]):
                wanted += [one.format(place) for one in _DIFFERENCES]

        def sql(tables: Sequence[str]) -> str:
            return f"WITH {_samples(tables, part, selected, condition)} SELECT {', '.join(wanted)} FROM samples"  # noqa: S608

        for start, found in self._cells(sql, bindings, self._buckets):
            values = iter(found or ())
            for field, of_field in zip(fields, names, strict=True):
                count = next(values)
                told = {name: next(values) for name in of_field}
                if field in rises and start in rises[field]:
                    risen = rises[field][start][1]
                    told |= {name: risen[name] for name in self._request.of(field) if name in risen}
                if AggregationType.STDDEV in self._request.of(field):
                    deviation = _deviation(count, next(values), next(values))
                    if deviation is not None:
                        told[AggregationType.STDDEV] = deviation
                    elif count > 1:
                        self._doubtful.setdefault(field, set()).add(start)
                if count:
                    yield start, field, count, told

    def _cells(
        self, sql: Callable[[Sequence[str]], str], bindings: dict[str, Any], among: Sequence[Bucket]
    ) -> Iterator[tuple[int, Row | None]]:
        """The first row of the statement for each bucket."""
        for start, cursor in self._read(sql, bindings, among):
            yield start, cursor.fetchone()

    def _read(
        self, sql: Callable[[Sequence[str]], str], bindings: dict[str, Any], among: Sequence[Bucket]
    ) -> Iterator[tuple[int, apsw.Cursor]]:
        """The statement begun for each bucket; of only the cold table where the hot one has nothing.

        The buckets come from a statement that stays open: an interruption between two others reaches the next one.
        """
        of_both, of_cold = sql(_BOTH), sql(_BOTH[1:])
        hot_from, hot_until = self._hot or (0, 0)
        buckets = self._connection.execute(
            "SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?)",
            (msgspec.json.encode(among).decode(),),
        )
        with closing(buckets):
            for start, low, high in buckets:
                statement = of_both if low < hot_until and high > hot_from else of_cold
                yield (
                    start,
                    self._connection.execute(
                        statement, bindings | {"series": self._series.number, "low": low, "high": high}
                    ),
                )


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


def parts_of(
    request: AggregateRequest, stretches: Sequence[Micros], edges: Sequence[Bucket] | None
) -> list[Bucket] | None:
    """The parts of stretches of time that lie in one bucket each, as buckets; None when they are too many.

    `edges` are the buckets of a calendar.
    """
    buckets = request.buckets
    if buckets is None:
        return [(request.micros[0], low, high) for low, high in stretches]
    if isinstance(buckets, FixedBuckets):
        if sum((high - low) // buckets.width_us + 2 for low, high in stretches) > BUCKETS_MAX:
            return None
        return [part for low, high in stretches for part in _fixed(buckets, low, high)]
    edges = edges or ()
    if len(edges) + len(stretches) > BUCKETS_MAX:
        return None
    ends = [high for _, _, high in edges]
    found: list[Bucket] = []
    for low, high in stretches:
        for start, first, end in islice(edges, bisect_right(ends, low), None):
            if first >= high:
                break
            found.append((start, max(first, low), min(end, high)))
    return found


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


def _samples(tables: Sequence[str], part: int, columns: str, condition: str) -> str:
    united = " UNION ALL ".join(_rows(table, part, columns, condition) for table in tables)
    return f"samples AS NOT MATERIALIZED ({united})"


def of_numbers(times: Sequence[int], values: Sequence[Number]) -> Summary:
    """All but a sketch."""
    return summarise_columns(times, values, sketched=False)


def _in_order(times: Sequence[int], values: Sequence[Number]) -> Summary:
    """Of numbers only what rates and increases need."""
    first, last = values[0], values[-1]
    return Summary(len(values), 0.0, first, first, times[0], first, times[-1], last, 0.0, rise_in(values))


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
