"""Retention policies and rollups on a server: what is left of points that are gone."""

# ruff: noqa: S608 - statements are made of constants, names of own tables and marks of parameters

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from polaris.storage._aggregates import Number
from polaris.storage._rollup_cells import Rollup
from polaris.storage._rollup_summaries import Summary, merged, summarise
from polaris.storage._rollups import RetentionPolicy, cut_window, decode_policy, encode_policy, floor
from polaris.storage._timeseries_requests import Micros
from polaris.storage._turns import in_turns
from polaris.storage.backends.postgresql._catalog import Partitions
from polaris.storage.backends.postgresql._link import Link
from polaris.storage.backends.postgresql._marks import mark_spans
from polaris.storage.backends.postgresql._series import SeriesRegistry

RETENTION_LOCK = 0x504F4C53
"""The first half of the numbers of the locks for retention; the second one is of the collection's table."""
RollupKey = tuple[int, int, int, str]
"""Series, width, start and field."""

_encode = msgspec.msgpack.Encoder().encode
_Parts = tuple[int, float, Number, Number, int, Number, int, Number, float, float, bytes]
_decode = msgspec.msgpack.Decoder(_Parts).decode

_OLD_ROWS = (
    "DELETE FROM {table} p USING (SELECT o.series, o.ts FROM ts_series s JOIN ts_latest l ON l.series = s.id"
    " JOIN {table} o ON o.series = s.id AND o.ts < least($2, l.ts - ((l.ts % $3::bigint) + $3::bigint) % $3::bigint)"
    " WHERE s.collection = $1 ORDER BY o.series, o.ts LIMIT $4) AS d WHERE p.series = d.series AND p.ts = d.ts"
    " RETURNING p.series, p.ts, p.f, p.i, p.x"
)
_PUT = (
    "INSERT INTO ts_rollups (series, width_us, start_us, field, summary)"
    " SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[], $5::bytea[])"
    " ON CONFLICT (series, width_us, start_us, field) DO UPDATE SET summary = excluded.summary"
)
_ALONE = "SELECT pg_advisory_xact_lock($1, hashtext(current_schema() || '.' || $2))"
_GIVEN = "unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS n (series, width_us, start_us)"
_SAME = "r.series = n.series AND r.width_us = n.width_us AND r.start_us = n.start_us"
_FLOOR = "start_us - ((start_us % $3::bigint) + $3::bigint) % $3::bigint"


def decode_summary(packed: bytes) -> Summary:
    """What a row of `ts_rollups` keeps. Raises `msgspec.DecodeError` for what is none."""
    return Summary(*_decode(packed))


class PostgresRollups:
    """The rollups of one collection in one transaction."""

    def __init__(self, link: Link, home: Partitions, registry: SeriesRegistry) -> None:
        self._link = link
        self._home = home
        self._registry = registry

    async def policy(self) -> RetentionPolicy | None:
        text = await self._link.value("SELECT policy FROM ts_policies WHERE collection = $1", self._home.number)
        return None if text is None else decode_policy(text)

    async def settled_policy(self) -> RetentionPolicy | None:
        """The policy, which nobody replaces before the transaction ends: for whoever takes away what it says.

        One transaction at a time: whoever sets a policy waits for the slice of retention that is under way, so when it
        is set nothing more goes by the one before. In a unit of work a policy that was replaced since its snapshot is
        an error of the server, SQLSTATE 40001.
        """
        await self._alone()
        text = await self._link.value(
            "SELECT policy FROM ts_policies WHERE collection = $1 FOR SHARE", self._home.number
        )
        return None if text is None else decode_policy(text)

    async def set_policy(self, policy: RetentionPolicy) -> None:
        """Replace the policy when the slice of retention that is under way has ended.

        It waits for that as long as a statement may wait for a lock; then it is an error, and the former one stays.
        """
        await self._alone()
        await self._link.run(
            "INSERT INTO ts_policies VALUES ($1, $2, $3)"
            " ON CONFLICT (collection) DO UPDATE SET policy = excluded.policy, window_us = excluded.window_us",
            self._home.number,
            encode_policy(policy),
            policy.window_us,
        )

    async def within(
        self, numbers: Sequence[int], micros: Micros, fields: frozenset[str] | None
    ) -> dict[int, list[Rollup]]:
        """The rollups of windows that start in the range, by their series."""
        rows = await self._link.rows(
            "SELECT series, width_us, start_us, field, summary FROM ts_rollups WHERE series = ANY($1::bigint[])"
            " AND start_us >= $2 AND start_us < $3 ORDER BY start_us, width_us, field",
            numbers,
            *micros,
        )
        found: dict[int, list[Rollup]] = {}
        async for row in in_turns(rows):
            if fields is None or row[3] in fields:
                found.setdefault(row[0], []).append(Rollup(row[2], row[1], row[3], decode_summary(row[4])))
        return found

    async def delete_range(self, numbers: Sequence[int], micros: Micros) -> None:
        """Forget the rollups in the range. Raises `QueryError` when it cuts one: that cannot be taken apart."""
        cut = await self._link.value(
            "SELECT width_us FROM ts_rollups WHERE series = ANY($1::bigint[]) AND start_us < $3"
            " AND start_us + width_us > $2 AND NOT (start_us >= $2 AND start_us + width_us <= $3) LIMIT 1",
            numbers,
            *micros,
        )
        if cut is not None:
            raise cut_window(int(cut))
        await self._link.run(
            "DELETE FROM ts_rollups WHERE series = ANY($1::bigint[]) AND start_us >= $2 AND start_us + width_us <= $3",
            numbers,
            *micros,
        )

    async def retire(self, since_us: int, width_us: int, rows_max: int) -> int:
        """Put the oldest points into the rollups of their windows and drop them; gives how many points that were.

        In a transaction that has asked for `settled_policy`, and so does `thin`.
        """
        sql = _OLD_ROWS.format(table=self._home.table)
        rows = await self._link.rows(sql, self._home.number, floor(since_us, width_us), width_us, rows_max)
        layouts = await self._registry.layouts_of({row[0] for row in rows})
        readings: dict[RollupKey, list[tuple[int, Number]]] = {}
        async for row in in_turns(sorted(rows, key=lambda row: (row[0], row[1]))):
            for name, value in layouts[row[0]].numbers(row):
                key = (row[0], width_us, floor(row[1], width_us), name)
                readings.setdefault(key, []).append((row[1], value))
        summaries = [(key, summarise(known, sketched=True)) async for key, known in in_turns(readings.items())]
        await self._add(summaries)
        spans: dict[int, list[int]] = {}
        for row in rows:
            spans.setdefault(row[0], []).append(floor(row[1], width_us))
        marks = [(series, (min(starts), max(starts) + width_us)) for series, starts in spans.items()]
        await mark_spans(self._link, self._home.number, marks)
        return len(rows)

    async def thin(self, since_us: int, into_us: int | None, rows_max: int) -> int:
        """Unite summaries into windows of `into_us` that end by then, or drop those that do; gives their number."""
        due = "start_us + width_us <= $2"
        if into_us is not None:
            due = f"width_us < $3 AND $3 % width_us = 0 AND {_FLOOR} + $3 <= $2"
        windows = await self._link.rows(
            "SELECT DISTINCT r.series, r.width_us, r.start_us FROM ts_rollups r JOIN ts_series s ON s.id = r.series"
            f" WHERE s.collection = $1 AND {due} AND $3::bigint IS NOT DISTINCT FROM $3"
            " ORDER BY r.series, r.start_us, r.width_us LIMIT $4",
            self._home.number,
            since_us,
            into_us,
            rows_max,
        )
        if not windows:
            return 0
        rows = await self._link.rows(
            f"DELETE FROM ts_rollups r USING {_GIVEN} WHERE {_SAME}"
            " RETURNING r.series, r.width_us, r.start_us, r.field, r.summary",
            *([window[place] for window in windows] for place in range(3)),
        )
        if into_us is not None:
            ordered = sorted(rows, key=lambda row: (row[0], row[2], row[1], row[3]))
            await self._add(
                ((row[0], into_us, floor(row[2], into_us), row[3]), decode_summary(row[4])) for row in ordered
            )
        return len(windows)

    async def _alone(self) -> None:
        """One transaction at a time: two would put the same summaries together from different halves.

        In the order in which they come: who waits for a row could be overtaken by each slice of retention.
        """
        await self._link.rows(_ALONE, RETENTION_LOCK, self._home.table)

    async def _add(self, found: Iterable[tuple[RollupKey, Summary]]) -> None:
        """Keep summaries; each is united with the one that is there of the same field and window."""
        new = list(found)
        windows = list({key[:3] for key, _ in new})
        rows = await self._link.rows(
            f"SELECT r.series, r.width_us, r.start_us, r.field, r.summary FROM ts_rollups r JOIN {_GIVEN} ON {_SAME}",
            *([window[place] for window in windows] for place in range(3)),
        )
        united: dict[RollupKey, Summary] = {(row[0], row[1], row[2], row[3]): decode_summary(row[4]) for row in rows}
        async for key, summary in in_turns(new):
            former = united.get(key)
            united[key] = summary if former is None else merged(former, summary)
        keys = sorted({key for key, _ in new})
        await self._link.run(
            _PUT,
            *([key[place] for key in keys] for place in range(4)),
            [_encode(msgspec.structs.astuple(united[key])) for key in keys],
        )
