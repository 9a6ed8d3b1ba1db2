"""Reading points: rows of many series in order of time and tags, made into points again."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from copy import copy
from datetime import UTC, datetime
from typing import Any

from msgspec.structs import force_setattr

from polaris.storage._points import FieldValue, TimeSeriesPoint
from polaris.storage._ranges import from_micros
from polaris.storage._timeseries_requests import PointQuery
from polaris.storage._turns import in_turns
from polaris.storage.backends.postgresql._layout import Layout
from polaris.storage.backends.postgresql._link import Link, Row
from polaris.storage.backends.postgresql._series import StoredSeries

_TEMPLATE = TimeSeriesPoint(datetime(2000, 1, 1, tzinfo=UTC), {}, {"template": 0})
# Of a row that holds none of the wanted fields nothing would be left: it must not count.
_HOLDS = (
    " AND (EXISTS (SELECT 1 FROM unnest(({places}::int[])[c.fa:c.fz]) AS q WHERE p.f[q] IS NOT NULL)"
    " OR EXISTS (SELECT 1 FROM unnest(({places}::int[])[c.ia:c.iz]) AS q WHERE p.i[q] IS NOT NULL)"
    " OR p.x ?| ({keys}::text[])[c.xa:c.xz])"
)


async def read_points(
    link: Link, table: str, series: Sequence[StoredSeries], query: PointQuery
) -> list[TimeSeriesPoint]:
    """The points of the series in the range."""
    fields = query.fields
    chosen = [one for one in series if fields is None or one.layout.has_any(fields)]
    if not chosen:
        return []
    values: list[Any] = [*query.window, query.limit]
    condition = "p.ts >= $1 AND p.ts < $2"
    if query.after is not None:
        # Behind the cursor, at its own instant, are the series of this rank and higher ones.
        rank = bisect_right(chosen, query.after.key, key=lambda one: tuple(sorted(one.tags.items())))
        values += [query.after.time_us, rank]
        condition += " AND (p.ts <> $4 OR c.rank >= $5)"
    direction = "DESC" if query.descending else "ASC"
    source, order = _source(chosen, values, fields), f"p.ts {direction}, c.rank"
    if len(chosen) == 1:
        # Without a join the order of the key is the order of the result.
        condition += f" AND p.series = {_bind(values, chosen[0].number, 'bigint')}"
        order = f"p.ts {direction}"
    else:
        condition += " AND p.series = c.series"
    holding = "" if fields is None else _HOLDS.format(places=f"${len(values) + 1}", keys=f"${len(values) + 2}")
    if fields is not None:
        values += _places(chosen, fields)
    found = await link.rows(
        f"SELECT p.ts, c.rank, p.f, p.i, p.x FROM {source}, {table} p WHERE {condition}{holding}"  # noqa: S608
        f" ORDER BY {order} LIMIT $3",
        *values,
    )
    return await _points(found, chosen, fields)


def _bind(values: list[Any], value: Any, kind: str) -> str:
    values.append(value)
    return f"${len(values)}::{kind}"


def _source(chosen: Sequence[StoredSeries], values: list[Any], fields: frozenset[str] | None) -> str:
    """The chosen series with their ranks, and with what of the lists of places is theirs."""
    columns: dict[str, list[int]] = {
        "series": [one.number for one in chosen],
        "rank": list(range(len(chosen))),
    }
    if fields is not None:
        spans = _spans(chosen, fields)
        for name in ("fa", "fz", "ia", "iz", "xa", "xz"):
            columns[name] = [spans[one.layout.number][name] for one in chosen]
    kinds = {name: "bigint" if name == "series" else "int" for name in columns}
    if len(chosen) == 1:
        items = ", ".join(f"{_bind(values, column[0], kinds[name])} AS {name}" for name, column in columns.items())
        return f"(SELECT {items}) AS c"
    arrays = ", ".join(_bind(values, column, f"{kinds[name]}[]") for name, column in columns.items())
    return f"unnest({arrays}) AS c ({', '.join(columns)})"


def _layouts(chosen: Sequence[StoredSeries]) -> dict[int, Layout]:
    return {one.layout.number: one.layout for one in chosen}


def _spans(chosen: Sequence[StoredSeries], fields: frozenset[str]) -> dict[int, dict[str, int]]:
    """For each shape the stretches of the lists of places that are its own; they count from 1."""
    spans: dict[int, dict[str, int]] = {}
    places = keys = 0
    for number, layout in _layouts(chosen).items():
        floats, integers, others = _wanted(layout, fields)
        span = {"fa": places + 1, "fz": places + len(floats)}
        places += len(floats)
        span |= {"ia": places + 1, "iz": places + len(integers), "xa": keys + 1, "xz": keys + len(others)}
        places += len(integers)
        keys += len(others)
        spans[number] = span
    return spans


def _places(chosen: Sequence[StoredSeries], fields: frozenset[str]) -> tuple[list[int], list[str]]:
    places: list[int] = []
    keys: list[str] = []
    for layout in _layouts(chosen).values():
        floats, integers, others = _wanted(layout, fields)
        places += [*floats, *integers]
        keys += others
    return places, keys


def _wanted(layout: Layout, fields: frozenset[str]) -> tuple[list[int], list[int], list[str]]:
    return (
        [layout.floats[name] for name in fields if name in layout.floats],
        [layout.integers[name] for name in fields if name in layout.integers],
        [layout.others[name] for name in fields if name in layout.others],
    )


async def read_latest(
    link: Link, table: str, series: Sequence[StoredSeries], fields: frozenset[str] | None
) -> list[TimeSeriesPoint]:
    """The newest point of each series, found by its key."""
    if not series:
        return []
    found = await link.rows(
        "SELECT p.ts, c.rank, p.f, p.i, p.x FROM unnest($1::bigint[], $2::int[]) AS c (series, rank)"  # noqa: S608
        f" JOIN ts_latest l ON l.series = c.series JOIN {table} p ON p.series = l.series AND p.ts = l.ts"
        " ORDER BY c.rank",
        [one.number for one in series],
        list(range(len(series))),
    )
    return await _points(found, series, fields)


async def _points(
    found: Sequence[Row], series: Sequence[StoredSeries], wanted: frozenset[str] | None
) -> list[TimeSeriesPoint]:
    points: list[TimeSeriesPoint] = []
    async for row in in_turns(found):
        one = series[row["rank"]]
        fields = one.layout.fields(row, wanted)
        if fields:
            points.append(_point(row["ts"], one.tags, fields))
    return points


def _point(ts: int, tags: dict[str, str], fields: dict[str, FieldValue]) -> TimeSeriesPoint:
    # What is stored was checked when it came in: a copy of a valid point, filled, costs a tenth of a new one.
    point = copy(_TEMPLATE)
    force_setattr(point, "timestamp", from_micros(ts))
    force_setattr(point, "tags", dict(tags))
    force_setattr(point, "fields", fields)
    return point
