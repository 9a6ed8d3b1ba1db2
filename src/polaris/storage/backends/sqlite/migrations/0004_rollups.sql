-- How long each collection keeps its points, and what is kept of them afterwards. `window_us` is the width of the first
-- rollup, which is also that of the windows below; NULL when the policy has none. `widths` lists those of all rollups
-- that the collection has ever had.
CREATE TABLE ts_policies (
    collection TEXT PRIMARY KEY,
    policy TEXT NOT NULL,
    window_us INTEGER,
    widths TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- What is left of points that are gone: numbers that can be merged, of one field of one series in one window. A point is
-- either in the tables of points or in one of these rows, never in both.
CREATE TABLE ts_rollups (
    series INTEGER NOT NULL, place INTEGER NOT NULL, width INTEGER NOT NULL, start INTEGER NOT NULL,
    count INTEGER NOT NULL, total REAL NOT NULL, low ANY NOT NULL, high ANY NOT NULL,
    first_ts INTEGER NOT NULL, first ANY NOT NULL, last_ts INTEGER NOT NULL, last ANY NOT NULL,
    spread REAL NOT NULL, rise REAL NOT NULL, sketch BLOB NOT NULL,
    PRIMARY KEY (series, place, width, start)
) STRICT, WITHOUT ROWID;

-- The same numbers of points that are there, so that long ranges need not read them. A window counts unless it overlaps
-- one of the spans in `ts_dirty`; those were written to since.
CREATE TABLE ts_windows (
    series INTEGER NOT NULL, place INTEGER NOT NULL, start INTEGER NOT NULL,
    count INTEGER NOT NULL, total REAL NOT NULL, low ANY NOT NULL, high ANY NOT NULL,
    first_ts INTEGER NOT NULL, first ANY NOT NULL, last_ts INTEGER NOT NULL, last ANY NOT NULL,
    spread REAL NOT NULL, rise REAL NOT NULL,
    PRIMARY KEY (series, place, start)
) STRICT, WITHOUT ROWID;

CREATE TABLE ts_dirty (
    start INTEGER NOT NULL,
    series INTEGER NOT NULL,
    until INTEGER NOT NULL,
    PRIMARY KEY (start, series)
) STRICT, WITHOUT ROWID;
