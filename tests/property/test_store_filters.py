"""Filters, orders, pages and changes mean the same in SQLite as in the reference evaluator, whatever the documents."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.faults.sizes import size
from tests.sqlite_sessions import new_session, scratch

from polaris.exceptions import PolarisException, QueryError
from polaris.storage._document_changes import parse_changes
from polaris.storage._documents import Document, DocumentChanges
from polaris.storage._filter import parse_query
from polaris.storage._filter_match import matches
from polaris.storage._operation import DocumentSession
from polaris.storage._projection import parse_fields
from polaris.storage._sorting import parse_after, parse_sort
from polaris.storage.backends.memory._documents import MemoryDocuments
from polaris.storage.backends.memory._journal import Journal
from polaris.storage.backends.sqlite._sql import scalar

SESSION = new_session()

KEYS = st.sampled_from(["a", "b", "c", "0"])
HOSTILE = st.sampled_from(["a.b", "$a", "a'b", 'a"b', "a]", "", "\0", "_id", "_version", "é", "\U0001f30d", "a\\"])
PATHS = st.sampled_from(["a", "b", "c", "a.a", "a.b", "b.0", "a.b.c", "0", "_id", "_version", "_id.a"])
NUMBERS = [0.0, -0.0, 1.0, 2.5, 2**53, 2**53 + 1, float(2**53), float(2**53 + 2), 2**63 - 1, 9.3e18, 1e308, -1e308]
NUMBERS += [5e-324, 1, -1, 0.1]
TEXTS = ["", "a", "A", "ab", "1", "1.0", "true", "null", "[1]", "[]", "{}", "é", "z\u2028", '"', "\\", "a\0b", "a\0c"]
TEXTS += ["\U0001f30d", "\U0001f30d\U0001f30d", "\U0010ffff", "\U0010ffffa", "\ud7ff", "\ue000", "\uffff", "01"]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(NUMBERS),
    st.sampled_from(TEXTS),
    st.text(st.characters(codec="utf-8"), max_size=3),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | HOSTILE, inner, max_size=3),
    max_leaves=8,
)
DOCUMENTS = st.dictionaries(KEYS, VALUES, max_size=4)
ORDERABLE = SCALARS.filter(lambda value: value is not None and not isinstance(value, bool))
SCALAR_OPERATORS: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.fixed_dictionaries({"$eq": SCALARS}),
    st.fixed_dictionaries({"$ne": SCALARS}),
    st.dictionaries(st.sampled_from(["$gt", "$gte", "$lt", "$lte"]), ORDERABLE, min_size=1, max_size=3),
    st.dictionaries(st.sampled_from(["$in", "$nin"]), st.lists(SCALARS, max_size=4), min_size=1),
    st.fixed_dictionaries({"$exists": st.booleans()}),
    st.fixed_dictionaries({"$prefix": st.sampled_from(TEXTS)}),
    st.fixed_dictionaries({"$contains": SCALARS}),
    st.fixed_dictionaries({"$all": st.lists(SCALARS, min_size=1, max_size=2)}),
    st.fixed_dictionaries({"$size": st.integers(0, 3)}),
)
OPERATORS: st.SearchStrategy[dict[str, Any]] = st.recursive(
    SCALAR_OPERATORS,
    lambda inner: st.one_of(
        st.fixed_dictionaries({"$not": inner}),
        st.fixed_dictionaries({"$elemMatch": inner}),
        st.fixed_dictionaries({"$elemMatch": st.dictionaries(PATHS, SCALARS | inner, max_size=2)}),
        st.fixed_dictionaries(
            {"$elemMatch": st.fixed_dictionaries({"$or": st.lists(st.dictionaries(PATHS, inner), min_size=1)})}
        ),
    ),
    max_leaves=4,
)
CONDITIONS = SCALARS | OPERATORS
QUERIES: st.SearchStrategy[dict[str, Any]] = st.recursive(
    st.dictionaries(PATHS, CONDITIONS, max_size=2),
    lambda inner: st.one_of(
        st.dictionaries(st.sampled_from(["$and", "$or"]), st.lists(inner, min_size=1, max_size=3), min_size=1),
        st.fixed_dictionaries({"$not": inner}),
    ),
    max_leaves=6,
)
SORTS = st.lists(st.tuples(st.sampled_from(["", "-"]), PATHS).map("".join), max_size=4)
LATER = 100
EVERYTHING = parse_query({})


def as_rows(documents: list[Document]) -> list[tuple[str, str]]:
    return [(f"{place:03}", msgspec.json.encode(document).decode()) for place, document in enumerate(documents)]


def in_memory(rows: list[tuple[str, str]]) -> MemoryDocuments:
    memory = MemoryDocuments(Journal())
    memory.insert_many("d", rows, now_us=0, expires_us=None)
    return memory


def find(engine: DocumentSession, term: Any, **options: Any) -> list[Document]:
    defaults: dict[str, Any] = {"limit": 100, "order": (), "page": None, "fields": None, "now_us": 0}
    return engine.find("d", term, **{**defaults, **options})


@settings(max_examples=size(140, 1400), deadline=None)
@given(st.lists(DOCUMENTS, max_size=6), QUERIES, st.booleans())
@example([{"a": [[1]]}], {"a": {"$elemMatch": {"$contains": 1}}}, False)
@example([{"a": ["{", {"b": None}]}], {"a": {"$elemMatch": {"b": None}}}, False)
def test_sqlite_finds_exactly_what_the_reference_evaluator_says(
    documents: list[Document], query: dict[str, Any], indexed: bool
) -> None:
    term = parse_query(query)
    rows = as_rows(documents)
    memory = in_memory(rows)
    expected = [
        document_id
        for document_id, body in rows
        if matches(term, {**msgspec.json.decode(body), "_id": document_id, "_version": 1})
    ]
    with scratch(SESSION) as session:
        if indexed:
            session.documents.create_index("d", (("a",),), unique=False)
            session.documents.create_index("d", (("b", "0"), ("a", "b")), unique=False)
        session.documents.insert_many("d", rows, now_us=0, expires_us=None)
        found = find(session.documents, term)
        assert [document["_id"] for document in found] == expected
        assert session.documents.count("d", term, now_us=0) == len(expected)
        assert found == find(memory, term)


def test_every_operator_agrees_on_every_pair_of_kinds() -> None:
    scalars: list[Any] = [None, True, False, 0, *NUMBERS, *TEXTS]
    values = [*scalars, [], [1], ["a"], {}, {"b": 1}, [None], [[1]], [{"b": 1}, "{"], [True, 2**53 + 1, "a\0b"]]
    rows = as_rows([{"a": value} for value in values] + [{"x": {"y": value}} for value in values])
    rows.append(("none", "{}"))
    documents = [(document_id, {**msgspec.json.decode(body), "_id": document_id}) for document_id, body in rows]
    with scratch(SESSION) as session:
        session.documents.create_index("d", (("a",),), unique=False)
        session.documents.insert_many("d", rows, now_us=0, expires_us=None)
        for operand in scalars:
            orderable = operand is not None and not isinstance(operand, bool)
            names = ["$eq", "$ne", "$contains", *(["$gt", "$gte", "$lt", "$lte"] if orderable else [])]
            conditions: list[Any] = [
                operand,
                {"$in": [operand, "a", 1]},
                {"$nin": [operand, None]},
                {"$all": [operand]},
            ]
            conditions += [{"$prefix": operand}] if isinstance(operand, str) else []
            for name in names:
                conditions += [{name: operand}, {"$not": {name: operand}}, {"$elemMatch": {name: operand}}]
            for path in ("a", "x.y"):
                for condition in conditions:
                    term = parse_query({path: condition})
                    found = find(session.documents, term, limit=1_000)
                    expected = [document_id for document_id, document in documents if matches(term, document)]
                    assert [document["_id"] for document in found] == expected, condition


@settings(max_examples=size(100, 1000), deadline=None)
@given(
    st.lists(DOCUMENTS, max_size=8), SORTS, st.integers(1, 3), st.booleans(), st.none() | st.lists(PATHS, max_size=3)
)
def test_orders_and_pages_are_the_same_on_both_engines(
    documents: list[Document], sort: list[str], size: int, indexed: bool, fields: list[str] | None
) -> None:
    order = parse_sort(sort)
    wanted = parse_fields(fields, order)
    rows = as_rows(documents)
    memory = in_memory(rows)
    expected = find(memory, EVERYTHING, order=order, fields=wanted)
    with scratch(SESSION) as session:
        if indexed:
            session.documents.create_index("d", (("a",),), unique=False)
            session.documents.create_index("d", (("b",), ("a",)), unique=False)
        session.documents.insert_many("d", rows, now_us=0, expires_us=None)
        assert find(session.documents, EVERYTHING, order=order, fields=wanted) == expected
        for engine in (session.documents, memory):
            paged: list[Document] = []
            page = None
            while part := find(engine, EVERYTHING, limit=size, order=order, page=page, fields=wanted):
                paged += part
                page = parse_after(part[-1], order)
            assert paged == expected


@settings(max_examples=size(40, 480), deadline=None)
@given(st.data())
def test_a_document_that_does_not_change_is_on_exactly_one_page(data: st.DataObject) -> None:
    documents = data.draw(st.lists(DOCUMENTS, min_size=1, max_size=8))
    order = parse_sort(data.draw(SORTS.filter(lambda names: "_version" not in "".join(names))))
    rows = as_rows(documents)
    with scratch(SESSION) as session:
        session.documents.insert_many("d", rows, now_us=0, expires_us=None)
        touched: set[str] = set()
        seen: list[str] = []
        page = None
        while part := find(session.documents, EVERYTHING, limit=2, order=order, page=page):
            seen += [document["_id"] for document in part]
            page = parse_after(part[-1], order)
            for document_id, document in data.draw(
                st.lists(st.tuples(st.sampled_from([one for one, _ in rows]), DOCUMENTS | st.none()), max_size=3)
            ):
                touched.add(document_id)
                if document is None:
                    session.documents.delete("d", document_id, expected_version=None, now_us=0)
                else:
                    session.documents.put_many(
                        "d",
                        [(document_id, msgspec.json.encode(document).decode())],
                        expected_version=None,
                        now_us=0,
                        expires_us=None,
                    )
            if len(seen) > 50:  # who keeps moving documents forward meets them again
                return
        for document_id, _ in rows:
            if document_id not in touched:
                assert seen.count(document_id) == 1


@settings(max_examples=size(120, 1200), deadline=None)
@given(
    st.recursive(
        st.none() | st.integers() | st.floats() | st.text() | st.binary(max_size=2),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["$and", "$or", "$not", "$in", "$gt", "$x", "$elemMatch", "$all", "$size", "a", "a.b", "a'b", ""]
                ),
                inner,
            )
        ),
        max_leaves=8,
    )
)
def test_whatever_a_query_is_it_is_understood_or_refused(query: Any) -> None:
    try:
        term = parse_query(query)
    except QueryError:
        return
    with scratch(SESSION) as session:
        session.documents.insert_many("d", [("x", '{"a":1}')], now_us=0, expires_us=None)
        assert session.documents.count("d", term, now_us=0) in (0, 1)


CHANGES = st.one_of(
    DOCUMENTS,
    st.builds(
        DocumentChanges,
        set=st.dictionaries(PATHS, VALUES, max_size=2),
        unset=st.lists(PATHS, max_size=1),
        increment=st.dictionaries(PATHS, st.integers(-3, 2**62) | st.floats(allow_nan=False), max_size=1),
    ),
)
WRITES = st.one_of(
    st.tuples(st.just("insert"), KEYS, DOCUMENTS, st.none() | st.integers(0, 8)),
    st.tuples(st.just("put"), KEYS, DOCUMENTS, st.none() | st.integers(0, 8), st.none() | st.integers(0, 2)),
    st.tuples(st.just("update"), KEYS, CHANGES, st.none() | st.integers(0, 8), st.none() | st.integers(1, 2)),
    st.tuples(st.just("update_where"), QUERIES, CHANGES, st.none() | st.integers(0, 8), st.none() | st.integers(0, 2)),
    st.tuples(st.just("delete"), KEYS, st.none() | st.integers(1, 2)),
    st.tuples(st.just("delete_where"), QUERIES, st.none() | st.integers(0, 2)),
    st.tuples(st.just("purge"), st.integers(1, 3)),
    st.tuples(st.just("create_index"), st.lists(KEYS, min_size=1, max_size=2), st.booleans()),
    st.tuples(st.just("drop_index"), st.lists(KEYS, min_size=1, max_size=2)),
)


def carry_out(engine: DocumentSession, write: tuple[Any, ...], now_us: int) -> Any:
    match write:
        case ("insert", one, document, expires_us):
            rows = [(one, msgspec.json.encode(document).decode())]
            return engine.insert_many("d", rows, now_us=now_us, expires_us=expires_us)
        case ("put", one, document, expires_us, version):
            rows = [(one, msgspec.json.encode(document).decode())]
            return engine.put_many("d", rows, expected_version=version, now_us=now_us, expires_us=expires_us)
        case ("update", one, updates, expires_us, version):
            changes = parse_changes(updates)
            return engine.update("d", one, changes, expected_version=version, now_us=now_us, expires_us=expires_us)
        case ("update_where", query, updates, expires_us, limit):
            changes, term = parse_changes(updates), parse_query(query)
            return engine.update_where("d", term, changes, limit=limit, now_us=now_us, expires_us=expires_us)
        case ("delete", one, version):
            return engine.delete("d", one, expected_version=version, now_us=now_us)
        case ("delete_where", query, limit):
            return engine.delete_where("d", parse_query(query), limit=limit, now_us=now_us)
        case ("purge", limit):
            return engine.purge(None, limit=limit, now_us=now_us)
        case ("create_index", names, unique):
            return engine.create_index("d", tuple((name,) for name in names), unique=unique)
        case ("drop_index", names):
            return engine.drop_index("d", tuple((name,) for name in names))
    raise AssertionError(write)


@settings(max_examples=size(120, 1200), deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), WRITES), max_size=12))
def test_whatever_is_written_while_time_goes_on_both_engines_hold_the_same(
    steps: list[tuple[int, tuple[Any, ...]]],
) -> None:
    journal = Journal()
    memory = MemoryDocuments(journal)
    now_us = 0
    with scratch(SESSION) as session:
        for passed, write in steps:
            now_us += passed
            told: list[Any] = []
            for engine in (memory, session.documents):
                session.connection.execute("SAVEPOINT one")
                try:
                    told.append(carry_out(engine, write, now_us))
                    journal.forget()
                except PolarisException as error:
                    journal.undo()
                    session.connection.execute("ROLLBACK TO one")
                    session.memory.rolled_back()
                    told.append((type(error), error.code))
                session.connection.execute("RELEASE one")
            assert told[0] == told[1], write
            for instant in (now_us, now_us + LATER):
                held = [find(engine, EVERYTHING, now_us=instant) for engine in (memory, session.documents)]
                assert held[0] == held[1], write
                counts = [engine.count("d", EVERYTHING, now_us=instant) for engine in (memory, session.documents)]
                assert counts == [len(held[0])] * 2
            assert memory.list_indexes("d") == session.documents.list_indexes("d")
        leftover = (
            "SELECT count(*) FROM doc_expiries AS x JOIN doc_collections AS c ON c.id = x.collection WHERE c.name = 'd'"
        )
        held_rows = memory._collections["d"].rows.values() if "d" in memory._collections else []
        assert scalar(session.connection, leftover) == sum(row.expires_us is not None for row in held_rows)


@settings(max_examples=size(120, 1200), deadline=None)
@given(DOCUMENTS, st.lists(PATHS, max_size=4))
def test_a_projection_holds_what_its_paths_lead_to_and_nothing_else(document: Document, fields: list[str]) -> None:
    from polaris.storage._filter_match import MISSING, lookup
    from polaris.storage._projection import projected

    whole = {**document, "_id": "x", "_version": 3}
    part = projected(whole, parse_fields(fields))
    assert (part["_id"], part["_version"]) == ("x", 3)
    kept = [tuple(name.split(".")) for name in fields] + [("_id",), ("_version",)]
    for path in kept:
        assert lookup(part, path) == lookup(whole, path) or lookup(whole, path) is MISSING

    def leaves(node: Any, path: tuple[str, ...]) -> list[tuple[str, ...]]:
        if isinstance(node, dict) and path not in kept:
            assert node or not path, path  # no empty shell of what is not wanted
            return [leaf for key, value in node.items() for leaf in leaves(value, (*path, key))]
        return [path]

    assert all(any(leaf[: len(path)] == path for path in kept) for leaf in leaves(part, ()))
