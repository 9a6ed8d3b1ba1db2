"""Which faults a broker suffers, and when: by chance under a seed, or at counted calls; every one is written down."""

from __future__ import annotations

import enum
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from random import Random

import msgspec

from polaris.clock import Clock
from polaris.exceptions import InvalidValueError

INJECTIONS_KEPT_MAX = 100_000


class Fault(enum.StrEnum):
    """What can go wrong between a client and its broker."""

    LOSS = "loss"
    """A received message does not arrive. From a consumer it comes again after `ack_wait_s`, otherwise it is gone."""
    DELAY = "delay"
    """A pushed message arrives later, and with it what comes behind it."""
    DUPLICATE = "duplicate"
    """A pushed message arrives twice in a row."""
    REORDER = "reorder"
    """A pushed message arrives behind the next one; what a fetch brings is shuffled."""
    UNCONFIRMED = "unconfirmed"
    """A message is stored, but the confirmation is lost: `UnconfirmedPublishError`."""
    VANISHED = "vanished"
    """A message is lost before it is stored, and nobody can tell: `UnconfirmedPublishError`, too."""
    REFUSED = "refused"
    """A message is refused and not stored: `PublishError`."""
    PARTITION = "partition"
    """The broker is away for a while: `BusConnectionError` from everything, and nothing arrives."""
    ACK_LOST = "ack_lost"
    """An acknowledgement (or `term`) is lost: the message comes again. One to be confirmed: `BusConnectionError`."""
    NAK_LOST = "nak_lost"
    """What was handed back is not: the message comes again only after `ack_wait_s`."""


class FaultPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The probability of each fault, at each call or message that it can strike; and calls that it strikes for sure.

        FaultPlan(unconfirmed=0.1, partition=0.01)
        FaultPlan(at={Fault.REFUSED: {1, 2}, Fault.PARTITION: {10}})

    `at` counts, from 1, the occasions of each fault for itself: the second stored publish for `REFUSED`, the tenth call
    of whatever kind for `PARTITION`. The plan that says nothing does nothing.
    """

    loss: float = 0.0
    delay: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    unconfirmed: float = 0.0
    vanished: float = 0.0
    refused: float = 0.0
    partition: float = 0.0
    ack_lost: float = 0.0
    nak_lost: float = 0.0
    delay_s_max: float = 0.05
    """A delayed message waits for up to this long, and one out of order no longer for the next one."""
    partition_s: float = 1.0
    """How long the broker is away."""
    at: Mapping[Fault, AbstractSet[int]] = {}

    def __post_init__(self) -> None:
        for fault in Fault:
            if not 0 <= self.probability(fault) <= 1:
                raise InvalidValueError(fault.value, "a probability from 0 to 1", self.probability(fault))
        for name in ("delay_s_max", "partition_s"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InvalidValueError(name, "seconds, at least 0", getattr(self, name))
        for fault, calls in self.at.items():
            if not isinstance(fault, Fault) or not all(type(number) is int and number >= 1 for number in calls):
                raise InvalidValueError("at", "numbers from 1 for each Fault", {str(fault): list(calls)})

    def probability(self, fault: Fault) -> float:
        """The probability of one fault."""
        return float(getattr(self, fault.value))

    def may(self, fault: Fault) -> bool:
        """Whether the fault can happen at all."""
        return self.probability(fault) > 0 or bool(self.at.get(fault))


class Injection(msgspec.Struct, frozen=True):
    """One fault that happened: its number among all, what it was, where it struck, and when by the clock."""

    number: int
    fault: Fault
    where: str
    monotonic_s: float


class FaultDice:
    """Decides on each occasion whether a fault strikes, and keeps the record.

    Each fault has its own sequence of draws, so the same seed strikes the same occasions of a fault whatever becomes of
    the others. The newest `INJECTIONS_KEPT_MAX` injections are kept, all are counted.
    """

    def __init__(self, plan: FaultPlan, seed: int, clock: Clock) -> None:
        self.plan = plan
        self.injections: deque[Injection] = deque(maxlen=INJECTIONS_KEPT_MAX)
        self.counts: Counter[Fault] = Counter()
        self.random = Random(f"{seed}/what")  # noqa: S311 # a repeatable sequence is the purpose
        self._draws = {fault: Random(f"{seed}/{fault.value}") for fault in Fault}  # noqa: S311
        self._occasions: Counter[Fault] = Counter()
        self._clock = clock

    def strikes(self, fault: Fault, where: str) -> bool:
        """Whether the fault happens on this occasion, which is one of its kind from now on."""
        self._occasions[fault] += 1
        drawn = self._draws[fault].random() < self.plan.probability(fault)
        if not drawn and self._occasions[fault] not in self.plan.at.get(fault, ()):
            return False
        self.note(fault, where)
        return True

    def first_of(self, faults: Iterable[Fault], where: str) -> Fault | None:
        """The first of these faults that happens; all of them get their occasion, one at most is noted."""
        struck: Fault | None = None
        for fault in faults:
            self._occasions[fault] += 1
            drawn = self._draws[fault].random() < self.plan.probability(fault)
            if struck is None and (drawn or self._occasions[fault] in self.plan.at.get(fault, ())):
                struck = fault
        if struck is not None:
            self.note(struck, where)
        return struck

    def note(self, fault: Fault, where: str) -> None:
        """Write down a fault that happened."""
        self.counts[fault] += 1
        self.injections.append(Injection(self.counts.total(), fault, where, self._clock.monotonic()))
