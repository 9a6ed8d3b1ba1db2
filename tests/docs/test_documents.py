"""What the documents show is run, and what they name exists."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from tests.nodes import NodeUnderTest, eventually_true

from polaris.domain import SystemState
from polaris.runtime import load_settings

ROOT = Path(__file__).resolve().parents[2]


def blocks(document: str, language: str) -> list[str]:
    text = (ROOT / document).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_the_control_loop_of_the_readme_runs(tmp_path: Path) -> None:
    (program,) = blocks("README.md", "python")
    assert len([line for line in program.splitlines() if line.strip()]) <= 35
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "stored at_least_once" in ended.stdout
    assert "add_worker on web, because of first-sample" in ended.stdout


def test_the_configuration_of_the_readme_is_valid(tmp_path: Path) -> None:
    (example,) = blocks("README.md", "toml")
    path = tmp_path / "polaris.toml"
    path.write_text(example)
    settings = load_settings(path, environment={})
    assert settings.systems["web"].connector == "gunicorn"


def test_the_readme_names_only_commands_that_exist() -> None:
    from click.testing import CliRunner

    from polaris.cli._app import app

    shown = {
        match for block in blocks("README.md", "sh") for match in re.findall(r"^polaris ([a-z]+)", block, re.MULTILINE)
    }
    assert shown
    for command in shown:
        assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0, command


@pytest.mark.parametrize("document", ["ARCHITECTURE.md"])
def test_every_file_that_a_document_names_exists(document: str) -> None:
    text = re.sub(r"^```.*?^```", "", (ROOT / document).read_text(), flags=re.MULTILINE | re.DOTALL)
    source = ROOT / "src" / "polaris"
    named = set(re.findall(r"`([a-z_/]+(?:\.py|/))`", text))
    assert len(named) > 15
    known = {str(path.relative_to(source)) for path in source.rglob("*.py")}
    folders = {f"{path.relative_to(source)}/" for path in source.rglob("*") if path.is_dir()}
    for name in named - {"src/polaris/"}:
        ends = any(path == name or path.endswith(f"/{name}") for path in known)
        assert ends or any(path == name or path.endswith(f"/{name}") for path in folders), name


async def stored_state(node: NodeUnderTest, system_id: str) -> SystemState | None:
    async with node.store() as store:
        return await store.states.get_current_state(system_id)


async def test_a_client_without_polaris_sends_telemetry_as_documented(tmp_path: Path) -> None:
    program = blocks("docs/how-to/other-languages.md", "python")[0]
    assert "import polaris" not in program
    assert "from polaris" not in program
    node = NodeUnderTest(tmp_path, {})
    try:
        facts = await node.start()
        environment = {**os.environ, "BUS_URL": str(facts.bus_url), "BUS_TOKEN": str(facts.bus_token)}
        assert (tmp_path / "data" / "nats" / "token").read_text() == facts.bus_token
        client = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, env=environment, stdout=subprocess.PIPE
        )
        said, _ = await client.communicate()
        assert said.decode().startswith("stored in POLARIS_TELEMETRY, number ")

        async def arrived() -> bool:
            return await stored_state(node, "boiler") is not None

        await eventually_true(arrived, "the sample is in the store")
        state = await stored_state(node, "boiler")
        assert state is not None
        assert state.value("temperature") == 71.5
    finally:
        await node.close()


async def test_the_documented_connector_works_in_a_node(tmp_path: Path) -> None:
    document = "docs/how-to/write-a-connector.md"
    (tmp_path / "boiler.py").write_text(blocks(document, "python")[0])
    (tmp_path / "documented.toml").write_text(blocks(document, "toml")[0])
    node = NodeUnderTest(
        tmp_path,
        {
            "systems": {
                "boiler": {"connector": "boiler:BoilerConnector", "interval_s": 0.2, "options": {"target": 72.0}}
            }
        },
        {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"},
    )
    documented = load_settings(tmp_path / "documented.toml", environment={}).systems["boiler"]
    assert documented.connector == "boiler:BoilerConnector"
    assert documented.options == {"target": 72.0}
    try:
        await node.start()
        command = [sys.executable, "-m", "polaris", "act", "boiler", "set_target", "--param", "target=75.5", "--json"]
        asked = await asyncio.create_subprocess_exec(
            *command, "--data-dir", str(tmp_path / "data"), stdout=subprocess.PIPE, cwd=tmp_path
        )
        said, _ = await asked.communicate()
        assert msgspec.json.decode(said)["result"]["status"] == "success"

        async def heated() -> bool:
            state = await stored_state(node, "boiler")
            return state is not None and state.value("target") == 75.5

        await eventually_true(heated, "the new target is in the store")
        state = await stored_state(node, "boiler")
        assert state is not None
        assert state.value("flow") is None
    finally:
        await node.close()
