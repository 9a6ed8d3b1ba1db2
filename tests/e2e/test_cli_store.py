"""`polaris store`: figures, compaction, backups and checks, beside a running node and without one."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.commands import ROOT, Polaris
from tests.nodes import a_node
from tests.store_content import fill

from polaris.storage import PolarisDataStore

pytestmark = pytest.mark.xdist_group("cli")

VERBS = ("stats", "compact", "backup", "restore", "verify", "servers", "move", "moves")


@pytest.fixture
def polaris(tmp_path: Path) -> Polaris:
    return Polaris(tmp_path)


@pytest.fixture
def store(polaris: Polaris) -> Path:
    """The filled store of a node that does not run."""
    path = polaris.folder / "polaris-data" / "polaris.db"
    path.parent.mkdir()

    async def make() -> None:
        async with PolarisDataStore.sqlite(path) as made:
            await fill(made)

    asyncio.run(make())
    return path


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[8 * 4096 : 12 * 4096] = os.urandom(4 * 4096)
    path.write_bytes(content)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(polaris: Polaris, verb: str) -> None:
    ended = polaris("store", verb, "--help")
    assert (ended.code, ended.complaint) == (0, "")
    for option in ("--config", "--data-dir", "--json"):
        assert option in ended.output
    assert verb in polaris("store", "--help").output


@pytest.mark.parametrize("arguments", [["stats"], ["compact"], ["backup", "x.db"], ["verify"]])
def test_without_a_store_nothing_is_made(polaris: Polaris, arguments: list[str]) -> None:
    ended = polaris("store", *arguments)
    assert (ended.code, ended.output) == (69, "")
    assert "there is no store at" in ended.complaint
    assert "polaris run" in ended.complaint
    assert list(polaris.folder.iterdir()) == []


def test_stats_tell_what_is_in_the_store(polaris: Polaris, store: Path) -> None:
    ended = polaris("store", "stats")
    assert (ended.code, ended.complaint) == (0, "")
    assert str(store) in ended.lines[0]
    assert "graph: 5 nodes, 4 edges; outbox: 2 events wait" in ended.output
    rows = {row[0]: row[1:] for row in ended.rows if row}
    assert rows["m"][0] == "6"
    assert rows["d"] == ["19", "2"]
    assert "POINTS" not in ended.output
    counted = polaris("store", "stats", "--count", "--json").json
    assert counted["path"] == str(store)
    series = {one["name"]: one for one in counted["figures"]["time_series"]}
    assert (series["m"]["series"], series["m"]["points"]) == (6, 128)


def test_a_backup_is_made_verified_and_put_back(polaris: Polaris, store: Path) -> None:
    ended = polaris("store", "backup", "copy.db")
    assert (ended.code, ended.complaint) == (0, "")
    assert re.fullmatch(r"copy\.db: .*, checked", ended.lines[-1])
    again = polaris("store", "backup", "copy.db")
    assert (again.code, again.output) == (2, "")
    assert "copy.db exists already; --force replaces it" in again.complaint
    made = polaris("store", "backup", "copy.db", "--force", "--json").json["backup"]
    assert made["bytes"] == (polaris.folder / "copy.db").stat().st_size
    assert polaris("store", "verify", "copy.db").code == 0
    refused = polaris("store", "restore", "copy.db")
    assert (refused.code, refused.output) == (2, "")
    assert "--force" in refused.complaint
    store.unlink()
    restored = polaris("store", "restore", "copy.db")
    assert (restored.code, restored.complaint, len(restored.lines)) == (0, "", 1)
    assert polaris("store", "restore", "copy.db", "--force", "--json").json["store"]["path"] == str(store)
    whole = {"engine": "sqlite", "path": str(store), "whole": True, "findings": []}
    assert polaris("store", "verify", "--json").json == whole


def test_a_backup_into_a_folder_is_named_by_the_time(polaris: Polaris, store: Path) -> None:
    (polaris.folder / "all backups").mkdir()
    ended = polaris("store", "backup", "all backups")
    (made,) = (polaris.folder / "all backups").iterdir()
    assert made.name.startswith("polaris-20")
    assert ended.output.startswith(f"all backups/{made.name}: ")


def test_a_damaged_store_is_told_and_not_copied(polaris: Polaris, store: Path) -> None:
    damage(store)
    ended = polaris("store", "verify")
    assert (ended.code, ended.complaint) == (1, "")
    assert "damaged" in ended.lines[0]
    assert "restore BACKUP" in ended.lines[-1]
    told = polaris("store", "verify", "--json")
    assert (told.code, told.json["whole"]) == (1, False)
    assert told.json["findings"]
    refused = polaris("store", "backup", "copy.db")
    assert (refused.code, refused.output) == (1, "")
    assert "damaged" in refused.complaint
    assert sorted(path.name for path in polaris.folder.iterdir()) == ["polaris-data"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["backup"], "DESTINATION"),
        (["backup", "none/copy.db"], "none/copy.db"),
        (["restore", "none.db"], "BACKUP: expected a file that exists"),
        (["restore", "text", "--force"], "not a store"),
        (["verify", "none.db"], "FILE: expected a file that exists"),
        (["frobnicate"], "frobnicate"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    polaris: Polaris, store: Path, arguments: list[str], complaint: str
) -> None:
    (polaris.folder / "text").write_text("certainly no store\n" * 400)
    before = store.read_bytes()
    ended = polaris("store", *arguments)
    assert ended.code in (1, 2, 69)
    assert ended.output == ""
    assert complaint in ended.complaint
    assert store.read_bytes() == before


def test_compaction_gives_room_back(polaris: Polaris, store: Path) -> None:
    async def loosen() -> None:
        async with PolarisDataStore.sqlite(store) as made:
            for n in range(300):
                await made.documents.put_document("big", f"b{n}", {"x": "y" * 8_000})
            for n in range(300):
                await made.documents.delete_document("big", f"b{n}")

    asyncio.run(loosen())
    size = store.stat().st_size
    ended = polaris("store", "compact")
    assert (ended.code, ended.complaint, len(ended.lines)) == (0, "", 2)
    assert "written anew" in ended.output
    assert store.stat().st_size < size / 4
    report = polaris("store", "compact", "--no-rewrite", "--json").json["report"]
    assert report["rewritten"] is False
    assert polaris("store", "verify").code == 0


@pytest.mark.timeout(180)
async def test_beside_a_running_node_it_reads_and_copies_and_refuses_what_would_hurt(tmp_path: Path) -> None:
    async with a_node(tmp_path) as node:
        polaris = Polaris(node.folder)

        def ask(*arguments: str) -> tuple[int, str, str]:
            ended = polaris("store", *arguments)
            return ended.code, ended.output, ended.complaint

        stats = await asyncio.to_thread(ask, "stats")
        assert (stats[0], stats[2]) == (0, "")
        assert (await asyncio.to_thread(ask, "verify"))[0] == 0
        assert (await asyncio.to_thread(ask, "backup", "copy.db"))[0] == 0
        for arguments in (["compact"], ["restore", "copy.db", "--force"]):
            code, output, complaint = await asyncio.to_thread(ask, *arguments)
            assert (code, output) == (78, "")
            assert "runs and owns its store" in complaint
        assert (await asyncio.to_thread(ask, "verify", "copy.db"))[0] == 0
    restored = Polaris(tmp_path)("store", "restore", "copy.db", "--force")
    assert restored.code == 0, restored


def test_long_work_is_told_on_a_terminal_and_nowhere_else(tmp_path: Path) -> None:
    program = (
        "import asyncio, sys\n"
        "from polaris.cli import _waiting\n"
        "_waiting.SILENT_S = float(sys.argv[1])\n"
        "async def work():\n    await asyncio.sleep(1.2)\n    return 'done'\n"
        "print(_waiting.Doing('copying').run(work()))\n"
    )

    def said(silent_s: str) -> str:
        ours, theirs = pty.openpty()
        try:
            ended = subprocess.run(
                [sys.executable, "-c", program, silent_s],
                stdout=subprocess.PIPE,
                stderr=theirs,
                env={**os.environ, "PYTHONPATH": f"{ROOT}/src"},
                check=True,
            )
            assert ended.stdout == b"done\n"
            os.set_blocking(ours, False)
            try:
                return os.read(ours, 10_000).decode()
            except BlockingIOError:
                return ""
        finally:
            os.close(ours)
            os.close(theirs)

    told = said("0.1")
    assert "copying (" in told
    assert told.endswith("\r\x1b[K")
    assert said("5") == ""
