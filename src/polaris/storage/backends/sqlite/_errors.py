"""SQLite's errors as the store's."""

from __future__ import annotations

from traceback import clear_frames

import apsw
import msgspec

from polaris.exceptions import (
    ConflictError,
    DataStoreError,
    PolarisException,
    StoreConnectionError,
    StoreCorruptError,
    StoreFullError,
)

_KINDS: tuple[tuple[type[Exception], type[DataStoreError], str], ...] = (
    (apsw.FullError, StoreFullError, "the disk or the size limit of the store is full"),
    (apsw.CorruptError, StoreCorruptError, "the store's file is damaged"),
    (apsw.NotADBError, StoreCorruptError, "the file is not a store"),
    (apsw.ConstraintError, ConflictError, "a unique key exists already"),
    # No other runtime, which the writer's lock tells, but some program with a transaction open: it passes.
    (apsw.BusyError, StoreConnectionError, "another program holds the store's file"),
    (apsw.LockedError, StoreConnectionError, "another program holds the store's file"),
    (apsw.CantOpenError, StoreConnectionError, "the store's file cannot be opened"),
    (apsw.ReadOnlyError, StoreConnectionError, "the store is open for reading only"),
    (apsw.IOError, DataStoreError, "the disk failed"),
    (apsw.PermissionsError, StoreConnectionError, "access to the store's file is denied"),
)

_OF_DAMAGE = ("malformed", "no such table", "no such column", "no such function", "already exists", "bad JSON path")
"""What SQLite says of statements that are right, when the schema or a text is not what was written."""
_UNDECODABLE = (UnicodeDecodeError, msgspec.MsgspecError, LookupError, ValueError)
"""What reading raises when what is stored is not what was written: arguments were checked before."""
FOREIGN = (apsw.Error, *_UNDECODABLE)
"""What a read of a store may raise that is not the store's own."""


def translated(error: Exception) -> PolarisException:
    """The store's error for an error of the driver or of a program; those of POLARIS pass unchanged."""
    if isinstance(error, PolarisException):
        return error
    if isinstance(error, apsw.SQLError) and any(mark in str(error) for mark in _OF_DAMAGE):
        return StoreCorruptError(f"the store's file is damaged ({error})", cause=error)
    if isinstance(error, apsw.IOError) and getattr(error, "extendedresult", None) == apsw.SQLITE_IOERR_SHMSIZE:
        return StoreFullError(f"there is no room beside the store's file for what its log needs ({error})", cause=error)
    for driver_class, store_class, meaning in _KINDS:
        if isinstance(error, driver_class):
            return store_class(f"{meaning} ({error})", cause=error)
    if isinstance(error, _UNDECODABLE):
        return StoreCorruptError(f"what is stored cannot be decoded ({type(error).__name__}: {error})", cause=error)
    return DataStoreError(f"the store failed: {type(error).__name__}: {error}", cause=error)


def let_go(error: BaseException) -> None:
    """Free what the frames of the error hold: a statement that it cut short keeps its snapshot as long as it lives.

    Whoever awaits may keep the error for ever; its traceback still tells the places, without their variables.
    """
    seen: set[int] = set()
    rest: list[BaseException | None] = [error]
    while rest:
        one = rest.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            clear_frames(one.__traceback__)
            rest += [one.__cause__, one.__context__]
