"""Filling the gaps of aggregates: a row for every bucket of the range, for each group and field that has any."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from datetime import datetime

from msgspec.structs import replace

from polaris.storage._aggregates import bucket_time, too_many_rows
from polaris.storage._aggregation import AggregatedRow, Fill
from polaris.storage._buckets import Buckets
from polaris.storage._limits import LIMIT_MAX
from polaris.storage._timeseries_requests import Micros, SeriesKey
from polaris.storage._turns import in_turns

Number = int | float
Values = dict[str, Number | None]


async def filled(rows: Sequence[AggregatedRow], buckets: Buckets, micros: Micros, fill: Fill) -> list[AggregatedRow]:
    """The rows, and between them those of the buckets without numbers, `count` 0; all in order.

    `null`: their values are None. `previous`: those of the bucket before, as far back as need be. `linear`: on the line
    between the nearest neighbours with a value, by the starts of their buckets. Where there is no neighbour, at the
    ends of the range, the values are None as well. A value that is None for want of numbers (a deviation of one) is
    filled like a missing one. Raises `QueryError` for more than 100 000 buckets or 1 000 000 rows.
    """
    if not rows or micros[0] == micros[1]:
        return list(rows)
    times = [bucket_time(start) for start in buckets.starts(micros[0], micros[1] - 1)]
    columns: dict[tuple[SeriesKey, str], list[AggregatedRow]] = {}
    for row in rows:
        columns.setdefault((tuple(row.tags.items()), row.field), []).append(row)
    if len(times) * len(columns) > LIMIT_MAX:
        raise too_many_rows()
    ordered = [_column(columns[key], times, fill) for key in sorted(columns)]
    return [row async for row in in_turns(row for bucket in zip(*ordered, strict=True) for row in bucket)]


def _column(rows: Sequence[AggregatedRow], times: Sequence[datetime], fill: Fill) -> Iterator[AggregatedRow]:
    """The rows of one group and field, one for each time."""
    first = rows[0]
    names = list(first.values)
    series = {name: [(row.timestamp, row.values[name]) for row in rows] for name in names}
    known = {name: [(stamp, value) for stamp, value in column if value is not None] for name, column in series.items()}
    by_time = {row.timestamp: row for row in rows}
    for stamp in times:
        row = by_time.get(stamp)
        if row is None:
            values: Values = {name: _between(known[name], stamp, fill) for name in names}
            row = AggregatedRow(stamp, first.field, values, 0, dict(first.tags))
        elif None in row.values.values():
            values = {
                name: _between(known[name], stamp, fill) if value is None else value
                for name, value in row.values.items()
            }
            row = replace(row, values=values)
        yield row


def _between(known: Sequence[tuple[datetime, Number]], stamp: datetime, fill: Fill) -> Number | None:
    """The value at a time that has none, from those before and after it."""
    if fill == "null":
        return None
    place = bisect_left(known, stamp, key=lambda entry: entry[0])
    if place == 0:
        return None
    before, low = known[place - 1]
    if fill == "previous":
        return low
    if place == len(known):
        return None
    after, high = known[place]
    return low + (high - low) * ((stamp - before) / (after - before))
