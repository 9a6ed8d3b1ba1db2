"""One reading of the points for all that counts, sums and extremes can tell of the buckets of many fields at once."""

# ruff: noqa: S608 - statements are made of constants, names of own tables and marks of parameters

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import repeat
from typing import Any

import msgspec

from polaris.storage._aggregates import too_many_rows
from polaris.storage._aggregation import AggregationType
from polaris.storage._limits import LIMIT_MAX
from polaris.storage._timeseries_requests import Micros
from polaris.storage.backends.postgresql._exact_sql import exact_parts
from polaris.storage.backends.postgresql._link import Link, Row
from polaris.storage.backends.postgresql._parameters import Parameters
from polaris.storage.backends.postgresql._question import Numbering, Question
from polaris.storage.backends.shared._row_table import Counted

FIELDS_A_SCAN = 64
"""Fields whose numbers are read together; a statement has a bounded number of columns."""

ONE_GROUP = "0"
"""What is told of the group where all series are in the same one."""

Column = Sequence[Any]
_SUMMED = frozenset((AggregationType.SUM, AggregationType.AVG, AggregationType.STDDEV))
_CANCELLED = 1e-11
"""How much of a sum of doubles may be lost before it is added up exactly instead."""
_EPSILON = 2.0**-53
# What WITH stands before is not merged into the statement around it: else an element would be fetched from its array
# once for every aggregate that it goes into. Unlike OFFSET 0 it lets the server read with several processes.
_ONCE = "WITH kept AS (SELECT 1)"


class _Field(msgspec.Struct, frozen=True):
    """A field: the columns of its floats (`f`) and integers (`i`) that there are, and what is asked of them."""

    number: int
    kinds: tuple[str, ...]
    asked: frozenset[str]
    size: float = 0.0
    """Where floats are added up exactly: how large they are together, and how many."""
    count: int = 0

    def columns(self) -> Iterator[str]:
        """How many numbers there are, then what `told` takes."""
        values = [f"{kind}{self.number}" for kind in self.kinds]
        yield " + ".join(f"count({value})" for value in values)
        if not self.asked.isdisjoint(_SUMMED):
            for value in values:
                if self.size and value[0] == "f":
                    yield from exact_parts(value, self.size, self.count)
                else:
                    yield f"sum({value})"
                if value[0] == "f":
                    yield f"sum(abs({value}))"
        for name, extreme in ((AggregationType.MIN, "min"), (AggregationType.MAX, "max")):
            if name in self.asked:
                yield from (f"{extreme}({value})" for value in values)

    def told(self, columns: Iterator[Column]) -> tuple[tuple[Column, Column, Column, Column], Column, bool]:
        """Counts, sums, least and greatest numbers; sizes; and whether digits of sums were lost that would be seen."""
        counts = next(columns)
        nothing: Column = [None] * len(counts)
        totals, sizes, is_cancelled = nothing, nothing, False
        if not self.asked.isdisjoint(_SUMMED):
            floats, whole = nothing, nothing
            if "f" in self.kinds:
                floats, sizes = self._floats(columns), next(columns)
                is_cancelled = not self.size and any(map(is_cancelled_in, counts, floats, sizes))
            if "i" in self.kinds:
                whole = next(columns)
            totals = floats if self.kinds == ("f",) and not self.size else list(map(total_of_both, floats, whole))
        lows = self._extremes(columns, min) if AggregationType.MIN in self.asked else nothing
        highs = self._extremes(columns, max) if AggregationType.MAX in self.asked else nothing
        return (counts, totals, lows, highs), sizes, is_cancelled

    def _floats(self, columns: Iterator[Column]) -> Column:
        if not self.size:
            return next(columns)
        parts = zip(next(columns), next(columns), next(columns), strict=True)
        return [None if None in of_one else sum(map(Fraction, of_one)) for of_one in parts]

    def _extremes(self, columns: Iterator[Column], extreme: Callable[[list[Any]], Any]) -> Column:
        found = [next(columns) for _ in self.kinds]
        if len(found) == 1:
            return found[0]
        known = ([value for value in pair if value is not None] for pair in zip(*found, strict=True))
        return [extreme(values) if values else None for values in known]


class NumbersScan:
    """The counts of all buckets, with what is asked of sums and extremes."""

    def __init__(
        self,
        link: Link,
        question: Question,
        numbering: Numbering,
        stretches: Sequence[Sequence[Micros]] | None = None,
    ) -> None:
        """`stretches`: the parts of the range in which each series is read, instead of all of it."""
        self._link = link
        self._question = question
        self._numbering = numbering
        self._numbers = [one.number for one in question.series]
        self._firsts = dict(zip(question.groups[::-1], self._numbers[::-1], strict=True))
        """Of each group a series, which stands for it in SQL."""
        self._groups = {number: group for group, number in self._firsts.items()}
        self._stretches = stretches
        self.sizes: dict[int, dict[int, float | None]] = {}
        """Where there are stretches: of each cell and bucket what the floats add up to without their signs."""

    async def cells(self, of: Iterable[int] | None = None) -> dict[int, list[Counted]]:
        """What is counted of each cell (see `RowTable`), bucket by bucket; of all fields, or of these numbers.

        Raises `QueryError` where there are more than 1 000 000 buckets of a group.
        """
        found: dict[int, list[Counted]] = {}
        fields = [self._field(number) for number in (range(len(self._question.fields)) if of is None else of)]
        for first in range(0, len(fields), FIELDS_A_SCAN):
            together = fields[first : first + FIELDS_A_SCAN]
            for exactly in (False, True):
                together = self._take(await self._rows(together), together, found)
                if exactly or not together:
                    break
        return found

    def _field(self, number: int) -> _Field:
        field = self._question.fields[number]
        places = self._question.places(field)
        kinds = [kind for at, kind in enumerate("fi") if any(place[at] is not None for place in places)]
        return _Field(number, tuple(kinds), frozenset(self._question.request.of(field)))

    async def _rows(self, fields: Sequence[_Field]) -> list[Row]:
        """Bucket, group, and the columns of each field."""
        parameters = Parameters()
        source, group = self._source(fields, parameters)
        columns = [list(field.columns()) for field in fields]
        keys = [key for key, is_one in (("b", self._numbering.is_one), ("g", group == ONE_GROUP)) if not is_one]
        sql = (
            f"SELECT {'b' if 'b' in keys else '0'}, {'g' if 'g' in keys else '0'},"
            f" {', '.join(column for of_field in columns for column in of_field)} FROM ({source}) AS numbers"
            f"{' GROUP BY ' if keys else ''}{', '.join(keys)}"
            f" HAVING {' OR '.join(f'{of_field[0]} > 0' for of_field in columns)} LIMIT {LIMIT_MAX + 1}"
        )
        found = await self._link.rows(sql, *parameters.values)
        if len(found) > LIMIT_MAX:
            raise too_many_rows()
        return found

    def _source(self, fields: Sequence[_Field], parameters: Parameters) -> tuple[str, str]:
        """The numbers of the fields with their bucket and group, and how the group is told."""
        question = self._question
        of_fields = [question.places(question.fields[field.number]) for field in fields]
        are_alike = all(places.count(places[0]) == len(places) for places in of_fields)
        columns: dict[str, str] = {}
        values: list[str] = []
        ranks = self._ranks()
        for field, places in zip(fields, of_fields, strict=True):
            for kind in field.kinds:
                of_kind = [place["fi".index(kind)] for place in places]
                if are_alike:
                    mark = parameters.bind(of_kind[0], "int")
                else:
                    mark = f"c.{kind}{field.number}"
                    columns[f"{kind}{field.number}"] = parameters.bind([of_kind[rank] for rank in ranks], "int[]")
                values.append(f"p.{kind}[{mark}] AS {kind}{field.number}")
        low, high = (parameters.bind(value, "bigint") for value in question.request.micros)
        within = f"p.ts >= {low} AND p.ts < {high}"
        tables, where, group = f"{question.table} p", "", "p.series" if len(question.names) > 1 else ONE_GROUP
        if columns or self._stretches is not None or (group != ONE_GROUP and not question.is_alone):
            where = f"WHERE p.series = c.series AND {within}"
            columns["series"] = parameters.bind([self._numbers[rank] for rank in ranks], "bigint[]")
            columns["g"] = parameters.bind([self._firsts[question.groups[rank]] for rank in ranks], "bigint[]")
            if self._stretches is not None:
                spans = [span for spans in self._stretches for span in spans]
                columns["low"] = parameters.bind([span[0] for span in spans], "bigint[]")
                columns["high"] = parameters.bind([span[1] for span in spans], "bigint[]")
                # OFFSET keeps the server from joining all points of a series with all of its stretches. What is asked
                # of the points inside is not asked again: it would expect few of them, and sort them for their buckets.
                tables = (
                    f"LATERAL (SELECT p.* FROM {question.table} p {where} AND p.ts >= c.low AND p.ts < c.high OFFSET 0)"
                    " AS p"
                )
                where = ""
            tables = f"unnest({', '.join(columns.values())}) AS c ({', '.join(columns)}), {tables}"
            group = ONE_GROUP if group == ONE_GROUP else "c.g"
        elif len(self._numbers) == 1:
            where = f"WHERE p.series = {parameters.bind(self._numbers[0], 'bigint')} AND {within}"
        else:
            where = f"WHERE p.series = ANY({parameters.bind(self._numbers, 'bigint[]')}) AND {within}"
        source = (
            f"{_ONCE} SELECT {self._numbering.sql(parameters)} AS b, {group} AS g, {', '.join(values)}"
            f" FROM {tables} {where}"
        )
        return source, group

    def _ranks(self) -> Sequence[int]:
        """Of which series each line of what is joined to the points is."""
        if self._stretches is None:
            return range(len(self._numbers))
        return [rank for rank, spans in enumerate(self._stretches) for _ in spans]

    def _take(self, rows: Sequence[Row], fields: Sequence[_Field], found: dict[int, list[Counted]]) -> list[_Field]:
        """Put what the rows tell into their cells; gives the fields that have to be added up exactly."""
        by_group: defaultdict[int, list[Row]] = defaultdict(list)
        for row in rows:
            by_group[row[1]].append(row)
        lost: set[int] = set()
        most: dict[int, tuple[float, int]] = {}
        for key, of_group in by_group.items():
            columns = iter(zip(*of_group, strict=True))
            starts = list(map(self._numbering.start_of, next(columns)))
            next(columns)
            first = self._groups.get(key, 0) * len(self._question.fields)
            for field in fields:
                (counts, *rest), sizes, is_cancelled = field.told(columns)
                cell = first + field.number
                if self._stretches is not None:
                    self.sizes[cell] = dict(zip(starts, sizes, strict=True))
                entries = zip(repeat(cell), starts, counts, *rest, repeat(0))
                if all(counts):
                    found[cell] = list(entries)
                elif any(counts):
                    found[cell] = [entry for entry in entries if entry[2]]
                if is_cancelled:
                    lost.add(field.number)
                size, count = most.get(field.number, (0.0, 0))
                most[field.number] = max(size, *(one or 0.0 for one in sizes)), max(count, *counts)
        return [
            msgspec.structs.replace(field, size=most[field.number][0], count=most[field.number][1])
            for field in fields
            if field.number in lost
        ]


def is_cancelled_in(count: int, total: float | None, size: float | None) -> bool:
    """Whether the floats were so large for their sum that what is lost in adding them up would be seen."""
    return bool(size) and 4 * math.sqrt(count) * _EPSILON * size > _CANCELLED * abs(total)  # type: ignore[operator, arg-type] # both, or neither


def total_of_both(floats: Any, whole: Any) -> float | None:
    """The sum of both. Integers of 64 bits have more digits than a double: they are added as they are, rounded once."""
    if whole is None:
        return None if floats is None else float(floats)
    return float(Fraction(floats or 0) + int(whole))
