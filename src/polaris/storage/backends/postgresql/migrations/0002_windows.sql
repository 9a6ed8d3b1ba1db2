-- Summaries of windows of points that are there (docs/adr/0008-rollups.md). Up to its frontier a collection is summarised:
-- who changes points before it leaves a mark. Who writes points reads this table, in the transaction that writes them, and
-- so holds up who wants to lock it whole: that is how a frontier is raised, and no writer goes by one that is too low.
CREATE TABLE ts_frontiers (
    collection integer PRIMARY KEY,
    window_us bigint NOT NULL,
    frontier_us bigint NOT NULL,
    raised bigint NOT NULL
);

-- Counts how often a frontier was raised. A sequence is read as it is, also by a transaction whose snapshot is older: by
-- comparing both, it knows whether its frontiers are.
CREATE SEQUENCE ts_raises;
SELECT setval('ts_raises', 1);

-- What readers go by: windows that end before `done_us` have summaries, unless they are marked. Who summarises locks the
-- row, so there is one at a time.
CREATE TABLE ts_summaries (
    collection integer PRIMARY KEY,
    window_us bigint NOT NULL,
    frontier_us bigint NOT NULL,
    done_us bigint NOT NULL
);

CREATE TABLE ts_marks (
    id bigint GENERATED ALWAYS AS IDENTITY,
    collection integer NOT NULL,
    series bigint NOT NULL REFERENCES ts_series (id) ON DELETE CASCADE,
    start_us bigint NOT NULL,
    end_us bigint NOT NULL,
    PRIMARY KEY (collection, id)
);
CREATE INDEX ts_marks_series ON ts_marks (series, start_us);

-- The numbers of one slot of a series in one window. A slot is a place among the floats, or minus one among the integers;
-- these are added up exactly. An infinite `size`, which is the sum of what the numbers are without their signs, says that
-- `total` is unknown: the points have to be asked.
CREATE TABLE ts_windows (
    series bigint NOT NULL REFERENCES ts_series (id) ON DELETE CASCADE,
    slot integer NOT NULL,
    start_us bigint NOT NULL,
    count bigint NOT NULL,
    total float8,
    size float8,
    low float8,
    high float8,
    whole numeric,
    least bigint,
    greatest bigint,
    PRIMARY KEY (series, slot, start_us)
);

INSERT INTO ts_frontiers SELECT collection, window_us, -4611686018427387904, 1 FROM ts_policies WHERE window_us > 0;
INSERT INTO ts_summaries
    SELECT collection, window_us, -4611686018427387904, -4611686018427387904 FROM ts_policies WHERE window_us > 0;
