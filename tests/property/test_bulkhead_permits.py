"""Permits of a bulkhead under any mix of cancellations, timeouts and errors."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from polaris.exceptions import BulkheadRejectedException, DeadlineExceededError
from polaris.resilience import Bulkhead, BulkheadConfig, Pipeline, Timeout, deadline_scope
from polaris.testing import run_virtual

EXPECTED = (BulkheadRejectedException, DeadlineExceededError, ZeroDivisionError, asyncio.CancelledError)


class Storm:
    """Many callers with random arrival, length, patience and fate; all by one seed."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.permits = self.random.randint(1, 4)
        max_wait = self.random.choice([None, 0.0, 1.0, 3.0])
        self.bulkhead = Bulkhead("b", BulkheadConfig(self.permits, self.random.randint(0, 8), max_wait))
        self.running = 0
        self.queued: list[int] = []
        self.started: list[int] = []

    async def work(self, number: int) -> None:
        self.started.append(number)
        self.running += 1
        assert self.running <= self.permits
        try:
            # Whole numbers, so that ends, timeouts and cancellations meet in the same tick.
            await asyncio.sleep(self.random.randint(0, 3))
            if self.random.random() < 0.3:
                raise ZeroDivisionError
        finally:
            self.running -= 1

    async def caller(self, number: int) -> None:
        await asyncio.sleep(self.random.randint(0, 10))
        pipeline = Pipeline.in_order(self.bulkhead, Timeout(self.random.randint(1, 3)))
        if self.bulkhead.get_stats().available_permits == 0:
            self.queued.append(number)
        with deadline_scope(self.random.choice([None, 1, 2, 4])):
            await pipeline.execute(lambda: self.work(number))

    async def run(self) -> None:
        callers = [asyncio.create_task(self.caller(number)) for number in range(60)]
        loop = asyncio.get_running_loop()
        for caller in self.random.sample(callers, 20):
            loop.call_later(self.random.randint(0, 12), caller.cancel)
        outcomes = await asyncio.gather(*callers, return_exceptions=True)
        for outcome in outcomes:
            assert outcome is None or isinstance(outcome, EXPECTED)

    def check(self) -> None:
        stats = self.bulkhead.get_stats()
        assert (stats.active_calls, stats.queued_calls, self.running) == (0, 0, 0)
        assert stats.available_permits == self.permits
        # Those who waited and were served were served in the order in which they came.
        served = set(self.started)
        waited = set(self.queued)
        assert [number for number in self.started if number in waited] == [
            number for number in self.queued if number in served
        ]


@pytest.mark.parametrize("block", range(10))
def test_after_any_storm_all_counters_are_zero_and_the_order_was_kept(block: int) -> None:
    for seed in range(block * 40, block * 40 + 40):
        storm = Storm(seed)
        run_virtual(storm.run())
        storm.check()
        run_virtual(storm.bulkhead.execute(lambda: asyncio.sleep(0)))
