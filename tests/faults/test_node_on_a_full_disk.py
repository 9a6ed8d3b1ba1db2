"""A node whose data are on a small disk that somebody else fills: it says so, and goes on when there is room."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from tests.faults import full_disk_node_child
from tests.faults.small_disk import run_on_small_disk


@pytest.mark.slow
def test_a_node_on_a_disk_that_is_really_full_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """Everything is checked by the process that has the disk."""
    data = tmp_path / "data"
    data.mkdir()
    told = msgspec.json.decode(run_on_small_disk(data, 96 << 20, full_disk_node_child.__file__, timeout_s=110))
    assert told["stored"] >= 2 * full_disk_node_child.MORE
    assert "cannot store" in told["why"]["bus storage"]
