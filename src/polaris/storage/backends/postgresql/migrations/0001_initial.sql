-- Time series. Each collection has a table ts_<id>, partitioned by time; its partitions are listed here, because a row
-- must find its own, and who drops one must know what is in it. Times are microseconds since 1970.
CREATE TABLE ts_collections (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text COLLATE "C" NOT NULL UNIQUE,
    partition_us bigint NOT NULL
);

CREATE TABLE ts_partitions (
    collection integer NOT NULL REFERENCES ts_collections (id),
    start_us bigint NOT NULL,
    end_us bigint NOT NULL,
    PRIMARY KEY (collection, start_us)
);

-- What is made apart from transactions (collections, partitions) is not referenced by what is made in them: a transaction
-- that began before would not find it.
--
-- A series is a collection and a set of tags; its shape lists fields with their kinds: "f" has the next place among the
-- floats of a row, "i" among its integers, "x" is a key of its JSON. A shape only grows at its end, so rows written
-- under an earlier one stay readable.
CREATE TABLE ts_shapes (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    fields text COLLATE "C" NOT NULL,
    digest bytea NOT NULL UNIQUE
);

CREATE TABLE ts_series (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    collection integer NOT NULL,
    tags text COLLATE "C" NOT NULL,
    digest bytea NOT NULL,
    shape integer NOT NULL REFERENCES ts_shapes (id),
    UNIQUE (collection, digest)
);

CREATE TABLE ts_tags (
    collection integer NOT NULL,
    key text COLLATE "C" NOT NULL,
    value text COLLATE "C" NOT NULL,
    series bigint NOT NULL,
    PRIMARY KEY (collection, key, value, series)
);

-- The newest timestamp of each series; the point itself is found by its key. Whoever writes points of a series writes
-- here too, so the reference keeps points from being written to a series that is gone.
CREATE TABLE ts_latest (
    series bigint PRIMARY KEY REFERENCES ts_series (id) ON DELETE CASCADE,
    ts bigint NOT NULL
) WITH (fillfactor = 70);

-- How long each collection keeps its points, and what is kept of them afterwards.
CREATE TABLE ts_policies (
    collection integer PRIMARY KEY,
    policy text COLLATE "C" NOT NULL,
    window_us bigint
);

-- What is left of points that are gone: numbers that can be merged, of one field of one series in one window. A point is
-- either in the tables of points or in one of these rows, never in both.
CREATE TABLE ts_rollups (
    series bigint NOT NULL REFERENCES ts_series (id) ON DELETE CASCADE,
    width_us bigint NOT NULL,
    start_us bigint NOT NULL,
    field text COLLATE "C" NOT NULL,
    summary bytea NOT NULL,
    PRIMARY KEY (series, width_us, start_us, field)
);

-- Documents. Each collection has a table doc_<id>.
CREATE TABLE doc_collections (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text COLLATE "C" NOT NULL UNIQUE
);

CREATE TABLE doc_indexes (
    collection integer NOT NULL,
    paths text COLLATE "C" NOT NULL,
    is_unique boolean NOT NULL,
    name text COLLATE "C" NOT NULL UNIQUE,
    PRIMARY KEY (collection, paths)
);

-- A number of JSON as PostgreSQL's exact one. Whole numbers that were written as floats are the nearest double, which
-- their shortest text is not beyond 2^53; there it has to be what an integer of 64 bits can equal.
CREATE FUNCTION exact(number text) RETURNS numeric LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN number !~ '[.eE]' THEN number::numeric
    WHEN abs(number::float8) >= 9007199254740992
        AND number::float8 >= -9223372036854775808 AND number::float8 < 9223372036854775808
        THEN number::float8::int8::numeric
    ELSE number::numeric
END;

-- A value's place in the order of all values: null and missing have neither text nor number; numbers and booleans have
-- a number; strings, arrays and objects have a text.
CREATE FUNCTION text_of(value json) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN json_typeof(value) IN ('string', 'array', 'object') THEN value #>> '{}' END;

CREATE FUNCTION number_of(value json) RETURNS numeric LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE json_typeof(value)
    WHEN 'number' THEN exact(value #>> '{}')
    WHEN 'boolean' THEN CASE value #>> '{}' WHEN 'true' THEN 1 ELSE 0 END
END;

-- What two values share exactly when they are equal; NULL for null and missing.
CREATE FUNCTION identity_of(value json) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN json_typeof(value) IN ('string', 'array', 'object') THEN 't' || (value #>> '{}')
    ELSE 'n' || trim_scale(number_of(value))::text
END;

-- A digest of a text. The text is in the encoding of the database, which is always UTF8, so it never changes.
CREATE FUNCTION digest_of(value text) RETURNS bytea LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN sha256(convert_to(value, 'UTF8'));

-- The graph, with its edges in both orders.
CREATE TABLE graph_nodes (
    id text COLLATE "C" PRIMARY KEY,
    properties json NOT NULL,
    exact text
);

-- A key holds a digest of the type: two ids and a type may be longer than what an index takes.
CREATE TABLE graph_edges (
    source text COLLATE "C" NOT NULL REFERENCES graph_nodes (id) ON DELETE CASCADE,
    target text COLLATE "C" NOT NULL REFERENCES graph_nodes (id) ON DELETE CASCADE,
    type text COLLATE "C" NOT NULL,
    type_key uuid NOT NULL,
    properties json NOT NULL,
    exact text,
    PRIMARY KEY (source, type_key, target)
);
CREATE INDEX graph_edges_in ON graph_edges (target, type_key, source);

-- Events to be published after their transaction; a sequence is never used twice.
CREATE TABLE outbox (
    sequence bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic text COLLATE "C" NOT NULL,
    event_type text COLLATE "C" NOT NULL,
    version integer NOT NULL,
    payload bytea NOT NULL,
    created_us bigint NOT NULL
);
