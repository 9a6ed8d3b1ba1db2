"""One acknowledgement for many never covers what is not done with, whatever fails, is lost, dies or comes late."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.faults.sizes import size
from tests.unit.messaging.doubles import number_of, publish_raw, telemetry

from polaris.domain import TelemetryEvent
from polaris.exceptions import MessageBusError
from polaris.messaging import (
    AckPolicy,
    InMemoryHub,
    InMemoryMessageBroker,
    PolarisMessageBus,
    RedeliveryPolicy,
    Subscription,
)
from polaris.messaging._cumulative import Cumulative
from polaris.messaging.brokers._memory_streams import ConsumerPosition
from polaris.testing import Fault, FaultPlan, FaultyBroker, run_virtual, running_clock

TOPIC = "polaris.telemetry.web"
EVENTS = 150
TRIES = 4
ACK_WAIT_S = 6.0
GARBAGE = {20, 21, 90}
"""Numbers in whose place something is stored that is no event."""

chance = st.sampled_from([0.0, 0.02, 0.1, 0.3])
plans = st.builds(
    FaultPlan,
    loss=chance,
    reorder=chance,
    partition=st.sampled_from([0.0, 0.002, 0.01]),
    ack_lost=chance,
    nak_lost=chance,
    partition_s=st.sampled_from([0.1, 3.0, 20.0]),
)
failures = st.dictionaries(st.integers(1, EVENTS), st.integers(1, TRIES), max_size=12)
End = Literal["stop", "drain", "crash"]
lives = st.lists(st.tuples(st.sampled_from(["stop", "drain", "crash"]), st.integers(0, 60)), max_size=5)
"""How each subscription but the last one ends, and after how many calls of its handler."""


class World:
    """One stream, one position, and one subscription after the other on it."""

    def __init__(self, plan: FaultPlan, seed: int, fails: Mapping[int, int], in_flight_max: int) -> None:
        self.clock = running_clock()
        self.hub = InMemoryHub(clock=self.clock)
        self.handled: Counter[int] = Counter()
        self.covered_too_soon: list[tuple[int, list[int]]] = []
        self.faults: Counter[Fault] = Counter()
        self.calls = 0
        self._plan = plan
        self._seed = seed
        self._left = dict(fails)
        self._in_flight_max = in_flight_max

    def bus(self, plan: FaultPlan | None = None, seed: int = 0) -> tuple[FaultyBroker, PolarisMessageBus]:
        broker = FaultyBroker(InMemoryMessageBroker(self.hub), plan, seed=seed, clock=self.clock)
        policy = RedeliveryPolicy(max_deliveries=TRIES, base_delay_s=0.1, max_delay_s=2.0)
        return broker, PolarisMessageBus(broker, redelivery=policy, grace_s=5.0, clock=self.clock)

    async def fill(self) -> None:
        _, bus = self.bus()
        async with bus:
            for number in range(1, EVENTS + 1):
                if number in GARBAGE:
                    await publish_raw(bus, TOPIC, b"no event")
                else:
                    receipt = await bus.publish(TOPIC, telemetry(number))
                    assert receipt.sequence == number

    @property
    def position(self) -> ConsumerPosition:
        return self.hub.streams["POLARIS_TELEMETRY"].positions["d"]

    def watch(self) -> None:
        """See to it that every settlement covers what is done with."""
        settle_up_to = self.position._settle_up_to

        def watched(number: int, sequence: int) -> None:
            done = set(self.handled) | self.put_aside()
            missing = sorted(set(range(1, sequence + 1)) - done)
            if missing:
                self.covered_too_soon.append((sequence, missing))
            settle_up_to(number, sequence)

        self.position._settle_up_to = watched  # type: ignore[method-assign]

    def put_aside(self) -> set[int]:
        records = self.hub.streams["POLARIS_DEAD_LETTER"].records.values()
        return {msgspec.json.decode(record.payload)["data"]["sequence"] for record in records}

    def _handle(self, events: Sequence[TelemetryEvent]) -> None:
        self.calls += 1
        for event in events:
            number = int(number_of(event))
            if self._left.get(number, 0):
                self._left[number] -= 1
                raise ConnectionError("for a while")
        self.handled.update(int(number_of(event)) for event in events)

    async def subscribe(self, bus: PolarisMessageBus, *, batches: bool) -> Subscription:
        async def one(event: TelemetryEvent) -> None:
            await asyncio.sleep(0.05)
            self._handle([event])

        async def many(events: list[TelemetryEvent]) -> None:
            await asyncio.sleep(0.2)
            self._handle(events)

        while True:
            try:
                return await bus.subscribe(
                    "polaris.telemetry.*",
                    many if batches else one,
                    durable="d",
                    ack=AckPolicy.ALL,
                    ack_wait_s=ACK_WAIT_S,
                    in_flight_max=self._in_flight_max,
                    batch_max=20,
                )
            except MessageBusError:
                await asyncio.sleep(0.5)

    async def live(self, number: int, end: End | None, calls: int, *, batches: bool) -> None:
        """Subscribe, until so many calls were made, and end as told; without an end, when all is done."""
        broker, bus = self.bus(self._plan, self._seed + number)
        while not bus.started:
            try:
                await bus.start()
            except MessageBusError:
                await asyncio.sleep(0.5)
        subscription = await self.subscribe(bus, batches=batches)
        if number == 0:
            self.watch()
        until = self.calls + calls
        for _ in range(20_000):
            info = self.position.info()
            if not (info.pending or info.ack_pending or subscription.in_flight):
                break
            if end is not None and self.calls >= until:
                break
            await asyncio.sleep(0.1)
        if end == "crash":
            broker.cut()
        elif end == "drain":
            await subscription.drain()
        await bus.stop()
        self.faults += broker.counts


async def run(
    plan: FaultPlan, seed: int, fails: Mapping[int, int], ends: Sequence[tuple[Any, int]], *, batches: bool
) -> World:
    world = World(plan, seed, fails, in_flight_max=40)
    await world.fill()
    for number, (end, calls) in enumerate([*ends, (None, 0)]):
        await world.live(number, end, calls, batches=batches)
    return world


def check(world: World, fails: Mapping[int, int]) -> None:
    assert world.covered_too_soon == []
    info = world.position.info()
    assert (info.pending, info.ack_pending, info.ack_floor) == (0, 0, EVENTS)
    good = set(range(1, EVENTS + 1)) - GARBAGE
    put_aside = world.put_aside()
    assert put_aside >= GARBAGE
    assert set(world.handled) | put_aside >= good
    # Only what has failed as often as it may was ever put aside; a batch counts for all of its messages.
    if not fails:
        assert put_aside == GARBAGE


HARD = FaultPlan(loss=0.3, reorder=0.3, partition=0.01, ack_lost=0.3, nak_lost=0.3, partition_s=3.0)


@settings(max_examples=size(30, 240), deadline=None)
@given(plans, st.integers(0, 2**32), failures, lives, st.booleans())
@example(HARD, 1, {5: 1, 60: TRIES, 61: 2}, [("crash", 10), ("stop", 30), ("crash", 5), ("drain", 10)], False)
@example(HARD, 2, {5: 1, 60: TRIES, 61: 2}, [("crash", 3), ("stop", 2), ("drain", 2)], True)
def test_nothing_is_settled_before_it_is_done_with(
    plan: FaultPlan, seed: int, fails: dict[int, int], ends: list[tuple[End, int]], batches: bool
) -> None:
    world = run_virtual(run(plan, seed, fails, ends, batches=batches))
    check(world, fails)


def test_without_faults_and_ends_everything_is_handled_once_and_in_order() -> None:
    world = run_virtual(run(FaultPlan(), 1, {7: 2, 60: 3}, [], batches=False))
    check(world, {7: 2})
    assert list(world.handled) == [number for number in range(1, EVENTS + 1) if number not in GARBAGE]
    assert set(world.handled.values()) == {1}


@pytest.mark.parametrize("batches", [False, True])
def test_the_faults_and_ends_of_a_hard_plan_do_matter(batches: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """They would lose messages, if the books took for granted that all is here that was handed out."""
    original = Cumulative.__init__

    def trusting(self: Cumulative, ask: Any) -> None:
        original(self, ask)
        self.complete = True

    monkeypatch.setattr(Cumulative, "__init__", trusting)
    monkeypatch.setattr(Cumulative, "_left_out", lambda *_: None)
    world = run_virtual(run(HARD, 1, {}, [("crash", 10), ("crash", 10)], batches=batches))
    assert world.covered_too_soon
