"""Trace context: entered, inherited, left, sampled."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import timeit
from concurrent.futures import ThreadPoolExecutor

import pytest

from polaris.exceptions import InvalidValueError
from polaris.observability import (
    RatioSampler,
    TraceContext,
    current_trace,
    parse_traceparent,
    start_trace,
    trace_scope,
)

HEADER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_the_example_of_the_recommendation_is_understood() -> None:
    context = parse_traceparent(HEADER)
    assert context == TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", 1)
    assert context is not None
    assert context.sampled
    assert context.traceparent == HEADER


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "00",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        HEADER + "-more",
        HEADER + "-",
        HEADER + "\n",
        " " + HEADER,
        HEADER[:-1],
        HEADER.replace("-", "_"),
        "0x" + HEADER[2:],
        HEADER[:-2] + "0g",
        "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.more",
        "\u0660\u0660" + HEADER[2:],
    ],
)
def test_a_malformed_header_begins_a_new_trace(header: str | None) -> None:
    assert parse_traceparent(header) is None


def test_a_later_version_is_read_as_far_as_it_is_known() -> None:
    context = parse_traceparent("cc" + HEADER[2:-2] + "ff-what-the-future-holds")
    assert context is not None
    assert context.sampled
    assert context.traceparent == HEADER[:-2] + "03"


@pytest.mark.parametrize(
    ("given", "kept"), [("vendor=1,other=2", "vendor=1,other=2"), ("x" * 513, ""), ("a\r\nb", ""), (None, ""), ("", "")]
)
def test_vendor_state_is_carried_unless_it_is_malformed(given: str | None, kept: str) -> None:
    context = parse_traceparent(HEADER, given)
    assert context is not None
    assert context.tracestate == context.child().tracestate == kept


def test_a_child_is_a_new_span_of_the_same_trace() -> None:
    parent = start_trace(sampled=True)
    child = parent.child()
    assert child.trace_id == parent.trace_id
    assert child.span_id != parent.span_id
    assert child.sampled
    assert parse_traceparent(child.traceparent) == child


def test_an_unsampled_context_is_handed_on_unchanged() -> None:
    parent = start_trace(sampled=False)
    assert parent.child() is parent
    assert parent.traceparent.endswith("-00")


def test_a_scope_is_entered_inherited_and_left_whatever_happens() -> None:
    outer = start_trace(sampled=True)

    async def read() -> TraceContext | None:
        return current_trace()

    async def main() -> None:
        assert current_trace() is None
        with trace_scope(outer) as entered:
            assert entered is outer
            assert await asyncio.create_task(read()) is outer
            with contextlib.suppress(KeyError), trace_scope() as inner:
                assert inner is current_trace()
                assert (inner.trace_id, inner.span_id != outer.span_id) == (outer.trace_id, True)
                raise KeyError
            assert current_trace() is outer
        assert current_trace() is None

    asyncio.run(main())


def test_a_task_does_not_change_the_scope_of_another() -> None:
    async def inside(context: TraceContext, gate: asyncio.Barrier) -> bool:
        with trace_scope(context):
            await gate.wait()
            return current_trace() is context

    async def main() -> list[bool]:
        gate = asyncio.Barrier(3)
        return await asyncio.gather(*(inside(start_trace(sampled=True), gate) for _ in range(3)))

    assert asyncio.run(main()) == [True, True, True]


def test_new_traces_are_sampled_by_ratio_and_children_keep_the_decision() -> None:
    draws = iter([0.0, 0.009, 0.01, 0.5, 0.99])
    sampler = RatioSampler(0.01, draw=lambda: next(draws))
    decided = []
    for _ in range(5):
        with trace_scope(sampler=sampler) as root, trace_scope(sampler=sampler) as child:
            assert child.sampled == root.sampled
            decided.append(root.sampled)
    assert decided == [True, True, False, False, False]
    assert [RatioSampler(1.0).sample() for _ in range(100)] == [True] * 100
    assert [RatioSampler(0.0).sample() for _ in range(100)] == [False] * 100


@pytest.mark.parametrize("ratio", [-0.1, 1.1, float("nan"), "1", None, True])
def test_a_ratio_outside_nought_to_one_is_refused(ratio: object) -> None:
    with pytest.raises(InvalidValueError) as caught:
        RatioSampler(ratio)  # type: ignore[arg-type]
    assert caught.value.field == "ratio"


def test_ids_of_many_threads_differ() -> None:
    with ThreadPoolExecutor(8) as pool:
        contexts = list(pool.map(lambda _: start_trace(sampled=True), range(5_000)))
    assert len({context.trace_id for context in contexts}) == 5_000
    assert len({context.span_id for context in contexts}) == 5_000


def _trace_id(_: int) -> str:
    return start_trace(sampled=True).trace_id


def test_forked_children_do_not_make_the_ids_of_their_parent() -> None:
    with multiprocessing.get_context("fork").Pool(2) as pool:
        children = pool.map(_trace_id, range(8), chunksize=1)
    ours = [_trace_id(0) for _ in range(100)]
    assert len({*children, *ours}) == 108


def test_context_that_is_not_sampled_costs_about_as_much_as_nothing() -> None:
    context = start_trace(sampled=False)

    def enter() -> None:
        with trace_scope(context):
            pass

    per_call_s = min(timeit.repeat(enter, number=5_000, repeat=5)) / 5_000
    # 0.4 us where nothing else runs; the bound leaves room for a busy machine and none for the building of spans.
    assert per_call_s < 5e-6
