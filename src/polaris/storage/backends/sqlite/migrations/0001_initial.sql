-- Time series. A series is a collection and a set of tags; its shape lists its fields in the order of their columns.
-- A shape only ever grows at its end, so rows written under an earlier shape stay readable.
CREATE TABLE ts_shapes (
    id INTEGER PRIMARY KEY,
    fields TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE ts_series (
    id INTEGER PRIMARY KEY,
    collection TEXT NOT NULL,
    tags TEXT NOT NULL,
    shape INTEGER NOT NULL REFERENCES ts_shapes (id),
    UNIQUE (collection, tags)
) STRICT;

CREATE TABLE ts_tags (
    collection TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    series INTEGER NOT NULL,
    PRIMARY KEY (collection, key, value, series)
) STRICT, WITHOUT ROWID;

-- The newest timestamp of each series: the point itself is found by its key.
CREATE TABLE ts_latest (
    series INTEGER PRIMARY KEY,
    ts INTEGER NOT NULL
) STRICT;

-- The hot table takes the writes in order of time; compaction moves its oldest rows to the cold one, which is clustered
-- by series. A point is in one of the two, never in both. Twelve fields make a row; a point of a wider series has as
-- many rows (parts) as the series has when it is written. NULL: the field is absent; a blob of one byte: null, true, false.
CREATE TABLE ts_hot (
    ts INTEGER NOT NULL, series INTEGER NOT NULL, part INTEGER NOT NULL,
    c0 ANY, c1 ANY, c2 ANY, c3 ANY, c4 ANY, c5 ANY, c6 ANY, c7 ANY, c8 ANY, c9 ANY, c10 ANY, c11 ANY,
    PRIMARY KEY (ts, series, part)
) STRICT, WITHOUT ROWID;

CREATE TABLE ts_cold (
    series INTEGER NOT NULL, ts INTEGER NOT NULL, part INTEGER NOT NULL,
    c0 ANY, c1 ANY, c2 ANY, c3 ANY, c4 ANY, c5 ANY, c6 ANY, c7 ANY, c8 ANY, c9 ANY, c10 ANY, c11 ANY,
    PRIMARY KEY (series, ts, part)
) STRICT, WITHOUT ROWID;

-- Every cold timestamp is before this one.
CREATE TABLE ts_compaction (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    cold_until INTEGER NOT NULL
) STRICT;
INSERT INTO ts_compaction VALUES (1, -9223372036854775808);

-- Documents. Each collection has a table of its own, doc_<id>, so that its expression indexes hold nothing else.
CREATE TABLE doc_collections (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE doc_indexes (
    collection INTEGER NOT NULL REFERENCES doc_collections (id),
    paths TEXT NOT NULL,
    is_unique INTEGER NOT NULL,
    name TEXT NOT NULL UNIQUE,
    PRIMARY KEY (collection, paths)
) STRICT, WITHOUT ROWID;

-- The graph, with its edges in both orders.
CREATE TABLE graph_nodes (
    id TEXT PRIMARY KEY,
    properties TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE graph_edges (
    source TEXT NOT NULL,
    type TEXT NOT NULL,
    target TEXT NOT NULL,
    properties TEXT NOT NULL,
    PRIMARY KEY (source, type, target)
) STRICT, WITHOUT ROWID;
CREATE INDEX graph_edges_in ON graph_edges (target, type, source);

-- Events to be published after their transaction; a sequence is never used twice.
CREATE TABLE outbox (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    topic TEXT NOT NULL,
    event_type TEXT NOT NULL,
    payload BLOB NOT NULL,
    created_us INTEGER NOT NULL
) STRICT;
