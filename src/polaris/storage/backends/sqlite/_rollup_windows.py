"""Summarising windows from their points, and retiring points into their rollups, a slice in each transaction."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

import apsw
import msgspec

from polaris.storage._aggregates import Number
from polaris.storage._rollup_summaries import Summary, summarise_columns
from polaris.storage._rollups import floor
from polaris.storage.backends.sqlite._rollups import SUMMARY_COLUMNS, SqliteRollups
from polaris.storage.backends.sqlite._series import COLUMN_NAMES, COLUMNS
from polaris.storage.backends.sqlite._sql import Row, row, rows, scalar

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
    "SELECT p.ts, p.series, p.ts - (p.ts % :width + :width) % :width"
    " FROM ts_hot p CROSS JOIN ts_series s CROSS JOIN ts_latest l"
    " WHERE p.ts < :before AND s.id = p.series AND s.collection = :collection AND l.series = s.id"
    " AND p.ts < l.ts - (l.ts % :width + :width) % :width AND p.part = 0 LIMIT :limit"
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
    parts follow each other, and what is left of them can be united exactly. Rollups that would go at once are not made.
    """
    bindings = {"collection": collection, "before": floor(since_us, width), "width": width, "limit": rows_max}
    found = rows(connection, _OLD_COLD, bindings)
    cold = [Stretch(series, start, end) for series, start, end, _ in found]
    taken: int = sum(count for *_, count in found)
    # Of both, so that what one call does is not a matter of how far the compaction is.
    hot = rows(connection, _OLD_HOT, bindings | {"limit": rows_max - taken}) if taken < rows_max else []
    if rollups.leaves_nothing(collection, since_us):
        went = taken + len(hot)
        gone = cold + [Stretch(series, start, ts + 1) for ts, series, start in hot]
        _delete(connection, cold, [(ts, series) for ts, series, _ in hot])
    else:
        gone = _in_parts(cold, hot)
        went = _roll_up(connection, rollups, gone, width)
    _forget(connection, rollups, gone, width)
    return went


def _in_parts(cold: Sequence[Stretch], hot: Sequence[Row]) -> list[Stretch]:
    """One stretch for each window that points are in, to behind the last of them."""
    ends = {(series, start): end for series, start, end in cold}
    for ts, series, start in hot:
        ends[series, start] = max(ts + 1, ends.get((series, start), ts))
    return [Stretch(series, start, end) for (series, start), end in ends.items()]


def _roll_up(connection: apsw.Connection, rollups: SqliteRollups, stretches: Sequence[Stretch], width: int) -> int:
    """Put the points of stretches into the rollups of their windows, and delete them; gives how many went."""
    if not stretches:
        return 0
    points = summaries_of(connection, stretches, width, sketched=True)
    rollups.add(((series, place, width, start), summary) for series, place, start, summary in points.summaries)
    _delete(connection, stretches, points.hot)
    return points.points


def _delete(connection: apsw.Connection, cold: Sequence[Stretch], hot: Sequence[tuple[int, int]]) -> None:
    connection.executemany("DELETE FROM ts_cold WHERE series = ? AND ts >= ? AND ts < ?", cold)
    connection.executemany("DELETE FROM ts_hot WHERE ts = ? AND series = ?", hot)


def _forget(connection: apsw.Connection, rollups: SqliteRollups, gone: Sequence[Stretch], width: int) -> None:
    """Forget the summaries of windows that points went from; what is left in them is to be summarised anew."""
    windows = sorted({(one.series, one.start) for one in gone})
    _drop_windows(connection, [Stretch(series, start, start + 1) for series, start in windows])
    left = [one for one in windows if _has_points(connection, *one, one[1] + width)]
    rollups.mark((start, series, start + width) for series, start in left)


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
    for one, rows_of_one in _read(connection, stretches):
        for start, found in _by_window(one, rows_of_one, width):
            parts = {entry[1] for entry in found}
            for part in sorted(parts):
                of_part = found if len(parts) == 1 else [entry for entry in found if entry[1] == part]
                times, _, are_hot, *columns = zip(*of_part, strict=True)
                if part == 0:
                    count += len(times)
                    hot += [(ts, one.series) for ts, is_hot in zip(times, are_hot, strict=True) if is_hot]
                for place, values in enumerate(columns, part * COLUMNS):
                    numbers = _numbers(times, values)
                    if numbers is not None:
                        summary = summarise_columns(*numbers, sketched=sketched)
                        summaries.append((one.series, place, start, summary))
    return Points(summaries, count, hot)


def _by_window(one: Stretch, found: list[Row], width: int) -> Iterable[tuple[int, list[Row]]]:
    """The rows of a stretch, which come in order of time, by the starts of their windows."""
    start = floor(one.start, width)
    if one.end <= start + width:
        return [(start, found)]
    return ((first, list(group)) for first, group in groupby(found, key=lambda entry: floor(entry[0], width)))


def _numbers(times: Sequence[int], values: Sequence[object]) -> tuple[Sequence[int], Sequence[Number]] | None:
    """The values that are numbers, with their times; None when there are none."""
    kinds = set(map(type, values))
    if kinds <= _NUMBERS:
        return times, values  # type: ignore[return-value] # by their types
    if not kinds & _NUMBERS:
        return None
    places = [place for place, value in enumerate(values) if type(value) in _NUMBERS]
    return [times[place] for place in places], [values[place] for place in places]  # type: ignore[misc] # as above


_NUMBERS = frozenset((int, float))


def _read(connection: apsw.Connection, stretches: Sequence[Stretch]) -> Iterator[tuple[Stretch, list[Row]]]:
    """The rows of each stretch that has any, in order of time: time, part, whether it is hot, and the columns."""
    columns = ", ".join(COLUMN_NAMES[: _columns_used(connection, stretches)])
    late: dict[int, list[Row]] = {}
    for series, *rest in connection.execute(
        "WITH stretches AS MATERIALIZED (SELECT CAST(value ->> 0 AS INTEGER) AS series,"  # noqa: S608
        " value ->> 1 AS start, value ->> 2 AS until FROM json_each(:stretches))"
        f" SELECT p.series, p.ts, p.part, 1, {columns} FROM ts_hot p CROSS JOIN stretches c"
        " WHERE p.ts >= :low AND p.ts < :high AND c.series = p.series AND p.ts >= c.start AND p.ts < c.until",
        {
            "stretches": msgspec.json.encode(stretches).decode(),
            "low": min(one.start for one in stretches),
            "high": max(one.end for one in stretches),
        },
    ):
        late.setdefault(series, []).append(tuple(rest))
    sql = f"SELECT ts, part, 0, {columns} FROM ts_cold WHERE series = ? AND ts >= ? AND ts < ? ORDER BY ts, part"  # noqa: S608
    for one in stretches:
        found = rows(connection, sql, one)
        hot = [entry for entry in late.get(one.series, ()) if one.start <= entry[0] < one.end]
        if hot:
            found = sorted(found + hot, key=itemgetter(0, 1))
        if found:
            yield one, found


def _columns_used(connection: apsw.Connection, stretches: Sequence[Stretch]) -> int:
    """How many columns of a row can hold anything."""
    series = msgspec.json.encode(sorted({one.series for one in stretches})).decode()
    fields = scalar(
        connection,
        "SELECT max(json_array_length(f.fields)) FROM ts_series s JOIN ts_shapes f ON f.id = s.shape"
        " WHERE s.id IN (SELECT value FROM json_each(?))",
        (series,),
    )
    return min(COLUMNS, int(fields or COLUMNS))


def _drop_windows(
    connection: apsw.Connection,
    stretches: Sequence[Stretch],
    replaced: Container[tuple[int, int, int]] = (),
) -> None:
    """Forget the summaries that start in the stretches, also of windows that were narrower; `replaced` are put anew."""
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
        [
            (one.series, place, one.start + ((one.series, place, one.start) in replaced), one.end)
            for one in stretches
            for place in range(places.get(one.series, 0))
        ],
    )


def _joined(stretches: Sequence[Stretch]) -> list[Stretch]:
    """The same windows, each in one stretch only: marks may overlap, and no point may be taken twice."""
    joined: list[Stretch] = []
    for one in sorted(stretches):
        last = joined[-1] if joined else None
        if last is not None and last.series == one.series and one.start <= last.end:
            joined[-1] = Stretch(one.series, last.start, max(last.end, one.end))
        else:
            joined.append(one)
    return joined


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
        for width, overlapping in by_width.items():
            stretches = _joined(overlapping)
            found = summaries_of(self._connection, stretches, width, sketched=False).summaries
            _drop_windows(self._connection, stretches, {one[:3] for one in found})
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
        self._rollups.unmarked(start, series)
        if cleaned_until is not None and cleaned_until < until:
            self._rollups.mark([(cleaned_until, series, until)])
