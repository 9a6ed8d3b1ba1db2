"""Room on the disk of the embedded server: whether there is enough to start, and how much of it streams may keep."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import msgspec

from polaris.messaging._broker import StreamSpec

ROOM_BYTES = 1 << 18
"""Less room than this is none: on a full disk a server cannot recover its streams, nor write down where it listens."""
LARGE_DISK_BYTES = 8 << 30
"""On a smaller disk streams are smaller in proportion."""
MESSAGES_MIN = 8
"""So many of the largest messages fit into every stream, however small the disk: with few of them it keeps nothing."""

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def require_room(folder: Path) -> None:
    """Raise the `OSError` that says why nothing can be written in the folder, if so. Leaves nothing behind."""
    file = folder / "room.probe"
    try:
        with file.open("wb", buffering=0) as handle:
            left = ROOM_BYTES
            while left > 0:
                left -= handle.write(bytes(left))
            os.fsync(handle.fileno())
    finally:
        file.unlink(missing_ok=True)


def write_problem(folder: Path) -> str:
    """Why nothing can be written in the folder; empty when it can."""
    try:
        require_room(folder)
    except OSError as error:
        return error.strerror or str(error)
    return ""


def is_full(error: OSError) -> bool:
    """Whether room is all that is missing."""
    return error.errno in _FULL


def disk_bytes(folder: Path) -> int:
    """The size of the disk the folder is on, or will be."""
    there = next(one for one in (folder, *folder.absolute().parents) if one.exists())
    return shutil.disk_usage(there).total


def fitting(streams: Iterable[StreamSpec], disk: int, *, payload_bytes_max: int) -> list[StreamSpec]:
    """The streams, smaller where the disk is: those of a node then keep at most 22 % of it, instead of filling it.

    A full disk stops a stream until somebody makes room; at its bound it goes on without its oldest messages. By the
    size of the disk and not by what is free on it, so a stream has the same bound at each start.
    """

    def bound(spec: StreamSpec) -> int | None:
        if spec.max_bytes is None:
            return None
        share = spec.max_bytes * disk // LARGE_DISK_BYTES
        return min(spec.max_bytes, max(share, MESSAGES_MIN * payload_bytes_max))

    return [msgspec.structs.replace(spec, max_bytes=bound(spec)) for spec in streams]
