"""The files that exports write, by format."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import msgspec

from polaris.storage._ranges import from_micros
from polaris.storage._wide import Layout, Row, arrow, blocks, widened

ExportFormat = Literal["parquet", "csv", "arrow", "jsonl"]
FORMATS: tuple[str, ...] = get_args(ExportFormat)
GROUP_ROWS = 65_536
"""Rows of one row group of a Parquet file, and of one batch of an Arrow file, as far as its width allows."""
GROUP_CELLS = 2_000_000


class Sink(Protocol):
    """Takes rows in their order; `finish` completes the file and gives the names of its columns."""

    def write(self, rows: list[Row]) -> None: ...

    def finish(self) -> list[str]: ...

    def close(self) -> None: ...


class JsonLines:
    """A JSON object a line, of `timestamp`, `tags` and `fields`: every value is of the kind that it was stored with."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._encoder = msgspec.json.Encoder()

    def write(self, rows: list[Row]) -> None:
        lines = [{"timestamp": from_micros(stamp), "tags": tags, "fields": fields} for stamp, tags, fields in rows]
        self._file.write(self._encoder.encode_lines(lines))

    def finish(self) -> list[str]:
        self._file.close()
        return ["timestamp", "tags", "fields"]

    def close(self) -> None:
        self._file.close()


class WideFile:
    """A file in the wide layout. Its columns are known when the last row is, so rows are kept aside until then.

    `spool` is a file for that beside the one that is written; both need about the same room.
    """

    def __init__(self, path: Path, spool: Path, kind: str) -> None:
        self._path, self._spool_path, self._kind = path, spool, kind
        self._pa = arrow()
        self._layout = Layout()
        self._spool = spool.open("wb")

    def write(self, rows: list[Row]) -> None:
        for block in blocks(rows):
            batch = block.batch(self._layout)
            # A stream of its own each: blocks differ in their columns.
            with self._pa.ipc.new_stream(self._spool, batch.schema) as stream:
                stream.write_batch(batch)

    def finish(self) -> list[str]:
        self._spool.close()
        schema = self._layout.schema()
        writer = self._writer(schema)
        try:
            for table in self._groups(schema):
                writer.write_table(table)
        finally:
            writer.close()
        self._spool_path.unlink()
        return list(schema.names)

    def _writer(self, schema: Any) -> Any:
        if self._kind == "parquet":
            from pyarrow import parquet  # type: ignore[import-untyped]

            return parquet.ParquetWriter(str(self._path), schema, compression="zstd")
        if self._kind == "csv":
            from pyarrow import csv

            return csv.CSVWriter(str(self._path), schema)
        options = self._pa.ipc.IpcWriteOptions(compression="zstd")
        return self._pa.ipc.new_file(str(self._path), schema, options=options)

    def _groups(self, schema: Any) -> Iterator[Any]:
        """Tables as long as a row group should be."""
        rows_max = max(1, min(GROUP_ROWS, GROUP_CELLS // len(schema)))
        waiting: list[Any] = []
        count = 0
        for batch in self._spooled():
            for start in range(0, batch.num_rows, rows_max):
                part = widened(batch.slice(start, rows_max), self._layout)
                if waiting and count + part.num_rows > rows_max:
                    yield self._pa.Table.from_batches(waiting, schema=schema).combine_chunks()
                    waiting, count = [], 0
                waiting.append(part)
                count += part.num_rows
        if waiting:
            yield self._pa.Table.from_batches(waiting, schema=schema).combine_chunks()

    def _spooled(self) -> Iterator[Any]:
        size = self._spool_path.stat().st_size
        with self._spool_path.open("rb") as file:
            while file.tell() < size:
                with self._pa.ipc.open_stream(file) as stream:
                    yield from stream

    def close(self) -> None:
        self._spool.close()
