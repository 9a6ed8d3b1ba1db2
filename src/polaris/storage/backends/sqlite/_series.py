"""Which series there are, and which column of which part holds which field."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import apsw
import msgspec

from polaris.storage._series_limits import SeriesLimits
from polaris.storage._tag_filter import TagFilter
from polaris.storage._timeseries_requests import SeriesKey
from polaris.storage.backends.sqlite._memory import Memory
from polaris.storage.backends.sqlite._series_sql import canonical, series_sql, tags_of, text_of
from polaris.storage.backends.sqlite._sql import row, rows, scalar

COLUMNS = 12
"""Fields in one row; part and column of a field are its place in the shape, divided by this."""
COLUMN_NAMES = tuple(f"c{index}" for index in range(COLUMNS))

Shape = tuple[str, ...]


class Series(msgspec.Struct, frozen=True):
    """A series as a writer sees it."""

    number: int
    slots: dict[str, int]
    """The place of each field."""

    @property
    def parts(self) -> int:
        return -(-len(self.slots) // COLUMNS)


class StoredSeries(msgspec.Struct, frozen=True):
    """A series as a reader sees it."""

    number: int
    tags: dict[str, str]
    shape_number: int
    shape: Shape

    @property
    def parts(self) -> int:
        return -(-len(self.shape) // COLUMNS)


class SeriesRegistry:
    """Finds series, makes new ones, and lets shapes grow."""

    def __init__(self, connection: apsw.Connection, memory: Memory) -> None:
        self._connection = connection
        self._memory = memory
        self.limits = SeriesLimits()

    def require(self, collection: str, tags: dict[str, str], fields: Mapping[str, object]) -> Series:
        """The series, with a place for each of the fields."""
        key = ("series", collection, *tags.items())
        series: Series | None = self._memory.get(key)
        if series is None:
            series = self._load(collection, tags) or self._create(collection, tags, fields)
            self._memory.learn(key, series)
        if not fields.keys() <= series.slots.keys():
            series = self._grow(series, [name for name in fields if name not in series.slots])
            self._memory.learn(key, series)
        return series

    def _load(self, collection: str, tags: dict[str, str]) -> Series | None:
        found = row(
            self._connection,
            "SELECT id, shape FROM ts_series WHERE collection = ? AND tags = ?",
            (collection, canonical(tags)),
        )
        return None if found is None else Series(found[0], self._slots(found[1]))

    def _create(self, collection: str, tags: dict[str, str], fields: Iterable[str]) -> Series:
        in_collection, in_store = self._counted(collection) + 1, self._counted(None) + 1
        self.limits.check(collection, in_collection=in_collection, in_store=in_store)
        shape = self._shape_number(tuple(sorted(fields)))
        self._connection.execute(
            "INSERT INTO ts_series (collection, tags, shape) VALUES (?, ?, ?)", (collection, canonical(tags), shape)
        )
        number = self._connection.last_insert_rowid()
        self._connection.executemany(
            "INSERT INTO ts_tags VALUES (?, ?, ?, ?)", [(collection, key, text, number) for key, text in tags.items()]
        )
        self._memory.learn(("series_count", collection), in_collection)
        self._memory.learn(("series_count", None), in_store)
        return Series(number, self._slots(shape))

    def _counted(self, collection: str | None) -> int:
        """How many series there are; counted once and then remembered by who writes."""
        known: int | None = self._memory.get(("series_count", collection))
        if known is None:
            known = self.count(collection, TagFilter())
            self._memory.learn(("series_count", collection), known)
        return known

    def _grow(self, series: Series, missing: list[str]) -> Series:
        shape = self._shape_number((*series.slots, *sorted(missing)))
        self._connection.execute("UPDATE ts_series SET shape = ? WHERE id = ?", (shape, series.number))
        return Series(series.number, self._slots(shape))

    def _shape_number(self, fields: Shape) -> int:
        text = msgspec.json.encode(fields).decode()
        known = row(self._connection, "SELECT id FROM ts_shapes WHERE fields = ?", (text,))
        if known is not None:
            return int(known[0])
        self._connection.execute("INSERT INTO ts_shapes (fields) VALUES (?)", (text,))
        return self._connection.last_insert_rowid()

    def _slots(self, shape_number: int) -> dict[str, int]:
        """The places of a shape's fields; one dictionary for all series of the shape."""
        slots: dict[str, int] | None = self._memory.get(("slots", shape_number))
        if slots is None:
            slots = {name: place for place, name in enumerate(self.shape(shape_number))}
            self._memory.learn(("slots", shape_number), slots)
        return slots

    def shape(self, shape_number: int) -> Shape:
        """The fields of a shape in order."""
        shape: Shape | None = self._memory.get(("shape", shape_number))
        if shape is None:
            text = scalar(self._connection, "SELECT fields FROM ts_shapes WHERE id = ?", (shape_number,))
            shape = tuple(msgspec.json.decode(text, type=list[str]))
            self._memory.learn(("shape", shape_number), shape)
        return shape

    def chosen(self, collection: str, tags: TagFilter) -> list[StoredSeries]:
        """The series that pass, in order of their tags."""
        sql, parameters = series_sql(collection, tags, "s.id, s.tags, s.shape")
        found = rows(self._connection, sql + " ORDER BY s.tags", parameters)
        return [StoredSeries(number, tags_of(text), shape, self.shape(shape)) for number, text, shape in found]

    def numbers(self, collection: str, tags: TagFilter) -> list[int]:
        """The numbers of the series that pass, in order of their tags."""
        sql, parameters = series_sql(collection, tags, "s.id")
        return [number for (number,) in rows(self._connection, sql + " ORDER BY s.tags", parameters)]

    def listed(self, collection: str, tags: TagFilter, limit: int, after: SeriesKey | None) -> list[dict[str, str]]:
        """The tags of the series that pass, in order, from behind a place on."""
        sql, parameters = series_sql(collection, tags, "s.tags")
        if after is not None:
            sql, parameters = sql + " AND s.tags > ?", [*parameters, text_of(after)]
        found = rows(self._connection, sql + " ORDER BY s.tags LIMIT ?", [*parameters, limit])
        return [tags_of(text) for (text,) in found]

    def count(self, collection: str | None, tags: TagFilter) -> int:
        """How many series pass; of the whole store without a collection."""
        if collection is None:
            return int(scalar(self._connection, "SELECT count(*) FROM ts_series"))
        return int(scalar(self._connection, *series_sql(collection, tags, "count(*)")))

    def fields(self, collection: str, tags: TagFilter) -> list[str]:
        """The fields of the series that pass, in order."""
        shapes = rows(self._connection, *series_sql(collection, tags, "DISTINCT s.shape"))
        return sorted({name for (shape,) in shapes for name in self.shape(shape)})

    def collections(self) -> list[str]:
        """The collections that have series, in order."""
        return self._steps("ts_series", "collection", "TRUE", ())

    def tag_keys(self, collection: str) -> list[str]:
        """The tags that the series of the collection have, in order."""
        return self._steps("ts_tags", "key", "collection = ?1", (collection,))

    def tag_values(self, collection: str, key: str, tags: TagFilter) -> list[str]:
        """The values of a tag, in order; of all series, or of those that pass."""
        if not tags.terms:
            return self._steps("ts_tags", "value", "collection = ?1 AND key = ?2", (collection, key))
        chosen, parameters = series_sql(collection, tags, "s.id")
        sql = (
            f"SELECT DISTINCT v.value FROM ts_tags v WHERE v.series IN ({chosen})"  # noqa: S608
            " AND v.collection = ? AND v.key = ? ORDER BY v.value"
        )
        return [value for (value,) in rows(self._connection, sql, [*parameters, collection, key])]

    def _steps(self, table: str, column: str, condition: str, parameters: tuple[Any, ...]) -> list[str]:
        """The different values of a column behind others in an index: one step in the index for each."""
        sql = (
            f"WITH RECURSIVE step (at) AS (SELECT min({column}) FROM {table} WHERE {condition} UNION ALL"  # noqa: S608
            f" SELECT (SELECT min({column}) FROM {table} WHERE {condition} AND {column} > step.at)"
            " FROM step WHERE step.at IS NOT NULL) SELECT at FROM step WHERE at IS NOT NULL"
        )
        return [value for (value,) in rows(self._connection, sql, parameters)]

    def delete(self, numbers: str) -> None:
        """Take series out that have no points any more; `numbers` is a JSON list."""
        chosen = "IN (SELECT value FROM json_each(?))"
        found = rows(self._connection, f"SELECT id, collection, tags FROM ts_series WHERE id {chosen}", (numbers,))  # noqa: S608
        self._connection.executemany(
            "DELETE FROM ts_tags WHERE series = ? AND collection = ? AND key = ? AND value = ?",
            [(number, collection, *tag) for number, collection, text in found for tag in tags_of(text).items()],
        )
        self._connection.execute(f"DELETE FROM ts_latest WHERE series {chosen}", (numbers,))  # noqa: S608
        self._connection.execute(f"DELETE FROM ts_series WHERE id {chosen}", (numbers,))  # noqa: S608
        self._memory.forget_all()
