"""Aggregation in SQL: the samples of fields, from both tables, reduced by bucket and group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import apsw

from polaris.storage._aggregates import Cell, Number, group_of, rows_of, too_many_rows
from polaris.storage._aggregation import AggregatedRow, AggregationType
from polaris.storage._limits import LIMIT_MAX
from polaris.storage._timeseries_requests import AggregateRequest, SeriesKey
from polaris.storage.backends.sqlite._aggregate_cells import BY_CELL, cell_reads, expression
from polaris.storage.backends.sqlite._sample_sql import Samples
from polaris.storage.backends.sqlite._series import StoredSeries
from polaris.storage.backends.sqlite._sql import Row, rows

FIELDS_A_SCAN = 64
"""Fields whose samples are read together; a statement has a bounded number of columns."""

_DEVIATION = (
    # Two passes, as the definition has it: one pass would lose the digits of small deviations of large numbers.
    ", means AS (SELECT b, g, avg(x0) AS mean, count(x0) AS n FROM samples GROUP BY b, g)"
    " SELECT s.b, s.g, sqrt(sum((s.x0 - m.mean) * (s.x0 - m.mean)) / (m.n - 1))"
    " FROM samples s JOIN means m ON m.b = s.b AND m.g = s.g WHERE m.n > 1 GROUP BY s.b, s.g"
)
_RISE = "CASE WHEN x < earlier THEN x ELSE x - earlier END"
_RATE = (
    ", steps AS (SELECT b, g, rank, ts, x0 AS x, lag(x0) OVER (PARTITION BY rank, b ORDER BY ts) AS earlier"  # noqa: S608
    " FROM samples)"
    ", rises AS (SELECT b, g, max(ts) - min(ts) AS elapsed,"
    f" total(CASE WHEN earlier IS NULL THEN 0 ELSE {_RISE} END) AS rise FROM steps GROUP BY rank, b, g)"
    " SELECT b, g, sum(rise / (elapsed / 1e6)) FROM rises WHERE elapsed > 0 GROUP BY b, g"
)
_INCREASE = (
    ", steps AS (SELECT b, g, x0 AS x, lag(x0) OVER (PARTITION BY rank ORDER BY ts) AS earlier FROM samples)"  # noqa: S608
    f" SELECT b, g, total({_RISE}) FROM steps WHERE earlier IS NOT NULL GROUP BY b, g"
)


def _edge(extreme: str, direction: str) -> str:
    """First or last: of each series the one at its edge, then of these the one at the edge of all, ties by tags."""
    return (
        f", edge AS (SELECT b, g, rank, {extreme}(ts) AS ts, x0 FROM samples GROUP BY rank, b, g)"  # noqa: S608
        ", placed AS (SELECT b, g, x0,"
        f" row_number() OVER (PARTITION BY b, g ORDER BY ts {direction}, rank {direction}) AS place FROM edge)"
        " SELECT b, g, x0 FROM placed WHERE place = 1"
    )


_SINGLE: dict[str, str] = {
    AggregationType.STDDEV: _DEVIATION,
    AggregationType.RATE: _RATE,
    AggregationType.INCREASE: _INCREASE,
    AggregationType.FIRST: _edge("min", "ASC"),
    AggregationType.LAST: _edge("max", "DESC"),
}
"""What reads the samples of its field for itself."""


class _Values:
    """The results of the statements, put together: a count and a value of every name for each cell."""

    def __init__(self, request: AggregateRequest) -> None:
        self._request = request
        self._cells: dict[Cell, tuple[int, dict[str, Number | None]]] = {}

    def count(self, cell: Cell, count: int) -> dict[str, Number | None]:
        values: dict[str, Number | None] = dict.fromkeys(self._request.of(cell[2]))
        self._cells[cell] = (count, values)
        return values

    def put(self, cell: Cell, name: str, value: Number) -> None:
        self._cells[cell][1][name] = value

    @property
    def rows(self) -> list[AggregatedRow]:
        return rows_of((cell, count, values) for cell, (count, values) in self._cells.items())


def aggregate(
    connection: apsw.Connection, series: Sequence[StoredSeries], request: AggregateRequest
) -> list[AggregatedRow]:
    """The aggregates of every field asked for."""
    numbered: dict[SeriesKey, int] = {}
    groups = [numbered.setdefault(group_of(one.tags, request.group_by), len(numbered)) for one in series]
    samples = Samples(connection, series, groups, request)
    wanted = request.fields
    if wanted is None:
        wanted = tuple(dict.fromkeys(name for one in series for name in one.shape))
    values, names = _Values(request), list(numbered)
    cells = cell_reads(connection, series, request, samples.edges)
    for start in range(0, len(wanted), FIELDS_A_SCAN):
        together = wanted[start : start + FIELDS_A_SCAN]
        if cells is None:
            _scan(samples, together, names, values)
        else:
            for bucket, field, count, told in cells.read(together):
                values.count((bucket, names[0], field), count).update(told)
    for field in wanted:
        for name in request.of(field):
            if cells is not None:
                for bucket, value in cells.single(field, name) if name in BY_CELL else ():
                    values.put((bucket, names[0], field), name, value)
            elif name in _SINGLE:
                for bucket, group, value in _reduced(samples, (field,), _SINGLE[name], {}):
                    values.put((bucket, names[group], field), name, value)
    return values.rows


def _scan(samples: Samples, fields: tuple[str, ...], names: Sequence[SeriesKey], values: _Values) -> None:
    """Count the numbers of the fields, with everything else that one reading of their samples can tell."""
    for together in samples.readable_together(fields):
        columns: list[str] = []
        bindings: dict[str, Any] = {}
        for place, field in enumerate(together):
            columns.append(f"count(x{place})")
            columns += [expression(name, place, bindings) for name in samples.request.of(field) if name not in _SINGLE]
        reduction = f" SELECT b, g, {', '.join(columns)} FROM samples GROUP BY g, b"  # noqa: S608
        for row in _reduced(samples, together, reduction, bindings):
            _take(row, together, names, values, samples.request)


def _take(
    row: Row, fields: Sequence[str], names: Sequence[SeriesKey], values: _Values, request: AggregateRequest
) -> None:
    bucket, group = row[:2]
    found = iter(row[2:])
    for field in fields:
        count = next(found)
        told = {name: next(found) for name in request.of(field) if name not in _SINGLE}
        if count:
            values.count((bucket, names[group], field), count).update(told)


def _reduced(samples: Samples, fields: tuple[str, ...], reduction: str, bindings: dict[str, Any]) -> list[Row]:
    """The rows of a statement over the samples of these fields."""
    source = samples.sql(fields)
    if source is None:
        return []
    found = rows(samples.connection, f"{source.sql} {reduction} LIMIT {LIMIT_MAX + 1}", source.bindings | bindings)
    if len(found) > LIMIT_MAX:
        raise too_many_rows()
    return found
