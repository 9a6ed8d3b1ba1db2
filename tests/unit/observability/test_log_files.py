"""The log on disk: rotation, many threads, faults of the disk."""

from __future__ import annotations

import contextlib
import errno
import gc
import json
import logging
import multiprocessing
import os
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from polaris.exceptions import ConfigurationError
from polaris.observability import LoggingConfig, StructuredLogger, configure_logging, log_lines_dropped
from polaris.observability._pipeline import add_tap, remove_tap


def small(path: Path, *, size: int = 2_048, backups: int = 3) -> LoggingConfig:
    return LoggingConfig(
        console_enabled=False, file_enabled=True, file_path=path, max_file_size=size, backup_count=backups
    )


def numbers(path: Path) -> list[int]:
    return [json.loads(line)["fields"]["number"] for line in path.read_text(encoding="utf-8").splitlines()]


def test_rotation_keeps_the_youngest_lines_in_order_and_within_size(log_path: Path) -> None:
    logger = StructuredLogger("polaris.test", small(log_path))
    for number in range(200):
        logger.info("said", number=number)

    assert sorted(path.name for path in log_path.parent.iterdir()) == [
        "polaris.log",
        "polaris.log.1",
        "polaris.log.2",
        "polaris.log.3",
    ]
    kept: list[int] = []
    for name in ("polaris.log.3", "polaris.log.2", "polaris.log.1", "polaris.log"):
        assert (log_path.parent / name).stat().st_size <= 2_048
        kept += numbers(log_path.parent / name)
    assert kept == list(range(200 - len(kept), 200))
    assert len(kept) > 20


def test_without_backups_the_file_starts_anew(log_path: Path) -> None:
    logger = StructuredLogger("polaris.test", small(log_path, backups=0))
    for number in range(50):
        logger.info("said", number=number)
    assert [path.name for path in log_path.parent.iterdir()] == ["polaris.log"]
    assert log_path.stat().st_size <= 2_048
    assert numbers(log_path)[-1] == 49


def test_a_line_longer_than_the_file_may_be_is_written_whole(log_path: Path) -> None:
    logger = StructuredLogger("polaris.test", small(log_path, size=1_024))
    for number in range(3):
        logger.info("said", number=number, text=["x" * 1_000] * 3)
    assert numbers(log_path) == [2]
    assert numbers(log_path.with_name("polaris.log.1")) == [1]


def test_a_file_of_a_former_run_is_continued_and_counts_for_its_size(log_path: Path) -> None:
    logger = StructuredLogger("polaris.test", small(log_path))
    logger.info("said", number=1)
    del logger
    gc.collect()
    again = StructuredLogger("polaris.test", small(log_path))
    again.info("said", number=2)
    assert numbers(log_path) == [1, 2]
    while not log_path.with_name("polaris.log.1").exists():
        again.info("said", number=3)
    assert numbers(log_path.with_name("polaris.log.1"))[:2] == [1, 2]


def test_threads_and_foreign_loggers_do_not_mix_their_lines_and_lose_none(log_path: Path) -> None:
    configure_logging(small(log_path, size=50_000, backups=100))
    ready = threading.Barrier(8)

    def write(thread: int) -> None:
        ours = StructuredLogger(f"polaris.{thread}")
        foreign = logging.getLogger(f"foreign.{thread}")
        ready.wait()
        for number in range(250):
            if thread % 2:
                ours.info("said", number=(thread, number), padding="x" * (number % 97))
            else:
                foreign.warning("said", extra={"number": (thread, number)})

    threads = [threading.Thread(target=write, args=(thread,)) for thread in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    seen: list[tuple[int, ...]] = []
    for path in log_path.parent.iterdir():
        seen += [tuple(number) for number in numbers(path)]  # type: ignore[arg-type]
    assert len(list(log_path.parent.iterdir())) > 3
    assert sorted(seen) == [(thread, number) for thread in range(8) for number in range(250)]


def test_a_full_disk_is_counted_told_once_and_survived(
    log_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = StructuredLogger("polaris.test", small(log_path))
    dropped = log_lines_dropped()

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(os, "write", full)
        logger.info("lost", number=1)
        logger.info("lost", number=2)
    logger.info("said", number=3)

    assert log_lines_dropped() - dropped == 2
    assert numbers(log_path) == [3]
    assert capsys.readouterr().err.count("No space left on device") == 1


def test_a_line_cut_off_by_a_full_disk_does_not_spoil_the_next(log_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logger = StructuredLogger("polaris.test", small(log_path))
    real_write = os.write
    calls = iter(range(100))

    def nearly_full(descriptor: int, data: bytes) -> int:
        if next(calls) == 0:
            return real_write(descriptor, data[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(os, "write", nearly_full)
        logger.info("lost", number=1)
    logger.info("said", number=2)

    assert numbers(log_path) == [2]


def test_a_line_cut_off_by_a_power_cut_does_not_spoil_the_next(log_path: Path) -> None:
    log_path.parent.mkdir()
    log_path.write_text('{"timestamp":"2026-', encoding="utf-8")
    logger = StructuredLogger("polaris.test", small(log_path))
    logger.info("said", number=1)
    logger.info("said", number=2)
    torn, *whole = log_path.read_text(encoding="utf-8").splitlines()
    assert torn == '{"timestamp":"2026-'
    assert [json.loads(line)["fields"]["number"] for line in whole] == [1, 2]


def test_a_rotation_that_fails_loses_nothing(log_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logger = StructuredLogger("polaris.test", small(log_path))

    def refuse(self: Path, target: Path) -> Path:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as disk:
        disk.setattr(Path, "replace", refuse)
        for number in range(30):
            logger.info("said", number=number)
    assert numbers(log_path) == list(range(30))


def test_a_file_that_cannot_be_opened_is_refused_when_the_logger_is_made(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file, not a folder", encoding="utf-8")
    config = small(tmp_path / "taken" / "polaris.log")
    with pytest.raises(ConfigurationError, match="cannot be opened"):
        StructuredLogger("polaris.test", config)
    with pytest.raises(ConfigurationError, match="cannot be opened"):
        configure_logging(config)
    assert not any(type(handler).__name__ == "BridgeHandler" for handler in logging.getLogger().handlers)


def test_loggers_share_a_file_and_nobody_gives_it_other_limits_behind_their_back(log_path: Path) -> None:
    first = StructuredLogger("first", small(log_path))
    second = StructuredLogger("second", small(log_path.parent / "." / "polaris.log"))
    first.info("said", number=1)
    second.info("said", number=2)
    assert numbers(log_path) == [1, 2]
    with pytest.raises(ConfigurationError, match="in use"):
        StructuredLogger("third", small(log_path, size=4_096))


def test_the_log_of_the_process_may_change_the_limits_of_its_own_file(log_path: Path) -> None:
    configure_logging(small(log_path))
    configure_logging(small(log_path, size=1_024, backups=1))
    for number in range(50):
        StructuredLogger("polaris.test").info("said", number=number)
    assert sorted(path.name for path in log_path.parent.iterdir()) == ["polaris.log", "polaris.log.1"]


def test_the_file_is_closed_when_its_last_logger_is_gone(log_path: Path) -> None:
    logger = StructuredLogger("polaris.test", small(log_path))
    bound = logger.bind(a=1)

    def is_open() -> bool:
        ours = log_path.stat()
        for name in os.listdir("/dev/fd"):  # noqa: PTH208
            with contextlib.suppress(OSError):
                if os.path.samestat(os.fstat(int(name)), ours):
                    return True
        return False

    del logger
    assert is_open()
    bound.info("said", number=1)
    del bound
    gc.collect()
    assert not is_open()


class Listener:
    """Holds a lock while it hears, as most that hear do."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.heard: list[object] = []

    def hear(self, record: Mapping[str, object]) -> None:
        with self.lock:
            self.heard.append(record["message"])


def test_who_listens_to_the_log_can_stop_and_is_not_heard_of_in_a_forked_child(log_path: Path) -> None:
    configure_logging(small(log_path, size=10_000_000))
    listener = Listener()
    add_tap(listener.hear)
    try:
        StructuredLogger("polaris.parent").info("one")
        with listener.lock:
            child = multiprocessing.get_context("fork").Process(target=_log_in_child, args=(1,))
            child.start()
            child.join(30)
            child.kill()
        assert child.exitcode == 0
    finally:
        remove_tap(listener.hear)
    StructuredLogger("polaris.parent").info("two")
    assert listener.heard == ["one"]


def _log_in_child(number: int) -> None:
    StructuredLogger("polaris.child").info("said", number=number)


def test_a_forked_child_can_log_while_a_thread_of_the_parent_was_logging(log_path: Path) -> None:
    configure_logging(small(log_path, size=10_000_000))
    stop = threading.Event()

    def busy() -> None:
        logger = StructuredLogger("polaris.parent")
        while not stop.is_set():
            logger.info("said", number=-1)

    thread = threading.Thread(target=busy)
    thread.start()
    try:
        context = multiprocessing.get_context("fork")
        children = [context.Process(target=_log_in_child, args=(number,)) for number in range(10)]
        for child in children:
            child.start()
        for child in children:
            child.join(30)
    finally:
        stop.set()
        thread.join()
    assert [child.exitcode for child in children] == [0] * 10
    assert sorted(number for number in numbers(log_path) if number >= 0) == list(range(10))
