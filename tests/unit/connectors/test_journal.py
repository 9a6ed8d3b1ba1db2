"""The journal tells done, not begun and unknown apart, and never claims more than it knows."""

from __future__ import annotations

from pathlib import Path

import pytest

from polaris.connectors._journal import ActionJournal
from polaris.domain import AdaptationAction, ExecutionResult, ExecutionStatus
from polaris.exceptions import ConnectorError


def action(action_id: str) -> AdaptationAction:
    return AdaptationAction(action_id, "add_worker", "web")


def done(action_id: str) -> ExecutionResult:
    return ExecutionResult(action_id, ExecutionStatus.SUCCESS, {"workers": 2})


async def opened(path: Path, *, bytes_max: int = 1 << 20) -> ActionJournal:
    journal = ActionJournal(path, bytes_max=bytes_max)
    await journal.open()
    return journal


async def test_after_a_restart_done_not_begun_and_unknown_are_told_apart(tmp_path: Path) -> None:
    journal = await opened(tmp_path / "journal")
    await journal.begin(action("done"))
    await journal.end(done("done"))
    await journal.begin(action("cut-off"))
    await journal.begin(action("undone"))
    await journal.undone(action("undone"))
    await journal.close()

    again = await opened(tmp_path / "journal")
    pending = ExecutionStatus.PENDING
    assert await again.recall("done") == done("done")
    assert await again.recall("cut-off") is None
    assert await again.recall("undone") == ExecutionResult("undone", pending)
    assert await again.recall("never") == ExecutionResult("never", pending)
    await again.close()
    assert await again.recall("done") == done("done")


async def test_a_new_journal_knows_nothing_of_the_time_before_it(tmp_path: Path) -> None:
    journal = await opened(tmp_path / "journal")
    assert await journal.recall("from-before") is None
    await journal.close()


async def test_without_a_file_nothing_is_known(tmp_path: Path) -> None:
    assert await ActionJournal(tmp_path / "journal").recall("any") is None


async def test_a_torn_line_counts_as_not_written_and_harms_no_later_one(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = await opened(path)
    await journal.begin(action("first"))
    await journal.close()
    whole = path.read_bytes()
    await (journal := await opened(path)).end(done("first"))
    await journal.close()
    path.write_bytes(path.read_bytes()[: len(whole) + 20])

    again = await opened(path)
    assert await again.recall("first") is None
    await again.begin(action("second"))
    await again.end(done("second"))
    assert await again.recall("second") == done("second")
    await again.close()


async def test_rotation_bounds_the_disk_and_ends_the_knowledge_of_what_was_not_begun(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = await opened(path, bytes_max=2_000)
    for number in range(100):
        await journal.begin(action(f"a{number}"))
        await journal.end(done(f"a{number}"))
    await journal.close()
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 5_000
    assert {file.name for file in tmp_path.iterdir()} == {"journal", "journal.1"}
    again = await opened(path)
    assert await again.recall("a99") == done("a99")
    assert await again.recall("a0") is None
    assert await again.recall("never") is None
    await again.close()


async def test_the_first_rotation_forgets_nothing(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = await opened(path, bytes_max=300)
    number = 0
    while not (tmp_path / "journal.1").exists():
        await journal.begin(action(f"a{number}"))
        await journal.end(done(f"a{number}"))
        number += 1
    await journal.close()
    again = await opened(path)
    assert await again.recall("a0") == done("a0")
    assert await again.recall("never") == ExecutionResult("never", ExecutionStatus.PENDING)
    await again.close()


async def test_a_journal_that_cannot_be_opened_or_written_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConnectorError, match="cannot be opened"):
        await opened(tmp_path / "no-such-folder" / "journal")
    with pytest.raises(ConnectorError, match="not open"):
        await ActionJournal(tmp_path / "journal").begin(action("x"))
