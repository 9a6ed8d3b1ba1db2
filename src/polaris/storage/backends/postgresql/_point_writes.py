"""Putting points into their partitions: few with one statement, many by COPY."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from polaris.storage.backends.postgresql._layout import Content
from polaris.storage.backends.postgresql._link import Link

ROWS_A_STATEMENT = (64, 8, 1)
COPY_FROM = 257
"""Rows from which on COPY into a table of the connection's own is quicker."""

Key = tuple[int, int]
"""Series and time."""
Rows = dict[Key, Content]

_CONFLICT = "ON CONFLICT (series, ts) DO UPDATE SET f = excluded.f, i = excluded.i, x = excluded.x"
_LATEST = (
    "INSERT INTO ts_latest (series, ts) SELECT * FROM unnest($1::bigint[], $2::bigint[]) AS n (series, ts)"
    " ORDER BY n.series ON CONFLICT (series) DO UPDATE SET ts = excluded.ts WHERE excluded.ts > ts_latest.ts"
)
_STAGING = (
    "CREATE TEMP TABLE IF NOT EXISTS ts_staging"
    " (series bigint, ts bigint, f float8[], i bigint[], x jsonb) ON COMMIT DELETE ROWS"
)
_COLUMNS = ("series", "ts", "f", "i", "x")


async def put_points(link: Link, table: str, rows: Rows) -> None:
    """Write the rows, each in place of the one that is there, and the newest times of their series.

    Always in the order of series and time, so that two writers do not wait for each other.
    """
    keys = sorted(rows)
    newest = dict(keys)  # of each series the last, which is the newest
    records = [(*key, *rows[key]) for key in keys]
    if len(records) in ROWS_A_STATEMENT:
        await link.run(_with_latest(table, len(records)), *_columns(newest), *_flat(records))
        return
    async with link.atomic():
        await link.run(_LATEST, *_columns(newest))
        if len(records) >= COPY_FROM:
            await _copy(link, table, records)
        else:
            await _insert(link, table, records)


def _columns(newest: dict[int, int]) -> tuple[list[int], list[int]]:
    return list(newest), list(newest.values())


def _flat(records: Sequence[Sequence[Any]]) -> list[Any]:
    return [value for record in records for value in record]


def _marks(count: int, first: int) -> str:
    kinds = ("bigint", "bigint", "float8[]", "bigint[]", "jsonb")
    return ", ".join(
        "(" + ", ".join(f"${first + row * 5 + place}::{kind}" for place, kind in enumerate(kinds)) + ")"
        for row in range(count)
    )


def _with_latest(table: str, count: int) -> str:
    # What WITH holds is carried out once and entirely, and only both together.
    return f"WITH newest AS ({_LATEST}) INSERT INTO {table} (series, ts, f, i, x) VALUES {_marks(count, 3)} {_CONFLICT}"  # noqa: S608


async def _insert(link: Link, table: str, records: Sequence[Sequence[Any]]) -> None:
    start, count = 0, len(records)
    for size in ROWS_A_STATEMENT:
        while count - start >= size:
            part = records[start : start + size]
            await link.run(
                f"INSERT INTO {table} (series, ts, f, i, x) VALUES {_marks(size, 1)} {_CONFLICT}",  # noqa: S608
                *_flat(part),
            )
            start += size


async def _copy(link: Link, table: str, records: Sequence[Sequence[Any]]) -> None:
    await link.run(_STAGING)
    await link.copy("ts_staging", _COLUMNS, records)
    await link.run(f"INSERT INTO {table} SELECT * FROM ts_staging {_CONFLICT}")  # noqa: S608
    await link.run("DELETE FROM ts_staging")
