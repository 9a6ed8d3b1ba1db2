"""The data folder: one owner, private files."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from polaris.exceptions import ConfigurationError, StoreLockedError
from polaris.runtime import DataFolder, NodeFile
from polaris.runtime._data_folder import LOCK_FILE

FACTS = NodeFile(
    name="n",
    pid=os.getpid(),
    version="1",
    started_at=datetime(2026, 1, 1, tzinfo=UTC),
    bus_url="nats://h:1",
    bus_token="t0p",
)


def test_one_node_owns_the_folder(tmp_path: Path) -> None:
    first, second = DataFolder(tmp_path / "d"), DataFolder(tmp_path / "d")
    first.acquire()
    first.acquire()
    first.write_node_file(FACTS)
    with pytest.raises(StoreLockedError, match="'n'"):
        second.acquire()
    first.release()
    first.release()
    second.acquire()
    second.release()


def test_the_lock_goes_with_a_killed_process(tmp_path: Path) -> None:
    program = (
        "import sys, os, signal; from pathlib import Path; from polaris.runtime import DataFolder;"
        "DataFolder(Path(sys.argv[1])).acquire(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False).returncode < 0
    folder = DataFolder(tmp_path)
    assert folder.running_node() is None
    folder.acquire()
    folder.release()


def test_the_node_file_is_private_and_tells_only_of_a_running_node(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "d")
    assert folder.running_node() is None
    folder.acquire()
    folder.write_node_file(FACTS)
    mode = stat.S_IMODE((tmp_path / "d" / "node.json").stat().st_mode)
    assert mode == 0o600
    assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == 0o700
    assert DataFolder(tmp_path / "d").running_node() == FACTS
    folder.release()
    assert DataFolder(tmp_path / "d").running_node() is None
    assert not (tmp_path / "d" / "node.json").exists()


def test_the_token_is_not_printed() -> None:
    assert "t0p" not in repr(FACTS)


def test_a_folder_that_cannot_be_made_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigurationError, match="data_dir"):
        DataFolder(tmp_path / "file" / "d").acquire()


def test_somebody_who_looks_whether_a_node_runs_does_not_keep_one_from_starting(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    folder.acquire()
    folder.release()
    looking = os.open(tmp_path / LOCK_FILE, os.O_RDWR)
    fcntl.flock(looking, fcntl.LOCK_SH)
    ending = threading.Timer(0.015, os.close, [looking])
    ending.start()
    try:
        folder.acquire()
        folder.release()
    finally:
        ending.join()
