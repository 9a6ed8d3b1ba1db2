"""Every bound of the bus and of the store stands on the page of the limits, with the value that the code has."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

import polaris.messaging
import polaris.storage

PAGE = Path(__file__).resolve().parents[2] / "docs" / "limits.md"
ROOMS = (polaris.messaging, polaris.storage)

Bounds = Mapping[str, float | timedelta]

# A row by how it begins, and the bounds that it tells.
TOLD = {
    "ids (systems": "messaging._subjects.ID_CHARS_MAX",
    "message with headers": "messaging.brokers._memory.PAYLOAD_BYTES_MAX",
    "a topic;": """messaging._subjects.TOPIC_CHARS_MAX storage.backends.shared._outbox.TOPIC_CHARS_MAX
        messaging.brokers._nats_protocol.CONTROL_LINE_BYTES_MAX""",
    "one publish:": "messaging._publisher.ATTEMPT_S_MAX messaging._publisher.REFUSALS_MAX",
    "published events of a bus that wait": "messaging._outage.OUTAGE_BYTES_MAX messaging._outage.OUTAGE_AGE_MAX_S",
    "numbers of published telemetry": """messaging._sequences.TOPICS_MAX messaging._sequences.NUMBERS_MAX
        messaging._sequences.UNSENT_MAX""",
    "`detect_gaps`": """messaging._sequences.ROWS_MAX messaging._sequences.EPOCHS_MAX messaging._sequences.HOLES_MAX
        messaging._sequences.HOLES_IN_ALL_MAX""",
    "messages of a subscription taken": "messaging._subscription.IN_FLIGHT_MAX",
    "messages of a position": "messaging._inbound.UNSETTLED_MAX",
    "a position without a name": "messaging._inbound.UNNAMED_INACTIVE_S",
    "the name of a subscription": "messaging._inbound.NAME_CHARS_MAX messaging.brokers._nats_config._NAME_CHARS_MAX",
    "failing messages": "messaging._settlement.FAILURES_KEPT_MAX messaging._handling.PARTIAL_MAX",
    "failed probes": "messaging._guard.PROBES_MAX",
    "a replay whose broker": "messaging._replay.AWAY_MAX",
    "handled messages that may come again": "messaging._settlement.SETTLED_TOGETHER_MAX",
    "members of a batch message": "messaging._cloudevents.BATCH_EVENTS_MAX",
    "messages of a core subscription": "messaging.brokers._memory_core.PENDING_MAX",
    "decompressed message": """messaging._content_encoding.DECOMPRESSED_BYTES_MAX
        messaging._content_encoding.WINDOW_BYTES_MAX""",
    "compression of a message": "messaging.middleware._compression.LEVEL_MAX",
    "ids remembered by": "messaging.middleware._deduplication.IDS_MAX",
    "policies kept by": "messaging.middleware._policies.POLICIES_MAX",
    "log lines about messages": "messaging._kept_back.KINDS_MAX",
    "nkey and credentials files": "messaging.brokers._nats_keys.FILE_BYTES_MAX",
    "advisories of what": "messaging._given_up.ATTEMPTS_MAX",
    "texts of a dead letter": "messaging._dead_letters._HEADER_CHARS_MAX messaging._dead_letters._ERROR_CHARS_MAX",
    "a lost connection to NATS": "messaging.brokers._embedded.RECONNECT_WAIT_MAX_S",
    "series of a collection": """storage._series_limits.STORE_SERIES_MAX
        storage._series_limits.COLLECTION_SERIES_MAX""",
    "points: fields of one": """storage._limits.FIELDS_MAX storage._limits.FIELD_CHARS_MAX
        storage._limits.TAG_CHARS_MAX storage._limits.TEXT_CHARS_MAX""",
    "metrics of a state": "storage._limits.TAGS_MAX",
    "document collections of a store": """storage._limits.COLLECTIONS_MAX storage._limits.INDEXES_MAX
        storage._limits.INDEX_FIELDS_MAX""",
    "characters of a collection's": "storage._limits.COLLECTION_CHARS_MAX",
    "a document query": """storage._limits.FILTER_DEPTH_MAX storage._limits.FILTER_TERMS_MAX
        storage._limits.SORT_KEYS_MAX""",
    "conditions on tags": "storage._limits.FILTER_VALUES_MAX",
    "values in the lists of a document query": """storage._filter.VALUES_MAX storage._projection.PATHS_MAX
        storage._document_changes.CHANGES_MAX""",
    "a document;": "storage._limits.DOCUMENT_BYTES_MAX storage._limits.LIMIT_MAX",
    "one walk through the graph": """storage._limits.NODES_VISITED_MAX storage._limits.EDGES_VISITED_MAX
        storage._limits.DEPTH_MAX""",
    "nodes, edges, documents or points": """storage._limits.BATCH_POINTS_MAX storage._limits.BATCH_DOCUMENTS_MAX
        storage._limits.BATCH_NODES_MAX storage._limits.BATCH_EDGES_MAX""",
    "relationship types": "storage._limits.RELATIONSHIP_TYPES_MAX storage._limits.ROUTES_MAX",
    "search for all paths": "storage._graph_paths.STEPS_MAX storage._graph_cycles.STEPS_MAX",
    "buckets that are filled": """storage._buckets.BUCKETS_MAX
        storage.backends.shared._timeseries_arguments.AGGREGATIONS_MAX""",
    "rollups of a policy": "storage._rollups.ROLLUPS_MAX storage._rollups.WIDTH_MAX storage._rollups.KEPT_MAX",
    "an export": "storage._export.PAGE_ROWS_MAX",
    "the log of the store's file": "storage.backends.sqlite._engine.LOG_BYTES_MAX",
    "stores of a `RoutedDataStore`": """storage._placement.STORES_MAX storage._placement.WEIGHT_MAX
        storage._placement.MOVES_MAX""",
    "an answer of one of several stores": """storage._routing.READS_MAX storage._routing_states.ATTEMPTS_MAX
        storage._routing_fanout.ATTEMPTS_MAX storage._routing_merge.VALUES_READ_MAX""",
    "a writer of a system": "storage._placement_book.FREEZE_S_MAX",
    "a unit of work": "storage.backends.shared._transaction.STEPS_MAX storage.backends.shared._transaction.WEIGHT_MAX",
    "attempts of a unit of work": """storage._routing_work.ATTEMPTS_MAX
        storage.backends.postgresql._transaction.ATTEMPTS_MAX""",
    "what one check of the store": "storage.backends.shared._verify_rule.FINDINGS_MAX",
}

# Bounds that nobody meets: what is remembered to be quicker, what is done at a time, and texts of errors.
WITHIN = """
    messaging._cloudevents._ERROR_CHARS_MAX messaging._content_encoding._NAME_CHARS_MAX
    messaging._cumulative.SKIPPED_MAX messaging._given_up.IN_FLIGHT_MAX messaging._given_up.WAITING_MAX
    messaging._guard.WAIT_S_MAX messaging._outage.WAIT_S_MAX messaging._publisher._ROUTES_MAX
    messaging._replay.FETCH_MAX messaging._replay.NAME_CHARS_MAX messaging._single_events.TOPICS_MAX
    messaging._sources.FETCH_MAX messaging.brokers._deadlines.SHARED_S_MAX messaging.brokers._memory_hub.ROUTES_MAX
    messaging.brokers._nats.HEADS_MAX messaging.brokers._nats_lame_duck.GREETING_BYTES_MAX
    messaging.brokers._nats_positions.DETACHED_MAX
    messaging.brokers._nats_progress.LEFT_OUT_MAX messaging.brokers._nats_survey.PAGES_MAX
    messaging.middleware._metrics.SERIES_KEPT_MAX
    storage._graph_order.CYCLE_NODES_SHOWN_MAX storage._graph_weighted.FETCHED_AT_ONCE_MAX
    storage._limits.FLAT_KEYS_MAX storage._placement_book.ASKED_MAX storage._placement_book.HOPS_MAX
    storage._placement_book.PLACES_MAX storage._placement_marks.WINDOWS_MAX storage._placement_steps.ATTEMPTS_MAX
    storage._points._FIELDS_KNOWN_MAX storage._points._FLOAT_MAX storage._points._TAGS_KNOWN_MAX
    storage._rollup_summaries.PARTS_MAX storage._routing_copy.VERSIONS_MAX storage._routing_moves.CATCH_UPS_MAX
    storage._routing_moves.FREEZES_MAX storage._routing_states.MARKS_MAX storage._routing_states.SYSTEMS_NAMED_MAX
    storage._wide.CELLS_MAX
    """
# What an engine does at a time, or by one way rather than by another.
WITHIN_ENGINES = re.compile(r"storage\.backends\.(memory|postgresql|shared|sqlite)\.")

DEFINITION = r"^(?:\w+, )?(\w+_MAX(?:_S)?|UNNAMED_INACTIVE_S)\b.* = "
# Options whose default differs by use, or that say how much is asked for.
OPTIONS_WITHIN = {"count_max", "timeout_s", "timeout"}
OPTION = re.compile(r"\w+_max(_s)?|max_deliveries|\w+_timeout_s|\w+_(wait|linger)_s|grace_s")


def rows(text: str) -> list[str]:
    return re.findall(r"^\| (?!What \||---)(.*) \|$", text, re.MULTILINE)


def constants() -> Bounds:
    """The bounds of the modules by where they are defined."""
    found: dict[str, float | timedelta] = {}
    for room in ROOMS:
        for info in pkgutil.walk_packages(room.__path__, f"{room.__name__}."):
            module = importlib.import_module(info.name)
            defined = set(re.findall(DEFINITION, inspect.getsource(module), re.MULTILINE))
            for name in defined:
                value = getattr(module, name)
                if isinstance(value, (int, float, timedelta)):
                    found[f"{info.name.removeprefix('polaris.')}.{name}"] = value
    return found


def options() -> Iterator[tuple[str, object]]:
    """What a user may set in the public classes of the rooms, and its default."""
    for room in ROOMS:
        for name in room.__all__:
            public = getattr(room, name)
            if not isinstance(public, type):
                continue
            if issubclass(public, msgspec.Struct):
                yield from ((field.name, field.default) for field in msgspec.structs.fields(public))
                continue
            for _, method in inspect.getmembers(public, inspect.isfunction):
                if method.__name__ == "__init__" or not method.__name__.startswith("_"):
                    yield from ((one.name, one.default) for one in inspect.signature(method).parameters.values())


def forms(value: float | timedelta) -> set[str]:
    """How the page may write a value."""
    if isinstance(value, timedelta):
        return {f"{spaced(value.days)} days"}
    written = {f"{spaced(int(value))}" if value == int(value) else f"{value:g} s", f"{value * 1000:g} ms"}
    for unit, size in (("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)):
        if value >= size and value % size == 0:
            written.add(f"{int(value // size)} {unit}")
    return written


def spaced(number: int) -> str:
    return f"{number:,}".replace(",", " ")


def tells(text: str, value: float | timedelta) -> bool:
    return any(re.search(rf"(?<![\d.])(?<!\d ){re.escape(form)}(?![\d.]\d| \d{{3}}|\d)", text) for form in forms(value))


def untold(text: str, bounds: Bounds) -> list[str]:
    """What the page does not tell of these, in words."""
    wrong = []
    placed = {name: begins for begins, names in TOLD.items() for name in names.split()}
    within = WITHIN.split()
    for name, value in sorted(bounds.items()):
        if name in within:
            continue
        if name not in placed:
            if not WITHIN_ENGINES.match(name):
                wrong.append(f"{name} has no row: name it in TOLD, or in WITHIN if nobody meets it")
            continue
        found = [row for row in rows(text) if row.startswith(placed[name])]
        if len(found) != 1:
            wrong.append(f"{len(found)} rows begin with {placed[name]!r}, for {name}")
        elif not tells(found[0], value):
            wrong.append(f"{name} is {value}, and its row says: {found[0]}")
    return wrong


def unnamed(text: str) -> list[str]:
    """The options that the page does not name in a row with their defaults."""
    wrong = []
    for name, default in options():
        if name in OPTIONS_WITHIN or not OPTION.fullmatch(name) or not isinstance(default, (int, float)):
            continue
        naming = [row for row in rows(text) if re.search(rf"`(?:\w+\.)?{name}`", row)]
        if not any(tells(row, default) for row in naming):
            wrong.append(f"{name} (default {default}) has no row")
    return wrong


@pytest.fixture(scope="module")
def bounds() -> Bounds:
    return constants()


def test_the_page_tells_every_bound_with_its_value(bounds: Bounds) -> None:
    wrong = untold(PAGE.read_text(), bounds)
    assert wrong == [], "\n".join(wrong)


def test_the_page_names_every_option_that_is_a_bound_with_its_default() -> None:
    wrong = unnamed(PAGE.read_text())
    assert wrong == [], "\n".join(wrong)


def test_no_bound_is_told_that_the_code_does_not_have(bounds: Bounds) -> None:
    assert {name for names in TOLD.values() for name in names.split()} - set(bounds) == set()


def test_a_value_that_the_page_has_not_is_found_out(bounds: Bounds) -> None:
    text = PAGE.read_text()
    assert "| 8 192; 1 024 |" in text
    (complaint,) = untold(text.replace("| 8 192; 1 024 |", "| 8 190; 1 024 |"), bounds)
    assert complaint.startswith("messaging._settlement.FAILURES_KEPT_MAX is 8192, and its row says")
    (complaint,) = untold(text, {**bounds, "messaging._new.WAITING_MAX": 7})
    assert complaint.startswith("messaging._new.WAITING_MAX has no row")
    assert unnamed(text.replace("`publish_in_flight_max`", "")) == ["publish_in_flight_max (default 4096) has no row"]
