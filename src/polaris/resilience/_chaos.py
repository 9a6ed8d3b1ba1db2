"""Faults and delays on purpose, reproducible by a seed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass
from random import Random
from typing import Any, TypeVar

from polaris.clock import SYSTEM_CLOCK, Clock
from polaris.exceptions import InvalidValueError
from polaris.resilience._durations import Duration, duration_s
from polaris.resilience._signals import ChaosInjected, Listener, emit
from polaris.resilience._step import Operation, PolicyStep, Step, invoke

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ChaosConfig:
    """What goes wrong, and how often.

    enabled: nothing happens unless this is True.
    seed: the same seed and the same order of calls give the same faults and delays.
    fault_rate: share (0..1) of calls that fail instead of being made, with one of `faults`, chosen evenly.
    latency_rate: share (0..1) of calls that are delayed first, by a time drawn evenly from 0 to `latency_max`.
    """

    enabled: bool = False
    seed: int = 0
    fault_rate: float = 0.0
    faults: tuple[type[Exception], ...] = (ConnectionError,)
    latency_rate: float = 0.0
    latency_max: Duration = 1.0

    def __post_init__(self) -> None:
        for field in ("fault_rate", "latency_rate"):
            rate = getattr(self, field)
            if not isinstance(rate, (int, float)) or not 0 <= rate <= 1:
                raise InvalidValueError(field, "a number in [0, 1]", rate)
        if not self.faults or not all(isinstance(kind, type) and issubclass(kind, Exception) for kind in self.faults):
            raise InvalidValueError("faults", "a tuple of at least one Exception type", self.faults)
        duration_s("latency_max", self.latency_max)


class Chaos:
    """Delays and fails calls at random, by `ChaosConfig`; put it innermost, where the dependency would misbehave.

    Switched off (the default) it adds nothing to a call but itself. `enabled` may be switched at any time. Every
    injected fault or delay is signalled.
    """

    def __init__(
        self, config: ChaosConfig | None = None, *, clock: Clock = SYSTEM_CLOCK, listeners: Iterable[Listener] = ()
    ) -> None:
        self.config = config or ChaosConfig()
        self.enabled = self.config.enabled
        self._latency_max_s = duration_s("latency_max", self.config.latency_max)
        self._random = Random(self.config.seed)  # noqa: S311 # repeatable on purpose
        self._sleep = clock.sleep
        self._listeners = tuple(listeners)
        self._run = self.bind(invoke)

    def execute(self, func: Operation[T], operation_name: str = "") -> Coroutine[Any, Any, T]:
        """Run `func`, unless something goes wrong."""
        return self._run(func, operation_name)

    def bind(self, inner: Step, /) -> PolicyStep:
        """This chaos round `inner`; see `Policy`."""

        async def run(func: Callable[[], Awaitable[Any]], operation: str) -> Any:
            if self.enabled:
                await self._interfere(operation)
            return await inner(func, operation)

        return run

    async def _interfere(self, operation: str) -> None:
        random, config = self._random, self.config
        # Always the same number of draws, before anything is awaited: the n-th call meets the same fate every time.
        delay_draw, latency_draw, fault_draw, kind_draw = (random.random() for _ in range(4))
        delayed = delay_draw < config.latency_rate
        latency_s = latency_draw * self._latency_max_s if delayed else 0.0
        fault: Exception | None = None
        if fault_draw < config.fault_rate:
            fault = config.faults[int(kind_draw * len(config.faults))]("injected by chaos")
        if not delayed and fault is None:
            return
        if self._listeners:
            emit(self._listeners, ChaosInjected(operation, latency_s, fault))
        if delayed:
            await self._sleep(latency_s)
        if fault is not None:
            raise fault
