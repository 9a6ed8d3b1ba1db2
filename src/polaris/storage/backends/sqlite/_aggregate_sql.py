"""Aggregation in SQL: the samples of one field, from both tables, reduced by bucket and group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import apsw
import msgspec

from polaris.storage._aggregates import bucket_time
from polaris.storage._operation import AggregateRequest
from polaris.storage._timeseries import PERCENTS, AggregatedPoint, AggregationType
from polaris.storage.backends.sqlite._series import COLUMNS, StoredSeries
from polaris.storage.backends.sqlite._sql import rows

Group = tuple[tuple[str, str], ...]

_SIMPLE = {
    AggregationType.AVG: "avg(x)",
    AggregationType.SUM: "total(x)",
    AggregationType.MIN: "min(x)",
    AggregationType.MAX: "max(x)",
    AggregationType.COUNT: "count(x)",
    **{aggregation: f"percentile(x, {percent})" for aggregation, percent in PERCENTS.items()},
}
_DEVIATION = (
    # Two passes, as the definition has it: one pass would lose the digits of small deviations of large numbers.
    ", means AS (SELECT b, g, avg(x) AS mean, count(x) AS n FROM samples GROUP BY b, g)"
    " SELECT s.b, s.g, sqrt(sum((s.x - m.mean) * (s.x - m.mean)) / (m.n - 1)), m.n"
    " FROM samples s JOIN means m ON m.b = s.b AND m.g = s.g WHERE m.n > 1 GROUP BY s.b, s.g"
)
_RATE = (
    ", steps AS (SELECT b, g, rank, ts, x, lag(x) OVER (PARTITION BY b, rank ORDER BY ts) AS earlier FROM samples)"
    ", rises AS (SELECT b, g, count(x) AS n, max(ts) - min(ts) AS elapsed,"
    " total(CASE WHEN earlier IS NULL THEN 0 WHEN x < earlier THEN x ELSE x - earlier END) AS rise"
    " FROM steps GROUP BY b, g, rank)"
    " SELECT b, g, sum(CASE WHEN elapsed > 0 THEN rise / (elapsed / 1e6) END) AS rate, sum(n)"
    " FROM rises GROUP BY b, g HAVING rate IS NOT NULL"
)


def _edge(extreme: str, direction: str) -> str:
    """First or last: of each series the one at its edge, then of these the one at the edge of all, ties by tags."""
    return (
        f", edges AS (SELECT b, g, rank, {extreme}(ts) AS ts, x, count(x) AS n FROM samples GROUP BY b, g, rank)"  # noqa: S608
        ", placed AS (SELECT b, g, x, sum(n) OVER (PARTITION BY b, g) AS n,"
        f" row_number() OVER (PARTITION BY b, g ORDER BY ts {direction}, rank {direction}) AS place FROM edges)"
        " SELECT b, g, x, n FROM placed WHERE place = 1"
    )


def aggregate(
    connection: apsw.Connection, series: Sequence[StoredSeries], request: AggregateRequest
) -> list[AggregatedPoint]:
    """The aggregates of every field asked for."""
    groups: dict[Group, int] = {}
    numbers = [groups.setdefault(_group(one, request.group_by), len(groups)) for one in series]
    names = list(groups)
    wanted = request.fields
    if wanted is None:
        wanted = tuple(dict.fromkeys(name for one in series for name in one.shape))
    found: list[tuple[int, Group, str, AggregatedPoint]] = []
    for field in wanted:
        for bucket, group, value, count in _reduce(connection, series, numbers, field, request):
            tags = dict(names[group])
            point = AggregatedPoint(bucket_time(bucket), field, value, count, tags)
            found.append((bucket, names[group], field, point))
    found.sort(key=lambda entry: entry[:3])
    return [point for _, _, _, point in found]


def _group(series: StoredSeries, keys: tuple[str, ...]) -> Group:
    return tuple((key, series.tags[key]) for key in keys if key in series.tags)


def _reduce(
    connection: apsw.Connection,
    series: Sequence[StoredSeries],
    groups: Sequence[int],
    field: str,
    request: AggregateRequest,
) -> list[tuple[int, int, int | float, int]]:
    chosen = [
        (one.number, rank, groups[rank], one.shape.index(field))
        for rank, one in enumerate(series)
        if field in one.shape
    ]
    if not chosen:
        return []
    places = sorted({place for _, _, _, place in chosen})
    bindings: dict[str, Any] = {
        "chosen": msgspec.json.encode(chosen).decode(),
        "start": request.micros[0],
        "end": request.micros[1],
        "bucket": request.bucket_us,
    }
    bucket = ":start" if request.bucket_us is None else "p.ts - ((p.ts % :bucket) + :bucket) % :bucket"
    samples = " UNION ALL ".join(_samples(table, place, bucket) for place in places for table in ("hot", "cold"))
    sql = (
        "WITH chosen AS MATERIALIZED (SELECT value ->> 0 AS series, value ->> 1 AS rank, value ->> 2 AS g,"  # noqa: S608
        f" value ->> 3 AS place FROM json_each(:chosen)), samples AS ({samples}) {_reduction(request.aggregation)}"
    )
    return [(bucket, group, value, count) for bucket, group, value, count in rows(connection, sql, bindings)]


def _samples(table: str, place: int, bucket: str) -> str:
    """The numbers of one column. The hot table is walked by time, the cold one by series."""
    column = f"p.c{place % COLUMNS}"
    tables = "ts_hot p CROSS JOIN chosen c" if table == "hot" else "chosen c CROSS JOIN ts_cold p"
    return (
        f"SELECT {bucket} AS b, c.g AS g, c.rank AS rank, p.ts AS ts, {column} AS x FROM {tables}"  # noqa: S608
        f" WHERE p.series = c.series AND c.place = {place} AND p.part = {place // COLUMNS}"
        f" AND p.ts >= :start AND p.ts < :end AND typeof({column}) IN ('integer', 'real')"
    )


def _reduction(aggregation: AggregationType) -> str:
    if aggregation in _SIMPLE:
        return f"SELECT b, g, {_SIMPLE[aggregation]}, count(x) FROM samples GROUP BY b, g"  # noqa: S608
    if aggregation is AggregationType.STDDEV:
        return _DEVIATION
    if aggregation is AggregationType.RATE:
        return _RATE
    return _edge("min", "ASC") if aggregation is AggregationType.FIRST else _edge("max", "DESC")
