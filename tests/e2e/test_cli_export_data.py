"""`polaris export telemetry | documents`: stored data as files."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import duckdb
import pytest
from tests.commands import Polaris
from tests.store_content import fill

from polaris.storage import PolarisDataStore

pytestmark = pytest.mark.xdist_group("cli")


@pytest.fixture(scope="module")
def polaris(tmp_path_factory: pytest.TempPathFactory) -> Polaris:
    """The command line in the folder of a node that does not run, with a filled store."""
    folder = tmp_path_factory.mktemp("export")
    path = folder / "polaris-data" / "polaris.db"
    path.parent.mkdir()

    async def make() -> None:
        async with PolarisDataStore.sqlite(path) as made:
            await fill(made)

    asyncio.run(make())
    return Polaris(folder)


def test_telemetry_becomes_a_file_by_its_ending_with_a_column_for_each_metric(polaris: Polaris) -> None:
    ended = polaris("export", "telemetry", "all.parquet")
    assert (ended.code, ended.complaint) == (0, "")
    assert ended.lines[0].startswith("all.parquet: 5 rows, ")
    assert len(ended.lines) == 1
    with duckdb.connect() as connection:
        found = connection.execute(f"SELECT * FROM '{polaris.folder}/all.parquet' ORDER BY timestamp")
        columns = [column[0] for column in found.description or ()]
        rows = [dict(zip(columns, row, strict=True)) for row in found.fetchall()]
    assert columns == ["timestamp", "system_id", "@health", "cpu.utilization", "requests", "temperature", "version"]
    assert [row["requests"] for row in rows] == [0, 1, 2, 3, 4]
    assert {row["system_id"] for row in rows} == {"web"}


def test_options_choose_systems_metrics_times_and_the_format(polaris: Polaris) -> None:
    ended = polaris(
        "export", "telemetry", "some.txt", "--format", "csv", "--system", "web", "--metric", "requests",
        "--start", "2030-01-01T00:00:01Z", "--end", "2030-01-01T00:00:03Z", "--json",
    )  # fmt: skip
    assert (ended.code, ended.complaint) == (0, "")
    assert ended.json["rows"] == 2
    assert ended.json["columns"] == ["timestamp", "system_id", "requests"]
    assert len((polaris.folder / "some.txt").read_text().splitlines()) == 3
    other = polaris("export", "telemetry", "m.jsonl", "--collection", "m")
    assert other.code == 0
    assert len((polaris.folder / "m.jsonl").read_text().splitlines()) == 128


def test_documents_become_json_lines(polaris: Polaris) -> None:
    ended = polaris("export", "documents", "d", "d.jsonl", "--query", '{"n": {"$gte": 15}}')
    assert (ended.code, ended.complaint) == (0, "")
    lines = [json.loads(line) for line in (polaris.folder / "d.jsonl").read_text().splitlines()]
    assert [line["_id"] for line in lines] == ["d15", "d16", "d17", "d18", "d19"]


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["telemetry", "x.parquet", "--system", "nobody"], 4, "no points fit"),
        (["documents", "nothing", "x.parquet"], 4, "no documents fit"),
        (["telemetry", "x.unknown"], 2, "--format"),
        (["telemetry", "x.csv", "--last", "7d", "--start", "2030-01-01T00:00:01Z"], 2, "--start"),
        (["telemetry", "none/x.csv"], 69, "none/x.csv"),
        (["documents", "d", "x.jsonl", "--query", "[1]"], 2, "--query"),
        (["documents", "d", "x.jsonl", "--query", '{"n": {"$frob": 1}}'], 1, "$frob"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    polaris: Polaris, arguments: list[str], code: int, complaint: str
) -> None:
    ended = polaris("export", *arguments)
    assert (ended.code, ended.output) == (code, "")
    assert complaint in ended.complaint
    (polaris.folder / "x.parquet").unlink(missing_ok=True)
    assert not [path for path in polaris.folder.iterdir() if path.name.startswith("x.")]


def test_a_file_that_exists_is_kept_unless_force_is_given(polaris: Polaris) -> None:
    path: Path = polaris.folder / "kept.jsonl"
    path.write_text("precious")
    ended = polaris("export", "telemetry", "kept.jsonl")
    assert (ended.code, ended.output) == (2, "")
    assert path.read_text() == "precious"
    assert polaris("export", "telemetry", "kept.jsonl", "--force").code == 0
