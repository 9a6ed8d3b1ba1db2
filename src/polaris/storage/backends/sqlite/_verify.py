"""What has to hold in a store beyond what SQLite checks itself, and the check of a whole file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

import apsw
import msgspec

from polaris.storage.backends.shared._verify_rule import FINDINGS_MAX, Rule
from polaris.storage.backends.sqlite._migrate import check_schema, known_migrations
from polaris.storage.backends.sqlite._series import COLUMN_NAMES
from polaris.storage.backends.sqlite._sql import rows
from polaris.storage.backends.sqlite._verify_rollups import ROLLUP_RULES, ROLLUPS_SINCE, unreadable_rollups

_COLUMNS = ", ".join(COLUMN_NAMES)
_HAS_TEXT = " OR ".join(f"typeof({name}) = 'text'" for name in COLUMN_NAMES)
_MARK_UNKNOWN = " OR ".join(
    f"(typeof({name}) = 'blob' AND {name} NOT IN (x'6e', x'74', x'66'))" for name in COLUMN_NAMES
)

OnCheck = Callable[[str], None]


RULES = (
    Rule(
        "points are in one table",
        "the point of series {} at {} is in both tables",
        "SELECT DISTINCT h.series, h.ts FROM ts_hot h CROSS JOIN ts_cold c WHERE c.series = h.series AND c.ts = h.ts",
    ),
    Rule(
        "cold points are before the bound of the compaction",
        "the point of series {} at {} is in the cold table behind its bound",
        "SELECT series, ts FROM ts_cold WHERE ts >= (SELECT cold_until FROM ts_compaction)",
    ),
    Rule(
        "points belong to a series",
        "there are points of the series {}, which does not exist",
        "SELECT DISTINCT series FROM ts_hot WHERE series NOT IN (SELECT id FROM ts_series)"
        " UNION SELECT series FROM ts_cold WHERE series NOT IN (SELECT id FROM ts_series)",
    ),
    Rule(
        "the newest point of a series is known",
        "the newest point of series {} is at {}, noted is {}",
        "WITH newest (series, ts) AS (SELECT series, max(ts) FROM ("
        " SELECT series, max(ts) AS ts FROM ts_hot GROUP BY series"
        " UNION ALL SELECT s.id, (SELECT max(c.ts) FROM ts_cold c WHERE c.series = s.id) FROM ts_series s)"
        " WHERE ts IS NOT NULL GROUP BY series)"
        " SELECT n.series, n.ts, l.ts FROM newest n LEFT JOIN ts_latest l ON l.series = n.series WHERE l.ts IS NOT n.ts"
        " UNION ALL SELECT l.series, NULL, l.ts FROM ts_latest l WHERE l.series NOT IN (SELECT series FROM newest)",
    ),
    Rule(
        "tags belong to a series",
        "the tag {} = {} is of series {}, which does not exist or is of another collection",
        "SELECT t.key, t.value, t.series FROM ts_tags t LEFT JOIN ts_series s ON s.id = t.series"
        " WHERE s.collection IS NOT t.collection",
    ),
    Rule(
        "values are of a kind that there is",
        "the point of series {} at {} has a value of no kind",
        " UNION ALL ".join(f"SELECT series, ts FROM {table} WHERE {_MARK_UNKNOWN}" for table in ("ts_hot", "ts_cold")),  # noqa: S608
    ),
    Rule(
        "edges have both ends",
        "the edge from {} to {} ({}) lacks an end",
        "SELECT source, target, type FROM graph_edges"
        " WHERE source NOT IN (SELECT id FROM graph_nodes) OR target NOT IN (SELECT id FROM graph_nodes)",
    ),
    Rule(
        "properties are JSON",
        "the properties of {} {} are no JSON object",
        "SELECT 'node', id FROM graph_nodes WHERE NOT json_valid(properties)"
        " UNION ALL SELECT 'edge', source || ' - ' || target FROM graph_edges WHERE NOT json_valid(properties)",
    ),
    Rule(
        "collections of documents have a table",
        "the collection {} has no table",
        "SELECT name FROM doc_collections"
        " WHERE 'doc_' || id NOT IN (SELECT name FROM sqlite_schema WHERE type = 'table')",
    ),
    Rule(
        "tables of documents have a collection",
        "the table {} belongs to no collection",
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name GLOB 'doc_[0-9]*'"
        " AND name NOT IN (SELECT 'doc_' || id FROM doc_collections)",
    ),
    Rule(
        "indexes of documents exist",
        "the index {} of collection {} does not exist",
        "SELECT i.name, i.collection FROM doc_indexes i"
        " WHERE i.name NOT IN (SELECT name FROM sqlite_schema WHERE type = 'index')",
    ),
    Rule(
        "events in the outbox can be published",
        "the event {} of the outbox has no topic, no type or no JSON object",
        "SELECT sequence FROM outbox WHERE topic = '' OR event_type = '' OR NOT json_valid(CAST(payload AS TEXT))",
    ),
    Rule(
        "sequences of the outbox are not used twice",
        "the event {} of the outbox is behind the last sequence that was given, {}",
        "SELECT o.sequence, s.seq FROM outbox o"
        " LEFT JOIN (SELECT max(seq) AS seq FROM sqlite_sequence WHERE name = 'outbox') s"
        " WHERE o.sequence > ifnull(s.seq, 0) OR o.sequence < 1",
    ),
    *ROLLUP_RULES,
)


def findings(connection: apsw.Connection, on_check: OnCheck | None = None) -> list[str]:
    """What is wrong with the store, an empty list when nothing is. Reads every page; changes nothing.

    First SQLite's own checks (pages, indexes, types, foreign keys); when these find something, the rules of the store
    are not asked, for their answers would come from damaged pages. Raises `apsw.Error` where damage ends the reading,
    `MigrationError` when it is no store of this release or an earlier one.
    """
    say = on_check or _silent
    version = check_schema(connection, known_migrations())
    say("pages and indexes")
    found = [str(one[0]) for one in rows(connection, f"PRAGMA integrity_check({FINDINGS_MAX})") if one[0] != "ok"]
    if found:
        return found
    say("references")
    for table, rowid, parent, _ in rows(connection, "PRAGMA foreign_key_check")[:FINDINGS_MAX]:
        found.append(f"row {rowid} of {table} refers to a row of {parent} that does not exist")
    for rule in (*RULES, *_document_rules(connection)):
        if rule.since > version:
            continue
        say(rule.name)
        broken = rows(connection, f"{rule.sql} LIMIT {FINDINGS_MAX}")
        found += [rule.text.format(*one) for one in broken]
    if not found:
        say("texts")
        _check_texts(connection)
        if version >= ROLLUPS_SINCE:
            found += islice(unreadable_rollups(connection), FINDINGS_MAX)
    return found


def _check_texts(connection: apsw.Connection) -> None:
    """Decode what reads decode. Texts of points are looked for by SQLite, so that numbers cost little."""
    for sql in (
        "SELECT collection, tags FROM ts_series",
        "SELECT key, value FROM ts_tags",
        "SELECT topic, event_type FROM outbox",
        *(f"SELECT {_COLUMNS} FROM {table} WHERE {_HAS_TEXT}" for table in ("ts_hot", "ts_cold")),  # noqa: S608
    ):
        for _ in connection.execute(sql):
            pass
    for sql in (
        "SELECT id, fields FROM ts_shapes",
        "SELECT id, properties FROM graph_nodes",
        "SELECT source || target || type, properties FROM graph_edges",
        *(f"SELECT id, body FROM doc_{number}" for number in _document_tables(connection)),  # noqa: S608
    ):
        for _, text in connection.execute(sql):
            msgspec.json.decode(text)


def _document_tables(connection: apsw.Connection) -> dict[int, str]:
    """Collections that have a table, by their number."""
    tables = {one[0] for one in rows(connection, "SELECT name FROM sqlite_schema WHERE type = 'table'")}
    found = rows(connection, "SELECT id, name FROM doc_collections ORDER BY id")
    return {int(number): name for number, name in found if f"doc_{number}" in tables}


def _document_rules(connection: apsw.Connection) -> Iterator[Rule]:
    """A rule for each collection: its documents are JSON objects and have a version."""
    for number, name in _document_tables(connection).items():
        yield Rule(
            f"documents of {name}",
            f"the document {{}} of {name} is no JSON object, or has no version",
            f"SELECT id FROM doc_{number}"  # noqa: S608 - an integer of our own making
            " WHERE NOT json_valid(body) OR json_type(body) <> 'object' OR version < 1",
        )
        yield Rule(
            f"expiries of {name}",
            f"the document {{}} of {name} has a time to expire but does not exist",
            f"SELECT id FROM doc_expiries WHERE collection = {number} AND id NOT IN (SELECT id FROM doc_{number})",  # noqa: S608
            since=3,
        )


def _silent(_: str) -> None:
    """Nobody wants to know."""
