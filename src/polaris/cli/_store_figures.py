"""`polaris store stats`: what is in the store, and how much room it takes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from polaris.cli import _exit
from polaris.cli._output import ago, print_json, print_table, value_text
from polaris.cli._store import existing_file, store_on_server, whereabouts
from polaris.cli._waiting import Doing

if TYPE_CHECKING:
    from polaris.runtime import Settings
    from polaris.storage.backends.postgresql import ServerFigures
    from polaris.storage.backends.sqlite import DocumentFigures, SeriesFigures, StoreFigures

KNOWN_SINCE = 1971
"""A year before which nothing was measured."""


def show_stats(settings: Settings, *, count_points: bool, as_json: bool) -> int:
    """The figures of the store."""
    if settings.store.engine == "postgresql":
        return _show_server(settings, count_points=count_points, as_json=as_json)
    from polaris.storage import SqliteEngine

    path = existing_file(settings)

    async def read() -> StoreFigures:
        engine = SqliteEngine(path, read_only=True)
        async with engine:
            return await engine.figures(count_points=count_points)

    figures = Doing("counting").run(read())
    if as_json:
        print_json({"engine": "sqlite", "path": str(path), "figures": figures})
        return _exit.OK
    used, free, log = (value_text(size, "By") for size in (figures.bytes_used, figures.bytes_free, figures.log_bytes))
    print(f"{path}  schema version {figures.schema_version}")
    print(f"{used} used, {free} free, {log} of log, {figures.hot_rows} rows not yet compacted")
    print(f"graph: {figures.nodes} nodes, {figures.edges} edges; outbox: {figures.outbox} events wait")
    _show_collections(figures.time_series, figures.documents, count_points=count_points)
    return _exit.OK


def _show_server(settings: Settings, *, count_points: bool, as_json: bool) -> int:
    async def read() -> ServerFigures:
        async with store_on_server(settings) as engine:
            return await engine.figures(count_points=count_points)

    figures = Doing("counting").run(read())
    if as_json:
        print_json({"engine": "postgresql", "schema": settings.store.schema, "figures": figures})
        return _exit.OK
    print(f"{whereabouts(settings)}  schema version {figures.schema_version}, server {figures.server_version}")
    print(f"{value_text(figures.bytes_used, 'By')} used")
    print(f"graph: {figures.nodes} nodes, {figures.edges} edges; outbox: {figures.outbox} events wait")
    _show_collections(figures.time_series, figures.documents, count_points=count_points)
    return _exit.OK


def _show_collections(
    time_series: Sequence[SeriesFigures], documents: Sequence[DocumentFigures], *, count_points: bool
) -> None:
    if time_series:
        print()
        counted = ("POINTS",) if count_points else ()
        rows = [
            (one.name, str(one.series), *((str(one.points),) if count_points else ()), _newest(one.newest))
            for one in time_series
        ]
        print_table(("TIME SERIES", "SERIES", *counted, "NEWEST"), rows)
    if documents:
        print()
        print_table(
            ("DOCUMENTS", "COUNT", "INDEXES"),
            [(one.name, str(one.documents), str(one.indexes)) for one in documents],
        )


def _newest(moment: datetime | None) -> str:
    """What is no measurement stands at the beginning of time."""
    return "-" if moment is None or moment.year < KNOWN_SINCE else ago(moment)
