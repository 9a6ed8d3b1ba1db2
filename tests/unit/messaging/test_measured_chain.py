"""A chain that is measured does what it does unmeasured, and tells of each middleware its own part of the time."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

import pytest
from tests.unit.messaging.test_middlewares import context

from polaris.messaging import MessageContext, MessageMiddleware, MiddlewareChain, NextHandler
from polaris.messaging._chain import BoundMiddleware
from polaris.observability import MetricsCollector


class Clock:
    """Time that passes when a middleware says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 0.0
        monkeypatch.setattr("polaris.messaging._chain.time.perf_counter", lambda: self.now_s)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


class FirstOnly(BoundMiddleware):
    """Keeps between messages what it has seen."""

    def around(self, next_handler: NextHandler) -> NextHandler:
        seen: set[str] = set()

        async def run(context: MessageContext) -> Any:
            if context.topic in seen:
                return "dropped"
            seen.add(context.topic)
            return await next_handler(context)

        return run


class Outer(BoundMiddleware):
    """Takes a second on the way in and two on the way out."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def around(self, next_handler: NextHandler) -> NextHandler:
        async def run(context: MessageContext) -> Any:
            self._clock.now_s += 1.0
            try:
                return await next_handler(context)
            finally:
                self._clock.now_s += 2.0

        return run


class Inner(MessageMiddleware):
    """Takes ten seconds, and hands on twice at once where it is asked to."""

    def __init__(self, clock: Clock, times: int = 1) -> None:
        self._clock, self._times = clock, times

    async def process(self, context: MessageContext, next_handler: NextHandler) -> Any:
        self._clock.now_s += 10.0
        return (await asyncio.gather(*[next_handler(context) for _ in range(self._times)]))[0]


async def final(context: MessageContext) -> str:
    return "handled"


@pytest.mark.parametrize("measured", [False, True], ids=["plain", "measured"])
async def test_a_middleware_is_bound_once_and_keeps_what_it_knows(measured: bool) -> None:
    chain = MiddlewareChain([FirstOnly()], measure=MetricsCollector() if measured else None)
    assert [await chain.process(context(), final) for _ in range(3)] == ["handled", "dropped", "dropped"]


async def test_what_stands_inside_is_not_counted(clock: Clock) -> None:
    async def slow(context: MessageContext) -> str:
        clock.now_s += 100.0
        return "handled"

    collector = MetricsCollector()
    chain = MiddlewareChain([Outer(clock), Inner(clock)], measure=collector)
    assert await chain.process(context(), slow) == "handled"
    told = {name: collector.operation_timer("middleware", name).sum for name in ("outer", "inner")}
    assert told == {"outer": 3.0, "inner": 10.0}


async def test_one_that_hands_on_twice_at_once_and_one_that_fails_are_told_of(clock: Clock) -> None:
    async def bad(context: MessageContext) -> str:
        clock.now_s += 5.0
        raise LookupError

    collector = MetricsCollector()
    chain = MiddlewareChain([Outer(clock), Inner(clock, times=2)], measure=collector)
    assert await chain.process(context(), final) == "handled"
    with pytest.raises(LookupError):
        await chain.process(context(), bad)
    assert collector.operation_timer("middleware", "outer").sum == 6.0


async def test_messages_at_the_same_time_do_not_share_their_times(clock: Clock) -> None:
    gate = asyncio.Event()

    async def waiting(context: MessageContext) -> str:
        await gate.wait()
        return "handled"

    collector = MetricsCollector()
    chain = MiddlewareChain([Outer(clock)], measure=collector).bind(waiting)
    running = [asyncio.ensure_future(chain(context())) for _ in range(3)]
    await asyncio.sleep(0)
    clock.now_s += 50.0
    gate.set()
    assert await asyncio.gather(*running) == ["handled"] * 3
    assert collector.operation_timer("middleware", "outer").sum < 50.0


async def test_what_stands_inside_may_be_called_in_a_context_of_its_own() -> None:
    class Elsewhere(MessageMiddleware):
        async def process(self, context: MessageContext, next_handler: NextHandler) -> Any:
            async def on() -> Any:
                return await next_handler(context)

            return await asyncio.create_task(on(), context=contextvars.Context())

    assert await MiddlewareChain([Elsewhere()], measure=MetricsCollector()).process(context(), final) == "handled"
