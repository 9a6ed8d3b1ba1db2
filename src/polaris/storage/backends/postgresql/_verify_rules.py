"""What has to hold between the tables of a store on a server, as far as one statement can tell."""

# ruff: noqa: S608 - statements are made of constants and names of own tables

from __future__ import annotations

from polaris.storage.backends.postgresql._catalog import Partitions
from polaris.storage.backends.shared._verify_rule import FINDINGS_MAX, Rule

# What is missing is asked for by NOT EXISTS: from some hundred thousand rows on, NOT IN compares each with each.
_OWN = "c.relnamespace = current_schema()::regnamespace"
_NAMED = "'ts_' || p.collection || CASE WHEN p.start_us < 0 THEN '_m' ELSE '_p' END || abs(p.start_us)"
# Of a partition that was dropped since the snapshot the server still has the bounds, but no name: it is given none.
_BOUNDS = "pg_get_expr(c.relpartbound, 0)"
# A text of tags ends with the mark, so its last part is empty.
_TAGS_OF_SERIES = (
    "SELECT s.id AS series, s.collection, told.parts[n] AS key, told.parts[n + 1] AS value FROM ts_series s"
    " CROSS JOIN LATERAL (SELECT string_to_array(s.tags, chr(1)) AS parts) AS told"
    " CROSS JOIN LATERAL generate_series(1, cardinality(told.parts) - 1, 2) AS n"
)

SERIES_RULES = (
    Rule(
        "collections of points have a table",
        "the collection {} of points has no table",
        "SELECT t.name FROM ts_collections t WHERE NOT EXISTS"
        f" (SELECT FROM pg_class c WHERE {_OWN} AND c.relkind = 'p' AND c.relname = 'ts_' || t.id)",
    ),
    Rule(
        "tables of points have a collection",
        "the table {} belongs to no collection",
        f"SELECT c.relname FROM pg_class c WHERE {_OWN} AND c.relkind = 'p' AND c.relname ~ '^ts_[0-9]+$'"
        " AND NOT EXISTS (SELECT FROM ts_collections t WHERE 'ts_' || t.id = c.relname::text)",
    ),
    Rule(
        "partitions are those that are noted",
        "the partition {} of {} is not there with the times that are noted, or is not noted",
        f"WITH noted AS (SELECT {_NAMED} AS name, 'ts_' || p.collection AS home, 'FOR VALUES FROM (''' || p.start_us"
        " || ''') TO (''' || p.end_us || ''')' AS bounds FROM ts_partitions p),"
        " there AS (SELECT c.relname::text AS name, h.relname::text AS home,"
        f" {_BOUNDS} AS bounds FROM pg_class h JOIN pg_inherits i ON i.inhparent = h.oid"
        " JOIN pg_class c ON c.oid = i.inhrelid"
        f" WHERE {_OWN} AND h.relkind = 'p' AND h.relname ~ '^ts_[0-9]+$')"
        " SELECT coalesce(n.name, t.name), coalesce(n.home, t.home) FROM noted n"
        " FULL JOIN there t ON t.name = n.name AND t.home = n.home WHERE n.bounds IS DISTINCT FROM t.bounds",
    ),
    Rule(
        "series belong to a collection",
        "the series {} is of the collection {}, which does not exist",
        "SELECT s.id, s.collection FROM ts_series s WHERE NOT EXISTS"
        " (SELECT FROM ts_collections c WHERE c.id = s.collection)",
    ),
    Rule(
        "series have a shape",
        "the series {} has the shape {}, which does not exist",
        "SELECT s.id, s.shape FROM ts_series s WHERE NOT EXISTS (SELECT FROM ts_shapes h WHERE h.id = s.shape)",
    ),
    Rule(
        "series are found by their tags",
        "the tag {} = {} is not noted of the series {} alike in both places",
        f"WITH told AS ({_TAGS_OF_SERIES}) SELECT coalesce(o.key, t.key), coalesce(o.value, t.value),"
        " coalesce(o.series, t.series) FROM told o FULL JOIN ts_tags t ON t.collection = o.collection"
        " AND t.key = o.key AND t.value = o.value AND t.series = o.series WHERE o.series IS NULL OR t.series IS NULL",
    ),
    Rule(
        "newest points are of a series",
        "the newest point of series {} is noted, which does not exist",
        "SELECT l.series FROM ts_latest l WHERE NOT EXISTS (SELECT FROM ts_series s WHERE s.id = l.series)",
    ),
    Rule(
        "policies are of a collection",
        "there is a {} of the collection {}, which does not exist",
        " UNION ALL ".join(
            f"SELECT '{name}', p.collection FROM {table} p WHERE NOT EXISTS"
            " (SELECT FROM ts_collections c WHERE c.id = p.collection)"
            for name, table in (("policy", "ts_policies"), ("frontier", "ts_frontiers"), ("summary", "ts_summaries"))
        ),
    ),
    Rule(
        "summaries are those that policies ask for",
        "what is noted of the summaries of the collection {} does not agree with its policy",
        "SELECT coalesce(p.collection, s.collection) FROM (SELECT * FROM ts_policies WHERE window_us IS NOT NULL) AS p"
        " FULL JOIN ts_summaries s ON s.collection = p.collection WHERE p.window_us IS DISTINCT FROM s.window_us"
        " OR s.window_us < 1",
    ),
    Rule(
        "readers and writers know one frontier",
        "the frontier of the summaries of the collection {} is not that of its writers, or before what is done",
        "SELECT s.collection FROM ts_summaries s LEFT JOIN ts_frontiers f ON f.collection = s.collection"
        " WHERE f.window_us IS DISTINCT FROM s.window_us OR f.frontier_us IS DISTINCT FROM s.frontier_us"
        " OR s.done_us > s.frontier_us OR f.raised > (SELECT last_value FROM ts_raises)",
    ),
    Rule(
        "marks of what was written to have a series and an end",
        "the mark of series {} at {} is of no series of its collection, or ends before it begins",
        "SELECT m.series, m.start_us FROM ts_marks m LEFT JOIN ts_series s ON s.id = m.series"
        " WHERE s.collection IS DISTINCT FROM m.collection OR m.end_us <= m.start_us",
    ),
    Rule(
        "rollups are of windows of a series",
        "the rollup of series {} at {} with a width of {} is of no window or no series",
        "SELECT r.series, r.start_us, r.width_us FROM ts_rollups r WHERE CASE WHEN r.width_us < 1 THEN TRUE"
        " ELSE r.start_us % r.width_us <> 0 END OR NOT EXISTS (SELECT FROM ts_series s WHERE s.id = r.series)",
    ),
    Rule(
        "summaries are of windows that are done",
        "the summary of series {}, slot {}, at {} is of no series or of no window that is done",
        "SELECT w.series, w.slot, w.start_us FROM ts_windows w LEFT JOIN ts_series s ON s.id = w.series"
        " LEFT JOIN ts_summaries d ON d.collection = s.collection WHERE d.window_us IS NULL"
        " OR w.start_us % greatest(d.window_us, 1) <> 0 OR w.start_us + d.window_us > d.done_us OR w.count < 1",
    ),
)

DOCUMENT_RULES = (
    Rule(
        "collections of documents have a table",
        "the collection {} of documents has no table",
        "SELECT d.name FROM doc_collections d WHERE NOT EXISTS"
        f" (SELECT FROM pg_class c WHERE {_OWN} AND c.relkind = 'r' AND c.relname = 'doc_' || d.id)",
    ),
    Rule(
        "tables of documents have a collection",
        "the table {} belongs to no collection",
        f"SELECT c.relname FROM pg_class c WHERE {_OWN} AND c.relkind = 'r' AND c.relname ~ '^doc_[0-9]+$'"
        " AND NOT EXISTS (SELECT FROM doc_collections d WHERE 'doc_' || d.id = c.relname::text)",
    ),
    Rule(
        "indexes of documents exist",
        "the index {} of the collection {} does not exist, or is not to be used",
        "SELECT n.name, i.collection FROM doc_indexes i CROSS JOIN LATERAL (SELECT i.name"
        " UNION ALL SELECT i.name || '_u' WHERE i.is_unique) AS n (name) WHERE NOT EXISTS"
        " (SELECT FROM pg_class c JOIN pg_index x ON x.indexrelid = c.oid JOIN pg_class h ON h.oid = x.indrelid"
        f" WHERE {_OWN} AND c.relname = n.name AND h.relname = 'doc_' || i.collection AND x.indisvalid"
        " AND (x.indisunique OR n.name = i.name))",
    ),
)

GRAPH_RULES = (
    Rule(
        "edges have both ends",
        "the edge from {} to {} ({}) lacks an end",
        "SELECT e.source, e.target, e.type FROM graph_edges e"
        " WHERE NOT EXISTS (SELECT FROM graph_nodes n WHERE n.id = e.source)"
        " OR NOT EXISTS (SELECT FROM graph_nodes n WHERE n.id = e.target)",
    ),
)

OUTBOX_RULES = (
    Rule(
        "sequences of the outbox are not used twice",
        "the event {} of the outbox is behind the last sequence that was given",
        "SELECT o.sequence FROM outbox o WHERE o.sequence < 1 OR o.sequence >"
        " (SELECT CASE WHEN s.is_called THEN s.last_value ELSE 0 END FROM outbox_sequence_seq s)",
    ),
)


def rules_of_points(home: Partitions, name: str) -> tuple[Rule, ...]:
    """What has to hold of the points of one collection beside what is in them."""
    return (
        Rule(
            f"points of {name} belong to a series",
            "there are points of the series {}, which does not exist in their collection",
            f"SELECT DISTINCT p.series FROM {home.table} p WHERE NOT EXISTS"
            f" (SELECT FROM ts_series s WHERE s.id = p.series AND s.collection = {int(home.number)})",
        ),
        Rule(
            f"the newest point of each series of {name} is known",
            "the newest point of series {} is at {}, noted is {}",
            "SELECT s.id, n.ts, l.ts FROM ts_series s LEFT JOIN ts_latest l ON l.series = s.id LEFT JOIN LATERAL"
            f" (SELECT p.ts FROM {home.table} p WHERE p.series = s.id ORDER BY p.ts DESC LIMIT 1) AS n ON TRUE"
            f" WHERE s.collection = {int(home.number)} AND l.ts IS DISTINCT FROM n.ts",
        ),
    )


def limited(rule: Rule) -> str:
    """The statement of a rule, for as many findings as are told."""
    return f"{rule.sql} LIMIT {FINDINGS_MAX}"
