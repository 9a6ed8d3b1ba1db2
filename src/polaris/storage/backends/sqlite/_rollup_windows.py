"""Summarising windows from their points, and retiring points into their rollups, a slice in each transaction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import apsw
import msgspec

from polaris.storage._aggregates import Number
from polaris.storage._rollup_summaries import Summary, summarise
from polaris.storage._rollups import floor
from polaris.storage.backends.sqlite._rollups import SUMMARY_COLUMNS, SqliteRollups
from polaris.storage.backends.sqlite._series import COLUMN_NAMES, COLUMNS
from polaris.storage.backends.sqlite._sql import Row, row, rows, scalar

_COLUMN_LIST = ", ".join(f"p.{name}" for name in COLUMN_NAMES)
_PUT_WINDOW = (
    f"INSERT OR REPLACE INTO ts_windows (series, place, start, {SUMMARY_COLUMNS})"  # noqa: S608
    f" VALUES ({', '.join('?' * (len(SUMMARY_COLUMNS.split(', ')) + 3))})"
)
_OLD_COLD = (
    "SELECT series, start, max(ts) + 1, count(*) FROM (SELECT p.series AS series, p.ts AS ts,"
    " p.ts - (p.ts % :width + :width) % :width AS start FROM ts_series s CROSS JOIN ts_latest l CROSS JOIN ts_cold p"
    " WHERE s.collection = :collection AND l.series = s.id AND p.series = s.id"
    " AND p.ts < min(:before, l.ts - (l.ts % :width + :width) % :width) AND p.part = 0 LIMIT :limit) GROUP BY 1, 2"
)
_OLD_HOT = (
    "SELECT series, start, max(ts) + 1, count(*) FROM (SELECT p.series AS series, p.ts AS ts,"
    " p.ts - (p.ts % :width + :width) % :width AS start FROM ts_hot p CROSS JOIN ts_series s CROSS JOIN ts_latest l"
    " WHERE p.ts < :before AND s.id = p.series AND s.collection = :collection AND l.series = s.id"
    " AND p.ts < l.ts - (l.ts % :width + :width) % :width AND p.part = 0 LIMIT :limit) GROUP BY 1, 2"
)


class Stretch(NamedTuple):
    """A part of a series in time, inside of one window or of whole ones."""

    series: int
    start: int
    end: int


def retire(
    connection: apsw.Connection, rollups: SqliteRollups, collection: str, since_us: int, width: int, rows_max: int
) -> int:
    """Put the oldest points that are due into the rollups of their windows, and delete them; gives how many went.

    A window may go in parts: a part begins where the window does and ends behind the last point that it takes, so the
    parts follow each other, and what is left of them can be united exactly.
    """
    bindings = {"collection": collection, "before": floor(since_us, width), "width": width, "limit": rows_max}
    found = rows(connection, _OLD_COLD, bindings)
    left = rows_max - sum(count for *_, count in found)
    if left > 0:  # of both, so that what one call does is not a matter of how far the compaction is
        found += rows(connection, _OLD_HOT, bindings | {"limit": left})
    ends: dict[tuple[int, int], int] = {}
    for series, start, end, _ in found:
        ends[series, start] = max(end, ends.get((series, start), end))
    stretches = [Stretch(series, start, end) for (series, start), end in ends.items()]
    if not stretches:
        return 0
    points = summaries_of(connection, stretches, width, sketched=True)
    rollups.add(((series, place, width, start), summary) for series, place, start, summary in points.summaries)
    connection.executemany("DELETE FROM ts_cold WHERE series = ? AND ts >= ? AND ts < ?", stretches)
    connection.executemany("DELETE FROM ts_hot WHERE ts = ? AND series = ?", points.hot)
    _drop_windows(connection, [Stretch(one.series, one.start, one.start + 1) for one in stretches])
    rest = [one for one in stretches if _has_points(connection, one.series, one.end, one.start + width)]
    rollups.mark((one.start, one.series, one.start + width) for one in rest)
    return points.points


def _has_points(connection: apsw.Connection, series: int, start: int, end: int) -> bool:
    return bool(
        scalar(
            connection,
            "SELECT EXISTS (SELECT 1 FROM ts_cold WHERE series = ?1 AND ts >= ?2 AND ts < ?3)"
            " OR EXISTS (SELECT 1 FROM ts_hot WHERE series = ?1 AND ts >= ?2 AND ts < ?3)",
            (series, start, end),
        )
    )


class Points(NamedTuple):
    """What was found: summaries by series, place and window; how many points; and which are in the hot table."""

    summaries: list[tuple[int, int, int, Summary]]
    points: int
    hot: list[tuple[int, int]]


def summaries_of(connection: apsw.Connection, stretches: Sequence[Stretch], width: int, *, sketched: bool) -> Points:
    """Summaries of the windows that the stretches reach into, of what is inside of them."""
    summaries: list[tuple[int, int, int, Summary]] = []
    hot: list[tuple[int, int]] = []
    count = 0
    for (series, start), found in groupby(_read(connection, stretches), key=lambda one: (one[0], floor(one[1], width))):
        readings: dict[int, list[tuple[int, Number]]] = {}
        for _, ts, part, is_hot, *values in found:
            if part == 0:
                count += 1
                if is_hot:
                    hot.append((ts, series))
            for place, value in enumerate(values, part * COLUMNS):
                if value.__class__ is float or value.__class__ is int:
                    readings.setdefault(place, []).append((ts, value))
        for place, known in readings.items():
            summaries.append((series, place, start, summarise(known, sketched=sketched)))
    return Points(summaries, count, hot)


def _read(connection: apsw.Connection, stretches: Sequence[Stretch]) -> Iterator[Row]:
    """The rows of the stretches, by series and time."""
    sql = (
        "WITH stretches AS MATERIALIZED (SELECT CAST(value ->> 0 AS INTEGER) AS series,"  # noqa: S608
        " value ->> 1 AS start, value ->> 2 AS until"
        " FROM json_each(:stretches))"
        f" SELECT p.series, p.ts, p.part, 0, {_COLUMN_LIST} FROM stretches c CROSS JOIN ts_cold p"
        " WHERE p.series = c.series AND p.ts >= c.start AND p.ts < c.until"
        f" UNION ALL SELECT p.series, p.ts, p.part, 1, {_COLUMN_LIST} FROM ts_hot p CROSS JOIN stretches c"
        " WHERE p.ts >= :low AND p.ts < :high AND c.series = p.series AND p.ts >= c.start AND p.ts < c.until"
        " ORDER BY 1, 2, 3"
    )
    bindings = {
        "stretches": msgspec.json.encode(stretches).decode(),
        "low": min(one.start for one in stretches),
        "high": max(one.end for one in stretches),
    }
    yield from connection.execute(sql, bindings)


def _drop_windows(connection: apsw.Connection, stretches: Sequence[Stretch]) -> None:
    """Forget the summaries of windows that start in the stretches."""
    places = {
        series: int(count)
        for series, count in rows(
            connection,
            "SELECT s.id, json_array_length(f.fields) FROM ts_series s JOIN ts_shapes f ON f.id = s.shape"
            " WHERE s.id IN (SELECT value FROM json_each(?))",
            (msgspec.json.encode(sorted({one.series for one in stretches})).decode(),),
        )
    }
    connection.executemany(
        "DELETE FROM ts_windows WHERE series = ? AND place = ? AND start >= ? AND start < ?",
        [(one.series, place, one.start, one.end) for one in stretches for place in range(places.get(one.series, 0))],
    )


class WindowKeeper:
    """Summarises the windows that are dirty and behind the compaction, some thousand rows at a time."""

    def __init__(self, connection: apsw.Connection, rollups: SqliteRollups, *, slice_rows: int) -> None:
        self._connection = connection
        self._rollups = rollups
        self._slice_rows = slice_rows
        self._idle_at: int | None = None
        self.slices = 0

    def is_due(self, cold_until: int) -> bool:
        """Whether there may be something to do."""
        marks, self._rollups.marks = self._rollups.marks, 0
        if marks:
            self._idle_at = None
        return self._idle_at != cold_until

    def run_slice(self, cold_until: int) -> bool:
        """Summarise some windows, inside a transaction that the caller began; False when there is nothing to do."""
        dirty = rows(
            self._connection,
            "SELECT d.start, d.series, d.until, p.window_us FROM ts_dirty d JOIN ts_series s ON s.id = d.series"
            " LEFT JOIN ts_policies p ON p.collection = s.collection"
            " WHERE d.start < ?1 AND (p.window_us IS NULL OR"
            " d.start - (d.start % p.window_us + p.window_us) % p.window_us + p.window_us <= ?1)"
            " ORDER BY d.start, d.series LIMIT ?2",
            (cold_until, max(1, self._slice_rows // 8)),
        )
        left = self._slice_rows
        by_width: dict[int, list[Stretch]] = {}
        for start, series, until, width in dirty:
            if left <= 0:
                break
            if width is None:
                self._clean(start, series, None, until)
                continue
            stretch, count = self._next(series, floor(start, width), min(until, floor(cold_until, width)), width, left)
            left -= count
            by_width.setdefault(width, []).append(stretch)
            self._clean(start, series, stretch.end, until)
        for width, stretches in by_width.items():
            _drop_windows(self._connection, stretches)
            found = summaries_of(self._connection, stretches, width, sketched=False).summaries
            self._connection.executemany(
                _PUT_WINDOW,
                [
                    (series, place, start, *msgspec.structs.astuple(summary)[:-1])
                    for series, place, start, summary in found
                ],
            )
        if dirty:
            self.slices += 1
        else:
            self._idle_at = cold_until
        return bool(dirty)

    def _next(self, series: int, start: int, end: int, width: int, rows_max: int) -> tuple[Stretch, int]:
        """The windows at the beginning of a span that hold about so many rows, at least one of them; and how many."""
        end = floor(end + width - 1, width)
        if end - start <= width:
            return Stretch(series, start, end), self._count(series, start, end)
        bound = row(
            self._connection,
            "SELECT ts FROM ts_cold WHERE series = ? AND ts >= ? AND ts < ? ORDER BY ts LIMIT 1 OFFSET ?",
            (series, start, end, rows_max),
        )
        if bound is None:
            return Stretch(series, start, end), self._count(series, start, end)
        cut = floor(bound[0], width)
        first = row(
            self._connection, "SELECT ts FROM ts_cold WHERE series = ? AND ts >= ? ORDER BY ts LIMIT 1", (series, start)
        )
        if first is not None:
            cut = max(cut, floor(first[0], width) + width)
        return Stretch(series, start, min(cut, end)), rows_max

    def _count(self, series: int, start: int, end: int) -> int:
        sql = "SELECT count(*) FROM ts_cold WHERE series = ? AND ts >= ? AND ts < ?"
        return 1 + int(scalar(self._connection, sql, (series, start, end)))

    def _clean(self, start: int, series: int, cleaned_until: int | None, until: int) -> None:
        """Shorten a span by what is summarised now."""
        self._connection.execute("DELETE FROM ts_dirty WHERE start = ? AND series = ?", (start, series))
        if cleaned_until is not None and cleaned_until < until:
            self._rollups.mark([(cleaned_until, series, until)])
