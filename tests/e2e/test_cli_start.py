"""The command line is quick because it loads nothing that its answer does not need."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {"asyncio", "msgspec", "nats", "opentelemetry", "prometheus_client", "pydantic", "rich", "structlog", "uvicorn"}


def loaded_for(folder: Path, *arguments: str) -> set[str]:
    """The top-level packages that are imported until `polaris ARGUMENTS` has ended well."""
    ended = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "polaris", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert ended.stdout
    return {line.rpartition("|")[2].strip().split(".")[0] for line in ended.stderr.splitlines() if "|" in line}


def test_the_version_needs_not_even_the_commands(tmp_path: Path) -> None:
    loaded = loaded_for(tmp_path, "--version")
    assert "polaris" in loaded
    assert loaded & {*HEAVY, "click"} == set()


@pytest.mark.parametrize("arguments", [["--help"], ["query", "--help"], ["dlq", "replay", "-h"]], ids=" ".join)
def test_help_loads_neither_bus_nor_store_nor_settings(tmp_path: Path, arguments: list[str]) -> None:
    loaded = loaded_for(tmp_path, *arguments)
    assert "click" in loaded
    assert loaded & HEAVY == set()


def test_the_version_is_said_alike_wherever_the_option_stands(tmp_path: Path) -> None:
    told = [
        subprocess.run(
            [sys.executable, "-m", "polaris", *arguments], cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout
        for arguments in (["--version"], ["--version", "status"])
    ]
    assert told[0] == told[1]
    assert told[0].startswith("polaris 0.")
