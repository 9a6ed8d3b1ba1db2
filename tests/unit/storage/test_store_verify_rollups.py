"""What is wrong with rollups and summaries is found by the check of that law."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import apsw
import pytest
from tests.sqlite_sessions import compact, new_session, roll_up

from polaris.storage import SqliteEngine
from polaris.storage._points import FieldValue, TimeSeriesPoint
from polaris.storage._ranges import to_micros
from polaris.storage._rollups import RetentionPolicy, RollupPolicy
from polaris.storage._tag_filter import parse_tags
from polaris.storage.backends.sqlite._session import SqliteSession
from polaris.storage.backends.sqlite._sql import scalar
from polaris.storage.backends.sqlite._verify import findings
from polaris.storage.backends.sqlite._verify_rollups import ROLLUP_RULES

T0 = datetime(2030, 1, 1, tzinfo=UTC)
SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
MINUTE_US = 60_000_000
POLICY = RetentionPolicy(20 * MINUTE, (RollupPolicy(MINUTE, 40 * MINUTE), RollupPolicy(5 * MINUTE, None)))
SKETCHES = "the sketch"

BREAKS = [
    ("policies are what they say", "UPDATE ts_policies SET policy = '[' WHERE collection = 'm'"),
    ("policies are what they say", "UPDATE ts_policies SET policy = '{}' WHERE collection = 'm'"),
    ("policies are what they say", "UPDATE ts_policies SET widths = '7' WHERE collection = 'm'"),
    ("policies are what they say", "UPDATE ts_policies SET widths = '[60000000]' WHERE collection = 'm'"),
    ("policies are what they say", "UPDATE ts_policies SET window_us = NULL WHERE collection = 'm'"),
    ("policies are what they say", "UPDATE ts_policies SET window_us = 1 WHERE collection = 'plain'"),
    ("rollups belong to a series", "UPDATE ts_rollups SET series = 4711 WHERE series = 2"),
    ("rollups belong to a series", "UPDATE ts_windows SET series = 4711 WHERE series = 2"),
    ("rollups belong to a series", "INSERT INTO ts_dirty VALUES (0, 4711, 1)"),
    ("rollups belong to a field", "UPDATE ts_rollups SET place = 99 WHERE place = 1"),
    ("rollups belong to a field", "UPDATE ts_windows SET place = -1 WHERE place = 1"),
    ("rollups are of windows of their collection", "UPDATE ts_rollups SET width = 7 WHERE start = {gone}"),
    ("rollups are of windows of their collection", "UPDATE ts_rollups SET start = start + 1 WHERE start = {gone}"),
    ("rollups are of windows of their collection", "UPDATE ts_rollups SET width = 0 WHERE start = {gone}"),
    ("rollups are of windows of their collection", "DELETE FROM ts_policies WHERE collection = 'm'"),
    ("rollups do not contradict themselves", "UPDATE ts_rollups SET count = 0 WHERE start = {gone}"),
    ("rollups do not contradict themselves", "UPDATE ts_rollups SET total = total * 3 WHERE start = {gone}"),
    ("rollups do not contradict themselves", "UPDATE ts_rollups SET low = high + 1 WHERE start = {gone}"),
    ("rollups do not contradict themselves", "UPDATE ts_rollups SET high = 'much' WHERE start = {gone}"),
    ("rollups do not contradict themselves", "UPDATE ts_rollups SET first = high + 1 WHERE start = {gone}"),
    ("rollups do not contradict themselves", "UPDATE ts_rollups SET last = low - 1 WHERE start = {gone}"),
    ("rollups do not contradict themselves", "UPDATE ts_rollups SET first_ts = start - 1 WHERE start = {gone}"),
    ("rollups do not contradict themselves", "UPDATE ts_rollups SET last_ts = start + width WHERE start = {gone}"),
    ("rollups do not contradict themselves", "UPDATE ts_rollups SET spread = -1 WHERE start = {gone}"),
    ("summaries do not overlap", "UPDATE ts_windows SET start = start + 1 WHERE start = {there}"),
    ("summaries do not overlap", "DELETE FROM ts_policies WHERE collection = 'm'"),
    ("summaries know every number", "DELETE FROM ts_windows WHERE start = {there}"),
    ("summaries know every number", "UPDATE ts_windows SET count = count + 1 WHERE start = {there}"),
    ("summaries know every number", "DELETE FROM ts_cold WHERE ts = {there}"),
    ("summaries know every number", "UPDATE ts_cold SET c0 = NULL WHERE ts = {there}"),
    ("summaries know every number", "DELETE FROM ts_dirty"),
    ("summaries agree with their points", "UPDATE ts_windows SET total = total + 0.01 WHERE start = {there}"),
    ("summaries agree with their points", "UPDATE ts_windows SET low = low - 1 WHERE start = {there}"),
    ("summaries agree with their points", "UPDATE ts_windows SET high = high + 1 WHERE start = {there}"),
    ("summaries agree with their points", "UPDATE ts_windows SET first = first + 1 WHERE start = {there}"),
    ("summaries agree with their points", "UPDATE ts_windows SET last_ts = last_ts - 1 WHERE start = {there}"),
    ("summaries agree with their points", "UPDATE ts_cold SET c0 = c0 + 1 WHERE ts = {there}"),
    ("summaries agree with their points", "UPDATE ts_cold SET c1 = c1 + 1 WHERE ts = {there} AND part = 1"),
    ("marks of what was written to have an end", "UPDATE ts_dirty SET until = start"),
    (
        "policy of m cannot be read",
        "UPDATE ts_policies SET policy = '[0,[[60000000,1],[300000000,null]]]' WHERE collection = 'm'",
    ),
    (SKETCHES, "UPDATE ts_rollups SET sketch = x'' WHERE start = {gone}"),
    (SKETCHES, "UPDATE ts_rollups SET sketch = x'0205' WHERE start = {gone}"),
    (SKETCHES, "UPDATE ts_rollups SET sketch = substr(sketch, 1, length(sketch) - 1) WHERE start = {gone}"),
    (SKETCHES, "UPDATE ts_rollups SET sketch = x'01070000' WHERE start = {gone}"),
]
"""The law, and what breaks it: of the window at `gone` a rollup is left, that at `there` has its points."""


@pytest.fixture(scope="module")
def bytes_of_a_store() -> bytes:
    """A store with rollups of two widths, summaries of narrow and wide series, late points, marks."""
    session = new_session()
    series = session.time_series
    series.set_policy("m", POLICY)
    series.set_policy("plain", RetentionPolicy(MINUTE))
    for n in range(180):
        wide: dict[str, FieldValue] = {f"w{place:02}": n + place for place in range(14)}
        at = T0 + n * 20 * SECOND
        series.store_many(
            "m",
            [
                TimeSeriesPoint(at, {"h": "a"}, {"v": n, "x": n / 7, "text": "t", "none": None}),
                TimeSeriesPoint(at + SECOND, {"h": "b"}, {"v": -n, "big": 2**63 - 1, "small": -(2**63)}),
                TimeSeriesPoint(at, {"h": "wide"}, wide),
                TimeSeriesPoint(at + SECOND, {"h": "gone"}, {"v": 1.5}),
            ],
        )
    series.store_many("plain", [TimeSeriesPoint(T0 + n * SECOND, {}, {"v": n}) for n in range(9)])
    compact(session, 800)
    for _ in range(60):
        roll_up(session, 100)
    _retire(session, T0 + 35 * MINUTE)
    series.store_many("m", [TimeSeriesPoint(T0 + n * 90 * SECOND, {"h": "a"}, {"v": 7}) for n in range(30)])
    series.delete_range("m", (to_micros(T0 + 40 * MINUTE), to_micros(T0 + 41 * MINUTE)), parse_tags({"h": "b"}))
    assert series.delete_series("m", parse_tags({"h": "gone"}), 10_000) == (1, True)
    for table in ("ts_rollups", "ts_windows", "ts_dirty", "ts_cold", "ts_hot"):
        assert scalar(session.connection, f"SELECT count(*) FROM {table}") > 5, table
    assert scalar(session.connection, "SELECT count(DISTINCT width) FROM ts_rollups") == 2
    return bytes(session.connection.serialize("main"))


def _retire(session: SqliteSession, until: datetime) -> None:
    since_us = to_micros(until)
    while session.time_series.retain("m", since_us, 50):
        pass
    while session.time_series.thin("m", since_us - 20 * MINUTE_US, 5 * MINUTE_US, 50):
        pass


def checked(path: Path, content: bytes, sql: str = "") -> tuple[list[str], dict[str, list[str]]]:
    """What is found after a change, and by which rule of rollups."""
    path.write_bytes(content)
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA ignore_check_constraints = on")
    places = {"gone": to_micros(T0 + 20 * MINUTE), "there": to_micros(T0 + 36 * MINUTE)}
    for name, start in places.items():
        sql = sql.replace(f"{{{name}}}", str(start))
    connection.execute(sql)
    assert not sql or connection.total_changes(), "it changes nothing"
    found = findings(connection)
    by_rule = {
        rule.name: [rule.text.format(*one) for one in connection.execute(rule.sql).fetchall()] for rule in ROLLUP_RULES
    }
    connection.close()
    return found, {name: texts for name, texts in by_rule.items() if texts}


def test_sound_rollups_have_nothing_wrong(bytes_of_a_store: bytes, tmp_path: Path) -> None:
    assert checked(tmp_path / "store.db", bytes_of_a_store) == ([], {})


def test_every_law_of_rollups_has_a_break() -> None:
    assert {rule.name for rule in ROLLUP_RULES} <= {name for name, _ in BREAKS}


@pytest.mark.parametrize(("law", "sql"), BREAKS)
def test_what_breaks_a_law_of_rollups_is_found(law: str, sql: str, bytes_of_a_store: bytes, tmp_path: Path) -> None:
    found, by_rule = checked(tmp_path / "store.db", bytes_of_a_store, sql)
    assert found
    if law in {rule.name for rule in ROLLUP_RULES}:
        assert set(by_rule[law]) & set(found)
    else:
        assert by_rule == {}
        assert law in found[0]


async def test_the_check_of_a_store_tells_of_rollups_that_are_wrong(bytes_of_a_store: bytes, tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    checked(path, bytes_of_a_store, "UPDATE ts_rollups SET count = 0 WHERE start = {gone} AND place = 0")
    async with SqliteEngine(path, read_only=True) as engine:
        found = await engine.verify()
        assert found[0].endswith("contradicts itself")
        assert (await engine.health()).status == "unhealthy"
