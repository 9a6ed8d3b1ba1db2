"""A bus over a broker that loses, repeats, refuses and goes away: at least once, nothing is lost, whatever the seed."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.faults.sizes import size
from tests.unit.messaging.doubles import number_of, telemetry

from polaris.domain import TelemetryEvent
from polaris.exceptions import MessageBusError
from polaris.messaging import (
    DeduplicationMiddleware,
    InMemoryHub,
    InMemoryMessageBroker,
    PolarisMessageBus,
    RedeliveryPolicy,
)
from polaris.testing import Fault, FaultPlan, FaultyBroker, run_virtual, running_clock

EVENTS = 60
TOPICS = ("polaris.telemetry.web", "polaris.telemetry.db")
HARM_S = 120.0
chance = st.sampled_from([0.0, 0.02, 0.1, 0.3])
plans = st.builds(
    FaultPlan,
    loss=chance,
    reorder=chance,
    unconfirmed=chance,
    vanished=chance,
    refused=st.sampled_from([0.0, 0.02, 0.1]),
    partition=st.sampled_from([0.0, 0.002, 0.01]),
    ack_lost=chance,
    nak_lost=chance,
    partition_s=st.sampled_from([0.1, 3.0]),
)
seeds = st.integers(0, 2**32)


class Outcome:
    """What a run came to."""

    def __init__(self) -> None:
        self.published: set[float] = set()
        self.handled: Counter[float] = Counter()
        self.failed = 0
        self.faults: Counter[Fault] = Counter()
        self.dead = 0
        self.unsettled = -1


async def publish_all(bus: PolarisMessageBus, outcome: Outcome) -> None:
    """Publish every event until there is a receipt: again with the same id, as the errors say that one may."""
    for number in range(EVENTS):
        event = telemetry(number, TOPICS[number % 2].rpartition(".")[2])
        while True:
            try:
                await bus.publish(TOPICS[number % 2], event)
                break
            except MessageBusError as error:
                assert error.retryable is True, error
                await asyncio.sleep(0.5)
        outcome.published.add(float(number))
        await asyncio.sleep(0.05)


async def run(plan: FaultPlan, seed: int, *, deduplicated: bool, fails_every: int) -> Outcome:
    """One publisher and one subscriber, each over a faulty broker of its own; until all is settled."""
    clock = running_clock()
    hub = InMemoryHub(clock=clock)
    outcome = Outcome()
    calls = 0

    async def handle(event: TelemetryEvent) -> None:
        nonlocal calls
        calls += 1
        if fails_every and calls % fails_every == 0:
            outcome.failed += 1
            raise ConnectionError("for a while")
        outcome.handled[number_of(event)] += 1

    def bus(salt: int) -> PolarisMessageBus:
        broker = FaultyBroker(InMemoryMessageBroker(hub), plan, seed=seed + salt, clock=clock)
        brokers.append(broker)
        middlewares = [DeduplicationMiddleware()] if deduplicated else []
        policy = RedeliveryPolicy(max_deliveries=50, base_delay_s=0.1, max_delay_s=2.0)
        return PolarisMessageBus(broker, middlewares, redelivery=policy, clock=clock)

    brokers: list[FaultyBroker] = []
    sender, receiver = bus(0), bus(1)
    for one in (sender, receiver):
        await started(one)
    while True:
        try:
            subscription = await receiver.subscribe("polaris.telemetry.*", handle, durable="d", ack_wait_s=6.0)
            break
        except MessageBusError:
            await asyncio.sleep(0.5)
    await publish_all(sender, outcome)
    quiet = InMemoryMessageBroker(hub)
    await quiet.connect()
    for _ in range(3_000):
        position = hub.streams["POLARIS_TELEMETRY"].positions["d"]
        info = position.info()
        if not info.pending and not info.ack_pending and not subscription.in_flight:
            break
        await asyncio.sleep(1.0)
    outcome.unsettled = info.pending + info.ack_pending
    outcome.dead = len(await quiet.read_stored("POLARIS_DEAD_LETTER"))
    await quiet.disconnect()
    for one in (receiver, sender):
        await one.stop()
    for broker in brokers:
        outcome.faults.update(broker.counts)
    return outcome


async def started(bus: PolarisMessageBus) -> None:
    while not bus.started:
        try:
            await bus.start()
        except MessageBusError:
            await asyncio.sleep(0.5)


@settings(max_examples=size(20, 160), deadline=None)
@given(plans, seeds, st.sampled_from([0, 3]))
@example(FaultPlan(loss=0.3, unconfirmed=0.3, vanished=0.3, refused=0.1, partition=0.01, ack_lost=0.3), 1, 3)
def test_nothing_is_lost_and_every_event_is_handled_at_least_once(plan: FaultPlan, seed: int, fails_every: int) -> None:
    outcome = run_virtual(run(plan, seed, deduplicated=False, fails_every=fails_every))
    assert outcome.published == {float(number) for number in range(EVENTS)}
    assert set(outcome.handled) == outcome.published
    assert (outcome.unsettled, outcome.dead) == (0, 0)


@settings(max_examples=size(20, 160), deadline=None)
@given(plans, seeds, st.sampled_from([0, 3]))
@example(FaultPlan(loss=0.3, unconfirmed=0.3, vanished=0.3, refused=0.1, partition=0.01, ack_lost=0.3), 1, 3)
def test_with_deduplication_every_event_is_handled_exactly_once(plan: FaultPlan, seed: int, fails_every: int) -> None:
    outcome = run_virtual(run(plan, seed, deduplicated=True, fails_every=fails_every))
    assert outcome.handled == Counter({float(number): 1 for number in range(EVENTS)})
    assert (outcome.unsettled, outcome.dead) == (0, 0)


def test_without_deduplication_lost_acknowledgements_do_bring_events_twice() -> None:
    outcome = run_virtual(run(FaultPlan(ack_lost=0.3), 1, deduplicated=False, fails_every=0))
    assert outcome.faults[Fault.ACK_LOST] > 0
    assert outcome.handled.total() == EVENTS + outcome.faults[Fault.ACK_LOST]


@given(seeds)
@settings(max_examples=5, deadline=None)
def test_a_run_repeats_exactly(seed: int) -> None:
    plan = FaultPlan(loss=0.1, unconfirmed=0.1, ack_lost=0.1, nak_lost=0.1, refused=0.05)

    def once() -> Outcome:
        random.seed(seed)  # of the waits of the bus, which are drawn as well
        return run_virtual(run(plan, seed, deduplicated=False, fails_every=0))

    one, again = once(), once()
    assert one.faults == again.faults
    assert one.faults.total() > 0


def test_the_faults_of_a_hard_plan_do_all_happen() -> None:
    plan = FaultPlan(
        loss=0.3, reorder=0.3, unconfirmed=0.3, vanished=0.3, refused=0.1, partition=0.01, ack_lost=0.3, nak_lost=0.3
    )
    outcome = run_virtual(run(plan, 3, deduplicated=True, fails_every=3))
    assert set(outcome.faults) >= {
        Fault.LOSS,
        Fault.UNCONFIRMED,
        Fault.VANISHED,
        Fault.REFUSED,
        Fault.PARTITION,
        Fault.ACK_LOST,
        Fault.NAK_LOST,
    }
