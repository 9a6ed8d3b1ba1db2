"""Filters, orders and pages mean the same in SQLite as in the reference evaluator, whatever the documents."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.sqlite_sessions import new_session, scratch

from polaris.exceptions import PolarisException, QueryError
from polaris.storage._documents import Document
from polaris.storage._filter import parse_query
from polaris.storage._filter_match import matches
from polaris.storage._sorting import parse_after, parse_sort
from polaris.storage.backends.memory._documents import MemoryDocuments
from polaris.storage.backends.memory._journal import Journal

SESSION = new_session()

KEYS = st.sampled_from(["a", "b", "c", "0"])
PATHS = st.sampled_from(["a", "b", "c", "a.a", "a.b", "b.0", "a.b.c", "0"])
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, -0.0, 1.0, 2.5, float(2**53), float(2**53 + 2), 9.007199254740993e15]),
    st.sampled_from(["", "a", "A", "1", "1.0", "true", "null", "[1]", "{}", "é", "z\u2028", '"', "\\", "a\0b", "a\0c"]),
    st.text(st.characters(codec="utf-8"), max_size=3),
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=6
)
DOCUMENTS = st.dictionaries(KEYS, VALUES, max_size=4)
ORDERABLE = SCALARS.filter(lambda value: value is not None and not isinstance(value, bool))
OPERATORS: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.fixed_dictionaries({"$eq": SCALARS}),
    st.fixed_dictionaries({"$ne": SCALARS}),
    st.dictionaries(st.sampled_from(["$gt", "$gte", "$lt", "$lte"]), ORDERABLE, min_size=1, max_size=2),
    st.dictionaries(st.sampled_from(["$in", "$nin"]), st.lists(SCALARS, max_size=4), min_size=1),
    st.fixed_dictionaries({"$exists": st.booleans()}),
)
CONDITIONS = SCALARS | OPERATORS | st.fixed_dictionaries({"$not": OPERATORS})
QUERIES: st.SearchStrategy[dict[str, Any]] = st.recursive(
    st.dictionaries(PATHS, CONDITIONS, max_size=2),
    lambda inner: st.one_of(
        st.dictionaries(st.sampled_from(["$and", "$or"]), st.lists(inner, min_size=1, max_size=3), min_size=1),
        st.fixed_dictionaries({"$not": inner}),
    ),
    max_leaves=6,
)
SORTS = st.lists(st.tuples(st.sampled_from(["", "-"]), PATHS).map("".join), max_size=3)


def engines(documents: list[Document]) -> tuple[MemoryDocuments, list[tuple[str, Document]]]:
    rows = [(f"{place:02}", document) for place, document in enumerate(documents)]
    memory = MemoryDocuments(Journal())
    memory.insert_many("d", rows)
    return memory, rows


@settings(max_examples=400, deadline=None)
@given(st.lists(DOCUMENTS, max_size=6), QUERIES, st.booleans())
def test_sqlite_finds_exactly_what_the_reference_evaluator_says(
    documents: list[Document], query: dict[str, Any], indexed: bool
) -> None:
    term = parse_query(query)
    memory, rows = engines(documents)
    expected = [document_id for document_id, document in rows if matches(term, document)]
    with scratch(SESSION) as session:
        if indexed:
            session.documents.create_index("d", (("a",),), unique=False)
            session.documents.create_index("d", (("b", "0"), ("a", "b")), unique=False)
        session.documents.insert_many("d", rows)
        found = session.documents.find("d", term, limit=100, order=(), page=None)
        assert [document["_id"] for document in found] == expected
        assert session.documents.count("d", term) == len(expected)
        assert found == memory.find("d", term, limit=100, order=(), page=None)


def test_every_operator_agrees_on_every_pair_of_kinds() -> None:
    scalars: list[Any] = [None, True, False, 0, 1, -1, 0.0, 1.0, 1.5, 2**53, 2**53 + 1, float(2**53), 2**63 - 1, 9.3e18]
    scalars += ["", "0", "1", "a", "A", "true", "null", "[1]", "{}", "é", "a\0b", "a\0c"]
    values = [*scalars, [], [1], ["a"], {}, {"b": 1}, [None]]
    rows: list[tuple[str, Document]] = [(f"{n:02}", {"a": value}) for n, value in enumerate(values)]
    rows += [(f"n{n:02}", {"x": {"y": value}}) for n, value in enumerate(values)]
    rows.append(("none", {}))
    with scratch(SESSION) as session:
        session.documents.insert_many("d", rows)
        for operand in scalars:
            orderable = operand is not None and not isinstance(operand, bool)
            names = ["$eq", "$ne", *(["$gt", "$gte", "$lt", "$lte"] if orderable else [])]
            conditions: list[Any] = [operand, {"$in": [operand, "a", 1]}, {"$nin": [operand, None]}]
            for name in names:
                conditions += [{name: operand}, {"$not": {name: operand}}]
            for path in ("a", "x.y"):
                for condition in conditions:
                    term = parse_query({path: condition})
                    found = session.documents.find("d", term, limit=100, order=(), page=None)
                    expected = [document_id for document_id, document in rows if matches(term, document)]
                    assert [document["_id"] for document in found] == expected, condition


@settings(max_examples=250, deadline=None)
@given(st.lists(DOCUMENTS, max_size=8), SORTS, st.integers(1, 3))
def test_orders_and_pages_are_the_same_on_both_engines(documents: list[Document], sort: list[str], size: int) -> None:
    order = parse_sort(sort)
    memory, rows = engines(documents)
    everything = parse_query({})
    expected = memory.find("d", everything, limit=100, order=order, page=None)
    with scratch(SESSION) as session:
        session.documents.insert_many("d", rows)
        assert session.documents.find("d", everything, limit=100, order=order, page=None) == expected
        for engine in (session.documents, memory):
            paged: list[Document] = []
            page = None
            while part := engine.find("d", everything, limit=size, order=order, page=page):
                paged += part
                page = parse_after(part[-1], order)
            assert paged == expected


@settings(max_examples=300, deadline=None)
@given(
    st.recursive(
        st.none() | st.integers() | st.floats() | st.text() | st.binary(max_size=2),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["$and", "$or", "$not", "$in", "$gt", "$x", "a", "a.b", "a'b", ""]), inner
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
        session.documents.insert_many("d", [("x", {"a": 1})])
        assert session.documents.count("d", term) in (0, 1)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(KEYS, DOCUMENTS), max_size=8))
def test_unique_indexes_refuse_the_same_documents_on_both_engines(puts: list[tuple[str, Document]]) -> None:
    memory = MemoryDocuments(Journal())
    with scratch(SESSION) as session:
        outcomes: list[list[str]] = []
        for engine in (memory, session.documents):
            engine.create_index("d", (("a",), ("b",)), unique=True)
            told: list[str] = []
            for document_id, document in puts:
                session.connection.execute("SAVEPOINT one")
                try:
                    engine.put("d", document_id, document, None)
                    told.append("stored")
                except PolarisException as error:
                    session.connection.execute("ROLLBACK TO one")
                    told.append(error.code)
                session.connection.execute("RELEASE one")
            outcomes.append(told)
        assert outcomes[0] == outcomes[1]
