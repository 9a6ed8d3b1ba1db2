"""A connector's own witness of its actions: a file that tells later what was begun and what was ended."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import Literal

import msgspec

from polaris.clock import SYSTEM_CLOCK, Clock
from polaris.connectors._blocking import BlockingReads
from polaris.domain import AdaptationAction, ExecutionResult, ExecutionStatus
from polaris.exceptions import ConnectorError

JOURNAL_BYTES_MAX = 8 << 20


class JournalEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of the journal. `opened` heads a file; `complete` says that nothing before it was forgotten."""

    event: Literal["opened", "begin", "undone", "end"]
    at: datetime
    action_id: str = ""
    action_type: str = ""
    result: ExecutionResult | None = None
    complete: bool = False


class ActionJournal:
    """Appends a line before the first effect of an action and one after its last, each synced to the disk.

    So an action with an end was carried out, one with a begin alone may have been, and one that does not occur was not
    begun. The last conclusion is drawn only while the journal is known to reach back far enough: not in the life of the
    connector that created the file, and not after a rotation has forgotten entries. Deleting the file deletes the
    knowledge.

    At `bytes_max` the file becomes `<name>.1`, replacing an earlier one, so it takes at most twice that on the disk. A
    line torn by a crash counts as not written. One connector writes to a journal. JSON lines, one entry each.

    `open` before anything else; `close` releases the file. A call that is cancelled may or may not have written.
    """

    def __init__(self, path: Path, *, clock: Clock = SYSTEM_CLOCK, bytes_max: int = JOURNAL_BYTES_MAX) -> None:
        self._path = path
        self._clock = clock
        self._bytes_max = bytes_max
        self._writes = BlockingReads(f"journal {path.name}")
        self._descriptor: int | None = None
        self._created = False

    async def open(self) -> None:
        """Open or create the file. Raises `ConnectorError` when that is impossible; nothing is held then."""
        await self._writes.run(self._open)

    async def close(self) -> None:
        """Release the file; closing twice does nothing."""
        await self._writes.run(self._close)

    async def begin(self, action: AdaptationAction) -> None:
        """Witness that the action is about to have effects. Raises `ConnectorError`: it must not be begun then."""
        await self._append("begin", action.action_id, action_type=action.action_type)

    async def undone(self, action: AdaptationAction) -> None:
        """Witness that the action, though begun, had no effect."""
        await self._append("undone", action.action_id, action_type=action.action_type)

    async def end(self, result: ExecutionResult) -> None:
        """Witness what came of the action."""
        await self._append("end", result.action_id, result=result)

    async def recall(self, action_id: str) -> ExecutionResult | None:
        """The result of an ended action; a `pending` one for an action not begun; None when nobody can tell.

        Works on an open and on a closed journal. Raises `ConnectorError` when the file cannot be read.
        """
        return await self._writes.run(lambda: self._recall(action_id))

    async def _append(
        self, event: Literal["begin", "undone", "end"], action_id: str, *, action_type: str = "",
        result: ExecutionResult | None = None,
    ) -> None:  # fmt: skip
        entry = JournalEntry(event, self._clock.now(), action_id, action_type, result)
        await self._writes.run(lambda: self._write(entry))

    def _open(self) -> None:
        if self._descriptor is not None:
            return
        try:
            self._created = not self._path.exists()
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            size = os.fstat(self._descriptor).st_size
            if size == 0:
                self._head(complete=True)
            elif os.pread(self._descriptor, 1, size - 1) != b"\n":
                os.write(self._descriptor, b"\n")  # a torn line ends here and is skipped when read
        except OSError as error:
            self._close()
            raise ConnectorError(f"journal {self._path} cannot be opened: {error.strerror}") from error

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _head(self, *, complete: bool) -> None:
        self._write_line(JournalEntry("opened", self._clock.now(), complete=complete))
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the file's name survives a crash too
        finally:
            os.close(folder)

    def _write(self, entry: JournalEntry) -> None:
        if self._descriptor is None:
            raise ConnectorError(f"journal {self._path} is not open")
        try:
            if entry.event == "begin" and os.fstat(self._descriptor).st_size >= self._bytes_max:
                self._rotate()
            self._write_line(entry)
        except OSError as error:
            raise ConnectorError(f"journal {self._path} cannot be written: {error.strerror}") from error

    def _write_line(self, entry: JournalEntry) -> None:
        if self._descriptor is None:
            raise ConnectorError(f"journal {self._path} is not open")
        line = msgspec.json.encode(entry) + b"\n"
        if os.write(self._descriptor, line) != len(line):
            raise OSError(0, "only a part of the line was written")
        os.fsync(self._descriptor)

    def _rotate(self) -> None:
        older = self._older()
        complete = self._complete() and not older.exists()
        self._path.rename(older)
        self._close()
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._head(complete=complete)

    def _older(self) -> Path:
        return self._path.with_name(self._path.name + ".1")

    def _complete(self) -> bool:
        entries = self._entries(self._path)
        return bool(entries) and entries[0].event == "opened" and entries[0].complete

    def _recall(self, action_id: str) -> ExecutionResult | None:
        try:
            entries = self._entries(self._older()) + self._entries(self._path)
            known_whole = not self._created and self._complete()
        except OSError as error:
            raise ConnectorError(f"journal {self._path} cannot be read: {error.strerror}") from error
        last = next((entry for entry in reversed(entries) if entry.action_id == action_id), None)
        if last is None:
            return ExecutionResult(action_id, ExecutionStatus.PENDING) if known_whole else None
        if last.event == "undone":
            return ExecutionResult(action_id, ExecutionStatus.PENDING)
        return last.result

    def _entries(self, path: Path) -> list[JournalEntry]:
        if not path.exists():
            return []
        entries = []
        for line in path.read_bytes().splitlines():
            try:
                entries.append(msgspec.json.decode(line, type=JournalEntry))
            except (msgspec.DecodeError, ValueError):
                continue
        return entries
