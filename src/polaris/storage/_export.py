"""Points and documents as files for other programs, however many there are."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from os import PathLike
from pathlib import Path
from typing import TypeVar

import msgspec

from polaris.exceptions import InvalidValueError
from polaris.storage._documents import DocumentStorageBackend, Query
from polaris.storage._export_sinks import FORMATS, ExportFormat, JsonLines, Sink, WideFile
from polaris.storage._ranges import TimeRange
from polaris.storage._threads import in_thread
from polaris.storage._timeseries import TagQuery, TimeSeriesPoint, TimeSeriesStorageBackend
from polaris.storage._whole_file import WholeFile, as_store_error
from polaris.storage._wide import row_of

T = TypeVar("T")

PAGE_ROWS_MAX = 10_000
PAGE_VALUES = 100_000
"""Values that a page should have: wide points come in shorter pages."""
PAGE_DOCUMENTS = 1_000
MODE = 0o600
_SPOOL = ".spool"


class ExportProgress(msgspec.Struct, frozen=True):
    """How far an export is: rows read, and the time of the last one; None of documents."""

    rows: int
    until: datetime | None = None


class ExportReport(msgspec.Struct, frozen=True):
    """A finished export."""

    path: Path
    rows: int
    bytes: int
    columns: list[str]


OnProgress = Callable[[ExportProgress], None]


async def export_time_series(
    time_series: TimeSeriesStorageBackend,
    collection: str,
    time_range: TimeRange,
    destination: str | PathLike[str],
    *,
    format: ExportFormat = "parquet",  # noqa: A002 # what everybody calls it
    tags: TagQuery | None = None,
    fields: Sequence[str] | None = None,
    force: bool = False,
    on_progress: OnProgress | None = None,
) -> ExportReport:
    """Write the points of the range to a file, in order of time, ties in order of their tags.

    `parquet`, `csv` and `arrow` (the IPC file format) have the wide layout: a column for the time, each tag and each
    field, with types as docs/how-to/operate-the-store.md says. `jsonl` has an object a line that keeps tags and fields
    apart and all values as they are. In CSV what is missing is empty, and an empty text is `""`.

    Read in pages, so memory stays bounded by some tens of megabytes whatever the range holds: no snapshot, but what
    `query_time_series` promises of `after`. Until it is finished, the file is under another name, and next to it lies
    as much again; cancelled or failing, nothing of it stays. The file can be read by its owner only.

    Raises `InvalidValueError` for a destination that exists, unless `force`, and for an unknown format;
    `ConfigurationError` when pyarrow is missing (all but `jsonl` need it: polaris-infrastructure[export]);
    `StoreFullError` when there is no room for the file. `on_progress` is called after each page.
    """
    if format not in FORMATS:
        raise InvalidValueError("format", "one of " + ", ".join(FORMATS), format)
    with WholeFile(Path(destination), force=force, beside=(_SPOOL,)) as whole:
        sink = await _handled(whole.partial, lambda: _sink(whole.partial, format))
        try:
            rows = 0
            async for page in _pages(time_series, collection, time_range, tags, fields):
                await _handled(whole.partial, lambda page=page: sink.write([row_of(point) for point in page]))  # type: ignore[misc] # of this turn
                rows += len(page)
                if on_progress is not None:
                    on_progress(ExportProgress(rows, page[-1].timestamp))
            columns = await _handled(whole.partial, sink.finish)
        finally:
            sink.close()
        size = await in_thread(lambda: whole.finish(mode=MODE))
    return ExportReport(Path(destination), rows, size, columns)


async def export_documents(
    documents: DocumentStorageBackend,
    collection: str,
    destination: str | PathLike[str],
    *,
    query: Query | None = None,
    force: bool = False,
    on_progress: OnProgress | None = None,
) -> ExportReport:
    """Write the documents that match to a file, a JSON object a line, in order of their ids, with `_id` and `_version`.

    Everything else as in `export_time_series`; needs nothing installed.
    """
    with WholeFile(Path(destination), force=force) as whole:
        encoder, rows, last = msgspec.json.Encoder(), 0, None
        with whole.partial.open("wb") as file:
            while True:
                page = await documents.find_documents(collection, query, PAGE_DOCUMENTS, after=last)
                if page:
                    await _handled(whole.partial, lambda page=page: file.write(encoder.encode_lines(page)))  # type: ignore[misc] # of this turn
                    rows, last = rows + len(page), str(page[-1]["_id"])
                    if on_progress is not None:
                        on_progress(ExportProgress(rows))
                if len(page) < PAGE_DOCUMENTS:
                    break
            await _handled(whole.partial, file.flush)
        size = await in_thread(lambda: whole.finish(mode=MODE))
    return ExportReport(Path(destination), rows, size, [])


async def _pages(
    time_series: TimeSeriesStorageBackend,
    collection: str,
    time_range: TimeRange,
    tags: TagQuery | None,
    fields: Sequence[str] | None,
) -> AsyncIterator[list[TimeSeriesPoint]]:
    """All points, in pages that get shorter as the points get wider."""
    last, limit = None, PAGE_ROWS_MAX // 10
    while True:
        page = await time_series.query_time_series(collection, time_range, tags, limit=limit, fields=fields, after=last)
        if page:
            yield page
            last = page[-1]
        if len(page) < limit:
            return
        weight = sum(_weight(point) for point in page) / len(page)
        limit = max(1, min(PAGE_ROWS_MAX, int(PAGE_VALUES / weight)))


def _weight(point: TimeSeriesPoint) -> int:
    """About how many values of a number the point takes the room of."""
    texts = sum(len(value) for value in point.fields.values() if type(value) is str)
    return len(point.fields) + len(point.tags) + texts // 16


def _sink(path: Path, kind: str) -> Sink:
    return JsonLines(path) if kind == "jsonl" else WideFile(path, path.with_name(path.name + _SPOOL), kind)


async def _handled(path: Path, work: Callable[[], T]) -> T:
    """The result of work on the file, done in a thread, with the errors of the disk as the store's."""

    def run() -> T:
        try:
            return work()
        except OSError as error:
            raise as_store_error(error, path) from error

    return await in_thread(run)
