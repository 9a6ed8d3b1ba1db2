"""Every promise on the lists, when broken, is noticed by the tests that say they guard it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import cache_from_source
from pathlib import Path

import pytest
from tests.promises import di, exceptions, messaging, resilience
from tests.promises._break import Break
from tests.promises._nursery import Nursery

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "polaris"
BREAKS = {
    "di": di.BREAKS,
    "exceptions": exceptions.BREAKS,
    "messaging": messaging.BREAKS,
    "resilience": resilience.BREAKS,
}
# What the nursery has loaded pytest cannot rewrite any more, nor need it.
LOADED_ANYWAY = "ignore::pytest.PytestAssertRewriteWarning"
CASES = [pytest.param(broken, id=f"{room}: {broken.promise}") for room, breaks in BREAKS.items() for broken in breaks]


@pytest.fixture(scope="session")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a copy of the package, which is broken and mended in turn: so each file is compiled once."""
    folder = tmp_path_factory.mktemp("broken")
    shutil.copytree(SOURCE, folder / "polaris", ignore=shutil.ignore_patterns("__pycache__", "web", "static"))
    return folder


@contextmanager
def broken_in(folder: Path, broken: Break) -> Iterator[None]:
    """The copy has the one edit, until the end of the block."""
    target = folder / "polaris" / broken.file
    text = target.read_text()
    assert text.count(broken.old) == 1, f"the text to break occurs {text.count(broken.old)} times in {broken.file}"
    assert broken.old != broken.new
    try:
        write(target, text.replace(broken.old, broken.new))
        yield
    finally:
        write(target, text)


def write(target: Path, text: str) -> None:
    target.write_text(text)
    # Python knows a compiled file by seconds and size; two edits within a second may be of one size.
    Path(cache_from_source(str(target))).unlink(missing_ok=True)


@pytest.fixture(scope="session")
def nursery(copies: Path) -> Iterator[Nursery]:
    nursery = Nursery(ROOT, copies)
    yield nursery
    nursery.close()


@pytest.mark.parametrize("broken", CASES)
def test_a_broken_promise_is_noticed(broken: Break, copies: Path, nursery: Nursery) -> None:
    options = ["-q", "-rA", "--no-header", "--timeout=15", f"-W{LOADED_ANYWAY}"]
    with broken_in(copies, broken):
        code, output = nursery.run([*options, *broken.caught_by])
    assert code == 1, f"the tests did not fail\n{output[-6000:]}"
    passed = re.findall(r"^PASSED (\S+)", output, re.MULTILINE)
    unmoved = [test for test in broken.caught_by if any(name == test or name.startswith(f"{test}[") for name in passed)]
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", output, re.MULTILINE)
    silent = [test for test in unmoved if not any(name == test or name.startswith(f"{test}[") for name in failed)]
    assert not silent, f"these tests pass although the promise is broken: {silent}"


@pytest.mark.parametrize("room", sorted(BREAKS))
def test_no_promise_is_listed_twice(room: str) -> None:
    promises = [broken.promise for broken in BREAKS[room]]
    assert promises
    assert len(promises) == len(set(promises))
