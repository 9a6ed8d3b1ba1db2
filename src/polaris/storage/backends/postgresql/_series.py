"""Which series there are, and how the rows of each are laid out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b

import msgspec

from polaris.storage._series_limits import SeriesLimits
from polaris.storage._tag_filter import ALL_SERIES, TagFilter
from polaris.storage._timeseries_requests import SeriesKey
from polaris.storage.backends.postgresql._errors import RepeatError
from polaris.storage.backends.postgresql._layout import Layout, Slot, shape_text
from polaris.storage.backends.postgresql._link import Link
from polaris.storage.backends.postgresql._memory import Lessons
from polaris.storage.backends.postgresql._series_sql import SeriesWhere, tags_of, text_of

RECOUNT_AFTER = 1_000
"""New series of this process after which all are counted again: other processes make some as well."""


class Series(msgspec.Struct, frozen=True):
    """A series as a writer sees it."""

    number: int
    layout: Layout


class StoredSeries(msgspec.Struct, frozen=True):
    """A series as a reader sees it."""

    number: int
    tags: dict[str, str]
    layout: Layout


def digest(text: str) -> bytes:
    """What stands for a text that may be longer than what an index takes."""
    return blake2b(text.encode(), digest_size=16).digest()


class SeriesRegistry:
    """Finds series, makes new ones, and lets shapes grow."""

    def __init__(self, link: Link, lessons: Lessons, limits: SeriesLimits) -> None:
        self._link = link
        self._lessons = lessons
        self._limits = limits

    def known(self, home: int, tags: dict[str, str]) -> Series | None:
        """The series, if this process knows it."""
        found: Series | None = self._lessons.get(("series", home, *tags.items()))
        return found

    def _learn(self, home: int, text: str, series: Series) -> None:
        self._lessons.learn(("series", home, *tags_of(text).items()), series)

    async def require(self, collection: str, home: int, needs: dict[str, set[Slot]]) -> dict[str, Series]:
        """The series of these tags (in canonical text), each with places for its slots; made or grown if need be.

        Raises `RepeatError` when another process deletes one of them meanwhile.
        """
        found = await self._load(home, list(needs))
        missing = [text for text in needs if text not in found]
        if missing:
            await self._create(collection, home, {text: sorted(needs[text]) for text in missing})
            found |= await self._load(home, missing)
            if len(found) < len(needs):
                raise RepeatError
        grown = {text: series for text, series in found.items() if not needs[text] <= frozenset(series.layout.slots)}
        if grown:
            found |= await self._grow(needs, grown)
        for text, series in found.items():
            self._learn(home, text, series)
        return found

    async def _load(self, home: int, texts: Sequence[str]) -> dict[str, Series]:
        rows = await self._link.rows(
            # One look-up each: a server without statistics of new series would read all of them for a list (15 does).
            "SELECT s.id, s.tags, s.shape FROM unnest($2::bytea[]) AS n (digest), LATERAL (SELECT * FROM ts_series"
            " WHERE collection = $1 AND digest = n.digest OFFSET 0) AS s",
            home,
            [digest(text) for text in texts],
        )
        layouts = await self.layouts({row[2] for row in rows})
        return {row[1]: Series(row[0], layouts[row[2]]) for row in rows}

    async def _create(self, collection: str, home: int, shapes: dict[str, list[Slot]]) -> None:
        await self._check_limits(collection, home, len(shapes))
        numbers = await self._shape_numbers(shapes.values())
        texts = sorted(shapes)
        rows = await self._link.rows(
            "INSERT INTO ts_series (collection, tags, digest, shape)"
            " SELECT $1, n.tags, n.digest, n.shape FROM unnest($2::text[], $3::bytea[], $4::int[])"
            " AS n (tags, digest, shape) ORDER BY n.tags"
            " ON CONFLICT (collection, digest) DO NOTHING RETURNING id, tags",
            home,
            texts,
            [digest(text) for text in texts],
            [numbers[shape_text(shapes[text])] for text in texts],
        )
        tags = [(row[0], key, value) for row in rows for key, value in tags_of(row[1]).items()]
        await self._link.run(
            "INSERT INTO ts_tags (collection, series, key, value) SELECT $1, n.* FROM"
            " unnest($2::bigint[], $3::text[], $4::text[]) AS n",
            home,
            *([tag[place] for tag in tags] for place in range(3)),
        )

    async def _check_limits(self, collection: str, home: int, new: int) -> None:
        in_collection = await self._counted(home, new, self._limits.collection_series_max)
        in_store = await self._counted(None, new, self._limits.series_max)
        self._limits.check(collection, in_collection=in_collection, in_store=in_store)

    async def _counted(self, home: int | None, new: int, limit: int) -> int:
        """How many series there will be, up to the first too many.

        Counted now and then, and exactly before any is refused.
        """
        key = ("series_count", home)
        known: tuple[int, int] | None = self._lessons.get(key)
        if known is None or known[1] + new > RECOUNT_AFTER or known[0] + new > limit:
            known = (await self.count(home, ALL_SERIES), 0)
        self._lessons.learn(key, (known[0] + new, known[1] + new))
        return min(known[0] + new, max(known[0], limit) + 1)

    async def _grow(self, needs: dict[str, set[Slot]], outgrown: dict[str, Series]) -> dict[str, Series]:
        """New shapes that begin with the old ones; the rows are locked, so that no two writers use one place twice."""
        rows = await self._link.rows(
            "SELECT id, tags, shape FROM ts_series WHERE id = ANY($1::bigint[]) ORDER BY id FOR NO KEY UPDATE",
            [series.number for series in outgrown.values()],
        )
        if len(rows) < len(outgrown):
            raise RepeatError
        layouts = await self.layouts({row[2] for row in rows})
        wanted: dict[int, tuple[str, list[Slot]]] = {}
        for number, text, shape in rows:
            slots = layouts[shape].slots
            new = sorted(needs[text].difference(slots))
            wanted[number] = (text, [*slots, *new])
        numbers = await self._shape_numbers(slots for _, slots in wanted.values())
        shapes = {number: numbers[shape_text(slots)] for number, (_, slots) in wanted.items()}
        await self._link.run(
            "UPDATE ts_series s SET shape = n.shape FROM unnest($1::bigint[], $2::int[]) AS n (id, shape)"
            " WHERE s.id = n.id AND s.shape <> n.shape",
            list(shapes),
            list(shapes.values()),
        )
        return {text: Series(number, Layout(shapes[number], slots)) for number, (text, slots) in wanted.items()}

    async def _shape_numbers(self, shapes: Iterable[Iterable[Slot]]) -> dict[str, int]:
        """The numbers of shapes by their text; new ones are made."""
        texts = sorted({shape_text(slots) for slots in shapes})
        digests = [digest(text) for text in texts]
        select = "SELECT id, fields FROM ts_shapes WHERE digest = ANY($1::bytea[])"
        rows = await self._link.rows(select, digests)
        if len(rows) < len(texts):
            made = await self._link.rows(
                "INSERT INTO ts_shapes (fields, digest) SELECT * FROM unnest($1::text[], $2::bytea[])"
                " ON CONFLICT (digest) DO NOTHING RETURNING id, fields",
                texts,
                digests,
            )
            rows = [*await self._link.rows(select, digests), *made]
        return {row[1]: row[0] for row in rows}

    async def layouts(self, numbers: Iterable[int]) -> dict[int, Layout]:
        """The layouts of shapes by their number."""
        found: dict[int, Layout] = {}
        missing: list[int] = []
        for number in numbers:
            known: Layout | None = self._lessons.get(("layout", number))
            if known is None:
                missing.append(number)
            else:
                found[number] = known
        if missing:
            rows = await self._link.rows("SELECT id, fields FROM ts_shapes WHERE id = ANY($1::int[])", missing)
            for number, text in rows:
                found[number] = Layout.parse(number, text)
                self._lessons.learn(("layout", number), found[number])
        return found

    async def layouts_of(self, series: Iterable[int]) -> dict[int, Layout]:
        """The layouts of series by their number."""
        rows = await self._link.rows("SELECT id, shape FROM ts_series WHERE id = ANY($1::bigint[])", list(series))
        layouts = await self.layouts({row[1] for row in rows})
        return {row[0]: layouts[row[1]] for row in rows}

    async def chosen(self, home: int, tags: TagFilter) -> list[StoredSeries]:
        """The series that pass, in order of their tags."""
        where = SeriesWhere(home, tags)
        rows = await self._link.rows(
            f"SELECT s.id, s.tags, s.shape FROM ts_series s WHERE {where.sql} ORDER BY s.tags",  # noqa: S608
            *where.parameters,
        )
        layouts = await self.layouts({row[2] for row in rows})
        return [StoredSeries(row[0], tags_of(row[1]), layouts[row[2]]) for row in rows]

    async def numbers(self, home: int, tags: TagFilter, limit: int | None = None) -> list[int]:
        """The numbers of the series that pass, in order of their tags."""
        where = SeriesWhere(home, tags)
        rows = await self._link.rows(
            f"SELECT s.id FROM ts_series s WHERE {where.sql} ORDER BY s.tags LIMIT {where.bind(limit, 'bigint')}",  # noqa: S608
            *where.parameters,
        )
        return [row[0] for row in rows]

    async def listed(self, home: int, tags: TagFilter, limit: int, after: SeriesKey | None) -> list[dict[str, str]]:
        """The tags of the series that pass, in order, from behind a place on."""
        where = SeriesWhere(home, tags)
        condition = where.sql
        if after is not None:
            condition += f" AND s.tags > {where.bind(text_of(after), 'text')}"
        rows = await self._link.rows(
            f"SELECT s.tags FROM ts_series s WHERE {condition} ORDER BY s.tags LIMIT {where.bind(limit, 'bigint')}",  # noqa: S608
            *where.parameters,
        )
        return [tags_of(row[0]) for row in rows]

    async def count(self, home: int | None, tags: TagFilter) -> int:
        """How many series pass; of the whole store without a collection."""
        if home is None:
            return int(await self._link.value("SELECT count(*) FROM ts_series"))
        where = SeriesWhere(home, tags)
        return int(
            await self._link.value(f"SELECT count(*) FROM ts_series s WHERE {where.sql}", *where.parameters)  # noqa: S608
        )

    async def fields(self, home: int, tags: TagFilter) -> list[str]:
        """The fields of the series that pass, in order."""
        where = SeriesWhere(home, tags)
        rows = await self._link.rows(
            f"SELECT DISTINCT s.shape FROM ts_series s WHERE {where.sql}",  # noqa: S608
            *where.parameters,
        )
        layouts = await self.layouts({row[0] for row in rows})
        return sorted({name for layout in layouts.values() for name in layout.names()})

    async def tag_keys(self, home: int) -> list[str]:
        """The tags that the series of the collection have, in order."""
        rows = await self._link.rows("SELECT DISTINCT key FROM ts_tags WHERE collection = $1 ORDER BY key", home)
        return [row[0] for row in rows]

    async def tag_values(self, home: int, key: str, tags: TagFilter) -> list[str]:
        """The values of a tag, in order, of the series that pass."""
        where = SeriesWhere(home, tags)
        rows = await self._link.rows(
            "SELECT DISTINCT v.value FROM ts_tags v JOIN ts_series s ON s.id = v.series"  # noqa: S608
            f" WHERE {where.sql} AND v.collection = $1 AND v.key = {where.bind(key, 'text')} ORDER BY v.value",
            *where.parameters,
        )
        return [row[0] for row in rows]

    async def delete(self, home: int, numbers: Sequence[int]) -> None:
        """Take series out that have no points any more."""
        rows = await self._link.rows("SELECT id, tags FROM ts_series WHERE id = ANY($1::bigint[])", numbers)
        tags = [(row[0], key, value) for row in rows for key, value in tags_of(row[1]).items()]
        await self._link.run(
            "DELETE FROM ts_tags t USING unnest($2::bigint[], $3::text[], $4::text[]) AS n (series, key, value)"
            " WHERE t.collection = $1 AND t.key = n.key AND t.value = n.value AND t.series = n.series",
            home,
            *([tag[place] for tag in tags] for place in range(3)),
        )
        await self._link.run("DELETE FROM ts_series WHERE id = ANY($1::bigint[])", numbers)
