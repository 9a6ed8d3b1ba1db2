"""What the documents show is run, and what they name exists."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

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
    from typer.testing import CliRunner

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
