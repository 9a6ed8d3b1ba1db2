"""PostgreSQL's errors as the store's: told apart by their class and state, never by their text."""

from __future__ import annotations

import asyncio

from polaris.exceptions import (
    ConflictError,
    DataStoreError,
    PolarisException,
    StoreConnectionError,
    StoreCorruptError,
    StoreFullError,
    TransactionConflictError,
)
from polaris.storage.backends.postgresql._driver import asyncpg, driver_errors

SERIALIZATION = frozenset({"40001", "40P01"})
"""Two transactions got into each other's way; one of them has to begin anew."""
STALE = frozenset({"23514", "42P01", "23503"})
"""A row has no partition, or its table or series is gone: another process has dropped what this one remembers."""


class RepeatError(Exception):
    """What this process remembered of the store was outdated and is forgotten: the operation is to be repeated."""


_STATES: dict[str, tuple[type[DataStoreError], str]] = {
    "40001": (TransactionConflictError, "another transaction changed what this one was based on"),
    "40P01": (TransactionConflictError, "this transaction and another waited for each other"),
    "23505": (ConflictError, "a unique key exists already"),
    "53100": (StoreFullError, "the disk of the server is full"),
    "53200": (StoreFullError, "the server is out of memory"),
    "25006": (StoreConnectionError, "the server takes no writes: it is a standby or set to read only"),
    "57014": (StoreConnectionError, "the statement ran into the server's time limit"),
    "55P03": (StoreConnectionError, "a lock was not to be had in time"),
    "25P03": (StoreConnectionError, "the transaction stood idle for too long and was ended by the server"),
    "25P04": (StoreConnectionError, "the transaction took too long and was ended by the server"),
    "42501": (StoreConnectionError, "the user of the store may not do this"),
}
_CLASSES: dict[str, tuple[type[DataStoreError], str]] = {
    "08": (StoreConnectionError, "the connection to the server was lost"),
    "28": (StoreConnectionError, "the server refused the user or the password"),
    "3D": (StoreConnectionError, "there is no such database"),
    "53": (StoreConnectionError, "the server has no room for another connection"),
    "57": (StoreConnectionError, "the server is shutting down or starting up"),
    "58": (StoreConnectionError, "the server's system failed"),
    "XX": (StoreCorruptError, "the server found damage or failed inside"),
}
LOST = (driver_errors.PostgresConnectionError, driver_errors.InternalClientError, ConnectionError, OSError, EOFError)


def sqlstate(error: BaseException) -> str:
    """The five characters of the server's error; empty for errors that are not the server's."""
    return str(getattr(error, "sqlstate", None) or "")


def lost_connection(error: BaseException) -> bool:
    """Whether the connection went away, so that what it was doing may have been done or not."""
    if isinstance(error, TimeoutError):
        return True
    if isinstance(error, driver_errors.InterfaceError):
        return "closed" in str(error) or "released" in str(error)
    state = sqlstate(error)
    return isinstance(error, LOST) or (state[:2] in {"08", "57"} and state != "57014") or state in {"25P03", "25P04"}


def is_of_no_use(error: BaseException) -> bool:
    """Whether the connection is to be thrown away: it was lost, or its server takes no writes any more.

    Another one is then looked for among the hosts of the address.
    """
    return lost_connection(error) or sqlstate(error) == "25006"


def translated(error: BaseException) -> PolarisException:
    """The store's error for an error of the driver; those of POLARIS pass unchanged.

    Nothing of the driver's own text is repeated but what the server said: it may quote the address with its password.
    """
    if isinstance(error, PolarisException):
        return error
    if isinstance(error, (TimeoutError, asyncio.TimeoutError)):
        return StoreConnectionError("the server did not answer in time", cause=_told(error))
    state = sqlstate(error)
    known = _STATES.get(state) or _CLASSES.get(state[:2])
    if known is not None:
        kind, meaning = known
        return kind(f"{meaning} ({error})", {"sqlstate": state}, cause=_told(error))
    if lost_connection(error):
        return StoreConnectionError(f"the connection to the server was lost ({type(error).__name__})")
    if isinstance(error, (asyncpg.PostgresError, asyncpg.InterfaceError)):
        context = {"sqlstate": state} if state else None
        return DataStoreError(f"the store failed: {type(error).__name__}: {error}", context, cause=_told(error))
    return DataStoreError(f"the store failed: {type(error).__name__}", cause=_told(error))


def _told(error: BaseException) -> Exception | None:
    return error if isinstance(error, Exception) else None


__all__ = ["SERIALIZATION", "STALE", "RepeatError", "is_of_no_use", "lost_connection", "sqlstate", "translated"]
