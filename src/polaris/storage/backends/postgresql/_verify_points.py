"""Points as reads decode them, and summaries that are those of their points: a collection in slices of its series."""

# ruff: noqa: S608 - statements are made of constants, names of own tables and marks of parameters

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence

import msgspec

from polaris.storage._rollups import floor
from polaris.storage.backends.postgresql._catalog import TS_MAX, TS_MIN, Partitions
from polaris.storage.backends.postgresql._layout import Layout
from polaris.storage.backends.postgresql._verify_reader import SnapshotReader
from polaris.storage.backends.postgresql._verify_texts import readable_layouts
from polaris.storage.backends.postgresql._window_sql import (
    FIELDS_A_STATEMENT,
    WINDOW_COLUMNS,
    pairs_of_layout,
    windows_sql,
)
from polaris.storage.backends.shared._verify_rule import FINDINGS_MAX

SERIES_A_SLICE = 256
POINTS_A_SLICE = 20_000
"""Points that one statement looks at, about; their windows are looked at as a whole."""

_STRETCHES = "unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS c (series, low, high)"
_NEXT = (
    "SELECT s.id, s.shape, n.count, n.last_us"
    " FROM (SELECT id, shape FROM ts_series WHERE collection = $1 AND id >= $2 ORDER BY id LIMIT $3) AS s"
    " CROSS JOIN LATERAL (SELECT count(*) AS count, max(ts) AS last_us FROM (SELECT p.ts FROM {table} p"
    " WHERE p.series = s.id AND p.ts >= CASE WHEN s.id = $2 THEN $4::bigint ELSE $5 END ORDER BY p.ts LIMIT $6)"
    " AS first) AS n ORDER BY s.id"
)
_NO_FORM = (
    "SELECT p.series, p.ts"
    " FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::int[], $5::int[], $6::int[])"
    " AS c (series, low, high, floats, integers, others)"
    " CROSS JOIN LATERAL (SELECT * FROM {table} p WHERE p.series = c.series AND p.ts >= c.low AND p.ts < c.high"
    " OFFSET 0) AS p"
    " WHERE cardinality(p.f) > c.floats OR array_ndims(p.f) <> 1 OR array_lower(p.f, 1) <> 1"
    " OR cardinality(p.i) > c.integers OR array_ndims(p.i) <> 1 OR array_lower(p.i, 1) <> 1"
    " OR 'NaN' = ANY(p.f) OR 'Infinity' = ANY(p.f) OR '-Infinity' = ANY(p.f)"
    " OR CASE WHEN jsonb_typeof(p.x) <> 'object' THEN TRUE WHEN p.x IS NOT NULL THEN EXISTS"
    " (SELECT FROM jsonb_each(p.x) AS e WHERE jsonb_typeof(e.value) NOT IN ('string', 'boolean', 'null')"
    " OR CASE WHEN e.key ~ '^(0|[1-9][0-9]{{0,8}})$' THEN e.key::int >= c.others ELSE TRUE END) END"
    " LIMIT {most}"
)
# Sums may be rounded otherwise by another release of the server.
_ROUNDED = {"total": "size", "size": "size", "spread": "spread", "rise": "climb", "climb": "climb"}
_MARKED = (
    "EXISTS (SELECT FROM ts_marks m WHERE m.series = coalesce(n.series, w.series)"
    " AND m.start_us < coalesce(n.start_us, w.start_us) + $4 AND m.end_us > coalesce(n.start_us, w.start_us))"
)


class _Slice(msgspec.Struct):
    """Stretches of series of one layout, side by side."""

    layout: Layout
    series: list[int]
    lows: list[int]
    highs: list[int]


class PointsCheck:
    """The points of one collection, and the summaries of their windows."""

    def __init__(self, reader: SnapshotReader, home: Partitions) -> None:
        self._reader = reader
        self._home = home

    async def findings(self) -> AsyncIterator[str]:
        """What is wrong, slice by slice. Of each window that is marked its points count alone, as for reads."""
        rows = await self._reader.rows(
            "SELECT window_us, done_us FROM ts_summaries WHERE collection = $1 AND window_us > 0", self._home.number
        )
        width_us, done_us = rows[0] if rows else (None, TS_MIN)
        async for one in self._slices(width_us or 1):
            for finding in await self._without_form(one):
                yield finding
            if width_us is not None and done_us > TS_MIN:
                for finding in await self._not_of_points(one, width_us, done_us):
                    yield finding

    async def _slices(self, width_us: int) -> AsyncIterator[_Slice]:
        """All series from their first point to their last, cut between windows where they have many points."""
        sql = _NEXT.format(table=self._home.table)
        first, low_us, limit = 0, TS_MIN, 1
        while True:
            rows = await self._reader.rows(sql, self._home.number, first, limit, low_us, TS_MIN, POINTS_A_SLICE)
            layouts = await readable_layouts(self._reader, {row[1] for row in rows})
            slices: dict[int, _Slice] = {}
            left = POINTS_A_SLICE
            is_last = len(rows) < limit
            # As many as make a slice: the points of those that are too many would be counted for nothing.
            limit = min(4 * limit, SERIES_A_SLICE)
            for place, (number, shape, count, last_us) in enumerate(rows, 1):
                low = low_us if number == first else TS_MIN
                high = TS_MAX
                if count >= POINTS_A_SLICE:
                    high = max(floor(last_us, width_us), floor(low, width_us) + width_us)
                if shape in layouts:
                    one = slices.setdefault(shape, _Slice(layouts[shape], [], [], []))
                    one.series.append(number)
                    one.lows.append(low)
                    one.highs.append(high)
                first, low_us = (number + 1, TS_MIN) if high == TS_MAX else (number, high)
                left -= count
                if left <= 0:
                    is_last, limit = False, place
                    break
            for one in slices.values():
                yield one
            if is_last:
                return

    async def _without_form(self, one: _Slice) -> list[str]:
        layout, count = one.layout, len(one.series)
        rows = await self._reader.rows(
            _NO_FORM.format(table=self._home.table, most=FINDINGS_MAX),
            one.series,
            one.lows,
            one.highs,
            [len(layout.floats)] * count,
            [len(layout.integers)] * count,
            [len(layout.others)] * count,
        )
        return [f"the point of series {series} at {ts} has a value of no field, or of no kind" for series, ts in rows]

    async def _not_of_points(self, one: _Slice, width_us: int, done_us: int) -> list[str]:
        highs = [min(high, done_us) for high in one.highs]
        extent = min(one.lows), max(highs)
        found: list[str] = []
        for sql, slots in self._comparisons(one.layout):
            rows = await self._reader.rows(sql, one.series, one.lows, highs, width_us, *extent, slots)
            found += [
                f"the summary of series {series}, slot {slot}, in the window at {start_us} is not that of its points"
                for series, slot, start_us in rows
            ]
        return found

    def _comparisons(self, layout: Layout) -> Iterator[tuple[str, list[int]]]:
        pairs = pairs_of_layout(layout)
        for place in range(0, len(pairs), FIELDS_A_STATEMENT):
            together = pairs[place : place + FIELDS_A_STATEMENT]
            columns = ", ".join(WINDOW_COLUMNS)
            sql = (
                "SELECT coalesce(n.series, w.series), coalesce(n.slot, w.slot), coalesce(n.start_us, w.start_us)"
                f" FROM ({windows_sql(self._home.table, together)}) AS n (series, slot, start_us, {columns})"
                f" FULL JOIN (SELECT w.* FROM {_STRETCHES}, unnest($7::int[]) AS s (slot),"
                " LATERAL (SELECT * FROM ts_windows w WHERE w.series = c.series AND w.slot = s.slot"
                " AND w.start_us >= c.low AND w.start_us < c.high OFFSET 0) AS w) AS w"
                " ON w.series = n.series AND w.slot = n.slot AND w.start_us = n.start_us"
                f" WHERE ({_differs(WINDOW_COLUMNS)}) AND NOT {_MARKED} LIMIT {FINDINGS_MAX}"
            )
            yield sql, [slot for pair in together for slot in pair.slots]


def _differs(columns: Sequence[str]) -> str:
    """Whether a window `w` is not what its points `n` make; of sums, by more than rounding does."""
    return " OR ".join(
        f"w.{name} IS DISTINCT FROM n.{name}"
        if name not in _ROUNDED
        else f"CASE WHEN w.{name} IS NOT DISTINCT FROM n.{name} THEN FALSE"
        f" WHEN w.{name} IS NULL OR n.{name} IS NULL OR abs(w.{name}) = 'Infinity' OR abs(n.{name}) = 'Infinity'"
        f" THEN TRUE ELSE abs(w.{name}::numeric - n.{name}::numeric) >"
        f" 1e-9 * greatest(abs(n.{name}::numeric), abs(coalesce(n.{_ROUNDED[name]}, 0)::numeric)) END"
        for name in columns
    )
