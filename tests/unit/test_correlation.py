"""The correlation id: kept, inherited, restored."""

from __future__ import annotations

import asyncio
import contextvars
import multiprocessing
import threading

import pytest

from polaris import _correlation
from polaris._correlation import (
    CORRELATION_ID_CHARS_MAX,
    correlation_scope,
    current_correlation_id,
    new_correlation_id,
)


def test_outside_a_scope_there_is_no_id() -> None:
    assert current_correlation_id() is None


def test_a_scope_sets_keeps_and_restores_the_id() -> None:
    with correlation_scope("outer") as outer:
        assert outer == current_correlation_id() == "outer"
        with correlation_scope() as kept:
            assert kept == "outer"
        with correlation_scope("inner"):
            assert current_correlation_id() == "inner"
        assert current_correlation_id() == "outer"
    assert current_correlation_id() is None


def test_a_new_id_is_made_when_there_is_none() -> None:
    with correlation_scope() as first:
        assert len(first) == 32
    with correlation_scope("") as second:
        assert len(second) == 32
    assert first != second


def test_a_failing_body_restores_the_former_id() -> None:
    with correlation_scope("outer"):
        with pytest.raises(KeyError), correlation_scope("inner"):
            raise KeyError
        assert current_correlation_id() == "outer"


async def test_tasks_inherit_the_id_and_keep_theirs_to_themselves() -> None:
    seen: list[str | None] = []

    async def work(own: str | None) -> None:
        seen.append(current_correlation_id())
        if own is not None:
            with correlation_scope(own):
                await asyncio.sleep(0)
                seen.append(current_correlation_id())

    with correlation_scope("outer"):
        tasks = [asyncio.create_task(work("a")), asyncio.create_task(work(None))]
    await asyncio.gather(*tasks)
    assert sorted(map(str, seen)) == ["a", "outer", "outer"]
    assert current_correlation_id() is None


async def test_a_cancelled_body_restores_the_former_id() -> None:
    seen: list[str | None] = []
    started = asyncio.Event()

    async def work() -> None:
        try:
            with correlation_scope("inner"):
                started.set()
                await asyncio.Event().wait()
        finally:
            seen.append(current_correlation_id())

    with correlation_scope("outer"):
        task = asyncio.create_task(work())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == ["outer"]


def test_a_thread_starts_without_an_id_unless_it_is_given_the_context() -> None:
    seen: list[str | None] = []
    with correlation_scope("outer"):
        context = contextvars.copy_context()
        for target in (
            lambda: seen.append(current_correlation_id()),
            lambda: context.run(lambda: seen.append(current_correlation_id())),
        ):
            thread = threading.Thread(target=target)
            thread.start()
            thread.join()
    assert seen == [None, "outer"]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("x" * 1_000, "x" * CORRELATION_ID_CHARS_MAX),
        ("a\r\nNats-Msg-Id: forged", "a__Nats-Msg-Id: forged"),
        ("\ud800", "_"),
        ("größe", "größe"),
    ],
)
def test_an_id_from_outside_cannot_break_a_header_or_a_line(given: str, kept: str) -> None:
    with correlation_scope(given) as chosen:
        assert chosen == current_correlation_id() == kept


def _some_ids(_: int) -> list[str]:
    return [new_correlation_id() for _ in range(100)]


def test_every_new_id_is_another_one_of_32_hexadecimal_digits() -> None:
    made = _some_ids(0)
    assert len(set(made)) == 100
    assert all(len(text) == 32 and set(text) <= set("0123456789abcdef") for text in made)


def test_an_id_is_made_though_other_threads_take_all_that_were_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    class Taken(list[str]):
        """Somebody else is always quicker."""

        def pop(self, *_: object) -> str:
            raise IndexError

    monkeypatch.setattr(_correlation, "_drawn", Taken())
    assert len(set(_some_ids(0))) == 100


def test_forked_children_draw_ids_of_their_own() -> None:
    new_correlation_id()
    with multiprocessing.get_context("fork").Pool(4) as pool:
        children = [text for series in pool.map(_some_ids, range(40), chunksize=1) for text in series]
    assert len({*children, *_some_ids(0)}) == 4_100
