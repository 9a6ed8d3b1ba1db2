"""The whole loop on a whole node: telemetry of a real service in, a controller's actions out, workers really added."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "01_web_service"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_overloaded_service_is_given_workers_and_the_comparison_shows_it(tmp_path: Path) -> None:
    plot = tmp_path / "comparison.svg"
    command = [sys.executable, str(EXAMPLE / "compare.py"), "--duration", "5", "--speed", "30", "--utilization", "1.5"]
    shown = subprocess.run(
        [*command, "--target", "0.1", "--output", str(plot)], cwd=tmp_path, capture_output=True, text=True, timeout=280
    )
    assert shown.returncode == 0, shown.stderr
    most = re.search(r"^workers, most +(\d+) +(\d+)$", shown.stdout, re.MULTILINE)
    assert most is not None, shown.stdout
    assert int(most[1]) == 1
    assert int(most[2]) >= 2
    assert re.search(r"^not answered +0 +0$", shown.stdout, re.MULTILINE)
    assert re.search(r"p95 [0-9.]+ s with 1 workers: add_worker\n +success", shown.stdout)
    assert "Task was destroyed" not in shown.stderr
    assert "never retrieved" not in shown.stderr
    assert plot.read_text().startswith("<?xml")
    assert [path.name for path in tmp_path.iterdir()] == ["comparison.svg"]
