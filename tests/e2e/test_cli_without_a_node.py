"""The commands when no node runs: never started, stopped, or killed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.commands import Polaris
from tests.nodes import a_node, eventually_true

from polaris import __version__

COMMANDS = ("run", "check", "status", "systems", "query", "tail", "replay", "publish", "act")
HEAVY = ("nats", "apsw", "starlette", "uvicorn", "structlog", "prometheus_client", "psutil", "msgspec", "asyncio")


@pytest.fixture
def polaris(tmp_path: Path) -> Polaris:
    return Polaris(tmp_path)


def test_the_version_is_the_package_s(polaris: Polaris) -> None:
    ended = polaris("--version")
    assert (ended.code, ended.output, ended.complaint) == (0, f"polaris {__version__}\n", "")


def test_the_installed_script_is_the_same_command_line(tmp_path: Path) -> None:
    script = Path(sys.executable).parent / "polaris"
    ended = subprocess.run([script, "--version"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ended.stdout == f"polaris {__version__}\n"


def test_help_names_every_command_and_every_exit_code(polaris: Polaris) -> None:
    from polaris.cli import _exit

    ended = polaris("--help")
    assert ended.code == 0
    for command in COMMANDS:
        assert re.search(rf"^  {command} +\S", ended.output, re.MULTILINE), command
    assert not [line for line in ended.lines if line.endswith("...") and "Usage" not in line], "a summary is cut short"
    codes = {value for name, value in vars(_exit).items() if name.isupper() and isinstance(value, int)}
    assert {int(code) for code in re.findall(r"\b(\d+)\s+[a-z]", ended.output)} == codes
    assert polaris("-h").output == ended.output
    bare = polaris()
    assert bare.code == 2
    assert "Commands:" in bare.output + bare.complaint


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(polaris: Polaris, command: str) -> None:
    ended = polaris(command, "--help")
    assert (ended.code, ended.complaint) == (0, "")
    assert f"polaris {command}" in ended.output
    for option in ("--config", "--data-dir"):
        assert option in ended.output
    if command != "run":
        assert "--json" in ended.output


def test_help_loads_nothing_heavy(tmp_path: Path) -> None:
    program = (
        "import sys, runpy\n"
        "sys.argv = ['polaris', '--help']\n"
        "try:\n    runpy.run_module('polaris', run_name='__main__')\n"
        "except SystemExit as ending:\n    assert not ending.code\n"
        f"print(sorted(set({HEAVY!r}) & sys.modules.keys()), file=sys.stderr)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "Commands:" in ended.stdout
    assert ended.stderr.strip() == "[]"


def test_an_unknown_command_or_option_is_wrong_usage(polaris: Polaris) -> None:
    assert polaris("frobnicate").code == 2
    assert polaris("query", "x", "--frobnicate").code == 2


@pytest.mark.parametrize(
    "arguments",
    [["systems"], ["query", "web"], ["query", "web", "load"], ["query", "web", "load", "--agg", "avg", "--json"]],
)
def test_without_a_store_the_store_s_commands_say_how_to_get_one(polaris: Polaris, arguments: list[str]) -> None:
    ended = polaris(*arguments)
    assert (ended.code, ended.output) == (69, "")
    assert "there is no store at" in ended.complaint
    assert "polaris run" in ended.complaint
    assert not (polaris.folder / "polaris-data").exists(), "asking must leave nothing behind"


@pytest.mark.parametrize(
    "arguments",
    [
        ["status"],
        ["tail"],
        ["act", "web", "poke"],
        ["act", "web", "poke", "--id", "a"],
        ["publish", "polaris.health.a", '{"component": "a", "status": "healthy"}'],
    ],
)
def test_without_a_node_the_node_s_commands_say_how_to_start_one(polaris: Polaris, arguments: list[str]) -> None:
    ended = polaris(*arguments)
    assert (ended.code, ended.output) == (69, "")
    assert "no node runs on" in ended.complaint
    assert "polaris run" in ended.complaint
    assert len(ended.complaint.splitlines()) == 1


def test_status_without_a_node_is_json_too(polaris: Polaris) -> None:
    ended = polaris("status", "--json")
    assert ended.code == 69
    assert ended.json["running"] is False


def test_a_configured_bus_that_does_not_answer_is_said_in_one_line(polaris: Polaris) -> None:
    (polaris.folder / "polaris.toml").write_text(
        '[nats]\nservers = ["nats://127.0.0.1:1"]\ntoken = "s3cr3t-token"\nconnect_timeout_s = 0.5\n'
    )
    for arguments in (["tail"], ["act", "web", "poke"], ["publish", "polaris.health.a", '{"component": "a"}']):
        ended = polaris(*arguments)
        assert ended.code in ((1,) if arguments[0] == "publish" else (69,)), ended
        assert len(ended.complaint.splitlines()) == 1
        assert "s3cr3t" not in ended.complaint
    checked = polaris("check")
    assert checked.code == 78
    assert "nats://127.0.0.1:1 does not answer" in checked.complaint
    assert polaris("check", "--offline").code == 0


def test_every_mistake_in_the_configuration_is_told_by_every_command(polaris: Polaris) -> None:
    (polaris.folder / "polaris.toml").write_text(
        '[node]\nnaem = "x"\n[http]\nport = "many"\n[systems.web]\nconnector = "gunicron"\n[logging]\nlevel = "debgu"\n'
    )
    for arguments in (
        ["run"],
        ["check"],
        ["status"],
        ["systems"],
        ["query", "x"],
        ["tail"],
        ["replay", "a"],
        ["act", "a", "b"],
    ):
        ended = polaris(*arguments)
        assert (ended.code, ended.output) == (78, ""), arguments
        lines = ended.complaint.splitlines()
        # Those who need the connectors ask them in the same breath; for the others they do not matter.
        assert len(lines) == (4 if arguments[0] in ("run", "check") else 3), arguments
        assert all(line.startswith("polaris: ") and "polaris.toml" in line for line in lines)
        assert "did you mean node.name?" in ended.complaint
        assert "did you mean 'debug'?" in ended.complaint


def test_check_looks_into_the_options_of_the_connectors(polaris: Polaris) -> None:
    (polaris.folder / "polaris.toml").write_text(
        '[systems.a]\nconnector = "gunicron"\n[systems.b]\nconnector = "host"\noptions = { proceses = 3 }\n'
    )
    ended = polaris("check", "--offline")
    assert ended.code == 78
    assert "systems.a: " in ended.complaint
    assert "did you mean 'gunicorn'" in ended.complaint
    assert "systems.b: proceses: unknown key" in ended.complaint
    told = polaris("check", "--offline", "--json")
    assert told.code == 78
    assert told.json["ok"] is False
    assert len(told.json["problems"]) == 2


def test_check_never_shows_a_secret(polaris: Polaris) -> None:
    (polaris.folder / "polaris.toml").write_text('[nats]\nservers = ["nats://10.255.255.1"]\ntoken = "s3cr3t-token"\n')
    for arguments in (["check", "--offline"], ["check", "--offline", "--json"]):
        ended = polaris(*arguments)
        assert ended.code == 0
        assert "s3cr3t" not in ended.output + ended.complaint


async def test_the_store_answers_as_before_when_the_node_is_stopped_or_killed(tmp_path: Path) -> None:
    witness = {"connector": "tests.witness_connector:WitnessConnector", "interval_s": 0.1}
    systems = {"pump": {**witness, "options": {"journal": "pump.jsonl"}}}
    async with a_node(tmp_path, {"systems": systems}) as node:
        polaris = Polaris(tmp_path)
        async with node.store() as store:

            async def sampled() -> bool:
                return await store.states.get_current_state("pump") is not None

            await eventually_true(sampled, "there is a sample")
        assert polaris("act", "pump", "poke", "--id", "before").code == 0
        await node.stop()
        _store_answers(polaris)
        # A result is known without a node; a new action needs one.
        assert polaris("act", "pump", "poke", "--id", "before").code == 0
        assert polaris("act", "pump", "poke", "--id", "after").code == 69
        assert polaris("status").code == 69
        assert polaris("tail").code == 69
        await node.start()
        _store_answers(polaris)
        node.kill()
        _store_answers(polaris)
        assert polaris("status").code == 69


def _store_answers(polaris: Polaris) -> None:
    assert [row[0] for row in polaris("systems").rows[1:]] == ["pump"]
    points = polaris("query", "pump", "number", "--json").json["points"]
    assert points[0]["value"] == 1
    assert polaris("query", "pump").code == 0


def test_a_data_folder_that_may_not_be_read_is_no_crash(polaris: Polaris) -> None:
    (polaris.folder / "polaris-data").write_text("not a folder")
    assert polaris("status").code == 69
    assert polaris("systems").code == 69
    assert (polaris.folder / "polaris-data").read_text() == "not a folder"
