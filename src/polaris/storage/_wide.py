"""The wide layout of points: one row a point, columns for its instant, its tags and its fields. Needs pyarrow.

`timestamp` is `timestamp[us, UTC]`. Then come the tags as strings and the fields, each in order of their names, null
where a point has none or could not measure it. A field whose values are all of one kind keeps it: int64, double, bool
or string. Integers and other numbers together are doubles. Any other mixture is strings: texts as they are, the rest as
JSON writes it (`true`, `1.5`); numbers are then all written as integers, or all as doubles. A field of which there are
only nulls is a double. Names that are taken get a prefix: a tag `timestamp` becomes `tag.timestamp`, a field that is
called as a tag or `timestamp` becomes `field.<name>`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from polaris.exceptions import ConfigurationError
from polaris.storage._ranges import to_micros

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped]

    from polaris.storage._points import FieldValue, TimeSeriesPoint

CELLS_MAX = 2_000_000
"""Values of one block, missing ones included: some tens of megabytes."""
TIMESTAMP = "timestamp"
_KINDS: dict[type, str] = {bool: "bool", int: "int", float: "float", str: "text"}

Row = tuple[int, Mapping[str, str], Mapping[str, "FieldValue"]]
"""Microseconds since 1970, tags and fields."""


def arrow() -> Any:
    """The module pyarrow. Raises `ConfigurationError` when it is not installed."""
    try:
        import pyarrow as pa
    except ImportError as error:
        raise ConfigurationError(
            "Parquet, Arrow, CSV and data frames need pyarrow: install polaris-infrastructure[export]"
        ) from error
    return pa


def row_of(point: TimeSeriesPoint) -> Row:
    """A point as a row."""
    return to_micros(point.timestamp), point.tags, point.fields


class Layout:
    """What columns there are, learned from the blocks."""

    def __init__(self) -> None:
        self.tags: set[str] = set()
        self.kinds: dict[str, set[str]] = {}
        """The kinds of values of each field; none while there were only nulls."""

    def learn(self, tags: Iterable[str], kinds: Mapping[str, set[str]]) -> None:
        """The columns of a block are columns of the whole."""
        self.tags.update(tags)
        for name, found in kinds.items():
            self.kinds.setdefault(name, set()).update(found)

    def names(self) -> tuple[dict[str, str], dict[str, str]]:
        """The names of the columns of tags and of fields, by those of tags and fields."""
        taken = {TIMESTAMP}
        names: list[dict[str, str]] = []
        for prefix, originals in (("tag.", sorted(self.tags)), ("field.", sorted(self.kinds))):
            # Those who need no other name come first, so that a prefix never takes one of them.
            found = {name: name for name in originals if name not in taken}
            taken |= found.keys()
            for name in originals:
                if name not in found:
                    other = prefix + name
                    while other in taken:
                        other = prefix + other
                    taken.add(other)
                    found[name] = other
            names.append({name: found[name] for name in originals})
        return names[0], names[1]

    def schema(self) -> pa.Schema:
        """The columns of the whole with their types."""
        pa = arrow()
        tags, fields = self.names()
        columns = [pa.field(TIMESTAMP, pa.timestamp("us", "UTC"), nullable=False)]
        columns += [pa.field(name, pa.string()) for name in tags.values()]
        columns += [pa.field(name, _type_of(pa, self.kinds[field])) for field, name in fields.items()]
        return pa.schema(columns)


def _type_of(pa: Any, kinds: set[str]) -> Any:
    if kinds <= {"int", "float"}:
        return pa.int64() if kinds == {"int"} else pa.float64()
    return pa.bool_() if kinds == {"bool"} else pa.string()


def blocks(rows: Iterable[Row]) -> Iterator[Block]:
    """The rows in blocks of bounded size, whatever fields they have."""
    block = Block()
    for row in rows:
        if not block.takes(row):
            yield block
            block = Block()
        block.add(row)
    if block.rows:
        yield block


class Block:
    """Some rows, and how they look as columns: of each field one for every kind that it has here."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.tags: set[str] = set()
        self.fields: set[str] = set()

    def takes(self, row: Row) -> bool:
        """Whether the row still has room. One always has."""
        columns = 1 + len(self.tags | row[1].keys()) + len(self.fields | row[2].keys())
        return not self.rows or (len(self.rows) + 1) * columns <= CELLS_MAX

    def add(self, row: Row) -> None:
        """Put the row in."""
        self.rows.append(row)
        self.tags.update(row[1])
        self.fields.update(row[2])

    def batch(self, layout: Layout) -> pa.RecordBatch:
        """The block as columns named `t:<tag>` and `<kind>:<field>`; what it has is learned by the layout."""
        pa = arrow()
        names, columns = [TIMESTAMP], [pa.array([row[0] for row in self.rows], pa.timestamp("us", "UTC"))]
        for tag in sorted(self.tags):
            names.append(f"t:{tag}")
            columns.append(pa.array([row[1].get(tag) for row in self.rows], pa.string()))
        kinds: dict[str, set[str]] = {}
        for field in sorted(self.fields):
            values = [row[2].get(field) for row in self.rows]
            found = set(map(type, values)) - {type(None)}
            kinds[field] = {_KINDS[kind] for kind in found}
            for kind in found:
                names.append(f"{_KINDS[kind]}:{field}")
                chosen = values if len(found) == 1 else [value if type(value) is kind else None for value in values]
                columns.append(pa.array(chosen, _type_of(pa, {_KINDS[kind]})))
        layout.learn(self.tags, kinds)
        return pa.RecordBatch.from_arrays(columns, names)


def widened(batch: pa.RecordBatch, layout: Layout) -> pa.RecordBatch:
    """A block's columns as those of the whole."""
    pa = arrow()
    schema = layout.schema()
    tags, fields = layout.names()
    present = dict(zip(batch.schema.names, batch.columns, strict=True))
    columns = [present[TIMESTAMP]]
    columns += [_or_nulls(pa, present.get(f"t:{tag}"), pa.string(), batch.num_rows) for tag in tags]
    for field, name in fields.items():
        kinds = layout.kinds[field]
        parts = {kind: present[f"{kind}:{field}"] for kind in kinds if f"{kind}:{field}" in present}
        columns.append(_united(pa, parts, kinds, schema.field(name).type, batch.num_rows))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _or_nulls(pa: Any, column: Any, kind: Any, count: int) -> Any:
    return pa.nulls(count, kind) if column is None else column


def _united(pa: Any, parts: Mapping[str, Any], kinds: set[str], kind: Any, count: int) -> Any:
    """The parts of a field as one column of the type `kind`."""
    from pyarrow import compute

    converted = []
    for name, part in parts.items():
        column = part
        if name == "int" and "float" in kinds:
            column = part.cast(pa.float64(), safe=False)
        if kind == pa.string() and name != "text":
            column = pa.array([None if value is None else _json(value) for value in column.to_pylist()], pa.string())
        converted.append(column)
    if not converted:
        return pa.nulls(count, kind)
    return converted[0] if len(converted) == 1 else compute.coalesce(*converted)


def _json(value: FieldValue) -> str:
    return msgspec.json.encode(value).decode()


def table_of(rows: Sequence[Row]) -> pa.Table:
    """All rows as one table."""
    layout = Layout()
    batches = [block.batch(layout) for block in blocks(rows)]
    return arrow().Table.from_batches([widened(batch, layout) for batch in batches], schema=layout.schema())
