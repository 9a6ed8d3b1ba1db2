"""The pages on the command line say what the commands are."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from polaris.cli import _exit
from polaris.cli._app import app

ROOT = Path(__file__).resolve().parents[2]
HOW_TO = (ROOT / "docs" / "how-to" / "command-line.md").read_text()


def test_the_reference_is_the_one_that_the_commands_give() -> None:
    made = subprocess.run([sys.executable, "tools/reference_cli.py", "--check"], cwd=ROOT, check=False, timeout=60)
    assert made.returncode == 0, "run tools/reference_cli.py"


def test_the_how_to_names_only_commands_that_exist() -> None:
    commands = app.commands
    named = re.findall(r"polaris ([a-z]+)(?: ([a-z]+))?", re.sub(r"```text.*?```", "", HOW_TO, flags=re.DOTALL))
    assert len(named) > 10
    for group, command in named:
        assert group in commands, group
        inside = getattr(commands[group], "commands", None)
        assert inside is None or not command or command in inside, (group, command)


def test_the_how_to_tells_every_exit_code() -> None:
    told = HOW_TO.partition("## Exit codes")[2].partition("Ctrl-C")[0]
    codes = {value for name, value in vars(_exit).items() if name.isupper() and isinstance(value, int)}
    assert {int(code) for code in re.findall(r"\b(\d+)\s+[a-z]", told)} == codes
