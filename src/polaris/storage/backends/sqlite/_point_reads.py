"""Reading points: the union of both tables in order of time, rows put together again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from datetime import UTC, datetime
from typing import Any

import apsw
import msgspec
from msgspec.structs import force_setattr

from polaris.storage._operation import Micros
from polaris.storage._ranges import from_micros
from polaris.storage._timeseries import FieldValue, TimeSeriesPoint
from polaris.storage.backends.sqlite._series import COLUMN_NAMES, COLUMNS, StoredSeries

_COLUMN_LIST = ", ".join(COLUMN_NAMES)
_MARKED: dict[bytes, FieldValue] = {b"n": None, b"t": True, b"f": False}
_TEMPLATE = TimeSeriesPoint(datetime(2000, 1, 1, tzinfo=UTC), {}, {"template": 0})

Places = dict[int, dict[int, str]]
"""Part to column to field."""


def query(
    connection: apsw.Connection,
    series: Sequence[StoredSeries],
    micros: Micros,
    *,
    limit: int,
    descending: bool,
    fields: frozenset[str] | None,
) -> list[TimeSeriesPoint]:
    """The points of the series in the range."""
    chosen = [one for one in series if fields is None or not fields.isdisjoint(one.shape)]
    if not chosen or not limit:
        return []
    direction = " DESC" if descending else ""
    rows_max = limit * max(one.parts for one in chosen)
    bindings: dict[str, Any] = {"start": micros[0], "end": micros[1], "limit": rows_max}
    if len(chosen) == 1:
        bindings["series"] = chosen[0].number
        condition = "series = :series AND ts >= :start AND ts < :end" + _holding(chosen[0], fields)
        # Parts in the direction of time, so that both tables yield this order by themselves.
        order = f"ts{direction}, part{direction}"
        sql = " UNION ALL ".join(
            f"SELECT ts, 0 AS rank, part, {_COLUMN_LIST} FROM {table} WHERE {condition}"  # noqa: S608
            for table in ("ts_hot", "ts_cold")
        )
    else:
        bindings["chosen"] = _chosen_json(chosen)
        order = f"ts{direction}, rank, part"
        sql = _many_sql(chosen, fields)
    rows = connection.execute(f"{sql} ORDER BY {order} LIMIT :limit", bindings)
    return list(_points(rows, chosen, fields, limit))


def _chosen_json(chosen: Sequence[StoredSeries]) -> str:
    return msgspec.json.encode([(one.number, one.shape_number) for one in chosen]).decode()


_CHOSEN = "SELECT value ->> 0 AS series, value ->> 1 AS shape, key AS rank FROM json_each(:chosen)"


def _many_sql(chosen: Sequence[StoredSeries], fields: frozenset[str] | None) -> str:
    holding = ""
    if fields is not None:
        shapes = {one.shape_number: one for one in chosen}
        # Numbers of shapes and columns are integers of our own making.
        cases = [f"(c.shape = {int(number)}{_holding(one, fields, 'p.')})" for number, one in shapes.items()]
        holding = f" AND ({' OR '.join(cases)})"
    columns = ", ".join(f"p.{name} AS {name}" for name in COLUMN_NAMES)
    inside = "p.ts >= :start AND p.ts < :end"
    return (
        f"WITH chosen AS MATERIALIZED ({_CHOSEN})"  # noqa: S608 - made of constants and integers
        f" SELECT p.ts AS ts, c.rank AS rank, p.part AS part, {columns} FROM ts_hot p CROSS JOIN chosen c"
        f" WHERE c.series = p.series AND {inside}{holding}"
        f" UNION ALL SELECT p.ts, c.rank, p.part, {columns} FROM chosen c CROSS JOIN ts_cold p"
        f" WHERE p.series = c.series AND {inside}{holding}"
    )


def _holding(series: StoredSeries, fields: frozenset[str] | None, prefix: str = "") -> str:
    """The condition that a row holds one of the fields; nothing when all are wanted."""
    if fields is None:
        return ""
    cases = [
        f"({prefix}part = {place // COLUMNS} AND {prefix}c{place % COLUMNS} IS NOT NULL)"
        for place, name in enumerate(series.shape)
        if name in fields
    ]
    return f" AND ({' OR '.join(cases)})"


def latest(connection: apsw.Connection, series: Sequence[StoredSeries]) -> list[TimeSeriesPoint]:
    """The newest point of each series, found by its key."""
    if not series:
        return []
    columns = ", ".join(f"p.{name} AS {name}" for name in COLUMN_NAMES)
    one_table = (
        f"SELECT p.ts AS ts, c.rank AS rank, p.part AS part, {columns} FROM chosen c"  # noqa: S608
        " CROSS JOIN ts_latest l CROSS JOIN {table} p WHERE l.series = c.series AND p.series = c.series AND p.ts = l.ts"
    )
    both = " UNION ALL ".join(one_table.format(table=table) for table in ("ts_hot", "ts_cold"))
    rows = connection.execute(
        f"WITH chosen AS MATERIALIZED ({_CHOSEN}) {both} ORDER BY rank, part",
        {"chosen": _chosen_json(series)},
    )
    return list(_points(rows, series, None, len(series)))


def _points(
    rows: Iterable[Sequence[Any]], series: Sequence[StoredSeries], fields: frozenset[str] | None, limit: int
) -> Iterator[TimeSeriesPoint]:
    """Put the parts of each point together; rows of one point follow each other."""
    present: tuple[int, int] | None = None
    values: dict[str, FieldValue] = {}
    count = 0
    for row in rows:
        ts, rank, part = row[0], row[1], row[2]
        if (ts, rank) != present:
            if present is not None and values:
                yield _point(present[0], series[present[1]].tags, values)
                count += 1
                if count == limit:
                    return
            present, values = (ts, rank), {}
        start = part * COLUMNS
        for name, value in zip(series[rank].shape[start : start + COLUMNS], row[3:], strict=False):
            if value is not None and (fields is None or name in fields):
                values[name] = _MARKED[value] if value.__class__ is bytes else value
    if present is not None and values:
        yield _point(present[0], series[present[1]].tags, values)


def _point(ts: int, tags: dict[str, str], fields: dict[str, FieldValue]) -> TimeSeriesPoint:
    # What is stored was checked when it came in: a copy of a valid point, filled, costs a tenth of a new one.
    point = copy(_TEMPLATE)
    force_setattr(point, "timestamp", from_micros(ts))
    force_setattr(point, "tags", dict(tags))
    force_setattr(point, "fields", fields)
    return point
