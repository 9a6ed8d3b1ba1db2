"""Indexes of documents in the embedded engine: those of earlier forms are kept, and made anew when asked for."""

from __future__ import annotations

import msgspec
import pytest
from tests.sqlite_sessions import new_session

from polaris.exceptions import ConflictError
from polaris.storage import DocumentIndex
from polaris.storage._filter import parse_query
from polaris.storage.backends.sqlite._session import SqliteSession

PATHS = (("a",),)


@pytest.fixture
def session() -> SqliteSession:
    """A store with an index of the first form, which held the values alone."""
    made = new_session()
    rows = [(str(n), msgspec.json.encode({"a": n}).decode()) for n in range(5)]
    made.documents.insert_many("d", rows, now_us=0, expires_us=None)
    made.connection.execute("""CREATE INDEX doc_1_former ON doc_1 (json_extract(body, '$."a"'))""")
    made.connection.execute("INSERT INTO doc_indexes VALUES (1, ?, 0, 'doc_1_former')", ('[["a"]]',))
    return made


def columns(session: SqliteSession) -> list[str]:
    return [
        str(sql)
        for (sql,) in session.connection.execute(
            "SELECT sql FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL AND tbl_name = 'doc_1'"
        )
    ]


def count(session: SqliteSession) -> int:
    return session.documents.count("d", parse_query({"a": {"$gte": 3}}), now_us=0)


def test_an_index_of_an_earlier_form_serves_until_it_is_made_anew(session: SqliteSession) -> None:
    assert session.documents.list_indexes("d") == [DocumentIndex(("a",), False)]
    assert count(session) == 2
    session.documents.create_index("d", PATHS, unique=False)
    (sql,) = columns(session)
    assert "id, json_type" in sql
    assert session.documents.list_indexes("d") == [DocumentIndex(("a",), False)]
    assert count(session) == 2


def test_an_index_of_an_earlier_form_can_become_unique(session: SqliteSession) -> None:
    session.documents.create_index("d", PATHS, unique=True)
    assert len(columns(session)) == 1
    with pytest.raises(ConflictError):
        session.documents.insert_many("d", [("x", '{"a":1}')], now_us=0, expires_us=None)


def test_a_plain_index_takes_nothing_from_a_unique_one(session: SqliteSession) -> None:
    session.documents.create_index("d", PATHS, unique=True)
    before = columns(session)
    session.documents.create_index("d", PATHS, unique=False)
    assert columns(session) == before
    assert session.documents.list_indexes("d") == [DocumentIndex(("a",), True)]


def test_an_index_of_an_earlier_form_can_be_dropped(session: SqliteSession) -> None:
    assert session.documents.drop_index("d", PATHS)
    assert columns(session) == []
    assert not session.documents.drop_index("d", PATHS)
