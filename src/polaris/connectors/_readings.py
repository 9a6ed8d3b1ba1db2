"""What connectors collect readings and rates with."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from polaris.clock import SYSTEM_CLOCK, Clock
from polaris.domain import MetricScalar, MetricValue


class Readings:
    """Gathers the readings of one state. None and NaN become readings of quality `missing`.

    A reading about one of several things (a mount point, a process) has the key `name[thing]`, the plain name, and the
    thing as a tag.
    """

    def __init__(self) -> None:
        self._metrics: dict[str, MetricValue] = {}

    def add(self, name: str, value: MetricScalar, unit: str) -> None:
        """One reading of the system as a whole."""
        self._metrics[name] = MetricValue(name, value, unit)

    def add_of(self, name: str, tag: str, thing: str, value: MetricScalar, unit: str) -> None:
        """One reading of one thing, for example `tag="mountpoint"`, `thing="/data"`."""
        self._metrics[f"{name}[{thing}]"] = MetricValue(name, value, unit, tags={tag: thing})

    def put(self, metric: MetricValue) -> None:
        """One reading that is made already."""
        self._metrics[metric.name] = metric

    def metrics(self) -> dict[str, MetricValue]:
        """The readings by key, in the order they were added."""
        return self._metrics


class CounterRates:
    """Turns counters that only grow into rates per second of monotonic time.

    Without two readings of a counter there is no rate, and none either after a counter went back (it was reset) or
    when no time has passed: the rate is None then, never 0. Counters that stop being reported are forgotten.
    """

    def __init__(self) -> None:
        self._earlier: dict[str, tuple[float, float]] = {}

    def rates(self, monotonic_s: float, counters: Mapping[str, float | None]) -> dict[str, float | None]:
        """The rate of every counter since it was last given; a counter of None has none now."""
        found: dict[str, float | None] = {}
        for name, value in counters.items():
            found[name] = None
            if value is None:
                self._earlier.pop(name, None)
                continue
            if name in self._earlier:
                then_s, before = self._earlier[name]
                if monotonic_s > then_s and value >= before:
                    found[name] = (value - before) / (monotonic_s - then_s)
            self._earlier[name] = (monotonic_s, value)
        for name in self._earlier.keys() - counters.keys():
            del self._earlier[name]
        return found


class Stamps:
    """Timestamps for states: the wall clock, moved by a microsecond when it has not moved since the last one."""

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._last: datetime | None = None

    def next(self) -> datetime:
        """A timestamp, timezone-aware UTC, that differs from the last one; it follows a clock that is set back."""
        now = self._clock.now()
        if now == self._last:
            now += timedelta(microseconds=1)
        self._last = now
        return now
