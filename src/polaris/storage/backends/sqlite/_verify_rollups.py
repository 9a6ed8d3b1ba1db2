"""What has to hold of policies, rollups and summaries of windows."""

from __future__ import annotations

from collections.abc import Iterator

import apsw

from polaris.exceptions import PolarisException
from polaris.storage._rollup_sketches import decode_bins
from polaris.storage._rollups import decode_policy
from polaris.storage.backends.shared._verify_rule import Rule
from polaris.storage.backends.sqlite._errors import FOREIGN
from polaris.storage.backends.sqlite._series import COLUMN_NAMES, COLUMNS
from polaris.storage.backends.sqlite._sql import rows

# ruff: noqa: S608 - statements are made of constants

ROLLUPS_SINCE = 4
"""The version of the schema that brought rollups."""

_TABLES = (("rollup", "ts_rollups"), ("summary", "ts_windows"))
_NUMBER = "IN ('integer', 'real')"
_WINDOW = "p.ts - (p.ts % y.window_us + y.window_us) % y.window_us"
_OF_WINDOWS = "ts_policies y JOIN ts_series s ON s.collection = y.collection"
_IN_ROW = " + ".join(f"(typeof(p.{name}) {_NUMBER})" for name in COLUMN_NAMES)
_VALUE = f"CASE w.place % {COLUMNS} {' '.join(f'WHEN {n} THEN p.{name}' for n, name in enumerate(COLUMN_NAMES))} END"

# A window counts unless something was written to it since: then its span is in `ts_dirty`, and reads take its points.
_DIRTY = "dirty (series, start, until) AS MATERIALIZED (SELECT series, start, until FROM ts_dirty)"
_CLEAN = (
    "LEFT JOIN dirty d ON d.series = w.series AND d.start < w.start + w.width AND d.until > w.start"
    " WHERE d.series IS NULL"
)

_NUMBERS_IN_WINDOWS = (
    f"WITH {_DIRTY}, w (series, start, width, known) AS (SELECT series, start, width, sum(n) FROM ("
    f"SELECT w.series, w.start, y.window_us AS width, w.count AS n FROM {_OF_WINDOWS} JOIN ts_windows w"
    " ON w.series = s.id WHERE y.window_us IS NOT NULL"
    + "".join(
        f" UNION ALL SELECT p.series, {_WINDOW}, y.window_us, -({_IN_ROW}) FROM {table} p CROSS JOIN ts_series s"
        " ON s.id = p.series CROSS JOIN ts_policies y ON y.collection = s.collection WHERE y.window_us IS NOT NULL"
        for table in ("ts_cold", "ts_hot")
    )
    + ") GROUP BY series, start, width HAVING sum(n) <> 0)"
    f" SELECT w.series, w.start, w.known FROM w {_CLEAN}"
)

_POINTS_OF_A_WINDOW = " UNION ALL ".join(
    f"SELECT p.ts AS ts, {_VALUE} AS x FROM {table} p WHERE p.series = w.series AND p.ts >= w.start"
    f" AND p.ts < w.start + w.width AND p.part = w.place / {COLUMNS}"
    for table in ("ts_cold", "ts_hot")
)
_WINDOWS_AND_POINTS = (
    f"WITH {_DIRTY}, w AS (SELECT w.*, y.window_us AS width FROM {_OF_WINDOWS} JOIN ts_windows w ON w.series = s.id"
    f" WHERE y.window_us IS NOT NULL) SELECT w.series, w.place, w.start FROM w {_CLEAN}"
    " AND (SELECT count(*) IS NOT w.count OR min(x) IS NOT w.low OR max(x) IS NOT w.high"
    " OR abs(total(x) - w.total) > 1e-9 * total(max(x, -x))"
    " OR total(ts = w.first_ts AND x IS w.first) <> 1 OR total(ts = w.last_ts AND x IS w.last) <> 1"
    " OR min(ts) IS NOT w.first_ts OR max(ts) IS NOT w.last_ts"
    f" FROM ({_POINTS_OF_A_WINDOW}) WHERE typeof(x) {_NUMBER})"
)


def _contradicts_itself(width: str) -> str:
    """What cannot be said of numbers in a window, however they were."""
    numbers = " OR ".join(f"typeof({name}) NOT {_NUMBER}" for name in ("low", "high", "first", "last"))
    slack = "1e-9 * count * max(abs(low * 1.0), abs(high * 1.0))"
    return (
        f"count < 1 OR {numbers} OR low > high OR first NOT BETWEEN low AND high OR last NOT BETWEEN low AND high"
        f" OR total < low * 1.0 * count - {slack} OR total > high * 1.0 * count + {slack}"
        f" OR first_ts > last_ts OR first_ts < start OR last_ts >= start + {width}"
        " OR (count = 1 AND first_ts < last_ts) OR spread < 0"
    )


ROLLUP_RULES = (
    Rule(
        "policies are what they say",
        "the policy of {} is none, or does not agree with what is noted of it",
        "SELECT collection FROM ts_policies WHERE CASE WHEN NOT json_valid(policy) OR NOT json_valid(widths) THEN TRUE"
        " WHEN json_type(policy, '$[1]') IS NOT 'array' OR json_type(widths) IS NOT 'array' THEN TRUE"
        " ELSE window_us IS NOT (policy ->> '$[1][0][0]') OR EXISTS (SELECT 1 FROM json_each(policy, '$[1]') r"
        " WHERE r.type <> 'array' OR (r.value ->> 0) NOT IN (SELECT value FROM json_each(widths))) END",
        since=ROLLUPS_SINCE,
    ),
    Rule(
        "rollups belong to a series",
        "there is a {} of the series {}, which does not exist",
        " UNION ".join(
            f"SELECT '{name}', series FROM {table} WHERE series NOT IN (SELECT id FROM ts_series)"
            for name, table in (*_TABLES, ("mark", "ts_dirty"))
        ),
        since=ROLLUPS_SINCE,
    ),
    Rule(
        "rollups belong to a field",
        "there is a {} of the field {} of series {}, which does not exist",
        " UNION ".join(
            f"SELECT '{name}', r.place, r.series FROM {table} r JOIN ts_series s ON s.id = r.series"
            " JOIN ts_shapes f ON f.id = s.shape WHERE r.place < 0 OR r.place >="
            " CASE WHEN json_valid(f.fields) THEN json_array_length(f.fields) END"
            for name, table in _TABLES
        ),
        since=ROLLUPS_SINCE,
    ),
    Rule(
        "rollups are of windows of their collection",
        "the rollup of series {} at {} with a width of {} is of no window that its collection has or had",
        "SELECT r.series, r.start, r.width FROM ts_rollups r JOIN ts_series s ON s.id = r.series"
        " LEFT JOIN ts_policies y ON y.collection = s.collection WHERE y.collection IS NULL OR r.width < 1"
        " OR r.start % r.width <> 0 OR (json_valid(y.widths) AND r.width NOT IN (SELECT value FROM json_each("
        "CASE WHEN json_valid(y.widths) THEN y.widths ELSE '[]' END)))",
        since=ROLLUPS_SINCE,
    ),
    Rule(
        "rollups do not contradict themselves",
        "the rollup of field {} of series {} at {} contradicts itself",
        f"SELECT place, series, start FROM ts_rollups WHERE {_contradicts_itself('width')}",
        since=ROLLUPS_SINCE,
    ),
    Rule(
        "summaries do not overlap",
        "the summary of series {} at {} is of no window of its collection",
        f"WITH {_DIRTY}, w AS (SELECT DISTINCT w.series, w.start, ifnull(y.window_us, 1) AS width,"
        " y.collection IS NOT NULL AS is_known FROM ts_windows w JOIN ts_series s ON s.id = w.series"
        " LEFT JOIN ts_policies y ON y.collection = s.collection)"
        f" SELECT w.series, w.start FROM w {_CLEAN} AND (NOT w.is_known OR w.start % w.width <> 0)",
        since=ROLLUPS_SINCE,
    ),
    Rule(
        "summaries know every number",
        "the summaries of series {} in the window at {} are of {} numbers more than there are",
        _NUMBERS_IN_WINDOWS,
        since=ROLLUPS_SINCE,
    ),
    Rule(
        "summaries agree with their points",
        "the summary of series {}, field {}, in the window at {} is not that of its points",
        _WINDOWS_AND_POINTS,
        since=ROLLUPS_SINCE,
    ),
    Rule(
        "marks of what was written to have an end",
        "the mark of series {} at {} ends before it begins",
        "SELECT series, start FROM ts_dirty WHERE until <= start",
        since=ROLLUPS_SINCE,
    ),
)


def unreadable_rollups(connection: apsw.Connection) -> Iterator[str]:
    """What reads could not decode of policies and of sketches, or what a sketch counts that its rollup does not."""
    for collection, text in rows(connection, "SELECT collection, policy FROM ts_policies"):
        try:
            decode_policy(text)
        except (PolarisException, *FOREIGN):
            yield f"the policy of {collection} cannot be read"
    found = connection.execute("SELECT place, series, start, count, sketch FROM ts_rollups")
    for place, series, start, count, sketch in found:
        try:
            bins = decode_bins(sketch)
            known = bins.zeros + sum(bins.positive.values()) + sum(bins.negative.values())
        except (PolarisException, *FOREIGN):
            known = -1
        if known != count:
            yield f"the sketch of field {place} of series {series} at {start} is not that of its rollup"
