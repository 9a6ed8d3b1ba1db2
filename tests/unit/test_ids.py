"""Identifiers sort by creation and never repeat."""

from __future__ import annotations

import multiprocessing
import sys
import threading
import time
from collections.abc import Iterable
from uuid import RFC_4122, UUID

import pytest

from polaris import ids
from polaris.ids import new_id


def test_an_id_is_a_uuid_of_version_seven_in_canonical_form() -> None:
    text = new_id()
    value = UUID(text)
    assert str(value) == text
    assert value.version == 7
    assert value.variant == RFC_4122
    assert abs((value.int >> 80) - time.time_ns() // 1_000_000) < 60_000


def test_ids_sort_in_the_order_of_the_calls_also_within_a_millisecond() -> None:
    made = [new_id() for _ in range(20_000)]
    assert made == sorted(made)
    assert len(set(made)) == len(made)


def test_ids_still_rise_when_the_wall_clock_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    before = new_id()
    monkeypatch.setattr(time, "time_ns", lambda: 1_000_000_000)
    made = [new_id() for _ in range(100)]
    assert [before, *made] == sorted([before, *made])


def test_a_full_counter_borrows_from_the_next_millisecond(monkeypatch: pytest.MonkeyPatch) -> None:
    now_ns = time.time_ns() + 10_000_000_000
    now_ms = now_ns // 1_000_000
    monkeypatch.setattr(time, "time_ns", lambda: now_ns)
    monkeypatch.setattr(ids, "_last_ms", now_ms)
    monkeypatch.setattr(ids, "_counter", (1 << ids._COUNTER_BITS) - 2 * ids._RUN)
    monkeypatch.setattr(ids, "_run", (0, "", iter(())))
    made = [new_id() for _ in range(3 * ids._RUN)]
    assert made == sorted(made)
    assert len(set(made)) == len(made)
    assert all(UUID(text).version == 7 for text in made)
    assert [UUID(text).int >> 80 for text in (made[0], made[-1])] == [now_ms, now_ms + 1]


def test_threads_make_different_ids_and_each_sees_its_own_rise() -> None:
    made: list[list[str]] = [[] for _ in range(8)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)

    def make(thread: int) -> None:
        made[thread] = [new_id() for _ in range(3_000)]

    threads = [threading.Thread(target=make, args=(number,)) for number in range(8)]
    try:
        for thread in threads:
            thread.start()
    finally:
        for thread in threads:
            thread.join()
        sys.setswitchinterval(interval)
    assert all(series == sorted(series) for series in made)
    assert len({text for series in made for text in series}) == 24_000


def test_an_id_made_in_the_midst_of_another_ones_making_is_one_as_all_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the handler of a signal does, and what is run when garbage is collected."""
    read, inner, is_inside = time.time_ns, list[str](), False

    def interrupted() -> int:
        nonlocal is_inside
        if not is_inside:
            is_inside = True
            inner.append(new_id())
            is_inside = False
        return read()

    before = new_id()
    monkeypatch.setattr(time, "time_ns", interrupted)
    monkeypatch.setattr(ids, "_run", (0, "", iter(())))
    caller = threading.Thread(target=lambda: outer.extend(new_id() for _ in range(600)), daemon=True)
    outer: list[str] = []
    caller.start()
    caller.join(20)
    assert len(outer) == 600, "it waits for itself"
    assert len({before, *inner, *outer}) == 1 + len(inner) + 600
    assert [before, *inner] == sorted([before, *inner])
    assert [before, *outer] == sorted([before, *outer])


def test_who_draws_tails_has_one_also_when_other_threads_take_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    class Taken(list[str]):
        def extend(self, tails: Iterable[str]) -> None:
            super().extend(tails)
            self.clear()

    monkeypatch.setattr(ids, "_tails", Taken())
    made = [new_id() for _ in range(100)]
    assert made == sorted(made)
    assert len({text[-12:] for text in made}) == 100


def test_a_child_forked_while_a_thread_was_making_an_id_makes_ids() -> None:
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with ids._lock:
            held.set()
            release.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    child = multiprocessing.get_context("fork").Process(target=new_id, daemon=True)
    try:
        child.start()
        child.join(10)
        exit_code = child.exitcode
    finally:
        release.set()
        thread.join()
        child.kill()
        child.join()
    assert exit_code == 0


def _some_ids(_: int) -> list[str]:
    return [new_id() for _ in range(100)]


def test_forked_children_make_ids_of_their_own() -> None:
    with multiprocessing.get_context("fork").Pool(4) as pool:
        children = [text for series in pool.map(_some_ids, range(40), chunksize=1) for text in series]
    assert len({*children, *_some_ids(0)}) == 4_100
