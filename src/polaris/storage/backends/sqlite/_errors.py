"""SQLite's errors as the store's."""

from __future__ import annotations

import apsw

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
    (apsw.PermissionsError, StoreConnectionError, "access to the store's file is denied"),
)


def translated(error: Exception) -> PolarisException:
    """The store's error for an error of the driver or of a program; those of POLARIS pass unchanged."""
    if isinstance(error, PolarisException):
        return error
    for driver_class, store_class, meaning in _KINDS:
        if isinstance(error, driver_class):
            return store_class(f"{meaning} ({error})", cause=error)
    return DataStoreError(f"the store failed: {type(error).__name__}: {error}", cause=error)
