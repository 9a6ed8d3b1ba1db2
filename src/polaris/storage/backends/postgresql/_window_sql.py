"""One statement that summarises windows: the points are read once for all slots of a shape, on the server."""

# ruff: noqa: S608 - statements are made of constants, names of own tables and marks of parameters

from __future__ import annotations

from collections.abc import Iterator, Sequence

from polaris.storage.backends.postgresql._layout import Layout

SLOTS_A_STATEMENT = 64
"""Slots that are summarised together; a statement has a bounded number of columns."""
SUMMED_MAX = "1e290"
"""Beyond it a sum may be more than a float holds: such a window has none."""
COLUMNS = ("count", "total", "size", "low", "high", "whole", "least", "greatest")
_KINDS = ("bigint", "float8", "float8", "float8", "float8", "numeric", "bigint", "bigint")


def slots_of_layout(layout: Layout) -> list[int]:
    """The slots that hold numbers: places among the floats, and those among the integers as negative numbers."""
    return [*layout.floats.values(), *(-place for place in layout.integers.values())]


def put_windows_sql(table: str, slots: Sequence[int]) -> str:
    """The statement. Parameters: series, starts and ends of stretches, the width, and what all of them lie in."""
    values = [value for slot in slots for value in _values(slot)]
    columns = zip(*(_aggregates(slot) for slot in slots), strict=True)
    arrays = [f"ARRAY[{', '.join(column)}]::{kind}[]" for column, kind in zip(columns, _KINDS, strict=True)]
    names = ", ".join(COLUMNS)
    return (
        f"INSERT INTO ts_windows (series, slot, start_us, {names})"
        f" SELECT w.series, u.slot, w.start_us, {', '.join(f'u.{name}' for name in COLUMNS)}"
        f" FROM (SELECT series, start_us, {', '.join(f'{one} AS a{place}' for place, one in enumerate(arrays))}"
        # What WITH stands before is not merged into the statement around it: each element is taken from its array once.
        " FROM (WITH kept AS (SELECT 1)"
        " SELECT c.series, p.ts - ((p.ts % $4::bigint) + $4::bigint) % $4::bigint AS start_us,"
        f" {', '.join(values)} FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS c (series, low, high)"
        # OFFSET keeps the server from joining all points of a series with all of its stretches.
        f", LATERAL (SELECT p.ts, p.f, p.i FROM {table} p WHERE p.series = c.series AND p.ts >= c.low AND p.ts < c.high"
        " AND p.ts >= $5 AND p.ts < $6 OFFSET 0) AS p) AS numbers GROUP BY series, start_us) AS w"
        f" CROSS JOIN LATERAL unnest('{{{', '.join(map(str, slots))}}}'::int[],"
        f" {', '.join(f'w.a{place}' for place in range(len(arrays)))}) AS u (slot, {names}) WHERE u.count > 0"
    )


def _values(slot: int) -> Iterator[str]:
    if slot < 0:
        yield f"p.i[{-slot}] AS i{-slot}"
    else:
        yield f"p.f[{slot}] AS f{slot}"
        yield f"CASE WHEN p.f[{slot}] BETWEEN -{SUMMED_MAX} AND {SUMMED_MAX} THEN p.f[{slot}] END AS s{slot}"


def _aggregates(slot: int) -> tuple[str, ...]:
    """What `COLUMNS` names, of one slot."""
    if slot < 0:
        value = f"i{-slot}"
        return f"count({value})", *["NULL"] * 4, f"sum({value})", f"min({value})", f"max({value})"
    value, summed = f"f{slot}", f"s{slot}"
    size = f"CASE WHEN count({value}) = count({summed}) THEN sum(abs({summed})) ELSE 'Infinity' END"
    return f"count({value})", f"coalesce(sum({summed}), 0)", size, f"min({value})", f"max({value})", *["NULL"] * 3
