"""Where the samples of one managed system are: every one of them confirmed, waiting, or dropped for a reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from polaris.observability import Instruments

Reason = Literal["buffer_full", "refused", "stopped"]


class SampleAccount:
    """Keeps the books: `sampled_total == confirmed_total + waiting + dropped_total` at any moment, also in the metrics.

    `waiting` counts what is buffered or on its way to the bus.
    """

    def __init__(self, system_id: str, instruments: Instruments, waiting: Callable[[], int]) -> None:
        self._system_id = system_id
        self._instruments = instruments
        self._waiting = waiting
        self.sampled_total = 0
        self.confirmed_total = 0
        self.dropped_total = 0
        instruments.telemetry_sampled(system_id).set_function(lambda: self.sampled_total)
        instruments.telemetry_confirmed(system_id).set_function(lambda: self.confirmed_total)
        instruments.telemetry_waiting(system_id).set_function(waiting)

    @property
    def waiting(self) -> int:
        """Samples that were taken and are neither confirmed nor dropped."""
        return self._waiting()

    def sampled(self) -> None:
        """A sample was taken."""
        self.sampled_total += 1

    def confirmed(self) -> None:
        """The bus has a sample on file."""
        self.confirmed_total += 1

    def dropped(self, reason: Reason, samples: int = 1) -> None:
        """Samples will never reach the bus."""
        self.dropped_total += samples
        self._instruments.telemetry_dropped(self._system_id, reason).inc(samples)
