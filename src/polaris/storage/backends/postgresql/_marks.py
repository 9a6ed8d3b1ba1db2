"""Marks on windows whose points change after they were summarised: left by writers, in the transaction of their points.

A statement here is carried out in one piece with the change, or before or after it in one transaction. It reads
`ts_frontiers`, whose lock is taken before the snapshot of the statement and kept to the end of the transaction: a
frontier that is raised later is raised after the change is there to be seen.
"""

# ruff: noqa: S608 - statements are made of constants, names of own tables and marks of parameters

from __future__ import annotations

from collections.abc import Sequence

from polaris.storage._timeseries_requests import Micros
from polaris.storage.backends.postgresql._link import Link

FRONTIER_MIN = -(2**62)
"""A frontier before which there is nothing."""

_FRONTIER = "(SELECT window_us, frontier_us FROM ts_frontiers WHERE collection = {collection})"
# The snapshot may be older than the frontier. Then everything is marked: marks behind the frontier do no harm.
_FRONTIER_AT_LEAST = (
    "(SELECT coalesce(f.window_us, 1) AS window_us, CASE WHEN (SELECT last_value FROM ts_raises)"
    f" > (SELECT coalesce(max(raised), 0) FROM ts_frontiers) THEN {2**62} ELSE f.frontier_us END AS frontier_us"
    " FROM (SELECT 1) AS one LEFT JOIN ts_frontiers f ON f.collection = {collection})"
)
_MARK_POINTS = (
    "INSERT INTO ts_marks (collection, series, start_us, end_us)"
    " SELECT DISTINCT {collection}, n.series, w.start_us, w.start_us + f.window_us FROM {frontier} AS f,"
    " unnest({series}::bigint[], {times}::bigint[]) AS n (series, ts),"
    " LATERAL (SELECT n.ts - ((n.ts % f.window_us) + f.window_us) % f.window_us AS start_us) AS w"
    " WHERE n.ts < f.frontier_us"
)
_MARK_SPANS = (
    "INSERT INTO ts_marks (collection, series, start_us, end_us)"
    " SELECT $1::int, n.series, n.low, least(n.high, f.frontier_us) FROM {frontier} AS f,"
    " unnest($2::bigint[], $3::bigint[], $4::bigint[]) AS n (series, low, high)"
    " JOIN ts_series s ON s.id = n.series WHERE n.low < least(n.high, f.frontier_us) FOR KEY SHARE OF s"
)
_MARK_GONE = (
    "INSERT INTO ts_marks (collection, series, start_us, end_us)"
    " SELECT {collection}, s.id, n.low, least(n.high, f.frontier_us) FROM {frontier} AS f,"
    " (SELECT series, min(ts) AS low, max(ts) + 1 AS high FROM {gone} AS gone GROUP BY series) AS n"
    " JOIN ts_series s ON s.id = n.series WHERE n.low < f.frontier_us FOR KEY SHARE OF s"
)
_MARK_ALL = (
    "INSERT INTO ts_marks (collection, series, start_us, end_us)"
    " SELECT $1::int, s.id, $2::bigint, least($3::bigint, f.frontier_us) FROM {frontier} AS f"
    " JOIN ts_series s ON s.collection = $1::int WHERE $2::bigint < f.frontier_us FOR KEY SHARE OF s"
)


def mark_points_sql(collection: int, series: str, times: str, *, at_least: bool) -> str:
    """A statement that marks the windows of points; `series` and `times` are the marks of its parameters.

    `at_least`: for transactions that do not see what others commit meanwhile.
    """
    return _MARK_POINTS.format(
        collection=int(collection), series=series, times=times, frontier=_frontier(str(int(collection)), at_least)
    )


def in_time_sql(collection: int, oldest: str) -> str:
    """The condition that nothing from an instant on has to be marked, of a statement that is a whole transaction."""
    return (
        f"{oldest}::bigint >= coalesce((SELECT frontier_us FROM ts_frontiers WHERE collection = {int(collection)}),"
        f" {FRONTIER_MIN})"
    )


async def mark_spans(link: Link, collection: int, spans: Sequence[tuple[int, Micros]]) -> None:
    """Mark these spans of series, as far as they are summarised."""
    await link.run(
        _MARK_SPANS.format(frontier=_frontier("$1::int", link.is_serializable)),
        collection,
        [series for series, _ in spans],
        [span[0] for _, span in spans],
        [span[1] for _, span in spans],
    )


async def mark_all(link: Link, collection: int, span: Micros) -> None:
    """Mark this span of every series, as far as it is summarised."""
    await link.run(_MARK_ALL.format(frontier=_frontier("$1::int", link.is_serializable)), collection, *span)


def mark_gone_sql(collection: int, gone: str, *, at_least: bool) -> str:
    """A statement that marks, series by series, from the first to the last of the rows (series, ts) of `gone`."""
    number = str(int(collection))
    return _MARK_GONE.format(collection=number, gone=gone, frontier=_frontier(number, at_least))


def _frontier(collection: str, at_least: bool) -> str:
    return (_FRONTIER_AT_LEAST if at_least else _FRONTIER).format(collection=collection)
