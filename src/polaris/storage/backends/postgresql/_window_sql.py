"""One statement that summarises windows: the points are read once for all fields of a shape, on the server."""

# ruff: noqa: S608 - statements are made of constants, names of own tables and marks of parameters

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from polaris.storage.backends.postgresql._layout import Layout
from polaris.storage.backends.postgresql._rise_sql import BOUND, RISES, quotient, spread, walk

FIELDS_A_STATEMENT = 32
"""Fields that are summarised together; a statement has a bounded number of columns."""
SUMMED_MAX = "1e290"
"""Beyond it a sum may be more than a float holds: such a window has none."""

_COUNTED = ("count", "total", "size", "low", "high", "whole", "least", "greatest")
_KNOWN = (*_COUNTED, "first_us", "last_us", "mean", "floats", "integers")
"""What is known of a slot before its numbers are walked through in the order of their times."""
_ENDS = {
    "first_us": "u.first_us",
    "first": "CASE WHEN u.first_us IS NOT NULL THEN u.floats[1] END",
    "first_whole": "CASE WHEN u.first_us IS NOT NULL THEN u.integers[1] END",
    "last_us": "u.last_us",
    "last": "CASE WHEN u.first_us IS NOT NULL THEN u.floats[cardinality(u.floats)] END",
    "last_whole": "CASE WHEN u.first_us IS NOT NULL THEN u.integers[cardinality(u.integers)] END",
}
_WALKED = {
    "spread": "r.spread",
    "rise": "CASE WHEN u.first_us IS NOT NULL THEN r.rise END",
    "climb": "CASE WHEN u.first_us IS NOT NULL THEN r.climb END",
}
WINDOW_COLUMNS = (*_COUNTED, *_ENDS, *_WALKED)
"""What is known of a slot in a window."""


class Pair(msgspec.Struct, frozen=True):
    """Where one field stands: its place among the floats, and that among the integers."""

    float_place: int | None
    integer_place: int | None

    @property
    def slots(self) -> list[int]:
        """The slots: a place among the floats, and one among the integers as a negative number."""
        found = [] if self.float_place is None else [self.float_place]
        return found if self.integer_place is None else [*found, -self.integer_place]


def pairs_of_layout(layout: Layout) -> list[Pair]:
    """The fields that hold numbers."""
    names = [*layout.floats, *(name for name in layout.integers if name not in layout.floats)]
    return [Pair(layout.floats.get(name), layout.integers.get(name)) for name in names]


_WALK = walk(spread("CASE WHEN u.slot > 0 THEN fv ELSE iv::float8 END"), RISES)


def put_windows_sql(table: str, pairs: Sequence[Pair]) -> str:
    """The statement. Parameters: series, starts and ends of stretches, the width, and what all of them lie in."""
    return f"INSERT INTO ts_windows (series, slot, start_us, {', '.join(WINDOW_COLUMNS)}) {windows_sql(table, pairs)}"


def windows_sql(table: str, pairs: Sequence[Pair]) -> str:
    """What it puts there: series, slot and start of each window, and `WINDOW_COLUMNS`; with the same parameters."""
    slots = [slot for number, pair in enumerate(pairs) for slot in _slots(number, pair)]
    known = [f"{sql} AS a{n}_{name}" for n, (_, columns) in enumerate(slots) for name, sql in columns.items()]
    rows = (f"({slot}, {', '.join(f'w.a{n}_{name}' for name in _KNOWN)})" for n, (slot, _) in enumerate(slots))
    columns = {name: f"u.{name}" for name in _COUNTED} | _ENDS | _WALKED
    return (
        f"SELECT w.series, u.slot, w.start_us, {', '.join(columns.values())}"
        f" FROM (SELECT series, start_us, {', '.join(known)}"
        # What WITH stands before is not merged into the statement around it: each element is taken from its array once.
        " FROM (WITH kept AS (SELECT 1)"
        " SELECT c.series, p.ts - ((p.ts % $4::bigint) + $4::bigint) % $4::bigint AS start_us, p.ts,"
        f" {', '.join(value for number, pair in enumerate(pairs) for value in _values(number, pair))}"
        " FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS c (series, low, high)"
        # OFFSET keeps the server from joining all points of a series with all of its stretches.
        f", LATERAL (SELECT p.ts, p.f, p.i FROM {table} p WHERE p.series = c.series AND p.ts >= c.low AND p.ts < c.high"
        " AND p.ts >= $5 AND p.ts < $6 OFFSET 0) AS p ORDER BY 1, 2, 3) AS numbers GROUP BY series, start_us) AS w"
        f" CROSS JOIN LATERAL (VALUES {', '.join(rows)}) AS u (slot, {', '.join(_KNOWN)})"
        f" CROSS JOIN LATERAL ({_WALK}) AS r WHERE u.count > 0"
    )


def _values(number: int, pair: Pair) -> Iterator[str]:
    if pair.float_place is not None:
        value = f"p.f[{pair.float_place}]"
        yield f"{value} AS f{number}"
        yield f"CASE WHEN {value} BETWEEN -{SUMMED_MAX} AND {SUMMED_MAX} THEN {value} END AS s{number}"
    if pair.integer_place is not None:
        yield f"p.i[{pair.integer_place}] AS i{number}"


def _slots(number: int, pair: Pair) -> Iterator[tuple[int, dict[str, str]]]:
    """The slots of a field, with what `_KNOWN` names of each of them."""
    value, summed, whole = f"f{number}", f"s{number}", f"i{number}"
    is_there = " OR ".join(
        f"{one} IS NOT NULL"
        for one, place in ((value, pair.float_place), (whole, pair.integer_place))
        if place is not None
    )
    if pair.float_place is not None:
        # Not `avg`, which adds up squares as well.
        mean = quotient(f"sum({summed})", f"count({summed})")
        yield (
            pair.float_place,
            {
                "count": f"count({value})",
                "total": f"coalesce(sum({summed}), 0)",
                "size": f"CASE WHEN count({value}) = count({summed}) THEN sum(abs({summed})) ELSE 'Infinity' END",
                "low": f"min({value})",
                "high": f"max({value})",
                "whole": "NULL::numeric",
                "least": "NULL::bigint",
                "greatest": "NULL::bigint",
                "first_us": f"min(ts) FILTER (WHERE {is_there})",
                "last_us": f"max(ts) FILTER (WHERE {is_there})",
                "mean": f"CASE WHEN min({value}) >= -{BOUND} AND max({value}) <= {BOUND} THEN {mean} END",
                "floats": f"array_agg({value}) FILTER (WHERE {is_there})",
                "integers": "NULL::bigint[]"
                if pair.integer_place is None
                else f"array_agg({whole}) FILTER (WHERE {is_there})",
            },
        )
    if pair.integer_place is not None:
        # Beside floats of the field its ends and rises stand with those.
        alone = "" if pair.float_place is None else f"CASE WHEN count({value}) = 0 THEN "
        end = " END" if alone else ""
        yield (
            -pair.integer_place,
            {
                "count": f"count({whole})",
                **dict.fromkeys(("total", "size", "low", "high"), "NULL::float8"),
                "whole": f"sum({whole})",
                "least": f"min({whole})",
                "greatest": f"max({whole})",
                "first_us": f"{alone}min(ts) FILTER (WHERE {whole} IS NOT NULL){end}",
                "last_us": f"{alone}max(ts) FILTER (WHERE {whole} IS NOT NULL){end}",
                "mean": f"avg({whole})::float8",
                "floats": "NULL::float8[]",
                "integers": f"array_agg({whole}) FILTER (WHERE {whole} IS NOT NULL)",
            },
        )
