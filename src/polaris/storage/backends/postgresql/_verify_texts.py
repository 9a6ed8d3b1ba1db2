"""What is decoded when it is read: each text of a store on a server, row by row, a bounded number of them in memory."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import msgspec

from polaris.exceptions import PolarisException
from polaris.storage._rollup_sketches import decode_bins
from polaris.storage._rollup_summaries import Summary
from polaris.storage._rollups import decode_policy
from polaris.storage.backends.postgresql._graph import type_key
from polaris.storage.backends.postgresql._json import searchable
from polaris.storage.backends.postgresql._layout import Layout
from polaris.storage.backends.postgresql._rollups import decode_summary
from polaris.storage.backends.postgresql._series import digest
from polaris.storage.backends.postgresql._series_sql import canonical, tags_of
from polaris.storage.backends.postgresql._verify_reader import LARGE_ROWS_A_TIME, SnapshotReader

Found = AsyncIterator[str]

SLACK = 1e-9
"""By how much of what was added up a sum may be beyond what its numbers allow."""

_UNREADABLE = (PolarisException, msgspec.MsgspecError, ValueError, TypeError, LookupError, OverflowError)
"""What decoding fails with."""
_decode = msgspec.json.Decoder().decode


async def shapes(reader: SnapshotReader) -> Found:
    """Shapes of series list fields with kinds that there are, each once, and are found by their digest."""
    async for number, text, known in reader.streamed("SELECT id, fields, digest FROM ts_shapes"):
        if digest(text) != known or not _is(_is_shape, number, text):
            yield f"the shape {number} of series cannot be read, or is not found by what it holds"


async def readable_layouts(reader: SnapshotReader, numbers: Iterable[int]) -> dict[int, Layout]:
    """The layouts of shapes, without those that cannot be read."""
    rows = await reader.rows("SELECT id, fields FROM ts_shapes WHERE id = ANY($1::int[])", list(numbers))
    return {number: Layout.parse(number, text) for number, text in rows if _is(_is_shape, number, text)}


async def tags(reader: SnapshotReader) -> Found:
    """Tags of series are in their one order, and a series is found by the digest of its tags."""
    async for number, text, known in reader.streamed("SELECT id, tags, digest FROM ts_series"):
        if digest(text) != known or not _is(lambda one: canonical(tags_of(one)) == one, text):
            yield f"the tags of the series {number} cannot be read, or it is not found by them"


async def policies(reader: SnapshotReader) -> Found:
    """Policies can be carried out, and say of their windows what is noted of these."""
    async for collection, text, window_us in reader.streamed("SELECT collection, policy, window_us FROM ts_policies"):
        if not _is(lambda one, width: decode_policy(one).window_us == width, text, window_us):
            yield f"the policy of the collection {collection} is none, or does not agree with what is noted of it"


async def rollups(reader: SnapshotReader) -> Found:
    """Rollups are decoded and do not contradict themselves or their sketches."""
    async for series, width_us, start_us, field, packed in reader.streamed(
        "SELECT series, width_us, start_us, field, summary FROM ts_rollups"
    ):
        if not _is(_is_summary, packed, start_us, width_us):
            yield f"the rollup of field {field} of series {series} at {start_us} cannot be read or contradicts itself"


async def fields_of_rollups(reader: SnapshotReader) -> Found:
    """Rollups are of fields that their series have."""
    layout: Layout | None = None
    async for shape, field, series in reader.streamed(
        "SELECT s.shape, r.field, min(r.series) FROM ts_rollups r JOIN ts_series s ON s.id = r.series"
        " GROUP BY s.shape, r.field ORDER BY s.shape"
    ):
        if layout is None or layout.number != shape:
            layout = (await readable_layouts(reader, [shape])).get(shape)
        if layout is not None and field not in layout.names():
            yield f"there is a rollup of the field {field} of series {series}, which does not exist"


async def slots_of_summaries(reader: SnapshotReader) -> Found:
    """Summaries are of slots that their series have."""
    layout: Layout | None = None
    async for shape, slot, series in reader.streamed(
        "SELECT s.shape, w.slot, min(w.series) FROM ts_windows w JOIN ts_series s ON s.id = w.series"
        " GROUP BY s.shape, w.slot ORDER BY s.shape"
    ):
        if layout is None or layout.number != shape:
            layout = (await readable_layouts(reader, [shape])).get(shape)
        if layout is not None and (slot == 0 or not -len(layout.integers) <= slot <= len(layout.floats)):
            yield f"there is a summary of the slot {slot} of series {series}, which does not exist"


def documents(number: int, name: str) -> Callable[[SnapshotReader], Found]:
    """The check that the documents of one collection are JSON objects with a version, searched as they are read."""

    async def check(reader: SnapshotReader) -> Found:
        async for document_id, version, body, exact in reader.streamed(
            f"SELECT id, version, body::text, exact FROM doc_{int(number)}",  # noqa: S608 - an integer of our own making
            rows_a_time=LARGE_ROWS_A_TIME,
        ):
            if version < 1 or not _is(_is_object, body, exact):
                yield f"the document {document_id} of {name} is no JSON object, has no version or is searched otherwise"

    return check


async def nodes(reader: SnapshotReader) -> Found:
    """Properties of nodes are JSON objects, searched as they are read."""
    async for node_id, properties, exact in reader.streamed(
        "SELECT id, properties::text, exact FROM graph_nodes", rows_a_time=LARGE_ROWS_A_TIME
    ):
        if not _is(_is_object, properties, exact):
            yield f"the properties of the node {node_id} are no JSON object, or are searched otherwise"


async def edges(reader: SnapshotReader) -> Found:
    """Properties of edges are JSON objects, and an edge is found by its type."""
    async for source, target, kind, key, properties, exact in reader.streamed(
        "SELECT source, target, type, type_key, properties::text, exact FROM graph_edges", rows_a_time=LARGE_ROWS_A_TIME
    ):
        if type_key(kind) != key or not _is(_is_object, properties, exact):
            yield f"the edge from {source} to {target} ({kind}) has no JSON object, or is not found by its type"


async def events(reader: SnapshotReader) -> Found:
    """Events in the outbox can be published."""
    async for sequence, topic, event_type, payload in reader.streamed(
        "SELECT sequence, topic, event_type, payload FROM outbox", rows_a_time=LARGE_ROWS_A_TIME
    ):
        if not topic or not event_type or not _is(lambda one: isinstance(_decode(one), dict), payload):
            yield f"the event {sequence} of the outbox has no topic, no type or no JSON object"


def _is(law: Callable[..., bool], *values: Any) -> bool:
    """Whether the law holds; what cannot be decoded breaks it."""
    try:
        return law(*values)
    except _UNREADABLE:
        return False


def _is_shape(number: int, text: str) -> bool:
    slots = Layout.parse(number, text).slots
    return len(set(slots)) == len(slots) and all(
        isinstance(name, str) and kind in ("f", "i", "x") for name, kind in slots
    )


def _is_object(body: str, exact: str | None) -> bool:
    found = _decode(body)
    if not isinstance(found, dict):
        return False
    return exact is None or (isinstance(_decode(exact), dict) and _decode(searchable(exact)[0]) == found)


def _is_summary(packed: bytes, start_us: int, width_us: int) -> bool:
    summary: Summary = decode_summary(packed)
    count, low, high = summary.count, summary.low, summary.high
    slack = SLACK * count * max(abs(low), abs(high))
    bins = decode_bins(summary.sketch)
    return (
        count >= 1
        and all(low <= one <= high for one in (summary.first, summary.last))
        and (math.isinf(summary.total) or low * count - slack <= summary.total <= high * count + slack)
        and start_us <= summary.first_us <= summary.last_us < start_us + width_us
        and not summary.spread < 0
        and bins.zeros + sum(bins.positive.values()) + sum(bins.negative.values()) == count
    )
