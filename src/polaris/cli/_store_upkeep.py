"""`polaris store`: figures, compaction, backups and checks of the embedded store."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polaris.cli import _exit
from polaris.cli._deliver import refuse_existing
from polaris.cli._output import ago, coloured, print_json, print_table, say_next, value_text
from polaris.cli._store import store_file
from polaris.cli._waiting import Doing
from polaris.exceptions import InvalidValueError, StoreConnectionError, StoreLockedError
from polaris.runtime import DataFolder

if TYPE_CHECKING:
    from polaris.runtime import Settings
    from polaris.storage.backends.sqlite import CompactProgress, CopyProgress, StoreCopy, StoreFigures

KNOWN_SINCE = 1971
"""A year before which nothing was measured."""


def show_stats(settings: Settings, *, count_points: bool, as_json: bool) -> int:
    """The figures of the store."""
    from polaris.storage import SqliteEngine

    path = _existing(settings)

    async def read() -> StoreFigures:
        engine = SqliteEngine(path, read_only=True)
        async with engine:
            return await engine.figures(count_points=count_points)

    figures = Doing("counting").run(read())
    if as_json:
        print_json({"path": str(path), "figures": figures})
        return _exit.OK
    used, free, log = (_bytes(size) for size in (figures.bytes_used, figures.bytes_free, figures.log_bytes))
    print(f"{path}  schema version {figures.schema_version}")
    print(f"{used} used, {free} free, {log} of log, {figures.hot_rows} rows not yet compacted")
    print(f"graph: {figures.nodes} nodes, {figures.edges} edges; outbox: {figures.outbox} events wait")
    if figures.time_series:
        print()
        counted = ("POINTS",) if count_points else ()
        rows = [
            (one.name, str(one.series), *((str(one.points),) if count_points else ()), _newest(one.newest))
            for one in figures.time_series
        ]
        print_table(("TIME SERIES", "SERIES", *counted, "NEWEST"), rows)
    if figures.documents:
        print()
        print_table(
            ("DOCUMENTS", "COUNT", "INDEXES"),
            [(one.name, str(one.documents), str(one.indexes)) for one in figures.documents],
        )
    return _exit.OK


def _newest(moment: datetime | None) -> str:
    """What is no measurement stands at the beginning of time."""
    return "-" if moment is None or moment.year < KNOWN_SINCE else ago(moment)


def compact_store(settings: Settings, *, rewrite_file: bool | None, as_json: bool) -> int:
    """Give back the room that the store does not use."""
    from polaris.storage import SqliteEngine

    _refuse_beside_a_node(settings, "it compacts the store by itself; to give room back to the disk, stop it first")
    path = _existing(settings)
    doing = Doing("opening the store")

    def told(progress: CompactProgress) -> None:
        doing.text = f"{progress.doing}, {progress.rows} rows moved"

    async def work() -> Any:
        engine = SqliteEngine(path)
        async with engine:
            return await engine.compact(rewrite_file=rewrite_file, on_progress=told)

    done = doing.run(work())
    if as_json:
        print_json({"path": str(path), "report": done})
    else:
        how = "written anew" if done.rewritten else "not written anew: less than a fifth of it is free"
        if rewrite_file is False:
            how = "not written anew"
        print(f"{path}: {done.rows_moved} rows moved, the file {how}")
        print(f"{_bytes(done.bytes_before)} before, {_bytes(done.bytes_after)} now")
        say_next("polaris run")
    return _exit.OK


def back_up_store(settings: Settings, destination: Path, *, force: bool, as_json: bool) -> int:
    """Copy the store to a file of its own."""
    from polaris.storage import SqliteEngine

    path = _existing(settings)
    if destination.is_dir():
        destination = destination / f"{path.stem}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}{path.suffix}"
    refuse_existing(destination, force=force)
    doing = Doing("opening the store")

    async def work() -> StoreCopy:
        engine = SqliteEngine(path, read_only=True)
        async with engine:
            return await engine.backup(destination, force=force, on_progress=_teller(doing))

    done = doing.run(work())
    if as_json:
        print_json({"store": str(path), "backup": _facts(done)})
    else:
        print(f"{destination}: {_bytes(done.bytes)}, schema version {done.schema_version}, checked")
        say_next(f"polaris store restore {shlex.quote(str(destination))}")
    return _exit.OK


def restore_backup(settings: Settings, backup: Path, *, force: bool, as_json: bool) -> int:
    """Make the backup the store of the node."""
    from polaris.storage.backends.sqlite import restore_store

    _refuse_beside_a_node(settings, "stop it before its store is replaced")
    target = settings.store_path
    if not backup.is_file():
        raise InvalidValueError("BACKUP", "a file that exists", str(backup))
    if target.exists() and not force:
        raise InvalidValueError("--force", f"to be given, for the store at {target} would be replaced", force)
    doing = Doing("opening the backup")
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StoreConnectionError(f"{target.parent} cannot be made: {error.strerror}") from error
    done = doing.run(restore_store(backup, target, force=force, on_progress=_teller(doing)))
    if as_json:
        print_json({"backup": str(backup), "store": _facts(done)})
    else:
        print(f"{target}: {_bytes(done.bytes)}, schema version {done.schema_version}, checked")
        say_next("polaris run")
    return _exit.OK


def verify_file(settings: Settings, file: Path | None, *, as_json: bool) -> int:
    """Check the store or a backup; the exit code says whether it is whole."""
    from polaris.storage.backends.sqlite import verify_store

    path = _existing(settings) if file is None else file
    if not path.is_file():
        raise InvalidValueError("FILE", "a file that exists", str(path))
    doing = Doing("opening the file")

    def told(check: str) -> None:
        doing.text = f"checking: {check}"

    found = doing.run(verify_store(path, on_check=told))
    if as_json:
        print_json({"path": str(path), "whole": not found, "findings": found})
    elif not found:
        print(f"{path}: {coloured('whole', 'green')}, {_bytes(path.stat().st_size)} checked")
    else:
        print(f"{path}: {coloured('damaged', 'red')}")
        for finding in found:
            print(f"  {finding}")
        _advise("polaris store restore BACKUP --force, with a backup that polaris store verify BACKUP finds whole")
    return _exit.FAILED if found else _exit.OK


def _existing(settings: Settings) -> Path:
    path = store_file(settings)
    if not path.exists():
        raise StoreConnectionError(f"there is no store at {path} yet; start a node with: polaris run")
    return path


def _refuse_beside_a_node(settings: Settings, what_then: str) -> None:
    running = DataFolder(settings.data_dir).running_node()
    if running is not None:
        raise StoreLockedError(
            f"the node {running.name!r} (pid {running.pid}) runs and owns its store; {what_then}", {"pid": running.pid}
        )


def _teller(doing: Doing) -> Any:
    def told(progress: CopyProgress) -> None:
        share = 100 * progress.pages // max(1, progress.pages_total)
        doing.text = f"copying, {share} %" if progress.doing == "copying" else "checking the copy"

    return told


def _facts(copy: StoreCopy) -> dict[str, Any]:
    return {"path": str(copy.path), "bytes": copy.bytes, "schema_version": copy.schema_version}


def _bytes(size: int) -> str:
    return value_text(size, "By")


def _advise(step: str) -> None:
    """As `say_next`, for programs too: it is what the answer is about."""
    print(coloured(f"next: {step}", "dim"))
