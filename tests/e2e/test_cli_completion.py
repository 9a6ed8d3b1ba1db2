"""What shells complete, and what a mistyped word gets: asked of a real bash, zsh and fish."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.commands import ROOT, Polaris
from tests.terminals import Terminal

BIN = Path(sys.executable).parent
# Calls the completion function as bash does at a press of TAB.
ASK = r"""
eval "$(polaris completion bash)"
function=$(complete -p polaris | sed 's/.*-F \([^ ]*\) .*/\1/')
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
"$function" polaris
printf '%s\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def polaris(tmp_path: Path) -> Polaris:
    (tmp_path / "polaris.toml").write_text(
        "systems = { pump-1 = { connector = 'host' }, pump-2 = { connector = 'host' }, web = { connector = 'host' } }"
    )
    return Polaris(tmp_path)


def environment(**variables: str) -> dict[str, str]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("POLARIS_")}
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    return {**inherited, "PATH": path, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}", **variables}


def completed(folder: Path, *words: str) -> list[str]:
    command = ["bash", "--norc", "-c", ASK, "bash", *words]
    asked = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert (asked.returncode, asked.stderr) == (0, ""), asked
    return asked.stdout.split()


def test_a_real_bash_completes_commands_options_and_systems(polaris: Polaris) -> None:
    assert completed(polaris.folder, "polaris", "que") == ["query"]
    assert {"grafana", "alerts", "openapi"} <= set(completed(polaris.folder, "polaris", "export", ""))
    assert completed(polaris.folder, "polaris", "status", "--js") == ["--json"]
    assert completed(polaris.folder, "polaris", "query", "pump") == ["pump-1", "pump-2"]
    assert completed(polaris.folder, "polaris", "act", "w") == ["web"]


def test_a_configuration_that_is_wrong_completes_nothing_and_says_nothing(polaris: Polaris) -> None:
    (polaris.folder / "polaris.toml").write_text("broken")
    assert completed(polaris.folder, "polaris", "query", "pump") == []


def test_a_real_fish_completes_commands_options_and_systems(polaris: Polaris) -> None:
    asked = [f"complete -C 'polaris {begun}'" for begun in ("que", "status --js", "query pump", "export gr")]
    script = "; ".join(["polaris completion fish | source", *asked])
    told = subprocess.run(
        ["fish", "--no-config", "-c", script],
        cwd=polaris.folder,
        env=environment(HOME=str(polaris.folder), TERM="dumb"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert told.stderr == ""
    assert [line.split("\t")[0] for line in told.stdout.splitlines()] == [
        "query",
        "--json",
        "pump-1",
        "pump-2",
        "grafana",
    ]


def test_a_real_zsh_completes_commands_and_systems_at_a_press_of_tab(polaris: Polaris) -> None:
    variables = environment(HOME=str(polaris.folder))
    terminal = Terminal(polaris.folder, ["zsh", "--no-rcs", "-i"], columns=120, variables=variables)
    try:
        terminal.press(
            b"PS1=; autoload -U compinit; compinit -u -D; eval \"$(polaris completion zsh)\"; echo re''ady\n"
        )
        terminal.read("ready")
        # Ctrl-A and Ctrl-E: the line is shown, not run.
        terminal.press(b"polaris que\tw\t\x01echo \x05\n")
        terminal.read("\npolaris query web")
    finally:
        terminal.close()


def test_a_shell_of_no_script_is_wrong_usage(polaris: Polaris) -> None:
    ended = polaris("completion", "bsh")
    assert (ended.code, ended.output) == (2, "")
    assert "did you mean bash?" in ended.complaint


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["staus"], "status"),
        (["export", "grafna"], "grafana"),
        (["status", "--jsn"], "--json"),
        (["docter"], "doctor"),
        (["dlq", "lst"], "list"),
    ],
)
def test_a_mistyped_command_or_option_gets_a_suggestion(polaris: Polaris, arguments: list[str], meant: str) -> None:
    ended = polaris(*arguments)
    assert (ended.code, ended.output) == (2, "")
    assert meant in ended.complaint.splitlines()[-1], ended.complaint
