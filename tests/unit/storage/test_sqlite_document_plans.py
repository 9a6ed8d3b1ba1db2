"""The document queries of the embedded engine use their indexes wherever one can serve them: SQLite's plans say so."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from tests.indexed_documents import COUNT, INDEXES, SERVED, SERVED_BY_SQLITE, UNSERVED, document, operators
from tests.sqlite_sessions import new_session
from tests.unit.storage.sqlite_plans import plans

from polaris.storage._documents import DocumentStorageBackend
from polaris.storage._filter import JOINTS, OPERATORS, parse_query
from polaris.storage._sorting import parse_after, parse_sort
from polaris.storage.backends.sqlite._filter_sql import Where
from polaris.storage.backends.sqlite._session import SqliteSession

MANY = 500


@pytest.fixture
def session() -> SqliteSession:
    made = new_session()
    rows = [
        (
            f"{n:04}",
            msgspec.json.encode(
                {"a": n, "s": f"name-{n:04}", "b": {"c": str(n % 10)}, "t": n, "z": [n], "few": n % 2}
            ).decode(),
        )
        for n in range(MANY)
    ]
    made.documents.insert_many("d", rows, now_us=0, expires_us=None)
    for paths in ((("a",),), (("s",),), (("b", "c"), ("t",)), (("z",),), (("few",),)):
        made.documents.create_index("d", paths, unique=False)
    return made


def read(session: SqliteSession, query: dict[str, Any], sort: Any = None, **options: Any) -> list[dict[str, Any]]:
    order = parse_sort(sort)
    after = options.pop("after", None)
    return session.documents.find(
        "d",
        parse_query(query),
        order=order,
        page=parse_after(after, order),
        fields=None,
        now_us=0,
        **{"limit": 10, **options},
    )


def sorts(found: list[str]) -> list[str]:
    return [line for line in found if "TEMP B-TREE" in line]


@pytest.fixture(scope="module")
def indexed() -> SqliteSession:
    made = new_session()
    found = [document(number) for number in range(COUNT)]
    rows = [(one.pop("_id"), msgspec.json.encode(one).decode()) for one in found]
    made.documents.insert_many("d", rows, now_us=0, expires_us=None)
    for fields in INDEXES:
        made.documents.create_index("d", tuple(tuple(path.split(".")) for path in fields), unique=False)
    return made


@pytest.mark.parametrize("query", [*SERVED, *SERVED_BY_SQLITE], ids=str)
def test_every_operator_that_can_uses_the_index(indexed: SqliteSession, query: dict[str, Any]) -> None:
    for read_or_count in (
        lambda: read(indexed, query),
        lambda: indexed.documents.count("d", parse_query(query), now_us=0),
    ):
        with plans(indexed) as found:
            read_or_count()
        searches = [line for line in found if line.startswith("SEARCH doc_1 USING") and "doc_1_" in line]
        assert searches, found
        assert not any(line.startswith("SCAN doc_1") for line in found), found


@pytest.mark.parametrize("query", UNSERVED, ids=str)
def test_what_no_index_serves_is_checked_for_what_the_other_conditions_leave(
    indexed: SqliteSession, query: dict[str, Any]
) -> None:
    with plans(indexed) as found:
        read(indexed, query)
    assert any(line.startswith("SCAN doc_1") for line in found), found
    with plans(indexed) as found:
        read(indexed, {"$and": [query, {"b.c": "3", "t": {"$gte": 2900}}]})
    assert any(line.startswith("SEARCH doc_1 USING INDEX doc_1_") for line in found), found
    assert not any(line.startswith("SCAN doc_1") for line in found), found


def test_every_operator_is_tested_and_said_to_be_served_or_not() -> None:
    assert operators([*SERVED, *UNSERVED]) == {*OPERATORS, *JOINTS}
    law = DocumentStorageBackend.__doc__ or ""
    served, unserved = law.split("An index serves conditions")[1].split("No index serves")
    assert all(name in unserved for name in ("$ne", "$nin", "$not", "$contains", "$all", "$size", "$elemMatch"))
    assert all(name in served for name in ("$in", "$gt", "$prefix", "$exists", "$ne: null", "$and", "$or"))
    assert "PostgreSQL" in unserved
    assert "`$exists: true`" in unserved.split("PostgreSQL")[1]


@pytest.mark.parametrize(
    ("condition", "bound"),
    [
        ({"$gt": 480}, ">? AND <expr><?"),
        ({"$lt": "x"}, ">? AND <expr><?"),
        ({"$gte": 3, "$lt": 9}, ">? AND <expr><?"),
        ({"$prefix": "name-00"}, ">? AND <expr><?"),
        (7, "=?"),
    ],
)
def test_a_range_of_the_index_ends_at_both_ends(session: SqliteSession, condition: Any, bound: str) -> None:
    with plans(session) as found:
        read(session, {"a": condition})
    assert any(line.endswith(f"(<expr>{bound})") for line in found), found


@pytest.mark.parametrize("sign", [1, -1])
def test_a_range_that_has_both_ends_gets_no_third(sign: int) -> None:
    operands = [("$gt", 3), ("$lte", 9)][::sign]
    numbers = Where(parse_query({"a": dict(operands)}))
    texts = Where(parse_query({"a": {name: str(operand) for name, operand in operands}}))
    assert numbers.sql.count(" < ") + numbers.sql.count(" <= ") == 1
    assert texts.sql.count(" > ") + texts.sql.count(" >= ") == 1


@pytest.mark.parametrize("sort", ["a", "-a", ["b.c", "t"], ["-b.c", "-t"], ["-a", "-_id"], "_id", "-_id", None])
def test_a_sort_order_is_read_from_the_index(session: SqliteSession, sort: Any) -> None:
    for after in (None, read(session, {}, sort)[-1]):
        with plans(session) as found:
            read(session, {}, sort, after=after)
        assert any("doc_1 USING INDEX" in line for line in found), found
        assert all(line == "USE TEMP B-TREE FOR LAST TERM OF ORDER BY" for line in sorts(found)), found
        if sort not in ("-a", ["-b.c", "-t"]):  # ties of a descending order come by ascending ids
            assert sorts(found) == [], found


@pytest.mark.parametrize("sort", ["a", "-a", ["few", "a"], ["-few", "-_id"], ["b.c", "-t"], "_id", None])
def test_a_page_begins_where_the_one_before_ended(session: SqliteSession, sort: Any) -> None:
    first = read(session, {}, sort, limit=200)
    with plans(session) as found:
        read(session, {}, sort, after=first[-1])
    assert not any(line.startswith("SCAN doc_1") for line in found), found


def test_equal_documents_come_in_order_of_their_ids_without_sorting(session: SqliteSession) -> None:
    with plans(session) as found:
        read(session, {"few": 1})
    assert any("SEARCH doc_1 USING INDEX doc_1_" in line for line in found), found
    assert sorts(found) == [], found


def test_counting_reads_the_index_alone(session: SqliteSession) -> None:
    for condition in (7, {"$gt": 480}, {"$prefix": "x"}, {"$exists": False}, True):
        with plans(session) as found:
            session.documents.count("d", parse_query({"a": condition}), now_us=0)
        assert any("USING COVERING INDEX doc_1_" in line for line in found), found


def test_a_page_of_the_newest_of_a_group_reads_no_more_than_the_page(session: SqliteSession) -> None:
    first = read(session, {"b.c": "3"}, "-t", limit=5)
    with plans(session) as found:
        read(session, {"b.c": "3"}, "-t", limit=5, after=first[-1])
    assert any("SEARCH doc_1 USING INDEX doc_1_" in line for line in found), found
    assert not any(line == "USE TEMP B-TREE FOR ORDER BY" for line in found), found


def test_a_document_is_found_by_its_id_at_once(session: SqliteSession) -> None:
    for reads in (
        lambda: session.documents.get("d", "0007", fields=None, now_us=0),
        lambda: read(session, {"_id": "0007"}),
        lambda: read(session, {"_id": {"$in": ["0007", "0008"]}}),
        lambda: session.documents.delete_where("d", parse_query({"_id": "0007"}), limit=None, now_us=0),
    ):
        with plans(session) as found:
            reads()
        assert any("SEARCH doc_1 USING" in line and "(id=?)" in line for line in found), found


def test_what_has_expired_is_found_by_its_instant(session: SqliteSession) -> None:
    session.documents.insert_many("d", [("x", "{}")], now_us=0, expires_us=5)
    for reads in (
        lambda: session.documents.find("d", parse_query({"a": 7}), limit=1, order=(), page=None, fields=None, now_us=9),
        lambda: session.documents.purge("d", limit=5, now_us=9),
    ):
        with plans(session) as found:
            reads()
        assert any("doc_expiries_due (collection=? AND expires_us<?)" in line for line in found) or any(
            "SEARCH x USING PRIMARY KEY (collection=? AND id=?)" in line for line in found
        ), found
        assert not any(line.startswith(("SCAN doc_expiries", "SCAN doc_1", "SCAN x")) for line in found), found
