"""`polaris doctor` on a node and machine that are well, and on each that is not: the cause, and what to do."""

from __future__ import annotations

import asyncio
import os
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.commands import Polaris
from tests.frozen import freeze, thaw
from tests.nodes import a_node, eventually_true

from polaris.cli._doctor_machine import Disk, clock, data_folder, disk, extras, python_version, secret_files
from polaris.cli._doctor_node import of_breaker, of_component, stale_system
from polaris.cli._findings import Finding
from polaris.messaging import OutgoingMessage
from polaris.runtime import Settings
from polaris.runtime._settings import NatsSettings, TlsSettings

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.fixture
def polaris(tmp_path: Path) -> Polaris:
    return Polaris(tmp_path)


def grade(finding: Finding) -> str:
    assert (finding.do == "") is (finding.grade == "ok"), finding
    return finding.grade


def test_without_a_node_it_says_how_to_start_one(polaris: Polaris) -> None:
    ended = polaris("doctor")
    assert (ended.code, ended.complaint) == (69, "")
    assert "PROBLEM  node: no node runs on" in ended.output
    assert "         -> start it: polaris run" in ended.lines
    assert not (polaris.folder / "polaris-data").exists(), "looking leaves nothing behind"


def test_a_configuration_that_is_refused_is_told_with_all_its_mistakes(polaris: Polaris) -> None:
    (polaris.folder / "polaris.toml").write_text('[node]\nnaem = "x"\n[nats]\ntoken_file = "no-such"\n')
    told = polaris("doctor", "--json")
    assert told.code == 78
    assert told.json["ok"] is False
    wrong = [finding["what"] for finding in told.json["findings"] if finding["grade"] == "problem"]
    assert len(wrong) == 2
    assert wrong[0].startswith("polaris.toml:2: node.naem")
    assert "polaris.toml:4: nats.token_file" in wrong[1]


def test_a_port_that_another_program_has_is_named(polaris: Polaris) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number = listener.getsockname()[1]
        (polaris.folder / "polaris.toml").write_text(f"[http]\nport = {number}\n")
        told = polaris("doctor", "--json").json
    (port,) = [finding for finding in told["findings"] if finding["subject"] == "port"]
    assert port["grade"] == "problem"
    assert f"{number} cannot be taken, " in port["what"]
    assert f"(pid {os.getpid()}) has it" in port["what"]


@pytest.mark.slow
async def test_of_a_node_that_is_well_it_finds_nothing_and_of_a_frozen_one_the_cause(tmp_path: Path) -> None:
    witness = {"connector": "tests.witness_connector:WitnessConnector", "interval_s": 0.2}
    systems = {"pump": {**witness, "options": {"journal": "pump.jsonl"}}}
    async with a_node(tmp_path, {"systems": systems}) as node:
        polaris = Polaris(node.folder)
        well = polaris("doctor", "--json")
        assert well.code == 0, well.output
        subjects = {finding["subject"] for finding in well.json["findings"]}
        assert {"node", "bus", "store", "connector:pump", "disk", "clock", "python"} <= subjects
        broker = node.broker()
        await broker.connect()
        await broker.publish(OutgoingMessage("polaris.telemetry.pump", b"no event"))
        await broker.disconnect()

        async def told_of_dead_letters() -> bool:
            ended = await asyncio.to_thread(polaris, "doctor")
            assert ended.code == 0, ended
            return "warning  dead letters: 1 wait" in ended.output and "polaris dlq list" in ended.output

        await eventually_true(told_of_dead_letters, "the dead letter is counted")
        freeze(node.process.pid)
        try:
            frozen = polaris("doctor", "--json")
        finally:
            thaw(node.process.pid)
        assert frozen.code == 69
        wrong = [finding for finding in frozen.json["findings"] if finding["grade"] == "problem"]
        assert any("does not answer within" in finding["what"] for finding in wrong)
        assert any(f"kill {node.process.pid}" in finding["do"] for finding in wrong)
        server = node.nats_server.pid
        freeze(server)
        try:
            mute = polaris("doctor", "--json")
        finally:
            thaw(server)
        assert mute.code == 69
        assert "bus" in {finding["subject"] for finding in mute.json["findings"] if finding["grade"] == "problem"}


def test_the_machine_s_faults_are_graded(tmp_path: Path) -> None:
    assert grade(python_version((3, 10, 2))) == "problem"
    assert grade(python_version((3, 11, 0))) == "ok"
    gib = 1 << 30
    assert grade(disk(tmp_path, Disk(100 * gib, 50 * gib))) == "ok"
    assert grade(disk(tmp_path, Disk(100 * gib, gib))) == "warning"
    assert grade(disk(tmp_path, Disk(100 * gib, 10 << 20))) == "problem"
    assert grade(disk(tmp_path / "not" / "there")) in ("ok", "warning")
    assert grade(data_folder(tmp_path)) == "ok"
    other = data_folder(tmp_path, user=os.geteuid() + 4711)
    assert grade(other) == "problem"
    assert "belongs to" in other.what
    assert grade(clock(NOW + timedelta(days=3650))) == "ok"
    assert grade(clock(datetime(1970, 1, 1, tzinfo=UTC))) == "problem"
    assert grade(clock(datetime(2200, 1, 1, tzinfo=UTC))) == "problem"
    assert grade(clock(datetime(2025, 1, 2, tzinfo=UTC))) == "problem", "before the installation"
    later = datetime.now(UTC) + timedelta(days=1)
    assert grade(clock(newest_sample=later)) == "warning"


@pytest.mark.parametrize("key", ["nkey_file", "tls.key_file"])
def test_secret_files_are_readable_by_their_owner_only(tmp_path: Path, key: str) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cr3t")
    nats = NatsSettings(nkey_file=str(secret))
    if key == "tls.key_file":
        nats = NatsSettings(tls=TlsSettings(key_file=str(secret)))
    settings = Settings(nats=nats)
    secret.chmod(0o644)
    assert [grade(finding) for finding in secret_files(settings)] == ["warning"]
    secret.chmod(0o600)
    assert [grade(finding) for finding in secret_files(settings)] == ["ok"]
    secret.unlink()
    assert [grade(finding) for finding in secret_files(settings)] == ["problem"]


def test_an_extra_that_is_missing_is_a_problem_only_where_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("polaris.cli._doctor_machine.find_spec", lambda name: None)
    assert {finding.grade for finding in extras(Settings())} == {"note"}
    needing = list(extras(Settings(nats=NatsSettings(nkey_file="x"))))
    assert [finding.subject for finding in needing if finding.grade == "problem"] == ["extra nkeys"]
    assert "pip install" in needing[0].do


def test_parts_systems_and_breakers_that_are_not_well_have_a_remedy() -> None:
    assert grade(of_component({"name": "bus", "status": "healthy"})) == "ok"
    for name in ("bus", "bus storage", "store", "telemetry ingest", "action path", "connector:web", "something new"):
        assert grade(of_component({"name": name, "status": "unhealthy", "message": "gone"})) == "problem"
        assert grade(of_component({"name": name, "status": "warning", "message": "slow"})) == "warning"
    stale = stale_system({"system_id": "web", "connector": "push", "last_sample_at": "2026-03-01T12:00:00Z"})
    assert "its sender" in stale.do
    assert of_component({"name": "bus", "status": "unhealthy", "remedy": "as the node says"}).do == "as the node says"
    for state, expected in (("open", "problem"), ("isolated", "problem"), ("half_open", "warning")):
        found = of_breaker({"name": "actions:web", "state": state})
        assert (found.subject, grade(found)) == ("breaker actions:web", expected)
