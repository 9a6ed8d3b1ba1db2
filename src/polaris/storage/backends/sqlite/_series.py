"""Which series there are, and which column of which part holds which field."""

from __future__ import annotations

from collections.abc import Iterable

import apsw
import msgspec

from polaris.storage.backends.sqlite._memory import Memory
from polaris.storage.backends.sqlite._sql import row, rows, scalar

COLUMNS = 12
"""Fields in one row; part and column of a field are its place in the shape, divided by this."""
COLUMN_NAMES = tuple(f"c{index}" for index in range(COLUMNS))

_END = "\x01"  # below every character of a tag, so canonical texts sort as the tags do

Shape = tuple[str, ...]


def canonical(tags: dict[str, str]) -> str:
    """The text of a set of tags: equal for equal tags, sorting as their sorted pairs."""
    return "".join(f"{key}{_END}{value}{_END}" for key, value in sorted(tags.items()))


def tags_of(text: str) -> dict[str, str]:
    """The inverse of `canonical`."""
    parts = text.split(_END)
    return dict(zip(parts[:-1:2], parts[1::2], strict=True))


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

    def require(self, collection: str, tags: dict[str, str], fields: Iterable[str]) -> Series:
        """The series, with a place for each of the fields."""
        key = ("series", collection, *tags.items())
        series: Series | None = self._memory.get(key)
        if series is None:
            series = self._load(collection, tags) or self._create(collection, tags, fields)
            self._memory.learn(key, series)
        slots = series.slots
        missing = [name for name in fields if name not in slots]
        if missing:
            series = self._grow(series, missing)
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
        shape = self._shape_number(tuple(sorted(fields)))
        self._connection.execute(
            "INSERT INTO ts_series (collection, tags, shape) VALUES (?, ?, ?)", (collection, canonical(tags), shape)
        )
        number = self._connection.last_insert_rowid()
        self._connection.executemany(
            "INSERT INTO ts_tags VALUES (?, ?, ?, ?)", [(collection, key, text, number) for key, text in tags.items()]
        )
        return Series(number, self._slots(shape))

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

    def chosen(self, collection: str, tags: dict[str, str]) -> list[StoredSeries]:
        """The series that have all of the tags, in order of their tags."""
        sql, parameters = "SELECT s.id, s.tags, s.shape FROM ts_series s", [collection]
        for place, (key, text) in enumerate(tags.items()):
            # The first join is walked first: CROSS JOIN keeps SQLite from turning them round.
            if place == 0:
                sql = "SELECT s.id, s.tags, s.shape FROM ts_tags t0 CROSS JOIN ts_series s"
                parameters = [collection, key, text]
            else:
                sql += f" JOIN ts_tags t{place} ON t{place}.series = s.id"
                parameters += [collection, key, text]
        if tags:
            conditions = [f"t{n}.collection = ? AND t{n}.key = ? AND t{n}.value = ?" for n in range(len(tags))]
            sql += " WHERE t0.series = s.id AND " + " AND ".join(conditions)
        else:
            sql += " WHERE s.collection = ?"
        found = rows(self._connection, sql + " ORDER BY s.tags", parameters)
        return [StoredSeries(number, tags_of(text), shape, self.shape(shape)) for number, text, shape in found]
