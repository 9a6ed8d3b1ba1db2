"""`polaris export telemetry` and `polaris export documents`: what the store holds, as files for other programs."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from polaris.cli import _exit
from polaris.cli._deliver import refuse_existing
from polaris.cli._output import moment_text, print_json, say_next, value_text
from polaris.cli._store import opened_store
from polaris.cli._waiting import Doing

if TYPE_CHECKING:
    from polaris.runtime import Settings
    from polaris.storage import ExportProgress, ExportReport, PolarisDataStore

COLLECTION = "system_states"
_BY_ENDING = {".parquet": "parquet", ".csv": "csv", ".arrow": "arrow", ".feather": "arrow", ".jsonl": "jsonl"}


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which points shall be exported; empty lists choose all."""

    collection: str
    systems: list[str]
    metrics: list[str]
    start: datetime | None
    end: datetime | None


def format_of(output: Path, chosen: str | None) -> Any:
    """The format asked for, or the one that the file's ending tells."""
    from polaris.storage._export_sinks import FORMATS

    kind = chosen or _BY_ENDING.get(output.suffix.lower())
    if kind not in FORMATS:
        message = f"names none of {', '.join(FORMATS)}, nor does the ending of {output}"
        raise click.BadParameter(message, param_hint="--format")
    return kind


def export_telemetry(settings: Settings, wanted: Wanted, output: Path, kind: Any, *, force: bool, as_json: bool) -> int:
    """Write points to a file."""
    from polaris.storage import TimeRange, export_time_series
    from polaris.storage._ranges import TIME_MAX, TIME_MIN

    refuse_existing(output, force=force)
    doing = Doing("opening the store")
    time_range = TimeRange(wanted.start or TIME_MIN, wanted.end or TIME_MAX)

    async def work() -> ExportReport:
        async with opened_store(settings) as store:
            tags = {"system_id": {"$in": wanted.systems}} if wanted.systems else None
            return await export_time_series(
                store.time_series,
                wanted.collection,
                time_range,
                output,
                format=kind,
                tags=tags,
                fields=wanted.metrics or await _metrics(store, wanted.collection),
                force=force,
                on_progress=_teller(doing),
            )

    return _end(doing.run(work()), "no points fit", as_json=as_json)


async def _metrics(store: PolarisDataStore, collection: str) -> list[str] | None:
    """Of states, all fields but those that only the repository can read."""
    if collection != COLLECTION:
        return None
    fields = await store.time_series.list_fields(collection)
    return [name for name in fields if name not in ("@form", "@rest")] or None


def export_collection(
    settings: Settings, collection: str, output: Path, *, query: Any, force: bool, as_json: bool
) -> int:
    """Write documents to a file."""
    from polaris.storage import export_documents

    refuse_existing(output, force=force)
    doing = Doing("opening the store")

    async def work() -> ExportReport:
        async with opened_store(settings) as store:
            return await export_documents(
                store.documents, collection, output, query=query, force=force, on_progress=_teller(doing)
            )

    return _end(doing.run(work()), "no documents fit", as_json=as_json)


def _teller(doing: Doing) -> Any:
    def told(progress: ExportProgress) -> None:
        until = "" if progress.until is None else f", up to {moment_text(progress.until)}"
        doing.text = f"{progress.rows} rows written{until}"

    return told


def _end(done: ExportReport, nothing: str, *, as_json: bool) -> int:
    if as_json:
        facts = {"path": str(done.path), "rows": done.rows, "bytes": done.bytes, "columns": done.columns}
        print_json(facts)
    elif done.rows:
        print(f"{done.path}: {done.rows} rows, {value_text(done.bytes, 'By')}")
        if done.path.suffix == ".parquet":
            say_next(f"duckdb -c \"SELECT * FROM '{done.path}' LIMIT 10\"")  # noqa: S608 - to be read
    if not done.rows:
        _exit.complain(f"{nothing}: {done.path} is empty")
        return _exit.NOTHING_FOUND
    return _exit.OK
