"""`polaris store compact`, `backup`, `restore` and `verify`: what is done about a store as a whole."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polaris.cli import _exit
from polaris.cli._deliver import refuse_existing
from polaris.cli._output import coloured, print_json, say_next, value_text
from polaris.cli._store import existing_file, require_file, store_on_server, whereabouts
from polaris.cli._waiting import Doing
from polaris.exceptions import InvalidValueError, StoreConnectionError, StoreLockedError
from polaris.runtime import DataFolder

if TYPE_CHECKING:
    from polaris.runtime import Settings
    from polaris.storage.backends.sqlite import CompactProgress, CopyProgress, StoreCopy

BACK_UP = "back up its database with pg_dump --schema={schema}"
RESTORE = "restore with pg_restore what pg_dump made"
COMPACT = (
    "its server gives room back by autovacuum; VACUUM FULL gives it back to the disk, and stops everybody meanwhile"
)


def compact_store(settings: Settings, *, rewrite_file: bool | None, as_json: bool) -> int:
    """Give back the room that the store does not use."""
    from polaris.storage import SqliteEngine

    require_file(settings, "compact", COMPACT)
    _refuse_beside_a_node(settings, "it compacts the store by itself; to give room back to the disk, stop it first")
    path = existing_file(settings)
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

    require_file(settings, "backup", BACK_UP)
    path = existing_file(settings)
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

    require_file(settings, "restore", RESTORE)
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


def verify_store(settings: Settings, file: Path | None, *, as_json: bool) -> int:
    """Check the store or a backup; the exit code says whether it is whole."""
    if file is None and settings.store.engine == "postgresql":
        return _verify_server(settings, as_json=as_json)
    from polaris.storage.backends import sqlite

    path = existing_file(settings) if file is None else file
    if not path.is_file():
        raise InvalidValueError("FILE", "a file that exists", str(path))
    doing = Doing("opening the file")

    def told(check: str) -> None:
        doing.text = f"checking: {check}"

    found = doing.run(sqlite.verify_store(path, on_check=told))
    if as_json:
        print_json({"engine": "sqlite", "path": str(path), "whole": not found, "findings": found})
    elif not found:
        print(f"{path}: {coloured('whole', 'green')}, {_bytes(path.stat().st_size)} checked")
    else:
        _show_damage(str(path), found)
        _advise("polaris store restore BACKUP --force, with a backup that polaris store verify BACKUP finds whole")
    return _exit.FAILED if found else _exit.OK


def _verify_server(settings: Settings, *, as_json: bool) -> int:
    from polaris.storage.backends.shared._verify_rule import NOT_CHECKED

    checks: list[str] = []
    doing = Doing("asking the server")

    def told(check: str) -> None:
        checks.append(check)
        doing.text = f"checking: {check}"

    async def work() -> list[str]:
        async with store_on_server(settings) as engine:
            return await engine.verify(told)

    found = doing.run(work())
    schema = settings.store.schema
    if as_json:
        print_json({"engine": "postgresql", "schema": schema, "whole": not found, "findings": found})
    elif not found:
        print(f"{whereabouts(settings)}: {coloured('whole', 'green')}, {len(checks)} checks")
        say_next(f"pg_amcheck --schema={schema}, which checks what is below the tables")
    elif all(NOT_CHECKED in finding for finding in found):
        _show_findings(whereabouts(settings), coloured("not checked as a whole", "yellow"), found)
        _advise("polaris store verify again, when the server has less to do")
    else:
        _show_damage(whereabouts(settings), found)
        _advise("pg_amcheck tells whether the server's disk is at fault; then restore what pg_dump made before")
    return _exit.FAILED if found else _exit.OK


def _show_damage(where: str, found: Sequence[str]) -> None:
    _show_findings(where, coloured("damaged", "red"), found)


def _show_findings(where: str, state: str, found: Sequence[str]) -> None:
    print(f"{where}: {state}")
    for finding in found:
        print(f"  {finding}")


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
