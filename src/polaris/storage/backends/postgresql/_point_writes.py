"""Putting points into their partitions: few with one statement, many by COPY."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from polaris.storage.backends.postgresql._catalog import Partitions
from polaris.storage.backends.postgresql._layout import Content
from polaris.storage.backends.postgresql._link import Link
from polaris.storage.backends.postgresql._marks import in_time_sql, mark_points_sql

ROWS_A_STATEMENT = (64, 8, 1)
COPY_FROM = 257
"""Rows from which on COPY into a table of the connection's own is quicker."""

Key = tuple[int, int]
"""Series and time."""
Rows = dict[Key, Content]

_CONFLICT = "ON CONFLICT (series, ts) DO UPDATE SET f = excluded.f, i = excluded.i, x = excluded.x"
_LATEST = (
    "INSERT INTO ts_latest (series, ts) SELECT * FROM unnest($1::bigint[], $2::bigint[]) AS n (series, ts)"
    "{condition} ORDER BY n.series ON CONFLICT (series) DO UPDATE SET ts = excluded.ts WHERE excluded.ts > ts_latest.ts"
)
_STAGING = (
    "CREATE TEMP TABLE IF NOT EXISTS ts_staging"
    " (series bigint, ts bigint, f float8[], i bigint[], x jsonb) ON COMMIT DELETE ROWS"
)
_COLUMNS = ("series", "ts", "f", "i", "x")


async def put_points(link: Link, home: Partitions, rows: Rows) -> None:
    """Write the rows, each in place of the one that is there, the newest times of their series, and marks of late ones.

    Always in the order of series and time, so that two writers do not wait for each other.
    """
    keys = sorted(rows)
    newest = dict(keys)  # of each series the last, which is the newest
    records = [(*key, *rows[key]) for key in keys]
    columns = list(newest), list(newest.values())
    if len(records) in ROWS_A_STATEMENT and not link.in_transaction:
        oldest = min(key[1] for key in keys)
        if await link.run(_put_in_time(home, len(records)), *columns, oldest, *_flat(records)):
            return
    marked = mark_points_sql(home.number, "$3", "$4", at_least=link.is_serializable)
    async with link.atomic():
        # What WITH holds is carried out once and entirely.
        newest_sql = _LATEST.format(condition="")
        await link.run(
            f"WITH newest AS ({newest_sql}) {marked}", *columns, [key[0] for key in keys], [key[1] for key in keys]
        )
        if len(records) >= COPY_FROM:
            await _copy(link, home.table, records)
        else:
            await _insert(link, home.table, records)


def _flat(records: Sequence[Sequence[Any]]) -> list[Any]:
    return [value for record in records for value in record]


def _marks(count: int, first: int) -> str:
    kinds = ("bigint", "bigint", "float8[]", "bigint[]", "jsonb")
    return ", ".join(
        "(" + ", ".join(f"${first + row * 5 + place}::{kind}" for place, kind in enumerate(kinds)) + ")"
        for row in range(count)
    )


def _put_in_time(home: Partitions, count: int) -> str:
    """All that there is to do for points of which none is late; for others it does nothing."""
    condition = f" WHERE {in_time_sql(home.number, '$3')}"
    values = f"SELECT * FROM (VALUES {_marks(count, 4)}) AS n{condition}"  # noqa: S608
    return f"WITH newest AS ({_LATEST.format(condition=condition)}) {_put(home.table, values)}"


def _put(table: str, values: str) -> str:
    return f"INSERT INTO {table} (series, ts, f, i, x) {values} {_CONFLICT}"


async def _insert(link: Link, table: str, records: Sequence[Sequence[Any]]) -> None:
    start, count = 0, len(records)
    for size in ROWS_A_STATEMENT:
        while count - start >= size:
            part = records[start : start + size]
            await link.run(_put(table, f"VALUES {_marks(size, 1)}"), *_flat(part))
            start += size


async def _copy(link: Link, table: str, records: Sequence[Sequence[Any]]) -> None:
    await link.run(_STAGING)
    await link.copy("ts_staging", _COLUMNS, records)
    await link.run(_put(table, "SELECT * FROM ts_staging"))
    await link.run("DELETE FROM ts_staging")
