"""Rollups in SQLite: policies, what was written since it was summarised, and what is left of points that are gone.

Whoever changes points marks their windows dirty in the same transaction, so what is not marked is true after a crash.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import apsw
import msgspec

from polaris.clock import SYSTEM_CLOCK, Clock
from polaris.storage._ranges import to_micros
from polaris.storage._rollup_summaries import Summary, merged
from polaris.storage._rollups import ALL_TIME, RetentionPolicy, ceiling, cut_window, decode_policy, encode_policy, floor
from polaris.storage._timeseries_requests import Micros
from polaris.storage.backends.sqlite._memory import ENTRIES_MAX, Memory
from polaris.storage.backends.sqlite._sql import Row, row, rows, scalar

SUMMARY_COLUMNS = "count, total, low, high, first_ts, first, last_ts, last, spread, rise"
_COUNT = len(SUMMARY_COLUMNS.split(", "))
_PUT_ROLLUP = (
    f"INSERT OR REPLACE INTO ts_rollups (series, place, width, start, {SUMMARY_COLUMNS}, sketch)"  # noqa: S608
    f" VALUES ({', '.join('?' * (_COUNT + 5))})"
)
_GET_ROLLUP = (
    f"SELECT {SUMMARY_COLUMNS}, sketch FROM ts_rollups"  # noqa: S608
    " WHERE series = ? AND place = ? AND width = ? AND start = ?"
)
_MARK = (
    "INSERT INTO ts_dirty (start, series, until) SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?)"
    " WHERE TRUE ON CONFLICT (start, series) DO UPDATE SET until = excluded.until WHERE excluded.until > until"
)

_MARKED = "marked windows"
Span = tuple[int, int, int]
"""Start, series and end of what was written to."""
RollupKey = tuple[int, int, int, int]
"""Series, place of the field, width and start."""


class CollectionPolicy(msgspec.Struct, frozen=True):
    """What the store knows of the rollups of a collection."""

    policy: RetentionPolicy
    widths: tuple[int, ...]
    """Those of all rollups that it has ever had."""

    @property
    def window_us(self) -> int | None:
        return self.policy.window_us


class SqliteRollups:
    """The rollups of one connection's transaction."""

    def __init__(self, connection: apsw.Connection, memory: Memory) -> None:
        self._connection = connection
        self._memory = memory
        self.marks = 0
        """Spans marked since the counter was last read by the upkeep."""
        self.clock: Clock = SYSTEM_CLOCK
        """The upkeep gives its own."""

    def of(self, collection: str) -> CollectionPolicy | None:
        """The policy as it is in the store; None when none was ever set."""
        found = row(self._connection, "SELECT policy, widths FROM ts_policies WHERE collection = ?", (collection,))
        if found is None:
            return None
        return CollectionPolicy(decode_policy(found[0]), tuple(msgspec.json.decode(found[1], type=list[int])))

    def set_policy(self, collection: str, policy: RetentionPolicy) -> None:
        former = self.of(collection)
        widths = {rollup.width_us for rollup in policy.rollups} | set(former.widths if former else ())
        self._connection.execute(
            "INSERT OR REPLACE INTO ts_policies (collection, policy, window_us, widths) VALUES (?, ?, ?, ?)",
            (collection, encode_policy(policy), policy.window_us, msgspec.json.encode(sorted(widths)).decode()),
        )
        self._memory.forget(("window", collection))
        if policy.window_us is not None and (former is None or former.window_us != policy.window_us):
            # Of what was written before, nothing is summarised in windows of this width: all of it is dirty.
            self._connection.execute(
                "INSERT INTO ts_dirty (start, series, until) SELECT ?1, s.id, coalesce(l.ts + ?2, ?3)"
                " FROM ts_series s LEFT JOIN ts_latest l ON l.series = s.id WHERE s.collection = ?4"
                " ON CONFLICT (start, series) DO UPDATE SET until = max(until, excluded.until)",
                (ALL_TIME[0], 2 * max(widths), ALL_TIME[1], collection),
            )
            self.marks += 1

    def leaves_nothing(self, collection: str, since_us: int) -> bool:
        """Whether rollups of points before this instant would have to go at once, so that none need be made."""
        known = self.of(collection)
        if known is None or not known.policy.goes_along:
            return False
        return since_us <= to_micros(self.clock.now()) - (known.policy.raw_kept_us or 0)

    def window_us(self, collection: str) -> int:
        """The width of the windows that writers mark, 0 for none; remembered, because who writes is the only one."""
        known: int | None = self._memory.get(("window", collection))
        if known is None:
            found = row(self._connection, "SELECT window_us FROM ts_policies WHERE collection = ?", (collection,))
            known = 0 if found is None or found[0] is None else int(found[0])
            self._memory.learn(("window", collection), known)
        return known

    def mark(self, spans: Iterable[Span]) -> None:
        """Note that something changed there."""
        text = msgspec.json.encode(sorted(spans)).decode()
        if text != "[]":
            self._connection.execute(_MARK, (text,))
            self.marks += 1

    def mark_points(self, window_us: int, points: Sequence[Sequence[Any]]) -> None:
        """Note the windows of points, whose rows begin with time and series.

        Of each series the window is remembered that was marked last, as most points follow their predecessors.
        """
        times = [point[0] for point in points]
        if not times:
            return
        first, last = min(times) // window_us, max(times) // window_us
        if first == last:  # as of nearly all batches
            windows = dict.fromkeys([point[1] for point in points], first)
            places: Iterable[tuple[int, int]] = windows.items()
        else:
            places = {(point[1], point[0] // window_us) for point in points}
        marked = self._marked()
        new = [(window * window_us, series) for series, window in places if marked.get(series) != (window_us, window)]
        if new:
            self.mark((start, series, start + window_us) for start, series in new)
            marked.update((series, (window_us, start // window_us)) for start, series in new)
            self._memory.learn(_MARKED, marked)  # forgotten as a whole when the transaction is rolled back

    def _marked(self) -> dict[int, tuple[int, int]]:
        """Of series the width and number of the window that was marked last, if it is certainly on the list."""
        known: dict[int, tuple[int, int]] | None = self._memory.get(_MARKED)
        return {} if known is None or len(known) >= ENTRIES_MAX else known

    def unmarked(self, start: int, series: int) -> None:
        """Do not rely on this window being on the list any more."""
        marked = self._marked()
        width, window = marked.get(series, (0, 0))
        if width * window == start:
            marked.pop(series, None)

    def delete_range(self, collection: str, series: str, micros: Micros) -> None:
        """Forget rollups in the range, and note that its points are about to go; `series` is a JSON list of numbers.

        Raises `QueryError` when the range cuts a window of which only a rollup is left.
        """
        known = self.of(collection)
        if known is None:
            return
        bindings = {"series": series, "start": micros[0], "end": micros[1]}
        of_series = "series IN (SELECT value FROM json_each(:series))"
        inside = f"{of_series} AND start >= :start AND start + width <= :end"
        cut = row(
            self._connection,
            f"SELECT width FROM ts_rollups WHERE {of_series} AND start < :end AND start + width > :start"  # noqa: S608
            " AND NOT (start >= :start AND start + width <= :end) LIMIT 1",
            bindings,
        )
        if cut is not None:
            raise cut_window(int(cut[0]))
        self._connection.execute(f"DELETE FROM ts_rollups WHERE {inside}", bindings)  # noqa: S608
        width = known.window_us
        if width is not None:
            start = floor(max(micros[0], ALL_TIME[0]), width)
            latest = rows(self._connection, f"SELECT series, ts FROM ts_latest WHERE {of_series}", {"series": series})  # noqa: S608
            ends = [(number, min(ceiling(micros[1], width), floor(ts, width) + width)) for number, ts in latest]
            self.mark((start, number, end) for number, end in ends if start < end)

    def forget(self, series: str) -> None:
        """Forget everything of series that are taken out of the store, because their numbers are given again."""
        for table in ("ts_rollups", "ts_windows", "ts_dirty"):
            self._connection.execute(
                f"DELETE FROM {table} WHERE series IN (SELECT value FROM json_each(?))",  # noqa: S608
                (series,),
            )

    def add(self, found: Iterable[tuple[RollupKey, Summary]]) -> None:
        """Keep summaries; each is united with the one that is there of the same field and window."""
        united: dict[RollupKey, Summary] = {}
        for key, summary in found:
            former = united.get(key) or self._get(key)
            united[key] = summary if former is None else merged(former, summary)
        self._connection.executemany(
            _PUT_ROLLUP, [(*key, *msgspec.structs.astuple(summary)) for key, summary in united.items()]
        )

    def _get(self, key: RollupKey) -> Summary | None:
        found = row(self._connection, _GET_ROLLUP, key)
        return None if found is None else Summary(*found)

    def thin(self, collection: str, since_us: int, into_us: int | None, rows_max: int) -> int:
        """Unite rollups into windows of `into_us` that end by then, or drop those that do; gives how many went."""
        known = self.of(collection)
        widths = [] if known is None else [width for width in known.widths if _fits(width, into_us)]
        gone = 0
        for width in widths:
            before = floor(since_us, into_us) if into_us is not None else since_us - width + 1
            found = self._due(collection, width, before, rows_max - gone)
            if into_us is not None:
                self.add(
                    ((series, place, into_us, floor(start, into_us)), Summary(*summary))
                    for series, place, start, *summary in found
                )
            self._connection.executemany(
                "DELETE FROM ts_rollups WHERE series = ? AND place = ? AND width = ? AND start = ?",
                [(series, place, width, start) for series, place, start, *_ in found],
            )
            gone += len(found)
            if gone >= rows_max:
                break
        return gone

    def _due(self, collection: str, width: int, before_us: int, limit: int) -> list[Row]:
        """The oldest rollups of one width that start before an instant."""
        places = int(
            scalar(
                self._connection,
                "SELECT coalesce(max(json_array_length(f.fields)), 0) FROM"
                " (SELECT DISTINCT shape FROM ts_series WHERE collection = ?) s JOIN ts_shapes f ON f.id = s.shape",
                (collection,),
            )
        )
        return rows(
            self._connection,
            "WITH RECURSIVE places (place) AS (SELECT 0 UNION ALL SELECT place + 1 FROM places"  # noqa: S608
            " WHERE place + 1 < :places)"
            f" SELECT r.series, r.place, r.start, {', '.join('r.' + name for name in SUMMARY_COLUMNS.split(', '))},"
            " r.sketch FROM ts_series s CROSS JOIN places p CROSS JOIN ts_rollups r WHERE s.collection = :collection"
            " AND r.series = s.id AND r.place = p.place AND r.width = :width AND r.start < :before LIMIT :limit",
            {"places": places, "collection": collection, "width": width, "before": before_us, "limit": limit},
        )


def _fits(width: int, into_us: int | None) -> bool:
    return into_us is None or (width < into_us and into_us % width == 0)
