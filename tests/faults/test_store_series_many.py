"""Very many series: written in bounded memory, listed, counted and limited, while one of them costs what one costs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.faults.sizes import size
from tests.postgres_servers import QUICK, VERSIONS, PostgresServer

SERIES = size(5_000, 100_000)
LONG_S = size(100, 1_200)
GROWTH_BYTES_MAX = size(7, 160) << 20
"""What the names of all series may take in the bounded memory of the sessions."""
ONE_SHARE_MAX = 0.5
"""The most that reading one series takes, as a share of listing all, however few these are."""


def run(*arguments: str) -> dict[str, Any]:
    ended = subprocess.run(
        [sys.executable, "-m", "tests.faults.series_child", str(SERIES), *arguments],
        cwd=Path(__file__).parents[2], check=False, timeout=LONG_S, capture_output=True, text=True,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    told: dict[str, Any] = msgspec.json.decode(ended.stdout)
    return told


def check(told: dict[str, Any], record_property: Callable[[str, object], None]) -> None:
    record_property("series", told)
    assert told["growth_bytes"] < GROWTH_BYTES_MAX, told
    assert told["one_s"] < ONE_SHARE_MAX * told["list_s"], told


@pytest.mark.timeout(LONG_S + 20)
def test_a_file_with_very_many_series(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    check(run(str(tmp_path / "store.db")), record_property)


@pytest.mark.timeout(LONG_S + 20)
@pytest.mark.parametrize("version", size((15,), VERSIONS))
def test_a_server_with_very_many_series(version: int, record_property: Callable[[str, object], None]) -> None:
    with PostgresServer(version, QUICK) as server:
        check(run(server.dsn, "many"), record_property)
