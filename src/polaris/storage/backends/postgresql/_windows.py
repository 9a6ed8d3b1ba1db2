"""Summaries of windows of points that are there: how far a collection has them, and their upkeep in small transactions.

Three steps: a frontier is raised, which stops writers for a moment; what it has passed is marked, series by series;
marked windows are summarised from their points. The last is also what happens to late data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from polaris.storage._rollups import ceiling, floor
from polaris.storage.backends.postgresql._catalog import Partitions
from polaris.storage.backends.postgresql._driver import driver_errors
from polaris.storage.backends.postgresql._layout import Layout
from polaris.storage.backends.postgresql._link import Link, Row
from polaris.storage.backends.postgresql._marks import FRONTIER_MIN
from polaris.storage.backends.postgresql._series import SeriesRegistry
from polaris.storage.backends.postgresql._window_reads import Summaries
from polaris.storage.backends.postgresql._window_sql import FIELDS_A_STATEMENT, pairs_of_layout, put_windows_sql

RAISE_WAIT_MS = 100
"""How long writers may be held up by a frontier that waits for those before them; then it is raised another time."""
LATE_US = 300_000_000
"""How old a window is before it is summarised: most points come in time, and those that do not cost a mark."""
MARKS_A_SLICE = 256
SLICE_ROWS = 20_000
"""Marks and points that one transaction summarises, about."""
MARKS_FIRST = 8
"""So many marks are looked at first: as many as make a slice where each has very many points, which are counted."""

_LOCK = "SELECT window_us, frontier_us, done_us FROM ts_summaries WHERE collection = $1 FOR UPDATE"
_NEWEST = "SELECT max(l.ts) FROM ts_series s JOIN ts_latest l ON l.series = s.id WHERE s.collection = $1"
# Marks of those who did not know better. In one statement: a mark of later summaries is not seen by it, or they are.
_FORGET = "DELETE FROM ts_marks WHERE collection = $1 AND NOT EXISTS (SELECT FROM ts_summaries WHERE collection = $1)"
_EXPAND = (
    "INSERT INTO ts_marks (collection, series, start_us, end_us)"
    " SELECT $1, s.id, $2, $3 FROM ts_series s JOIN ts_latest l ON l.series = s.id"
    " WHERE s.collection = $1 AND l.ts >= $2 ORDER BY s.id FOR KEY SHARE OF s"
)
# How many points each has, up to a limit, and the last of them: so much is summarised at once.
_NEXT = (
    "SELECT m.id, m.series, m.start_us, m.end_us, n.count, n.last_us"
    " FROM (SELECT id, series, start_us, end_us FROM ts_marks WHERE collection = $1 AND id > $2 AND id <= $3"
    " ORDER BY id LIMIT $4) AS m"
    " CROSS JOIN LATERAL (SELECT count(*) AS count, max(ts) AS last_us FROM (SELECT p.ts FROM {table} p"
    " WHERE p.series = m.series AND p.ts >= m.start_us AND p.ts < m.end_us ORDER BY p.ts LIMIT $5) AS first) AS n"
    " ORDER BY m.id"
)
# OFFSET keeps the server from joining all windows of a series with all of its stretches.
_DROP = (
    "DELETE FROM ts_windows WHERE ctid = ANY(ARRAY(SELECT found.row"
    " FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS c (series, low, high), unnest($4::int[]) AS s (slot),"
    " LATERAL (SELECT w.ctid AS row FROM ts_windows w WHERE w.series = c.series AND w.slot = s.slot"
    " AND w.start_us >= c.low AND w.start_us < c.high OFFSET 0) AS found))"
)


class Stretch(msgspec.Struct, frozen=True, order=True):
    """Whole windows of a series."""

    series: int
    low_us: int
    high_us: int


class PostgresWindows:
    """The windows of one collection in one transaction."""

    def __init__(self, link: Link, home: Partitions, registry: SeriesRegistry) -> None:
        self._link = link
        self._home = home
        self._registry = registry

    async def reset(self, window_us: int | None) -> None:
        """From now on windows have this width, or there are none; those of another width go."""
        state = await self._lock()
        if state is not None and state[0] == window_us:
            return
        number = self._home.number
        if state is not None:
            await self._link.run(
                "DELETE FROM ts_windows w USING ts_series s WHERE s.collection = $1 AND w.series = s.id", number
            )
            await self._link.run("DELETE FROM ts_marks WHERE collection = $1", number)
        if window_us is None:
            await self._link.run("DELETE FROM ts_summaries WHERE collection = $1", number)
            await self._link.run("UPDATE ts_frontiers SET frontier_us = $2 WHERE collection = $1", number, FRONTIER_MIN)
            return
        await self._link.run(
            "INSERT INTO ts_summaries VALUES ($1, $2, $3, $3) ON CONFLICT (collection) DO UPDATE"
            " SET window_us = excluded.window_us, frontier_us = excluded.frontier_us, done_us = excluded.done_us",
            number,
            window_us,
            FRONTIER_MIN,
        )
        # A lower frontier than the one that a writer has read makes it mark more than is needed: nobody is locked out.
        await self._link.run(
            "INSERT INTO ts_frontiers VALUES ($1, $2, $3, 1) ON CONFLICT (collection) DO UPDATE"
            " SET window_us = excluded.window_us, frontier_us = excluded.frontier_us",
            number,
            window_us,
            FRONTIER_MIN,
        )

    async def summaries(self) -> Summaries | None:
        """How far readers of this snapshot may go by summaries.

        None in a unit of work: sums of summaries are rounded otherwise than sums of points, and done anew it must give
        the same.
        """
        if self._link.is_serializable:
            return None
        row = await self._link.row(
            "SELECT window_us, done_us FROM ts_summaries WHERE collection = $1", self._home.number
        )
        return None if row is None or row[1] <= FRONTIER_MIN else Summaries(row[0], row[1])

    async def raise_frontier(self, now_us: int) -> bool:
        """Raise the frontier to the windows that are over by now; False where that is not due, or writers are long."""
        state = await self._lock()
        newest = None if state is None else await self._link.value(_NEWEST, self._home.number)
        if state is None or newest is None:
            return False
        frontier_us = floor(min(now_us - LATE_US, newest), state[0])
        if frontier_us <= state[1]:
            return False
        await self._link.run("SAVEPOINT raising")
        try:
            await self._link.run(f"SET LOCAL lock_timeout = {RAISE_WAIT_MS}")
            # Whoever has written by the former frontier has ended when this is granted.
            await self._link.run("LOCK TABLE ts_frontiers IN ACCESS EXCLUSIVE MODE")
        except (driver_errors.LockNotAvailableError, driver_errors.DeadlockDetectedError):
            await self._link.run("ROLLBACK TO SAVEPOINT raising")
            return False
        await self._link.run(
            "UPDATE ts_frontiers SET frontier_us = $2,"
            " raised = setval('ts_raises', (SELECT last_value + 1 FROM ts_raises)) WHERE collection = $1",
            self._home.number,
            frontier_us,
        )
        await self._link.run(
            "UPDATE ts_summaries SET frontier_us = $2 WHERE collection = $1", self._home.number, frontier_us
        )
        return True

    async def expand(self) -> int | None:
        """Mark what the frontier has passed; gives the number of the newest mark, None where there is none."""
        state = await self._lock()
        if state is None:
            await self._link.run(_FORGET, self._home.number)
            return None
        _, frontier_us, done_us = state
        if done_us < frontier_us:
            await self._link.run(_EXPAND, self._home.number, done_us, frontier_us)
            await self._link.run(
                "UPDATE ts_summaries SET done_us = frontier_us WHERE collection = $1", self._home.number
            )
        found: int | None = await self._link.value(
            "SELECT max(id) FROM ts_marks WHERE collection = $1", self._home.number
        )
        return found

    async def summarise(self, until_id: int, rows_max: int) -> int:
        """Summarise windows of the oldest marks, up to one; gives how many marks that were, 0 when none is left.

        Marks are read before points: what a mark tells of is there when it is taken away, and a mark that comes
        meanwhile stays.
        """
        state = await self._lock()
        if state is None:
            return 0
        rows = await self._next(until_id, rows_max)
        done: list[int] = []
        rest: dict[int, int] = {}
        stretches: list[Stretch] = []
        left = rows_max
        for number, series, low_us, high_us, count, last_us in rows:
            if left <= 0:
                break
            left -= count
            low, high = floor(low_us, state[0]), min(ceiling(high_us, state[0]), state[2])
            if count >= max(1, rows_max // 8):
                cut = max(floor(last_us, state[0]), low + state[0])
                if cut < high:
                    rest[number], high = cut, cut
            if number not in rest:
                done.append(number)
            if low < high:
                stretches.append(Stretch(series, low, high))
        # First of all, as whoever deletes a series does it: what is gone is left alone, what is there stays that long.
        there = await self._link.rows(
            "SELECT id FROM ts_series WHERE id = ANY($1::bigint[]) ORDER BY id FOR KEY SHARE",
            sorted({one.series for one in stretches}),
        )
        await self._settle(done, rest)
        known = {row[0] for row in there}
        await self._summarise([one for one in _joined(stretches) if one.series in known], state[0])
        return len(done) + len(rest)

    async def _next(self, until_id: int, rows_max: int) -> list[Row]:
        """The marks that are next, as many as have so many points: a few, unless these have little."""
        found: list[Row] = []
        for limit in (MARKS_FIRST, MARKS_A_SLICE):
            after_id = found[-1][0] if found else 0
            sql = _NEXT.format(table=self._home.table)
            rows = await self._link.rows(sql, self._home.number, after_id, until_id, limit, max(1, rows_max // 8))
            found += rows
            if len(rows) < limit or sum(row[4] for row in found) >= rows_max:
                break
        return found

    async def _lock(self) -> tuple[int, int, int] | None:
        """Width, frontier and how far the collection is done, for this transaction alone; None without summaries."""
        row = await self._link.row(_LOCK, self._home.number)
        return None if row is None else (row[0], row[1], row[2])

    async def _settle(self, done: Sequence[int], rest: Mapping[int, int]) -> None:
        """Take marks away; of those that are too much for one time, what is left stays."""
        if done:
            sql = "DELETE FROM ts_marks WHERE collection = $1 AND id = ANY($2::bigint[])"
            await self._link.run(sql, self._home.number, done)
        if rest:
            await self._link.run(
                "UPDATE ts_marks m SET start_us = n.start_us"
                " FROM unnest($2::bigint[], $3::bigint[]) AS n (id, start_us) WHERE m.collection = $1 AND m.id = n.id",
                self._home.number,
                list(rest),
                list(rest.values()),
            )

    async def _summarise(self, stretches: Sequence[Stretch], width_us: int) -> None:
        layouts = await self._registry.layouts_of({one.series for one in stretches})
        by_layout: dict[int, tuple[Layout, list[Stretch]]] = {}
        for one in stretches:
            layout = layouts[one.series]
            by_layout.setdefault(layout.number, (layout, []))[1].append(one)
        for layout, alike in by_layout.values():
            pairs = pairs_of_layout(layout)
            for first in range(0, len(pairs), FIELDS_A_STATEMENT):
                together = pairs[first : first + FIELDS_A_STATEMENT]
                columns = _columns(alike)
                await self._link.run(_DROP, *columns, [slot for pair in together for slot in pair.slots])
                extent = min(columns[1]), max(columns[2])
                await self._link.run(put_windows_sql(self._home.table, together), *columns, width_us, *extent)


def _columns(stretches: Sequence[Stretch]) -> tuple[list[int], list[int], list[int]]:
    return (
        [one.series for one in stretches],
        [one.low_us for one in stretches],
        [one.high_us for one in stretches],
    )


def _joined(stretches: Sequence[Stretch]) -> list[Stretch]:
    """The same windows, each in one stretch only."""
    joined: list[Stretch] = []
    for one in sorted(stretches):
        last = joined[-1] if joined else None
        if last is not None and last.series == one.series and one.low_us <= last.high_us:
            joined[-1] = Stretch(one.series, last.low_us, max(last.high_us, one.high_us))
        else:
            joined.append(one)
    return joined
