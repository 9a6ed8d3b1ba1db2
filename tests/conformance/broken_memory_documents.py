"""Single promises of documents in memory, each broken in one place: its suite must notice exactly that."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from tests.conformance.broken_memory_store import breaks, wrap

from polaris.exceptions import ConflictError, InvalidValueError
from polaris.storage import _document_changes, _filter_match, _rows, _sorting
from polaris.storage._filter import EVERYTHING, Compares, Equals, HasSize, Not, StartsWith, parse_query
from polaris.storage._operation import Operation
from polaris.storage._sorting import SortBy
from polaris.storage.backends.memory import _documents as memory_documents
from polaris.storage.backends.memory._documents import MemoryDocuments, Row
from polaris.storage.backends.shared import _documents as shared_documents
from polaris.storage.backends.shared._documents import DocumentPort

Patch = pytest.MonkeyPatch


def rewire(patch: Patch, module: Any, name: str, around: Any) -> None:
    """Replace a function that others imported by `around(original, *args)`."""
    original = getattr(module, name)
    patch.setattr(module, name, lambda *args, **kwargs: around(original, *args, **kwargs))


def rows_of(home: MemoryDocuments, collection: str) -> dict[str, Row]:
    return home._collections[collection].rows if collection in home._collections else {}


# Single documents


@breaks("documents", "test_a_document_comes_back_with_its_id_and_version")
def the_empty_key_is_lost(patch: Patch) -> None:
    def document_of(original: Any, *args: Any) -> Any:
        return {key: value for key, value in original(*args).items() if key}

    rewire(patch, memory_documents, "document_of", document_of)


@breaks("documents", "test_ids_given_are_kept_and_others_are_fresh")
def the_empty_document_has_one_id(patch: Patch) -> None:
    def insert(original: Any, port: Any, collection: str, document: Any, **options: Any) -> Any:
        return original(port, collection, {"_id": "same"} if document == {} else document, **options)

    wrap(patch, DocumentPort, "insert_document", insert)


@breaks("documents", "test_an_id_in_use_is_a_conflict")
def an_insert_replaces(patch: Patch) -> None:
    def insert(original: Any, home: MemoryDocuments, collection: str, documents: Any, **options: Any) -> None:
        if list(documents) == [("x", '{"a":2}')]:
            home.put_many(collection, documents, expected_version=None, **options)
        else:
            original(home, collection, documents, **options)

    wrap(patch, MemoryDocuments, "insert_many", insert)


@breaks("documents", "test_documents_are_inserted_all_or_none")
def a_batch_stops_in_the_middle(patch: Patch) -> None:
    def insert(original: Any, home: MemoryDocuments, collection: str, documents: Sequence[Any], **options: Any) -> None:
        if [document_id for document_id, _ in documents] == ["x", "y", "x"]:
            original(home, collection, documents[:1], **options)
            home._journal.forget()
        original(home, collection, documents, **options)

    wrap(patch, MemoryDocuments, "insert_many", insert)


@breaks("documents", "test_what_callers_do_to_a_document_does_not_reach_the_store")
def what_was_shown_is_shown_again(patch: Patch) -> None:
    def get(original: Any, home: MemoryDocuments, collection: str, document_id: str, **options: Any) -> Any:
        found = original(home, collection, document_id, **options)
        shown = vars(home).setdefault("shown", {})
        return shown.setdefault(document_id, found) if found is not None and "inner" in found else found

    wrap(patch, MemoryDocuments, "get", get)


@breaks("documents", "test_what_callers_do_before_the_commit_does_not_reach_the_store")
def a_recorded_insert_looks_at_the_callers_document(patch: Patch) -> None:
    async def insert(port: DocumentPort, collection: str, document: Any, **options: Any) -> str:
        if port._executor is port.engine or "inner" not in document:
            return str(await original(port, collection, document, **options))

        def run(session: Any) -> None:
            row = ("x", msgspec.json.encode({"inner": document["inner"]}).decode())
            session.documents.insert_many(collection, [row], now_us=0, expires_us=None)

        await port._executor.execute(Operation(run, mutates=True, known=None))
        return "x"

    original = DocumentPort.insert_document
    patch.setattr(DocumentPort, "insert_document", insert)


@breaks("documents", "test_no_documents_at_all_are_stored_without_a_trace")
def nothing_is_something(patch: Patch) -> None:
    def put(original: Any, port: Any, collection: str, documents: Any, **options: Any) -> Any:
        return original(port, collection, documents or [{}], **options)

    wrap(patch, DocumentPort, "put_documents", put)


@breaks("documents", "test_nothing_is_found_where_nothing_is")
def a_collection_that_is_not_there_gives_up_documents(patch: Patch) -> None:
    def delete(original: Any, home: MemoryDocuments, collection: str, document_id: str, **options: Any) -> bool:
        return collection not in home._collections or original(home, collection, document_id, **options)

    wrap(patch, MemoryDocuments, "delete", delete)


@breaks("documents", "test_putting_replaces_everything_and_counts_versions")
def putting_merges(patch: Patch) -> None:
    def put(original: Any, home: MemoryDocuments, collection: str, documents: Any, **options: Any) -> None:
        former = rows_of(home, collection).get(documents[0][0])
        if former is not None and former.body == '{"a":1,"b":1}':
            documents = [(documents[0][0], '{"a":2,"b":1}')]
        original(home, collection, documents, **options)

    wrap(patch, MemoryDocuments, "put_many", put)


@breaks("documents", "test_updating_replaces_the_named_keys_and_keeps_the_others")
def an_update_forgets_a_key(patch: Patch) -> None:
    def carried_out(original: Any, changes: Any, body: str) -> Any:
        return original(changes, body.replace(',"k":1', ""))

    rewire(patch, memory_documents, "carried_out", carried_out)


@breaks("documents", "test_an_unexpected_version_is_a_conflict_and_changes_nothing")
def versions_are_not_looked_at(patch: Patch) -> None:
    patch.setattr(memory_documents, "check_version", lambda *_: None)


@breaks("documents", "test_a_deleted_document_is_gone")
def a_deletion_always_finds_something(patch: Patch) -> None:
    def delete(original: Any, home: MemoryDocuments, collection: str, document_id: str, **options: Any) -> bool:
        known = rows_of(home, collection)
        unknown = collection in home._collections and document_id not in known
        return unknown or original(home, collection, document_id, **options)

    wrap(patch, MemoryDocuments, "delete", delete)


@breaks("documents", "test_collections_do_not_see_each_other")
def a_deletion_reaches_every_collection(patch: Patch) -> None:
    def delete(original: Any, home: MemoryDocuments, collection: str, document_id: str, **options: Any) -> bool:
        for other in home._collections:
            if other != collection:
                original(home, other, document_id, **options)
        return bool(original(home, collection, document_id, **options))

    wrap(patch, MemoryDocuments, "delete", delete)


@breaks("documents", "test_hostile_ids_keys_and_values_are_only_text")
def a_quote_is_no_id(patch: Patch) -> None:
    def update(
        original: Any, home: MemoryDocuments, collection: str, document_id: str, *args: Any, **options: Any
    ) -> Any:
        return document_id != '"' and original(home, collection, document_id, *args, **options)

    wrap(patch, MemoryDocuments, "update", update)


@breaks("documents", "test_bad_names_of_collections_are_refused")
def a_nul_is_good_enough_for_a_name(patch: Patch) -> None:
    def check(original: Any, name: Any) -> None:
        if name != "doc\0":
            original(name)

    rewire(patch, shared_documents, "check_collection", check)


@breaks("documents", "test_documents_that_are_none_are_refused")
def what_is_no_number_becomes_null(patch: Patch) -> None:
    patch.setattr(_rows, "isfinite", lambda _: True)


# Queries


def match_otherwise(patch: Patch, around: Any) -> None:
    wrap(patch, _filter_match, "matches", around)
    patch.setattr(memory_documents, "matches", _filter_match.matches)


@breaks("documents", "test_a_query_finds_what_it_says")
def negation_forgets_the_missing(patch: Patch) -> None:
    def matches(original: Any, term: Any, document: Any) -> bool:
        inner = term.term if isinstance(term, Not) else None
        if isinstance(inner, (Equals, Compares)) and inner.path:
            found = _filter_match.lookup(document, inner.path)
            return found not in (None, _filter_match.MISSING) and bool(original(term, document))
        return bool(original(term, document))

    match_otherwise(patch, matches)


@breaks("documents", "test_a_query_that_cannot_be_understood_is_refused")
def an_unknown_operator_is_overlooked(patch: Patch) -> None:
    def parse(original: Any, query: Any) -> Any:
        return EVERYTHING if query == {"a": {"$regex": "x"}} else original(query)

    rewire(patch, shared_documents, "parse_query", parse)


@breaks("documents", "test_arrays_are_asked_by_their_own_operators")
def a_size_is_the_least_size(patch: Patch) -> None:
    def holds(original: Any, term: Any, elements: Any) -> bool:
        return len(elements) >= term.size if isinstance(term, HasSize) else bool(original(term, elements))

    rewire(patch, _filter_match, "_holds", holds)


@breaks("documents", "test_numbers_are_told_apart_to_the_last_digit")
def numbers_are_equal_as_floats(patch: Patch) -> None:
    def equal(original: Any, found: Any, value: Any) -> bool:
        if type(found) in (int, float) and type(value) in (int, float):
            return float(found) == float(value)
        return bool(original(found, value))

    rewire(patch, _filter_match, "_equal", equal)


@breaks("documents", "test_texts_are_found_by_their_beginning_character_by_character")
def a_prefix_ends_at_a_nul(patch: Patch) -> None:
    def matches(original: Any, term: Any, document: Any) -> bool:
        if isinstance(term, StartsWith):
            term = StartsWith(term.path, term.text.split("\0")[0])
        return bool(original(term, document))

    match_otherwise(patch, matches)


@breaks("documents", "test_the_id_and_the_version_are_paths_like_others")
def the_version_cannot_be_asked_for(patch: Patch) -> None:
    def matches(original: Any, term: Any, document: Any) -> bool:
        if isinstance(document, dict) and "_version" in document:
            document = {key: value for key, value in document.items() if key != "_version"}
        return bool(original(term, document))

    match_otherwise(patch, matches)


# Orders, pages and projections


def find_otherwise(patch: Patch, around: Any) -> None:
    wrap(patch, MemoryDocuments, "find", around)


@breaks("documents", "test_documents_come_in_order_of_their_ids")
def capitals_are_small(patch: Patch) -> None:
    def find(original: Any, *args: Any, order: Any, **options: Any) -> Any:
        found = original(*args, order=order, **options)
        return found if order else sorted(found, key=lambda document: document["_id"].lower())

    find_otherwise(patch, find)


@breaks("documents", "test_sorting_puts_missing_first_then_numbers_then_texts")
def missing_comes_last(patch: Patch) -> None:
    def find(original: Any, *args: Any, order: Any, **options: Any) -> Any:
        found = original(*args, order=order, **options)
        return [*found[1:], *found[:1]] if order == (SortBy(("age",), False),) else found

    find_otherwise(patch, find)


@breaks("documents", "test_sorting_by_several_keys_settles_ties")
def the_second_key_sorts_the_other_way(patch: Patch) -> None:
    def find(original: Any, *args: Any, order: Any, **options: Any) -> Any:
        if len(order) == 2 and order[1].path == ("b",):
            order = (order[0], SortBy(order[1].path, not order[1].descending))
        return original(*args, order=order, **options)

    find_otherwise(patch, find)


@breaks("documents", "test_a_limit_takes_the_first_of_the_order")
def no_limit_is_zero(patch: Patch) -> None:
    def find(original: Any, *args: Any, limit: int, **options: Any) -> Any:
        return original(*args, limit=limit or 1_000, **options)

    find_otherwise(patch, find)


@breaks("documents", "test_pages_follow_each_other_without_gap_or_repetition")
def a_descending_page_forgets_what_is_missing(patch: Patch) -> None:
    def find(original: Any, *args: Any, order: Any, page: Any, **options: Any) -> Any:
        found = original(*args, order=order, page=page, **options)
        if page is not None and order[:1] == (SortBy(("a",), True),):
            found = [document for document in found if document.get("a") is not None]
        return found

    find_otherwise(patch, find)


@breaks("documents", "test_a_page_goes_on_behind_a_document_that_is_gone")
def pages_look_for_their_document(patch: Patch) -> None:
    def find(original: Any, home: MemoryDocuments, collection: str, *args: Any, page: Any, **options: Any) -> Any:
        if page is not None and collection == "people" and page.document_id not in rows_of(home, collection):
            return []
        return original(home, collection, *args, page=page, **options)

    find_otherwise(patch, find)


@breaks("documents", "test_pages_stay_right_while_documents_come_go_and_change")
def pages_count_what_is_gone(patch: Patch) -> None:
    def find(original: Any, home: MemoryDocuments, collection: str, *args: Any, page: Any, **options: Any) -> Any:
        found = original(home, collection, *args, page=page, **options)
        gone = page is not None and collection == "d" and page.document_id not in rows_of(home, collection)
        return found[1:] if gone else found

    find_otherwise(patch, find)


@breaks("documents", "test_fields_choose_what_comes_back")
def null_is_not_worth_showing(patch: Patch) -> None:
    def projected(original: Any, document: Any, wanted: Any) -> Any:
        found = original(document, wanted)
        return found if wanted is None else {key: value for key, value in found.items() if value is not None}

    rewire(patch, memory_documents, "projected", projected)


@breaks("documents", "test_what_was_projected_serves_as_a_cursor")
def the_order_is_not_shown(patch: Patch) -> None:
    rewire(patch, shared_documents, "parse_fields", lambda original, fields, order=(): original(fields))


@breaks("documents", "test_a_bad_cursor_is_refused")
def cursors_are_not_looked_at(patch: Patch) -> None:
    patch.setattr(_sorting, "check_tree", lambda *_: None)


# Bulk writes and changes


@breaks("documents", "test_documents_are_put_many_at_once")
def the_first_of_equal_ids_stays(patch: Patch) -> None:
    def put(original: Any, home: MemoryDocuments, collection: str, documents: Any, **options: Any) -> None:
        original(home, collection, list(dict(reversed(documents)).items()), **options)

    wrap(patch, MemoryDocuments, "put_many", put)


@breaks("documents", "test_documents_are_put_all_or_none")
def a_bulk_put_stops_in_the_middle(patch: Patch) -> None:
    def put(original: Any, home: MemoryDocuments, collection: str, documents: Any, **options: Any) -> None:
        if [document_id for document_id, _ in documents] == ["y", "z"]:
            original(home, collection, documents[:1], **options)
            home._journal.forget()
        original(home, collection, documents, **options)

    wrap(patch, MemoryDocuments, "put_many", put)


@breaks("documents", "test_an_update_by_query_changes_what_matches_and_counts_it")
def an_update_of_nothing_counts(patch: Patch) -> None:
    def update(original: Any, home: MemoryDocuments, collection: str, *args: Any, **options: Any) -> int:
        count: int = original(home, collection, *args, **options)
        return count or int(collection in home._collections)

    wrap(patch, MemoryDocuments, "update_where", update)


@breaks("documents", "test_a_deletion_by_query_removes_what_matches_and_counts_it")
def a_deletion_of_nothing_counts(patch: Patch) -> None:
    def delete(original: Any, home: MemoryDocuments, collection: str, term: Any, *, limit: Any, **options: Any) -> int:
        count: int = original(home, collection, term, limit=limit, **options)
        return count or int(limit is None and collection in home._collections)

    wrap(patch, MemoryDocuments, "delete_where", delete)


@breaks("documents", "test_a_write_by_query_takes_the_first_ids_up_to_its_limit")
def a_limit_takes_the_last_ids(patch: Patch) -> None:
    def chosen(original: Any, home: MemoryDocuments, collection: str, term: Any, limit: Any, now_us: int) -> list[str]:
        found: list[str] = original(home, collection, term, None, now_us)
        return found if limit is None else found[len(found) - limit :]

    wrap(patch, MemoryDocuments, "_chosen", chosen)


@breaks("documents", "test_a_write_by_query_is_done_entirely_or_not_at_all")
def an_update_by_query_keeps_what_it_did(patch: Patch) -> None:
    def update(original: Any, home: MemoryDocuments, *args: Any, **options: Any) -> Any:
        try:
            return original(home, *args, **options)
        except InvalidValueError:
            home._journal.forget()
            raise

    wrap(patch, MemoryDocuments, "update_where", update)


@breaks("documents", "test_a_write_by_query_names_its_query")
def no_query_is_every_document(patch: Patch) -> None:
    patch.setattr(shared_documents, "_chosen", parse_query)


@breaks("documents", "test_changes_reach_what_paths_lead_to")
def nothing_is_taken_out(patch: Patch) -> None:
    patch.setattr(_document_changes, "_take_out", lambda *_: None)


@breaks("documents", "test_increments_of_many_tasks_all_count")
def an_increment_is_lost(patch: Patch) -> None:
    def carried_out(original: Any, changes: Any, body: str) -> Any:
        return body if body == '{"n":10}' else original(changes, body)

    rewire(patch, memory_documents, "carried_out", carried_out)


@breaks("documents", "test_changes_that_cannot_be_carried_out_change_nothing")
def documents_grow_without_end(patch: Patch) -> None:
    patch.setattr(_document_changes, "TREE_NODES_MAX", 1 << 30)


@breaks("documents", "test_changes_that_say_nothing_sensible_are_refused")
def paths_may_lie_within_each_other(patch: Patch) -> None:
    patch.setattr(_document_changes, "_check_apart", lambda _: None)


# Indexes


@breaks("documents", "test_indexes_change_no_answer")
def an_index_finds_one_document(patch: Patch) -> None:
    def find(original: Any, home: MemoryDocuments, collection: str, *args: Any, **options: Any) -> Any:
        found = original(home, collection, *args, **options)
        indexed = collection in home._collections and (("age",),) in home._collections[collection].indexes
        return found[:1] if indexed else found

    find_otherwise(patch, find)


@breaks("documents", "test_a_unique_index_refuses_a_second_document")
def one_is_not_one_point_nought(patch: Patch) -> None:
    def key(original: Any, *args: Any) -> Any:
        found = original(*args)
        return None if found is None else tuple((rank, repr(value)) for rank, value in found)

    rewire(patch, memory_documents, "_index_key", key)


@breaks("documents", "test_a_unique_index_lets_missing_values_pass")
def missing_values_collide(patch: Patch) -> None:
    def key(original: Any, body: str, paths: Any) -> Any:
        return ((0, 0),) if body in ("{}", '{"a":null}') else original(body, paths)

    rewire(patch, memory_documents, "_index_key", key)


@breaks("documents", "test_a_unique_index_cannot_be_had_over_documents_that_break_it")
def a_unique_index_takes_the_first_of_equals(patch: Patch) -> None:
    def create(original: Any, *args: Any, **options: Any) -> None:
        with suppress(ConflictError):
            original(*args, **options)

    wrap(patch, MemoryDocuments, "create_index", create)


@breaks("documents", "test_the_values_of_a_unique_index_are_free_when_their_document_leaves_them")
def a_deletion_by_query_leaves_its_values(patch: Patch) -> None:
    def delete(original: Any, home: MemoryDocuments, collection: str, *args: Any, **options: Any) -> Any:
        known = home._collections.get(collection)
        held = {} if known is None else {paths: dict(keys) for paths, keys in known.holders.items()}
        count = original(home, collection, *args, **options)
        if known is not None:
            known.holders.update(held)
        return count

    wrap(patch, MemoryDocuments, "delete_where", delete)


@breaks("documents", "test_indexes_are_listed_and_dropped")
def an_index_is_dropped_whatever_its_order(patch: Patch) -> None:
    def drop(original: Any, home: MemoryDocuments, collection: str, paths: Any) -> bool:
        return bool(original(home, collection, paths) or original(home, collection, paths[::-1]))

    wrap(patch, MemoryDocuments, "drop_index", drop)


@breaks("documents", "test_a_unique_index_refuses_nothing_once_it_is_dropped")
def a_dropped_index_goes_on_refusing(patch: Patch) -> None:
    async def drop(port: Any, collection: str, fields: Any) -> bool:
        homes = port.engine.session.documents._collections
        held = dict(homes[collection].holders) if collection in homes else {}
        dropped = bool(await original(port, collection, fields))
        if held and port._executor is port.engine:
            homes[collection].holders.update(held)
        return dropped

    original = DocumentPort.drop_index
    patch.setattr(DocumentPort, "drop_index", drop)


@breaks("documents", "test_an_index_that_is_rolled_back_is_as_before")
def a_dropped_index_stays_dropped(patch: Patch) -> None:
    def keep(original: Any, home: MemoryDocuments, collection: Any, paths: Any) -> None:
        if paths not in collection.indexes:
            original(home, collection, paths)

    wrap(patch, MemoryDocuments, "_keep_index", keep)


@breaks("documents", "test_an_index_that_cannot_be_is_refused")
def the_id_may_be_indexed(patch: Patch) -> None:
    def paths(original: Any, fields: Any) -> Any:
        return (("_id",),) if fields == "_id" else original(fields)

    rewire(patch, shared_documents, "_index_paths", paths)


@breaks("documents", "test_a_collection_has_a_bounded_number_of_indexes")
def one_more_index_is_allowed(patch: Patch) -> None:
    patch.setattr(memory_documents, "INDEXES_MAX", 33)


# Expiry


@breaks("documents", "test_an_expired_document_is_not_there_for_any_operation")
def an_update_finds_what_has_expired(patch: Patch) -> None:
    def update(
        original: Any, home: MemoryDocuments, collection: str, document_id: str, changes: Any, **options: Any
    ) -> Any:
        row = rows_of(home, collection).get(document_id)
        if row is not None and not row.is_there(options["now_us"]):
            options["now_us"] = 0
        return original(home, collection, document_id, changes, **options)

    wrap(patch, MemoryDocuments, "update", update)


@breaks("documents", "test_every_way_to_write_takes_an_instant_or_a_span")
def a_bulk_put_never_expires(patch: Patch) -> None:
    def put(original: Any, home: MemoryDocuments, collection: str, documents: Any, **options: Any) -> None:
        if documents[0][0].startswith("puts"):
            options["expires_us"] = None
        original(home, collection, documents, **options)

    wrap(patch, MemoryDocuments, "put_many", put)


@breaks("documents", "test_what_has_expired_already_is_accepted_and_not_there")
def what_has_expired_is_refused(patch: Patch) -> None:
    def insert(original: Any, *args: Any, now_us: int, expires_us: int | None) -> None:
        if expires_us is not None and expires_us <= now_us:
            raise InvalidValueError("expires_at", "an instant to come", expires_us)
        original(*args, now_us=now_us, expires_us=expires_us)

    wrap(patch, MemoryDocuments, "insert_many", insert)


@breaks("documents", "test_the_id_of_an_expired_document_is_free")
def an_expired_document_keeps_its_id(patch: Patch) -> None:
    def insert(original: Any, home: MemoryDocuments, collection: str, documents: Any, **options: Any) -> None:
        if any(document_id in rows_of(home, collection) for document_id, _ in documents):
            raise ConflictError("an id is in use")
        original(home, collection, documents, **options)

    wrap(patch, MemoryDocuments, "insert_many", insert)


@breaks("documents", "test_the_unique_values_of_an_expired_document_are_free")
def an_expired_document_keeps_its_values(patch: Patch) -> None:
    def write(original: Any, home: MemoryDocuments, collection: Any, document_id: str, row: Row, now_us: int) -> None:
        for paths, holders in collection.holders.items():
            key = memory_documents._index_key(row.body, paths)
            if key in holders and holders[key] != document_id:
                raise ConflictError("a value is in use")
        original(home, collection, document_id, row, now_us)

    wrap(patch, MemoryDocuments, "_write", write)


@breaks("documents", "test_a_put_ends_an_expiry_and_an_update_keeps_or_moves_it")
def a_put_keeps_the_expiry(patch: Patch) -> None:
    def put(original: Any, home: MemoryDocuments, collection: str, documents: Any, **options: Any) -> None:
        former = rows_of(home, collection).get(documents[0][0])
        if former is not None and former.is_there(options["now_us"]) and options["expires_us"] is None:
            options["expires_us"] = former.expires_us
        original(home, collection, documents, **options)

    wrap(patch, MemoryDocuments, "put_many", put)


@breaks("documents", "test_who_deletes_a_document_deletes_its_expiry")
def an_expiry_outlives_its_document(patch: Patch) -> None:
    left: dict[str, int] = {}

    def delete(original: Any, home: MemoryDocuments, collection: str, document_id: str, **options: Any) -> Any:
        row = rows_of(home, collection).get(document_id)
        if row is not None and row.expires_us is not None and row.is_there(options["now_us"]):
            left[document_id] = row.expires_us
        return original(home, collection, document_id, **options)

    def insert(original: Any, home: MemoryDocuments, collection: str, documents: Any, **options: Any) -> None:
        if [document_id for document_id, _ in documents] == ["x", "y"] and options["expires_us"] is None:
            options["expires_us"] = left.get("x")
        original(home, collection, documents, **options)

    wrap(patch, MemoryDocuments, "delete", delete)
    wrap(patch, MemoryDocuments, "insert_many", insert)


@breaks("documents", "test_a_purge_gives_back_what_has_expired_and_nothing_else")
def a_purge_is_a_minute_ahead(patch: Patch) -> None:
    def purge(original: Any, *args: Any, limit: int, now_us: int) -> Any:
        return original(*args, limit=limit, now_us=now_us + 60_000_000)

    wrap(patch, MemoryDocuments, "purge", purge)


@breaks("documents", "test_a_transaction_tells_the_time_at_every_call")
def a_transaction_stops_the_clock(patch: Patch) -> None:
    def now_us(original: Any, port: Any) -> Any:
        if port._executor is port.engine:
            return original(port)
        return vars(port).setdefault("first_us", original(port))

    wrap(patch, DocumentPort, "_now_us", now_us)


@breaks("documents", "test_an_expiry_that_cannot_be_is_refused")
def an_instant_wins_over_a_span(patch: Patch) -> None:
    def instants(original: Any, port: Any, expires_at: Any, ttl: Any) -> Any:
        return original(port, expires_at, None if expires_at is not None else ttl)

    wrap(patch, DocumentPort, "_instants", instants)
