"""Reading points: the union of both tables in order of time, rows put together again."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import apsw
import msgspec

from polaris.storage._points import FieldValue, TimeSeriesPoint, valid_point
from polaris.storage._ranges import from_micros
from polaris.storage._tag_filter import TagFilter
from polaris.storage._timeseries_requests import Micros, PointQuery
from polaris.storage.backends.sqlite._series import COLUMN_NAMES, COLUMNS, Shape, StoredSeries
from polaris.storage.backends.sqlite._series_sql import series_sql, tags_of
from polaris.storage.backends.sqlite._sql import rows

WINDOWED_POINTS_MAX = 50_000
"""Points of many series up to which they are read in windows of time; of more, all that there are may be read."""
REACH_SERIES_MAX = 500
"""Series that are asked where the first window may end."""

_COLUMN_LIST = ", ".join(f"p.{name} AS {name}" for name in COLUMN_NAMES)
_MARKED: dict[bytes, FieldValue] = {b"n": None, b"t": True, b"f": False}

Places = dict[int, dict[int, str]]
"""Part to column to field."""


def read_points(
    connection: apsw.Connection, series: Sequence[StoredSeries], query: PointQuery
) -> list[TimeSeriesPoint]:
    """The points of the series in the range."""
    fields = query.fields
    chosen = [one for one in series if fields is None or not fields.isdisjoint(one.shape)]
    if not chosen or not query.limit:
        return []
    # Behind the cursor, at its own instant, are the series of this rank and higher ones.
    rank = 0
    if query.after is not None:
        rank = bisect_right(chosen, query.after.key, key=lambda one: tuple(sorted(one.tags.items())))
    if len(chosen) == 1 or query.limit > WINDOWED_POINTS_MAX:
        return _read(connection, chosen, query, query.window, query.limit, rank)
    return _read_in_windows(connection, chosen, query, rank)


def _read_in_windows(
    connection: apsw.Connection, chosen: Sequence[StoredSeries], query: PointQuery, rank: int
) -> list[TimeSeriesPoint]:
    """Many series, few points: one window of time after the other, so that only about those are read and sorted.

    The cold table is in order of its series. The first window reaches as far as half of the series have their share of
    the points; every further one is twice as long.
    """
    start, end = query.window
    found: list[TimeSeriesPoint] = []
    share = -(-query.limit // len(chosen))
    bound = _reach(connection, chosen, (start, end), share, descending=query.descending)
    while start < end and len(found) < query.limit:
        window = (max(start, bound), end) if query.descending else (start, min(end, bound))
        found += _read(connection, chosen, query, window, query.limit - len(found), rank)
        if query.descending:
            length, end = end - window[0], window[0]
            bound = end - 2 * length
        else:
            length, start = window[1] - start, window[1]
            bound = start + 2 * length
    return found


def _reach(
    connection: apsw.Connection, chosen: Sequence[StoredSeries], window: Micros, share: int, *, descending: bool
) -> int:
    """Where the first window may end: at the median of the times by which the series have had their share of points."""
    start, end = window
    direction = "DESC" if descending else "ASC"
    sql = (
        "SELECT (SELECT p.ts FROM ts_cold p WHERE p.series = c.value AND p.ts >= :start AND p.ts < :end AND p.part = 0"  # noqa: S608
        f" ORDER BY p.ts {direction} LIMIT 1 OFFSET :share) FROM json_each(:chosen) c"
    )
    step = max(1, len(chosen) // REACH_SERIES_MAX)
    bindings = {
        "chosen": msgspec.json.encode([one.number for one in chosen[::step]]).decode(),
        "start": start,
        "end": end,
        "share": share,
    }
    far = start if descending else end
    times = sorted(far if ts is None else ts for (ts,) in rows(connection, sql, bindings))
    return int(times[len(times) // 2]) if descending else int(times[len(times) // 2]) + 1


def _read(
    connection: apsw.Connection,
    chosen: Sequence[StoredSeries],
    query: PointQuery,
    window: Micros,
    limit: int,
    rank: int,
) -> list[TimeSeriesPoint]:
    direction = " DESC" if query.descending else ""
    bindings: dict[str, Any] = {
        "start": window[0],
        "end": window[1],
        "limit": limit * max(one.parts for one in chosen),
    }
    condition = "p.ts >= :start AND p.ts < :end"
    if query.after is not None and window[0] <= query.after.time_us < window[1]:
        bindings |= {"after": query.after.time_us, "rank": rank}
        condition += " AND (p.ts <> :after OR c.rank >= :rank)"
    if len(chosen) == 1:
        bindings["series"] = chosen[0].number
        condition = condition.replace("c.rank", "0") + " AND p.series = :series" + _holding(chosen[0], query.fields)
        # Parts in the direction of time, so that both tables yield this order by themselves.
        order = f"ts{direction}, part{direction}"
        sql = " UNION ALL ".join(
            f"SELECT p.ts AS ts, 0 AS rank, p.part AS part, {_COLUMN_LIST} FROM {table} p WHERE {condition}"  # noqa: S608
            for table in ("ts_hot", "ts_cold")
        )
    else:
        bindings["chosen"] = _chosen_json(chosen)
        order = f"ts{direction}, rank, part"
        sql = _many_sql(chosen, query.fields, condition)
    found = connection.execute(f"{sql} ORDER BY {order} LIMIT :limit", bindings)
    return list(_points(found, chosen, query.fields, limit))


def _chosen_json(chosen: Sequence[StoredSeries]) -> str:
    return msgspec.json.encode([(one.number, one.shape_number) for one in chosen]).decode()


# Without its cast the number of the series has no type, and SQLite would not look it up for the hot rows.
_CHOSEN = "SELECT CAST(value ->> 0 AS INTEGER) AS series, value ->> 1 AS shape, key AS rank FROM json_each(:chosen)"


def _many_sql(chosen: Sequence[StoredSeries], fields: frozenset[str] | None, condition: str) -> str:
    if fields is not None:
        shapes = {one.shape_number: one for one in chosen}
        # Numbers of shapes and columns are integers of our own making.
        cases = [f"(c.shape = {int(number)}{_holding(one, fields)})" for number, one in shapes.items()]
        condition += f" AND ({' OR '.join(cases)})"
    return (
        f"WITH chosen AS MATERIALIZED ({_CHOSEN})"  # noqa: S608 - made of constants and integers
        f" SELECT p.ts AS ts, c.rank AS rank, p.part AS part, {_COLUMN_LIST} FROM ts_hot p CROSS JOIN chosen c"
        f" WHERE c.series = p.series AND {condition}"
        f" UNION ALL SELECT p.ts, c.rank, p.part, {_COLUMN_LIST} FROM chosen c CROSS JOIN ts_cold p"
        f" WHERE p.series = c.series AND {condition}"
    )


def _holding(series: StoredSeries, fields: frozenset[str] | None) -> str:
    """The condition that a row holds one of the fields; nothing when all are wanted."""
    if fields is None:
        return ""
    cases = [
        f"(p.part = {place // COLUMNS} AND p.c{place % COLUMNS} IS NOT NULL)"
        for place, name in enumerate(series.shape)
        if name in fields
    ]
    return f" AND ({' OR '.join(cases)})"


_LATEST = (
    f"SELECT c.tags AS tags, p.part AS part, p.ts, c.shape, {_COLUMN_LIST} FROM ({{chosen}}) AS c"  # noqa: S608
    " CROSS JOIN ts_latest l CROSS JOIN {table} p WHERE l.series = c.series AND p.series = c.series AND p.ts = l.ts"
)


def read_latest(
    connection: apsw.Connection,
    collection: str,
    tags: TagFilter,
    shape_of: Callable[[int], Shape],
    fields: frozenset[str] | None,
) -> list[TimeSeriesPoint]:
    """The newest point of each series that passes, in order of their tags, found by its key in one statement."""
    chosen, parameters = series_sql(collection, tags, "s.id AS series, s.tags AS tags, s.shape AS shape")
    both = " UNION ALL ".join(_LATEST.format(chosen=chosen, table=table) for table in ("ts_hot", "ts_cold"))
    found: list[tuple[int, str, dict[str, FieldValue]]] = []
    for text, part, ts, shape, *columns in rows(connection, f"{both} ORDER BY tags, part", parameters * 2):
        if not found or found[-1][1] != text:
            found.append((ts, text, {}))
        _fill(found[-1][2], shape_of(shape)[part * COLUMNS :], columns, fields)
    return [valid_point(from_micros(ts), tags_of(text), values) for ts, text, values in found if values]


def _points(
    found: Iterable[Sequence[Any]], series: Sequence[StoredSeries], fields: frozenset[str] | None, limit: int
) -> Iterator[TimeSeriesPoint]:
    """Put the parts of each point together; rows of one point follow each other."""
    present: tuple[int, int] | None = None
    values: dict[str, FieldValue] = {}
    count = 0
    for row in found:
        ts, rank, part = row[0], row[1], row[2]
        if (ts, rank) != present:
            if present is not None and values:
                yield valid_point(from_micros(present[0]), series[present[1]].tags.copy(), values)
                count += 1
                if count == limit:
                    return
            present, values = (ts, rank), {}
        _fill(values, series[rank].shape[part * COLUMNS :], row[3:], fields)
    if present is not None and values:
        yield valid_point(from_micros(present[0]), series[present[1]].tags.copy(), values)


def _fill(
    values: dict[str, FieldValue], names: Sequence[str], columns: Sequence[Any], fields: frozenset[str] | None
) -> None:
    """Put the columns of one part under their names."""
    for name, value in zip(names, columns, strict=False):
        if value is not None and (fields is None or name in fields):
            values[name] = _MARKED[value] if value.__class__ is bytes else value
