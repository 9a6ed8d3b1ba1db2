"""What SQLite says comes out as the store's own error, by what a caller can do about it."""

from __future__ import annotations

import apsw
import pytest

from polaris.exceptions import (
    ConflictError,
    DataStoreError,
    QueryError,
    StoreConnectionError,
    StoreCorruptError,
    StoreFullError,
)
from polaris.storage.backends.sqlite._errors import translated


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (apsw.SQLITE_FULL, StoreFullError),
        (apsw.SQLITE_IOERR_SHMSIZE, StoreFullError),
        (apsw.SQLITE_IOERR_WRITE, DataStoreError),
        (apsw.SQLITE_IOERR_FSYNC, DataStoreError),
        (apsw.SQLITE_CORRUPT, StoreCorruptError),
        (apsw.SQLITE_NOTADB, StoreCorruptError),
        (apsw.SQLITE_CONSTRAINT_UNIQUE, ConflictError),
        (apsw.SQLITE_BUSY, StoreConnectionError),
        (apsw.SQLITE_LOCKED, StoreConnectionError),
        (apsw.SQLITE_CANTOPEN, StoreConnectionError),
        (apsw.SQLITE_READONLY, StoreConnectionError),
        (apsw.SQLITE_PERM, StoreConnectionError),
        (apsw.SQLITE_NOMEM, DataStoreError),
    ],
)
def test_each_code_of_sqlite_has_its_error(code: int, expected: type[DataStoreError]) -> None:
    cause = apsw.exception_for(code)
    error = translated(cause)
    assert type(error) is expected
    assert error.__cause__ is cause


def test_a_statement_that_was_right_tells_of_damage() -> None:
    connection = apsw.Connection(":memory:")
    with pytest.raises(apsw.SQLError) as caught:
        connection.execute("SELECT 1 FROM nowhere")
    assert type(translated(caught.value)) is StoreCorruptError


def test_what_cannot_be_decoded_is_damage_and_own_errors_pass() -> None:
    with pytest.raises(UnicodeDecodeError) as caught:
        b"\xff".decode()
    assert type(translated(caught.value)) is StoreCorruptError
    own = QueryError("no operator")
    assert translated(own) is own
