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


async def filled(rows: Sequence[AggregatedRow], buckets: Buckets, micros: Micros, fill: Fill) -> list[AggregatedRow]:
    """The rows, and between them those of the buckets without numbers, `count` 0; all in order.

    `null`: their values are None. `previous`: those of the bucket before, as far back as need be. `linear`: on the line
    between the nearest neighbours with a value, by the starts of their buckets. Where there is no neighbour, at the
    ends of the range, the values are None as well. A value that is None for want of numbers (a deviation of one) is
    filled like a missing one. What is filled from an `approximate` row is approximate too. Raises `QueryError` for more
    than 100 000 buckets or 1 000 000 rows.
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
    known = {name: [row for row in rows if row.values[name] is not None] for name in names}
    by_time = {row.timestamp: row for row in rows}
    for stamp in times:
        row = by_time.get(stamp)
        if row is None:
            row = AggregatedRow(stamp, first.field, dict.fromkeys(names), 0, dict(first.tags))
        missing = [name for name, value in row.values.items() if value is None]
        if missing and fill != "null":
            sources = {name: _around(known[name], stamp, fill) for name in missing}
            values = row.values | {name: _between(name, stamp, found) for name, found in sources.items()}
            is_approximate = row.approximate or any(one.approximate for found in sources.values() for one in found)
            row = replace(row, values=values, approximate=is_approximate)
        yield row


def _around(known: Sequence[AggregatedRow], stamp: datetime, fill: Fill) -> Sequence[AggregatedRow]:
    """The rows that tell the value at a time that has none: the one before it, for a line also the one after it."""
    place = bisect_left(known, stamp, key=lambda row: row.timestamp)
    if place == 0:
        return ()
    if fill == "previous":
        return known[place - 1 : place]
    return known[place - 1 : place + 1] if place < len(known) else ()


def _between(name: str, stamp: datetime, found: Sequence[AggregatedRow]) -> Number | None:
    """The value of one row, or on the line between two."""
    if not found:
        return None
    before, after = found[0], found[-1]
    low, high = before.values[name], after.values[name]
    if before is after or low is None or high is None:
        return low
    return low + (high - low) * ((stamp - before.timestamp) / (after.timestamp - before.timestamp))
