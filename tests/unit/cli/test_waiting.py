"""Work that lasts says what it does, on a terminal, and leaves nothing of that behind."""

from __future__ import annotations

import asyncio
import io
import threading
from types import SimpleNamespace

import pytest

from polaris.cli import _progress, _waiting
from polaris.cli._waiting import Doing

PATIENCE_S = 20.0


class Shown(io.StringIO):
    """A terminal that tells when something is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = threading.Event()

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        count = super().write(text)
        self.written.set()
        return count


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Shown:
    shown = Shown()
    # Not `sys.stderr` itself, which pytest puts back between this fixture and the test.
    monkeypatch.setattr(_progress, "sys", SimpleNamespace(stderr=shown))
    monkeypatch.setattr(_waiting, "SILENT_S", 0.01)
    monkeypatch.setattr(_progress, "PROGRESS_EVERY_S", 0.0)
    return shown


def test_what_holds_up_its_thread_is_told_all_the_same_and_gone_at_the_end(terminal: Shown) -> None:
    with Doing("asking the node").during():
        assert terminal.written.wait(PATIENCE_S)
    assert terminal.getvalue().startswith("\r\x1b[Kasking the node (")
    assert terminal.getvalue().endswith("\r\x1b[K")


def test_what_turns_in_a_loop_is_told_and_gone_at_the_end_and_its_result_comes_out(terminal: Shown) -> None:
    async def work() -> int:
        while not terminal.written.is_set():
            await asyncio.sleep(0.01)
        return 42

    assert Doing("reading the store").run(work()) == 42
    assert terminal.getvalue().startswith("\r\x1b[Kreading the store (")
    assert terminal.getvalue().endswith("\r\x1b[K")


def test_what_is_soon_done_says_nothing(terminal: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_waiting, "SILENT_S", PATIENCE_S)
    with Doing("asking the node").during():
        pass
    assert terminal.getvalue() == ""


def test_an_error_passes_and_the_line_is_gone(terminal: Shown) -> None:
    def fail() -> None:
        with Doing("asking").during():
            assert terminal.written.wait(PATIENCE_S)
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    assert terminal.getvalue().endswith("\r\x1b[K")
