"""A whole store is found whole, and each law of it that is broken is found by the check of that law."""

from __future__ import annotations

import asyncio
from pathlib import Path

import apsw
import pytest
from tests.store_content import SMALL, fill

from polaris.storage import PolarisDataStore, SqliteEngine
from polaris.storage.backends.sqlite._verify import RULES, findings

BREAKS = [
    ("points are in one table", "INSERT INTO ts_hot SELECT ts, series, part, {c} FROM ts_cold LIMIT 1"),
    ("points are in one table", "INSERT INTO ts_cold SELECT series, ts, part, {c} FROM ts_hot LIMIT 1"),
    ("cold points are before the bound of the compaction", "UPDATE ts_compaction SET cold_until = 0"),
    ("points belong to a series", "UPDATE ts_hot SET series = 4711 WHERE ts = (SELECT min(ts) FROM ts_hot)"),
    ("points belong to a series", "UPDATE ts_cold SET series = 4711 WHERE ts = (SELECT min(ts) FROM ts_cold)"),
    ("values are of a kind that there is", "UPDATE ts_hot SET c0 = x'6f' WHERE ts = (SELECT max(ts) FROM ts_hot)"),
    ("values are of a kind that there is", "UPDATE ts_cold SET c11 = x'' WHERE ts = (SELECT max(ts) FROM ts_cold)"),
    ("the newest point of a series is known", "UPDATE ts_latest SET ts = ts + 1 WHERE series = 2"),
    ("the newest point of a series is known", "UPDATE ts_latest SET ts = ts - 1 WHERE series = 2"),
    ("the newest point of a series is known", "DELETE FROM ts_latest WHERE series = 2"),
    ("the newest point of a series is known", "INSERT INTO ts_latest VALUES (4711, 0)"),
    ("tags belong to a series", "UPDATE ts_tags SET series = 4711 WHERE series = 2"),
    ("tags belong to a series", "UPDATE ts_tags SET collection = 'x' WHERE series = 2"),
    ("edges have both ends", "DELETE FROM graph_nodes WHERE id = 'a'"),
    ("properties are JSON", "UPDATE graph_nodes SET properties = '{{' WHERE id = 'a'"),
    ("properties are JSON", "UPDATE graph_edges SET properties = '' WHERE target = 'a'"),
    ("collections of documents have a table", "INSERT INTO doc_collections VALUES (4711, 'lost')"),
    ("tables of documents have a collection", "CREATE TABLE doc_4711 (id)"),
    ("indexes of documents exist", "UPDATE doc_indexes SET name = name || 'x' WHERE is_unique"),
    ("documents of d", "UPDATE doc_{d} SET body = '[1]' WHERE id = 'd1'"),
    ("documents of d", "UPDATE doc_{d} SET body = 'null' WHERE id = 'd1'"),
    ("documents of d", "UPDATE doc_{d} SET version = 0 WHERE id = 'd1'"),
    ("expiries of d", "INSERT INTO doc_expiries VALUES ({d}, 'nobody', 0)"),
    ("events in the outbox can be published", "UPDATE outbox SET topic = '' WHERE sequence = 2"),
    ("events in the outbox can be published", "UPDATE outbox SET payload = x'00' WHERE sequence = 2"),
    ("sequences of the outbox are not used twice", "UPDATE sqlite_sequence SET seq = 1 WHERE name = 'outbox'"),
    ("references", "UPDATE ts_series SET shape = 4711 WHERE id = 2"),
    ("pages and indexes", "PRAGMA writable_schema = on; UPDATE sqlite_schema SET rootpage = 3 WHERE name = 'outbox'"),
]


@pytest.fixture(scope="module")
def bytes_of_a_store(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A closed store with content of all models."""
    path = tmp_path_factory.mktemp("whole") / "store.db"

    async def make() -> None:
        async with PolarisDataStore.sqlite(path, **SMALL) as store:
            await fill(store)

    asyncio.run(make())
    return path.read_bytes()


def checked(path: Path) -> tuple[list[str], dict[str, list[str]]]:
    """What was found, and by which check."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    begun: list[str] = []
    try:
        found = findings(connection, begun.append)
        # Each rule by itself tells who found it.
        by_rule = {
            rule.name: [rule.text.format(*one) for one in connection.execute(rule.sql).fetchall()] for rule in RULES
        }
    finally:
        connection.close()
    assert begun[0] == "pages and indexes"
    return found, {name: texts for name, texts in by_rule.items() if texts}


def test_a_whole_store_has_nothing_wrong(bytes_of_a_store: bytes, tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.write_bytes(bytes_of_a_store)
    assert checked(path) == ([], {})


def test_every_law_has_a_break() -> None:
    assert {rule.name for rule in RULES if rule.since == 1} <= {name for name, _ in BREAKS}


@pytest.mark.parametrize(("law", "sql"), BREAKS, ids=[f"{n}" for n, _ in enumerate(BREAKS)])
def test_a_broken_law_is_found_by_its_own_check(law: str, sql: str, bytes_of_a_store: bytes, tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.write_bytes(bytes_of_a_store)
    connection = apsw.Connection(str(path))
    number = connection.execute("SELECT id FROM doc_collections WHERE name = 'd'").fetchone()
    columns = ", ".join(f"c{n}" for n in range(12))
    connection.execute(sql.format(c=columns, d=number[0] if number else 0))
    connection.close()
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    begun: list[str] = []
    found = findings(connection, begun.append)
    assert found
    connection.close()
    names = {rule.name for rule in RULES}
    if law in names:
        _, by_rule = checked(path)
        assert law in by_rule
        assert set(by_rule[law]) & set(found)
    elif law.startswith("expiries of"):
        assert "does not exist" in found[0]
    elif law.startswith("documents of"):
        assert "no JSON object" in found[0]
    else:
        assert law in begun
        assert ("refers to a row of" in found[0]) == (law == "references")


async def test_verify_tells_what_it_checks_and_changes_nothing(bytes_of_a_store: bytes, tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.write_bytes(bytes_of_a_store)
    begun: list[str] = []
    engine = SqliteEngine(path, read_only=True)
    async with engine:
        assert await engine.verify(begun.append) == []
    assert path.read_bytes() == bytes_of_a_store
    assert {"pages and indexes", "references", *(rule.name for rule in RULES), "documents of d"} <= set(begun)
