"""Exports: everything is in the file, typed as the page says, and a cut-off export leaves nothing."""

from __future__ import annotations

import asyncio
import csv
import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import duckdb
import polars as pl
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest

from polaris.exceptions import ConfigurationError, InvalidValueError, StoreFullError
from polaris.storage import AggregationType, PolarisDataStore, TimeRange, TimeSeriesPoint, _export, _wide
from polaris.storage._export import ExportProgress, export_documents, export_time_series
from polaris.storage._frames import to_arrow, to_pandas, to_polars
from polaris.storage._whole_file import WholeFile

T0 = datetime(2030, 1, 1, tzinfo=UTC)
POINTS = [
    TimeSeriesPoint(T0, {"host": "a"}, {"load": 0.5, "users": 3, "up": True, "text": 'ä,"b"\n', "mixed": 1}),
    TimeSeriesPoint(T0, {"host": "b", "timestamp": "x"}, {"load": 2, "users": None, "mixed": "one", "host": "f"}),
    TimeSeriesPoint(T0 + timedelta(microseconds=1), {"host": "a"}, {"mixed": True, "none": None, "text": ""}),
    TimeSeriesPoint(T0 + timedelta(seconds=1), {}, {"load": 1e300, "users": 2**63 - 1, "mixed": 0.5, "timestamp": -1}),
]
SCHEMA = {
    "timestamp": "timestamp[us, tz=UTC]",
    "host": "string",
    "tag.timestamp": "string",
    "field.host": "string",
    "load": "double",
    "mixed": "string",
    "none": "double",
    "text": "string",
    "field.timestamp": "int64",
    "up": "bool",
    "users": "int64",
}


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_export, "PAGE_ROWS_MAX", 20)
    monkeypatch.setattr(_wide, "CELLS_MAX", 40)


async def filled() -> PolarisDataStore:
    store = PolarisDataStore.memory()
    await store.connect()
    await store.time_series.store_many("m", POINTS)
    return store


def check(table: pa.Table) -> None:
    found = {field.name: str(field.type) for field in table.schema}
    assert found == SCHEMA
    assert list(found) == list(SCHEMA)
    columns = table.to_pydict()
    assert columns["timestamp"] == [point.timestamp for point in POINTS]
    assert columns["host"] == ["a", "b", "a", None]
    assert columns["tag.timestamp"] == [None, "x", None, None]
    assert columns["field.host"] == [None, "f", None, None]
    assert columns["load"] == [0.5, 2.0, None, 1e300]
    assert columns["users"] == [3, None, None, 2**63 - 1]
    assert columns["up"] == [True, None, None, None]
    assert columns["text"] == ['ä,"b"\n', None, "", None]
    assert columns["none"] == [None] * 4
    # Integers are written as doubles, for among the numbers of the field there is one.
    assert columns["mixed"] == ["1.0", "one", "true", "0.5"]
    assert columns["field.timestamp"] == [None, None, None, -1]


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
async def test_a_file_in_the_wide_layout_has_typed_columns(kind: Any, tmp_path: Path) -> None:
    store = await filled()
    path = tmp_path / f"m.{kind}"
    done = await export_time_series(store.time_series, "m", TimeRange.all(), path, format=kind)
    check(pq.read_table(path) if kind == "parquet" else pa.ipc.open_file(path).read_all())
    assert (done.rows, done.bytes, done.columns) == (4, path.stat().st_size, list(SCHEMA))
    assert [one.name for one in tmp_path.iterdir()] == [path.name]
    assert path.stat().st_mode & 0o777 == 0o600


async def test_csv_tells_what_is_missing_from_what_is_empty(tmp_path: Path) -> None:
    store = await filled()
    await export_time_series(store.time_series, "m", TimeRange.all(), tmp_path / "m.csv", format="csv")
    text = (tmp_path / "m.csv").read_text()
    with (tmp_path / "m.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["host"] for row in rows] == ["a", "b", "a", ""]
    assert rows[0]["text"] == 'ä,"b"\n'
    assert rows[0]["timestamp"] == "2030-01-01 00:00:00.000000Z"
    assert float(rows[3]["load"]) == 1e300
    assert ',"",' in text.splitlines()[-2], "the empty text"
    assert ",,," in text


async def test_json_lines_keep_every_value_as_it_is(tmp_path: Path) -> None:
    store = await filled()
    await export_time_series(store.time_series, "m", TimeRange.all(), tmp_path / "m.jsonl", format="jsonl")
    lines = [json.loads(line) for line in (tmp_path / "m.jsonl").read_text().splitlines()]
    assert [(line["tags"], line["fields"]) for line in lines] == [(point.tags, point.fields) for point in POINTS]
    assert type(lines[1]["fields"]["load"]) is int
    assert [datetime.fromisoformat(line["timestamp"]) for line in lines] == [point.timestamp for point in POINTS]


async def test_range_tags_and_fields_choose(tmp_path: Path) -> None:
    store = await filled()
    time_range = TimeRange(T0, T0 + timedelta(seconds=1))
    done = await export_time_series(
        store.time_series, "m", time_range, tmp_path / "m.parquet", tags={"host": "a"}, fields=["load"]
    )
    assert (done.rows, done.columns) == (1, ["timestamp", "host", "load"])
    empty = await export_time_series(store.time_series, "none", TimeRange.all(), tmp_path / "none.parquet")
    assert (empty.rows, empty.columns) == (0, ["timestamp"])
    assert pq.read_table(tmp_path / "none.parquet").num_rows == 0


async def test_pages_leave_nothing_out_and_repeat_nothing_also_of_many_points_at_one_instant(tmp_path: Path) -> None:
    store = PolarisDataStore.memory()
    async with store:
        points = [
            TimeSeriesPoint(T0 + timedelta(seconds=n // 90), {"s": f"{n % 90:02}"}, {f"f{n % 17}": n})
            for n in range(900)
        ]
        await store.time_series.store_many("m", points)
        told: list[ExportProgress] = []
        done = await export_time_series(
            store.time_series, "m", TimeRange.all(), tmp_path / "m.parquet", on_progress=told.append
        )
    table = pq.read_table(tmp_path / "m.parquet").to_pydict()
    found = [
        next(table[f"f{n}"][row] for n in range(17) if table[f"f{n}"][row] is not None) for row in range(done.rows)
    ]
    assert found == list(range(900))
    assert [one.rows for one in told] == sorted({one.rows for one in told})
    assert len(told) > 40
    assert told[-1] == ExportProgress(900, points[-1].timestamp)


@pytest.mark.parametrize("kind", ["parquet", "csv", "arrow", "jsonl"])
async def test_a_cut_off_export_leaves_nothing(kind: Any, tmp_path: Path) -> None:
    store = await filled()
    await store.time_series.store_many(
        "big", [TimeSeriesPoint(T0 + timedelta(seconds=n), {}, {"v": n}) for n in range(500)]
    )

    async def cut_off_after(pages: int) -> None:
        seen = 0

        def told(_: ExportProgress) -> None:
            nonlocal seen
            seen += 1
            if seen == pages:
                exporting.cancel()

        export = export_time_series(
            store.time_series, "big", TimeRange.all(), tmp_path / "big", format=kind, on_progress=told
        )
        exporting = asyncio.create_task(export)
        with pytest.raises(asyncio.CancelledError):
            await exporting

    for pages in (1, 5, 20):
        await cut_off_after(pages)
        assert list(tmp_path.iterdir()) == []
    with pytest.raises(InvalidValueError, match="collection"):
        await export_time_series(store.time_series, "", TimeRange.all(), tmp_path / "big", format=kind)
    assert list(tmp_path.iterdir()) == []


async def test_an_existing_file_is_kept_unless_force_is_given(tmp_path: Path) -> None:
    store = await filled()
    path = tmp_path / "m.jsonl"
    path.write_text("precious")
    with pytest.raises(InvalidValueError, match="destination"):
        await export_time_series(store.time_series, "m", TimeRange.all(), path, format="jsonl")
    with pytest.raises(InvalidValueError, match="format"):
        await export_time_series(store.time_series, "m", TimeRange.all(), path, format="xml")  # type: ignore[arg-type] # wrong on purpose
    assert path.read_text() == "precious"
    await export_time_series(store.time_series, "m", TimeRange.all(), path, format="jsonl", force=True)
    assert len(path.read_text().splitlines()) == 4


class OnFullDisk(WholeFile):
    """What is written goes to a device without room."""

    def __enter__(self) -> Self:
        super().__enter__()
        for end in ("", *self._beside):
            name = self.partial.with_name(self.partial.name + end)
            name.unlink(missing_ok=True)
            name.symlink_to("/dev/full")
        return self


@pytest.mark.parametrize("kind", ["parquet", "csv", "arrow", "jsonl"])
async def test_a_full_disk_is_a_full_store_and_nothing_is_left(
    kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await filled()
    monkeypatch.setattr(_export, "WholeFile", OnFullDisk)
    with pytest.raises(StoreFullError, match="no room"):
        await export_time_series(store.time_series, "m", TimeRange.all(), tmp_path / "m", format=kind)
    assert list(tmp_path.iterdir()) == []
    await store.documents.insert_document("d", {"x": "y" * 100_000})
    with pytest.raises(StoreFullError, match="no room"):
        await export_documents(store.documents, "d", tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


async def test_documents_are_json_lines_in_order_of_their_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_export, "PAGE_DOCUMENTS", 7)
    store = await filled()
    documents = [{"_id": f"d{n:03}", "n": n, "deep": {"x": [n, None]}} for n in range(50)]
    await store.documents.insert_documents("d", documents[::-1])
    told: list[ExportProgress] = []
    done = await export_documents(store.documents, "d", tmp_path / "d.jsonl", on_progress=told.append)
    lines = [json.loads(line) for line in (tmp_path / "d.jsonl").read_text().splitlines()]
    assert lines == [{**document, "_version": 1} for document in documents]
    assert (done.rows, told[-1].rows, len(told)) == (50, 50, 8)
    some = await export_documents(store.documents, "d", tmp_path / "some.jsonl", query={"n": {"$gte": 40}})
    assert some.rows == 10


def test_frames_have_the_columns_of_the_file() -> None:
    check(to_arrow(POINTS))
    frame = to_pandas(POINTS)
    assert list(frame.columns) == list(SCHEMA)
    assert str(frame["users"].dtype) == "Int64"
    assert frame["users"][3] == 2**63 - 1
    polars = to_polars(POINTS)
    assert polars.columns == list(SCHEMA)
    assert polars["users"].to_list() == [3, None, None, 2**63 - 1]
    assert to_arrow([]).num_rows == 0


async def test_aggregates_are_frames_too() -> None:
    store = await filled()
    points = await store.time_series.aggregate_time_series("m", TimeRange.all(), AggregationType.AVG, group_by="host")
    frame = to_polars(points)
    assert {"timestamp", "host", "field", "value", "count"} <= set(frame.columns)
    row = frame.filter((pl.col("host") == "a") & (pl.col("field") == "users")).to_dicts()[0]
    assert (row["value"], row["count"]) == (3.0, 1)


async def test_duckdb_and_polars_read_what_was_exported(tmp_path: Path) -> None:
    store = await filled()
    path = tmp_path / "m.parquet"
    await export_time_series(store.time_series, "m", TimeRange.all(), path)
    with duckdb.connect() as connection:
        found = connection.execute(
            "SELECT host, avg(load) FROM read_parquet(?) GROUP BY host ORDER BY host", [str(path)]
        )
        assert found.fetchall() == [("a", 0.5), ("b", 2.0), (None, 1e300)]
    assert pl.scan_parquet(path).select(pl.col("users").max()).collect().item() == 2**63 - 1


@pytest.mark.parametrize(
    ("missing", "call", "hint"),
    [
        ("pyarrow", lambda: to_arrow(POINTS), r"install polaris-infrastructure\[export\]"),
        ("pandas", lambda: to_pandas(POINTS), "install pandas"),
        ("polars", lambda: to_polars(POINTS), "install polars"),
    ],
)
def test_what_is_not_installed_is_named(missing: str, call: Any, hint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ConfigurationError, match=hint):
        call()


async def test_json_lines_need_nothing_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = await filled()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    await export_time_series(store.time_series, "m", TimeRange.all(), tmp_path / "m.jsonl", format="jsonl")
    with pytest.raises(ConfigurationError, match="pyarrow"):
        await export_time_series(store.time_series, "m", TimeRange.all(), tmp_path / "m.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["m.jsonl"]
