"""Aggregates of several stores as one: equal to what a single store with all the points would give.

Every series of a system is in one store, so most cells (bucket, group, field) come from one store and stay as they are.
Of the others, counts, sums, extremes, rates and increases add up; deviations are united as in Chan, Golub and LeVeque
1979; for the first, the last and percentiles the points that decide are read.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from polaris.exceptions import QueryError
from polaris.storage._aggregates import Number, aggregate, bucket_time, is_number, too_many_rows
from polaris.storage._aggregation import VALUES_MIN, AggregatedRow, AggregationType, percent_of
from polaris.storage._buckets import Buckets, Edges, FixedBuckets, parse_buckets
from polaris.storage._limits import LIMIT_MAX, check_collection
from polaris.storage._ranges import TimeRange, from_micros, to_micros
from polaris.storage._rollup_summaries import total_of
from polaris.storage._routing_fanout import View
from polaris.storage._tag_filter import parse_tags
from polaris.storage._timeseries_requests import SeriesKey
from polaris.storage._turns import in_turns
from polaris.storage.backends.shared._timeseries_arguments import (
    checked_aggregations,
    checked_fields,
    checked_group_keys,
    checked_micros,
)

YEAR_US = 400 * 86_400_000_000
"""Longer than any unit of the calendar."""
VALUES_READ_MAX = 5_000_000
"""Numbers that are held for percentiles over several stores."""
_NEEDED = {AggregationType.AVG: AggregationType.SUM, AggregationType.STDDEV: AggregationType.SUM}

Cell = tuple[datetime, SeriesKey, str]


class Question(msgspec.Struct, frozen=True):
    """An aggregate query, checked."""

    collection: str
    time_range: TimeRange
    names: tuple[str, ...]
    by_field: dict[str, tuple[str, ...]]
    group_by: tuple[str, ...]
    buckets: Buckets | None
    bucket_options: dict[str, Any]
    tags: Mapping[str, Any] | None
    fields: tuple[str, ...] | None

    def of(self, field: str) -> tuple[str, ...]:
        """What is asked of the field."""
        return self.by_field.get(field, self.names)

    @classmethod
    def checked(
        cls,
        collection: str,
        time_range: TimeRange,
        aggregations: Any,
        group_by: str | Sequence[str] | None,
        bucket_options: dict[str, Any],
        tags: Mapping[str, Any] | None,
        fields: Sequence[str] | None,
    ) -> Question:
        """The question that the arguments of the port make. Raises as the port does."""
        check_collection(collection)
        checked_micros(time_range)
        names, by_field = checked_aggregations(aggregations, fields)
        parse_tags(tags)
        return cls(
            collection,
            time_range,
            names,
            by_field,
            checked_group_keys(group_by),
            parse_buckets(bucket_options["bucket"], bucket_options["timezone"], bucket_options["origin"]),
            bucket_options,
            tags,
            checked_fields(fields),
        )

    @property
    def asked(self) -> Any:
        """What is to be asked of each store, so that the answers can be united."""
        if self.by_field:
            return {field: _with_needed(names) for field, names in self.by_field.items()}
        return _with_needed(self.names)


def _with_needed(names: Sequence[str]) -> list[str]:
    return list(dict.fromkeys([*names, *(_NEEDED[AggregationType(name)] for name in names if name in _NEEDED)]))


async def united_rows(view: View, question: Question) -> list[AggregatedRow]:
    """The rows of all stores of the view, united, in order."""
    answers = await view.ask(
        lambda name, store: store.time_series.aggregate_many(
            question.collection,
            question.time_range,
            question.asked,
            question.group_by,
            tags=view.tags_at(name, question.tags),
            fields=question.fields,
            **question.bucket_options,
        )
    )
    cells: dict[Cell, dict[str, AggregatedRow]] = {}
    for name, rows in answers.items():
        async for row in in_turns(rows):
            cells.setdefault((row.timestamp, tuple(row.tags.items()), row.field), {})[name] = row
    if len(cells) > LIMIT_MAX:
        raise too_many_rows()
    spread = {cell: rows for cell, rows in cells.items() if len(rows) > 1}
    percentiles = await _Percentiles(view, question).of(spread)
    ends = _Ends(view, question)
    found: list[AggregatedRow] = []
    async for cell in in_turns(sorted(cells)):
        parts = cells[cell]
        names = question.of(cell[2])
        if len(parts) == 1:
            (row,) = parts.values()
            found.append(msgspec.structs.replace(row, values={name: row.values[name] for name in names}))
            continue
        values: dict[str, Number | None] = {}
        for name in names:
            if name in (AggregationType.FIRST, AggregationType.LAST):
                values[name] = await ends.of(name, cell, parts)
            elif percent_of(name) is not None:
                values[name] = percentiles[cell][name]
            else:
                values[name] = united(name, list(parts.values()))
        count = sum(row.count for row in parts.values())
        found.append(AggregatedRow(cell[0], cell[2], values, count, dict(cell[1]), _is_approximate(parts.values())))
    return found


def _is_approximate(rows: Iterable[AggregatedRow]) -> bool:
    return any(row.approximate for row in rows)


def united(name: str, rows: Sequence[AggregatedRow]) -> Number | None:
    """One aggregation over the numbers of all rows, from what each row says of its own."""
    count = sum(row.count for row in rows)
    if count < VALUES_MIN.get(name, 1):
        return None
    if name == AggregationType.COUNT:
        return count
    if name == AggregationType.AVG:
        return _total(rows) / count
    if name == AggregationType.STDDEV:
        return _deviation(rows, count)
    values = [value for row in rows if (value := row.values[name]) is not None]
    if not values:
        return None
    if name == AggregationType.MIN:
        return min(values)
    if name == AggregationType.MAX:
        return max(values)
    return total_of(values)  # sum, rate and increase


def _total(rows: Sequence[AggregatedRow]) -> float:
    return total_of(value for row in rows if (value := row.values[AggregationType.SUM]) is not None)


def _deviation(rows: Sequence[AggregatedRow], count: int) -> float:
    mean = _total(rows) / count
    parts: list[float] = []
    for row in rows:
        deviation, total = row.values[AggregationType.STDDEV], row.values[AggregationType.SUM] or 0.0
        if deviation is not None:
            parts.append(float(deviation) * float(deviation) * (row.count - 1))
        shift = total / row.count - mean
        parts.append(row.count * shift * shift)
    return math.sqrt(total_of(parts) / (count - 1))


class _Ends:
    """The first and the last number of a cell: of each store the one that decides is read, with its time and tags."""

    def __init__(self, view: View, question: Question) -> None:
        self._view = view
        self._question = question
        self._starts: dict[datetime, int] = {}

    async def of(self, name: str, cell: Cell, rows: Mapping[str, AggregatedRow]) -> Number | None:
        is_first = name == AggregationType.FIRST
        span = self._span(cell[0])
        answers = await self._view.ask(
            lambda store_name, _: (
                self._end(store_name, cell, span, rows[store_name], name) if store_name in rows else _nobody()
            )
        )
        found = [answer for answer in answers.values() if answer is not None]
        ordered = sorted(found, key=lambda one: one[:2])
        return (ordered[0] if is_first else ordered[-1])[2] if ordered else None

    async def _end(
        self, store_name: str, cell: Cell, span: TimeRange, row: AggregatedRow, name: str
    ) -> tuple[int, SeriesKey, Number] | None:
        question = self._question
        tags = self._view.tags_at(store_name, question.tags)
        for key in question.group_by:
            tags[key] = _both(tags.get(key), dict(cell[1]).get(key))
        store = self._view.store(store_name)
        points = store.time_series.iterate_time_series(
            question.collection,
            span,
            tags,
            order="asc" if name == AggregationType.FIRST else "desc",
            fields=[cell[2]],
            page_points=16,
        )
        async for point in points:
            value = point.fields[cell[2]]
            if is_number(value):
                return to_micros(point.timestamp), tuple(sorted(point.tags.items())), value  # type: ignore[return-value] # it is a number
        # Only a rollup is left of it: it counts where its bucket begins.
        value = row.values[name]
        return None if value is None else (to_micros(cell[0]), (), value)

    def _span(self, start: datetime) -> TimeRange:
        micros, buckets = self._question.time_range.micros, self._question.buckets
        if buckets is None:
            return self._question.time_range
        start_us = to_micros(start)
        if isinstance(buckets, FixedBuckets):
            # One that begins before the beginning of time shows as that.
            end_us = buckets.start_of(start_us) + buckets.width_us
        else:
            later = buckets.starts(start_us, min(start_us + YEAR_US, micros[1]))
            end_us = next((one for one in later if one > start_us), micros[1])
        return TimeRange(from_micros(max(start_us, micros[0])), from_micros(min(end_us, micros[1])))


def _both(condition: Any, value: str | None) -> dict[str, Any]:
    """A condition on a tag, and that the tag has this value, or is not there."""
    former = {} if condition is None else {"$eq": condition} if isinstance(condition, str) else dict(condition)
    if value is None:
        return {**former, "$exists": False}
    if "$eq" in former:
        return former  # the group has that value, so it is the same
    return {**former, "$eq": value}


async def _nobody() -> None:
    return None


class _Percentiles:
    """Percentiles of cells that are spread over stores: from all of their numbers, read in pages."""

    def __init__(self, view: View, question: Question) -> None:
        self._view = view
        self._question = question

    async def of(self, cells: Mapping[Cell, Mapping[str, AggregatedRow]]) -> dict[Cell, dict[str, Number | None]]:
        wanted = {cell: [name for name in self._question.of(cell[2]) if percent_of(name) is not None] for cell in cells}
        wanted = {cell: names for cell, names in wanted.items() if names}
        if not wanted:
            return {}
        if sum(row.count for cell in wanted for row in cells[cell].values()) > VALUES_READ_MAX:
            raise QueryError(
                f"time_range: percentiles over several stores need all numbers, and they are more than "
                f"{VALUES_READ_MAX}; group by system_id, or ask for a shorter range"
            )
        if any(_is_approximate(cells[cell].values()) for cell in wanted):
            raise QueryError(
                "percentiles over several stores need all points, and only rollups are left of some: group by "
                "system_id, or ask for a range that has points"
            )
        fields = sorted({field for _, _, field in wanted})
        names = sorted({name for cell in wanted for name in cells[cell]})
        parts = await self._view.ask(
            lambda name, _: self._read(name, wanted, fields) if name in names else _no_numbers()
        )
        found: dict[Cell, dict[str, Number | None]] = {}
        async for cell in in_turns(wanted):
            samples = [(0, 0, value) for part in parts.values() for value in part.get(cell, ())]
            found[cell] = {name: aggregate(name, samples) for name in wanted[cell]}
        return found

    async def _read(self, name: str, wanted: Mapping[Cell, Any], fields: Sequence[str]) -> dict[Cell, list[Number]]:
        question = self._question
        store = self._view.store(name)
        cell_start = self._starter(wanted)
        found: dict[Cell, list[Number]] = {}
        points = store.time_series.iterate_time_series(
            question.collection, question.time_range, self._view.tags_at(name, question.tags), fields=fields
        )
        async for point in points:
            start = cell_start(to_micros(point.timestamp))
            group = tuple((key, point.tags[key]) for key in question.group_by if key in point.tags)
            for field, value in point.fields.items():
                cell = (start, group, field)
                if is_number(value) and cell in wanted:
                    found.setdefault(cell, []).append(value)  # type: ignore[arg-type] # it is a number
        return found

    def _starter(self, wanted: Mapping[Cell, Any]) -> Any:
        question = self._question
        if question.buckets is None:
            return lambda _: question.time_range.start
        if isinstance(question.buckets, FixedBuckets):
            start_of = question.buckets.start_of
        else:
            first = to_micros(min(start for start, _, _ in wanted))
            start_of = Edges(question.buckets.starts(first, question.time_range.micros[1])).start_of
        return lambda time_us: bucket_time(start_of(time_us))


async def _no_numbers() -> dict[Cell, list[Number]]:
    return {}
