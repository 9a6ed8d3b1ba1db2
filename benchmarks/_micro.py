"""Times what takes microseconds: contenders in turns within one process, so that each round sees the same machine.

What is counted is the processor time of the process: others that share the machine disturb it less.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from _harness import median

Times = dict[str, list[float]]
"""Of each contender the seconds a call in each round."""


def in_turns(contenders: Mapping[str, Callable[[], Any]], *, calls: int, rounds: int) -> Times:
    """Call each contender `calls` times a round; the first, uncounted round warms caches and compiles."""
    times: Times = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, call in contenders.items():
            spent_s = _timed(call, calls)
            if number:
                times[name].append(spent_s / calls)
    return times


def _timed(call: Callable[[], Any], calls: int) -> float:
    """The seconds that `calls` calls take. A `partial` of one argument is taken apart: its own cost is nobody's."""
    gc.collect()
    if isinstance(call, functools.partial) and len(call.args) == 1 and not call.keywords:
        function, [argument] = call.func, call.args
        began = time.process_time()
        for _ in range(calls):
            function(argument)
        return time.process_time() - began
    began = time.process_time()
    for _ in range(calls):
        call()
    return time.process_time() - began


async def in_turns_async(contenders: Mapping[str, Callable[[], Awaitable[Any]]], *, calls: int, rounds: int) -> Times:
    """As `in_turns`, awaiting each call."""
    times: Times = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, call in contenders.items():
            spent_s = await _timed_async(call, calls)
            if number:
                times[name].append(spent_s / calls)
            await asyncio.sleep(0)  # what a library put off until later is not billed to the next one
    return times


async def _timed_async(call: Callable[[], Awaitable[Any]], calls: int) -> float:
    gc.collect()
    if isinstance(call, functools.partial) and len(call.args) == 1 and not call.keywords:
        function, [argument] = call.func, call.args
        began = time.process_time()
        for _ in range(calls):
            await function(argument)
        return time.process_time() - began
    began = time.process_time()
    for _ in range(calls):
        await call()
    return time.process_time() - began


def ratio(times: Times, name: str, to: str) -> float:
    """How many times as long one contender took as another: the median over the rounds."""
    return median([mine / other for mine, other in zip(times[name], times[to], strict=True)])


def added_us(times: Times, name: str, to: str) -> float:
    """How much longer a call took than another's, in microseconds: the median over the rounds."""
    return median([mine - other for mine, other in zip(times[name], times[to], strict=True)]) * 1e6


def ratio_rows(times: Times, to: str) -> list[Sequence[str]]:
    """A row a contender: name, nanoseconds a call (the least disturbed round), times the base."""
    return [(name, f"{min(each) * 1e9:,.0f}", f"{ratio(times, name, to):.2f}") for name, each in times.items()]
