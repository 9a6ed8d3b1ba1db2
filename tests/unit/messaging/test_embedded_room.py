"""Room for the embedded server: looked for without a trace, and shared out by the size of the disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from polaris.messaging import STANDARD_STREAMS, StreamSpec
from polaris.messaging.brokers._embedded_room import (
    LARGE_DISK_BYTES,
    disk_bytes,
    fitting,
    is_full,
    require_room,
    write_problem,
)

MIB = 1 << 20
GIB = 1 << 30
LARGEST = 1 * MIB


def bounds(disk: int, *, payload_bytes_max: int = LARGEST) -> list[int]:
    return [spec.max_bytes or 0 for spec in fitting(STANDARD_STREAMS, disk, payload_bytes_max=payload_bytes_max)]


def test_a_folder_that_cannot_be_written_says_why_and_keeps_nothing_of_the_look(tmp_path: Path) -> None:
    assert write_problem(tmp_path) == ""
    assert list(tmp_path.iterdir()) == []
    assert write_problem(tmp_path / "absent") == "No such file or directory"


def test_nothing_of_a_look_is_left_when_the_room_does_not_suffice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        require_room(tmp_path)
    assert is_full(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("number", "full"), [(errno.EDQUOT, True), (errno.EFBIG, True), (errno.EROFS, False)])
def test_only_room_that_is_missing_makes_a_disk_full(number: int, *, full: bool) -> None:
    assert is_full(OSError(number, "")) is full


def test_on_a_large_disk_streams_are_as_they_were() -> None:
    assert fitting(STANDARD_STREAMS, LARGE_DISK_BYTES, payload_bytes_max=LARGEST) == list(STANDARD_STREAMS)
    assert fitting(STANDARD_STREAMS, 100 * GIB, payload_bytes_max=LARGEST) == list(STANDARD_STREAMS)


def test_on_a_small_disk_streams_are_smaller_in_proportion_and_fit_on_it() -> None:
    assert bounds(1 * GIB) == [128 * MIB, 32 * MIB, 32 * MIB, 32 * MIB]
    assert sum(bounds(1 * GIB)) < 0.22 * GIB
    assert bounds(512 * MIB) == [64 * MIB, 16 * MIB, 16 * MIB, 16 * MIB]


def test_on_the_smallest_disk_a_stream_has_room_for_some_of_the_largest_messages() -> None:
    assert bounds(16 * MIB) == [8 * MIB] * 4
    assert bounds(1 * GIB, payload_bytes_max=64 * MIB) == [512 * MIB, 256 * MIB, 256 * MIB, 256 * MIB]


def test_a_stream_without_a_bound_stays_without_one() -> None:
    endless = StreamSpec(name="ENDLESS", subjects=("endless.>",), max_bytes=None)
    assert fitting([endless], 1 * MIB, payload_bytes_max=LARGEST) == [endless]


def test_the_disk_is_that_of_a_folder_that_is_still_to_be_made(tmp_path: Path) -> None:
    assert disk_bytes(tmp_path / "not" / "yet") == disk_bytes(tmp_path) > 0
