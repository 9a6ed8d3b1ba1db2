"""Every promise on the lists, when broken, is noticed by the tests that say they guard it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.promises import di, exceptions, resilience
from tests.promises._break import Break

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "polaris"
BREAKS = {"di": di.BREAKS, "exceptions": exceptions.BREAKS, "resilience": resilience.BREAKS}
# Loading these takes longer than most of the tests.
NOT_NEEDED = ("cacheprovider", "randomly", "xdist", "hypothesispytest", "anyio")
CASES = [pytest.param(broken, id=f"{room}: {broken.promise}") for room, breaks in BREAKS.items() for broken in breaks]


def broken_copy(broken: Break, folder: Path) -> None:
    """The package with the one edit, ready to stand before the real one on the path."""
    shutil.copytree(SOURCE, folder / "polaris", ignore=shutil.ignore_patterns("__pycache__", "web", "static"))
    target = folder / "polaris" / broken.file
    text = target.read_text()
    assert text.count(broken.old) == 1, f"the text to break occurs {text.count(broken.old)} times in {broken.file}"
    assert broken.old != broken.new
    target.write_text(text.replace(broken.old, broken.new))


@pytest.mark.parametrize("broken", CASES)
def test_a_broken_promise_is_noticed(broken: Break, tmp_path: Path) -> None:
    broken_copy(broken, tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    options = ["-q", "-rA", "--no-header", "--timeout=15", *(f"-pno:{plugin}" for plugin in NOT_NEEDED)]
    command = [sys.executable, "-m", "pytest", *options, *broken.caught_by]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 1, f"the tests did not fail\n{done.stdout[-4000:]}{done.stderr[-2000:]}"
    passed = re.findall(r"^PASSED (\S+)", done.stdout, re.MULTILINE)
    unmoved = [test for test in broken.caught_by if any(name == test or name.startswith(f"{test}[") for name in passed)]
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    silent = [test for test in unmoved if not any(name == test or name.startswith(f"{test}[") for name in failed)]
    assert not silent, f"these tests pass although the promise is broken: {silent}"


@pytest.mark.parametrize("room", sorted(BREAKS))
def test_no_promise_is_listed_twice(room: str) -> None:
    promises = [broken.promise for broken in BREAKS[room]]
    assert promises
    assert len(promises) == len(set(promises))
