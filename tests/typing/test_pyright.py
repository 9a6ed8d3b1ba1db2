"""pyright accepts what mypy accepts, and sees the same types."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def errors_of(file: Path) -> list[str]:
    checker = shutil.which("basedpyright", path=str(Path(sys.executable).parent))
    assert checker is not None, "basedpyright is missing: it comes with the development requirements"
    command = [checker, "--pythonpath", sys.executable, "--level", "error", "--outputjson", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    return [
        f"{found['range']['start']['line'] + 1}: {found['message']}"
        for found in json.loads(done.stdout)["generalDiagnostics"]
    ]


@pytest.mark.slow
def test_pyright_finds_nothing_wrong_with_the_container() -> None:
    assert errors_of(HERE / "resolving.py") == []


@pytest.mark.slow
def test_pyright_notices_a_wrong_type(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.py"
    wrong.write_text(
        (HERE / "resolving.py").read_text()
        + "\n\ndef wrong(container: DIContainer) -> int:\n    return container.resolve(Sensor)\n"
    )
    [error] = errors_of(wrong)
    assert '"Sensor" is not assignable to "int"' in error
