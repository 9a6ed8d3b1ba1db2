"""`polaris store` of a store on PostgreSQL: what it tells is of the server, and what is of a file it refuses."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import asyncpg  # type: ignore[import-untyped] # it ships no types
import pytest
from tests.commands import Polaris
from tests.postgres_servers import QUICK, PostgresServer
from tests.store_content import content_of, fill

from polaris.runtime import DataFolder
from polaris.runtime._data_folder import NodeFile
from polaris.storage import PolarisDataStore

pytestmark = pytest.mark.xdist_group("cli")

SCHEMA = "operated"


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server with a filled store."""
    with PostgresServer(15, QUICK) as running:
        asyncio.run(filled(running.dsn))
        yield running


async def filled(dsn: str) -> None:
    async with PolarisDataStore.postgresql(dsn, schema=SCHEMA) as store:
        await fill(store)


@pytest.fixture
def polaris(server: PostgresServer, tmp_path: Path) -> Polaris:
    (tmp_path / "polaris.toml").write_text(
        f'[store]\nengine = "postgresql"\ndsn = "{server.dsn}"\nschema = "{SCHEMA}"\n'
    )
    return Polaris(tmp_path)


def on_server(server: PostgresServer, sql: str, database: str = "postgres") -> None:
    async def run() -> None:
        connection = await asyncpg.connect(server.dsn.rsplit("/", 1)[0] + f"/{database}")
        try:
            await connection.execute(sql)
        finally:
            await connection.close()

    asyncio.run(run())


def test_stats_tell_what_is_on_the_server(polaris: Polaris) -> None:
    ended = polaris("store", "stats")
    assert (ended.code, ended.complaint) == (0, "")
    assert re.fullmatch(rf"PostgreSQL, schema {SCHEMA}  schema version \d+, server 15\..*", ended.lines[0])
    assert re.fullmatch(r"[\d.]+ [KM]iB used", ended.lines[1])
    assert "graph: 5 nodes, 4 edges; outbox: 2 events wait" in ended.output
    rows = {row[0]: row[1:] for row in ended.rows if row}
    assert rows["m"][0] == "6"
    assert rows["d"] == ["19", "2"]
    assert "POINTS" not in ended.output
    counted = polaris("store", "stats", "--count", "--json").json
    assert (counted["engine"], counted["schema"]) == ("postgresql", SCHEMA)
    assert counted["figures"]["bytes_used"] > 100_000
    series = {one["name"]: one for one in counted["figures"]["time_series"]}
    assert (series["m"]["series"], series["m"]["points"]) == (6, 128)
    assert list(polaris.folder.iterdir()) == [polaris.folder / "polaris.toml"]


def test_a_whole_store_is_verified_and_a_broken_one_is_told(polaris: Polaris, server: PostgresServer) -> None:
    ended = polaris("store", "verify")
    assert (ended.code, ended.complaint) == (0, "")
    assert re.fullmatch(rf"PostgreSQL, schema {SCHEMA}: whole, \d\d checks", ended.lines[0])
    whole = polaris("store", "verify", "--json")
    assert whole.json == {"engine": "postgresql", "schema": SCHEMA, "whole": True, "findings": []}
    on_server(server, f"UPDATE {SCHEMA}.ts_latest SET ts = ts + 1 WHERE series = 2")
    try:
        told = polaris("store", "verify")
        asked = polaris("store", "verify", "--json")
    finally:
        on_server(server, f"UPDATE {SCHEMA}.ts_latest SET ts = ts - 1 WHERE series = 2")
    assert (told.code, told.complaint) == (1, "")
    assert told.lines[0] == f"PostgreSQL, schema {SCHEMA}: damaged"
    assert told.lines[1].startswith("  the newest point of series 2 is at")
    assert "pg_amcheck" in told.lines[-1]
    assert (asked.code, asked.json["whole"], len(asked.json["findings"])) == (1, False, 1)


@pytest.mark.parametrize(
    ("arguments", "instead"),
    [
        (["backup", "copy.db"], f"pg_dump --schema={SCHEMA}"),
        (["backup", "."], "pg_dump"),
        (["restore", "none.db"], "pg_restore"),
        (["restore", "none.db", "--force", "--json"], "pg_restore"),
        (["compact"], "VACUUM"),
        (["compact", "--rewrite", "--json"], "VACUUM"),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_what_is_of_a_file_is_refused_with_what_to_use_instead(
    polaris: Polaris, arguments: list[str], instead: str
) -> None:
    ended = polaris("store", *arguments)
    assert (ended.code, ended.output) == (78, "")
    assert ended.complaint.count("\n") == 1
    assert f"polaris store {arguments[0]}: is for a store in a file, this one is on PostgreSQL" in ended.complaint
    assert instead in ended.complaint
    assert list(polaris.folder.iterdir()) == [polaris.folder / "polaris.toml"]


def test_a_backup_of_another_store_can_be_verified_all_the_same(polaris: Polaris) -> None:
    async def make() -> None:
        async with PolarisDataStore.sqlite(polaris.folder / "copy.db"):
            pass

    asyncio.run(make())
    assert polaris("store", "verify", "copy.db", "--json").json["engine"] == "sqlite"


def test_points_and_documents_are_exported_from_the_server(polaris: Polaris) -> None:
    points = polaris("export", "telemetry", "m.jsonl", "--collection", "m", "--json")
    assert (points.code, points.json["rows"]) == (0, 128)
    documents = polaris("export", "documents", "d", "d.jsonl", "--json")
    assert (documents.code, documents.json["rows"]) == (0, 19)


def test_what_is_advised_instead_of_a_backup_brings_everything_back(server: PostgresServer) -> None:
    parts = ("-h", "127.0.0.1", "-p", str(server.port), "-U", "polaris")
    dump = str(server.folder / "dump")
    on_server(server, "CREATE DATABASE restored")
    server.command("pg_dump", *parts, "-d", "postgres", f"--schema={SCHEMA}", "-F", "c", "-f", dump)
    server.command("pg_restore", *parts, "-d", "restored", "--exit-on-error", dump)

    async def compare() -> None:
        copy_dsn = server.dsn.rsplit("/", 1)[0] + "/restored"
        async with (
            PolarisDataStore.postgresql(server.dsn, schema=SCHEMA, read_only=True) as store,
            PolarisDataStore.postgresql(copy_dsn, schema=SCHEMA) as restored,
        ):
            assert await restored.verify() == []
            assert await content_of(restored) == await content_of(store)

    asyncio.run(compare())


def test_without_a_server_or_a_store_on_it_the_codes_say_so(server: PostgresServer, tmp_path: Path) -> None:
    config = tmp_path / "polaris.toml"
    polaris = Polaris(tmp_path)
    for dsn in (server.dsn, "postgresql://polaris:s3cr3t@127.0.0.1:1/none"):
        config.write_text(f'[store]\nengine = "postgresql"\ndsn = "{dsn}"\nschema = "nobody"\n')
        for verb in ("stats", "verify"):
            ended = polaris("store", verb)
            assert (ended.code, ended.output) == (69 if "s3cr3t" in dsn else 1, ""), ended
            assert "s3cr3t" not in ended.complaint
    config.write_text('[store]\nengine = "memory"\n')
    for arguments in (["stats"], ["verify"], ["compact"], ["backup", "copy.db"], ["restore", "copy.db"]):
        ended = polaris("store", *arguments)
        assert (ended.code, ended.output) == (78, "")
        assert "store.engine" in ended.complaint
        assert "memory" in ended.complaint


def test_the_doctor_speaks_of_the_server(polaris: Polaris, server: PostgresServer) -> None:
    def of_the_store() -> dict[str, str]:
        findings = polaris("doctor", "--json").json["findings"]
        (found,) = [finding for finding in findings if "store" in finding["subject"]]
        return dict(found)

    whole = of_the_store()
    assert (whole["subject"], whole["what"]) == ("store on the server", "can be read, 1 systems")
    config = polaris.folder / "polaris.toml"
    config.write_text(config.read_text().replace(f":{server.port}/", ":1/"))
    away = of_the_store()
    assert (away["subject"], away["grade"]) == ("store on the server", "problem")
    assert "polaris store verify, once its server answers" in away["do"]
    assert "restore" not in away["do"]


def test_the_file_beside_a_node_on_a_server_is_not_taken_for_its_store(tmp_path: Path) -> None:
    polaris = Polaris(tmp_path)
    path = tmp_path / "polaris-data" / "polaris.db"
    path.parent.mkdir()

    async def make() -> None:
        async with PolarisDataStore.sqlite(path):
            pass

    asyncio.run(make())
    folder = DataFolder(path.parent)
    folder.acquire()
    try:
        folder.write_node_file(NodeFile(name="web", pid=os.getpid(), version="0", started_at=datetime.now(UTC)))
        for arguments in (["store", "stats"], ["store", "verify"], ["store", "backup", "copy.db"], ["query", "web"]):
            ended = polaris(*arguments)
            assert (ended.code, ended.output) == (69, "")
            assert "the node 'web'" in ended.complaint
            assert "--config" in ended.complaint
    finally:
        folder.release()
    assert polaris("store", "verify").code == 0
