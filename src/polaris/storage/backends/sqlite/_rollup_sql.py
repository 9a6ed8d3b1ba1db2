"""Aggregation in SQL over pieces: summaries of windows and single numbers, with what unites them."""

from __future__ import annotations

from polaris.storage._aggregation import AggregationType

OVER_PIECES: dict[str, str] = {
    AggregationType.STDDEV: (
        ", means AS (SELECT b, g, total(total) / sum(count) AS mean, sum(count) AS n FROM pieces GROUP BY b, g)"
        " SELECT p.b, p.g, sqrt((total(p.spread) + total(p.count * (p.total / p.count - m.mean)"
        " * (p.total / p.count - m.mean))) / (m.n - 1))"
        " FROM pieces p JOIN means m ON m.b = p.b AND m.g = p.g WHERE m.n > 1 GROUP BY p.b, p.g"
    ),
    AggregationType.RATE: (
        ", steps AS (SELECT b, g, rank, first_ts, last_ts, first, rise,"
        " lag(last) OVER (PARTITION BY b, rank ORDER BY first_ts) AS earlier FROM pieces)"
        ", rises AS (SELECT b, g, max(last_ts) - min(first_ts) AS elapsed,"
        " total(rise + CASE WHEN earlier IS NULL THEN 0 WHEN first < earlier THEN first"
        " ELSE first - earlier END) AS rise"
        " FROM steps GROUP BY b, g, rank)"
        " SELECT b, g, sum(rise / (elapsed / 1e6)) FROM rises WHERE elapsed > 0 GROUP BY b, g"
    ),
    AggregationType.INCREASE: (
        ", steps AS (SELECT b, g, count, first, rise, lag(last) OVER (PARTITION BY rank ORDER BY first_ts) AS earlier"
        " FROM pieces) SELECT b, g, total(CASE WHEN earlier IS NULL THEN rise WHEN first < earlier THEN first + rise"
        " ELSE first - earlier + rise END) FROM steps WHERE earlier IS NOT NULL OR count > 1 GROUP BY b, g"
    ),
}


def _edge(end: str, extreme: str, direction: str) -> str:
    """First or last: of each series and source the one at its edge, then of these the one at the edge of all."""
    return (
        f", edge AS (SELECT b, g, rank, source, {extreme}({end}_ts) AS ts, {end} AS x FROM pieces"  # noqa: S608
        " GROUP BY b, g, rank, source), placed AS (SELECT b, g, x, row_number() OVER (PARTITION BY b, g"
        f" ORDER BY ts {direction}, rank {direction}, source) AS place FROM edge)"
        " SELECT b, g, x FROM placed WHERE place = 1"
    )


OVER_PIECES[AggregationType.FIRST] = _edge("first", "min", "ASC")
OVER_PIECES[AggregationType.LAST] = _edge("last", "max", "DESC")
