"""The page on engines of one's own: it runs all suites, which pass, and which notice an engine that loses writes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.docs.test_bus_howtos import blocks

SUITES = {"TestTimeSeries", "TestDocuments", "TestGraph", "TestUnitOfWork", "TestRepositories"}
FORGETFUL = '''
    async def apply(self, steps, on_commit):
        """Forgets what a transaction has written."""
        on_commit()
'''


def run_suites(folder: Path, *, chosen: str, added: str = "") -> subprocess.CompletedProcess[str]:
    """Run the tests of the page whose names match, on its engine with these lines added."""
    engine, tests = blocks("check-an-engine.md", "python")
    (folder / "engine.py").write_text(engine + added)
    (folder / "test_engine.py").write_text(tests)
    (configuration,) = blocks("check-an-engine.md", "toml")
    (folder / "pyproject.toml").write_text(configuration)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("POLARIS_", "PYTEST_"))}
    options = ["-v", "--tb=line", "-W", "error", "-p", "pytest_asyncio.plugin", "-p", "no:cacheprovider", "-k", chosen]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options],
        cwd=folder,
        # The other plugins of this project take longer to load than the tests to run.
        env={**inherited, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_the_suites_of_the_page_run_on_its_engine_and_pass(tmp_path: Path) -> None:
    # A part of each suite: memory passes all of them elsewhere.
    ended = run_suites(tmp_path, chosen="comes_back or undoes_everything or expired")
    assert ended.returncode == 0, ended.stdout
    assert set(re.findall(r"::(\w+)::\w+\S* PASSED", ended.stdout)) == SUITES


def test_the_suites_of_the_page_notice_an_engine_that_loses_a_transaction(tmp_path: Path) -> None:
    ended = run_suites(tmp_path, chosen="TestUnitOfWork and savepoint", added=FORGETFUL)
    assert ended.returncode == 1, ended.stdout
    assert set(re.findall(r"^FAILED test_engine\.py::(\w+)::", ended.stdout, re.MULTILINE)) == {"TestUnitOfWork"}
