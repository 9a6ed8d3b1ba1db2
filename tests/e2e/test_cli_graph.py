"""`polaris graph services` as people and scripts use it: the wiring of the node as configured, and no node."""

from __future__ import annotations

import asyncio
import re
import socket
from pathlib import Path

import pytest
from tests.commands import Ended, Polaris

from polaris.domain import SystemDependency
from polaris.storage import PolarisDataStore


@pytest.fixture
def polaris(tmp_path: Path) -> Polaris:
    return Polaris(tmp_path)


def drawn_needs(ended: Ended) -> dict[str, set[str]]:
    """What the flowchart says that each service needs."""
    names = dict(re.findall(r'^    (s\d+)\["(\w+)(?:<br/>\w+)?"\]$', ended.output, re.MULTILINE))
    needs: dict[str, set[str]] = {name: set() for name in names.values()}
    for one, other in re.findall(r"^    (s\d+) --> (s\d+)$", ended.output, re.MULTILINE):
        needs[names[one]].add(names[other])
    boxes_and_arrows = len(names) + len(re.findall(" --> ", ended.output))
    assert ended.lines[0] == "flowchart LR"
    assert len(ended.lines) == 1 + boxes_and_arrows, "a line that is neither a service nor a dependency"
    return needs


def test_the_flowchart_and_the_json_tell_the_same_of_the_main_services(polaris: Polaris) -> None:
    drawn, told = polaris("graph", "services"), polaris("graph", "services", "--json")
    assert (drawn.code, drawn.complaint, told.code, told.complaint) == (0, "", 0, "")
    services = told.json["services"]
    assert {tuple(one) for one in services} == {("name", "key", "lifetime", "provider", "needs")}
    needs = {one["name"]: set(one["needs"]) for one in services}
    assert drawn_needs(drawn) == needs
    assert needs["TelemetryIngest"] >= {"PolarisMessageBus", "PolarisDataStore"}
    assert needs["ActionService"] >= {"PolarisMessageBus", "ActionLedger", "Connections"}
    assert needs["MessageBroker"] >= {"BusHost"}
    assert "HttpServer" in needs
    assert {one["lifetime"] for one in services} == {"singleton"}
    assert list(polaris.folder.iterdir()) == [], "a picture needs no file"


def test_the_drawing_follows_the_configuration_and_touches_neither_ports_nor_servers(polaris: Polaris) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        configuration = f'[nats]\nservers = ["nats://127.0.0.1:1"]\n[http]\nport = {port}\n'
        (polaris.folder / "polaris.toml").write_text(configuration)
        needs = drawn_needs(polaris("graph", "services"))
        assert "HttpServer" in needs
        assert "BusHost" not in needs
        assert "MessageBroker" in needs
        (polaris.folder / "polaris.toml").write_text(f"{configuration}enabled = false\n")
        assert "HttpServer" not in drawn_needs(polaris("graph", "services"))
    assert [path.name for path in polaris.folder.iterdir()] == ["polaris.toml"]


def test_mistakes_in_the_configuration_are_told_as_by_every_command(polaris: Polaris) -> None:
    (polaris.folder / "polaris.toml").write_text(
        '[node]\nnaem = "x"\n[systems.web]\nconnector = "host"\n[systems.web.options]\nfilesystem = "/"\n'
    )
    for arguments in (["graph", "services"], ["graph", "services", "--json"]):
        ended = polaris(*arguments)
        assert (ended.code, ended.output) == (78, "")
        assert len(ended.complaint.splitlines()) == 2
        for key in ("node.naem", "systems.web"):
            assert key in ended.complaint


def test_the_command_explains_itself_and_a_wrong_word_is_wrong_usage(polaris: Polaris) -> None:
    ended = polaris("graph", "services", "--help")
    assert (ended.code, ended.complaint) == (0, "")
    for option in ("--config", "--data-dir", "--json"):
        assert option in ended.output
    assert re.search(r"^  graph +\S", polaris("--help").output, re.MULTILINE)
    assert re.search(r"^  services +\S", polaris("graph", "--help").output, re.MULTILINE)
    assert polaris("graph", "frobnicate").code == 2
    assert polaris("graph").code == 2


async def fill(path: Path) -> None:
    async with PolarisDataStore.sqlite(path) as store:
        for source, target, kind in (("web", "api", "calls"), ("api", "db", "calls"), ("job", "db", 'reads "x"')):
            await store.dependencies.save(SystemDependency(source, target, kind))


def test_the_dependencies_of_systems_are_drawn_and_exported(polaris: Polaris) -> None:
    assert polaris("graph", "dependencies").code == 69, "there is no store yet"
    (polaris.folder / "polaris.toml").write_text('[store]\npath = "kept.db"\n')
    asyncio.run(fill(polaris.folder / "kept.db"))
    drawn = polaris("graph", "dependencies")
    assert (drawn.code, drawn.complaint, drawn.lines[0]) == (0, "", "flowchart LR")
    assert '    n3 -->|"reads #34;x#34;"| n2' in drawn.lines
    told = polaris("graph", "dependencies", "db", "--direction", "in", "--depth", "1", "--json").json
    assert [node["id"] for node in told["nodes"]] == ["api", "db", "job"]
    only = polaris("graph", "dependencies", "--type", "calls", "--format", "graphml")
    assert only.output.count("<edge ") == 2
    assert polaris("graph", "dependencies", "nobody").code == 4
    for wrong in (["--format", "dot"], ["--direction", "up"], ["--depth", "65"]):
        assert polaris("graph", "dependencies", *wrong).code == 2
