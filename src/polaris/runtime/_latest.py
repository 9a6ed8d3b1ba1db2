"""What is known of every managed system now: its latest state, and when that arrived."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from polaris.clock import SYSTEM_CLOCK, Clock
from polaris.domain import SystemState
from polaris.runtime._ingest import CLOCK_AHEAD_KEY


class Seen(NamedTuple):
    """The latest state of one system. `received_s` is the monotonic time of its arrival, None from before the start."""

    state: SystemState
    received_s: float | None


class LatestStates:
    """One state a system, kept in memory: about 2 kB for ten metrics. Look-ups do not grow with the number of systems.

    The latest state is the one with the latest timestamp. A state that was marked because its clock ran ahead gives way
    to the next one that is not: otherwise one sample from the future would hide the present until the future has come.
    """

    def __init__(self, system_ids: Iterable[str], *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._seen: dict[str, Seen] = {}
        self._known = set(system_ids)
        self._ordered = sorted(self._known)

    def load(self, states: Iterable[SystemState]) -> None:
        """Take over what the store knows from before the start."""
        for state in states:
            self._keep(state, None)

    def note(self, state: SystemState) -> bool:
        """Take a state that arrived just now; whether it is the latest."""
        known = self._seen.get(state.system_id)
        now = self._clock.monotonic()
        if known is None or _supersedes(state, known.state):
            self._keep(state, now)
            return True
        # An older state than the known one; but the system has been heard of.
        self._seen[state.system_id] = Seen(known.state, now)
        return False

    def _keep(self, state: SystemState, received_s: float | None) -> None:
        system_id = state.system_id
        self._seen[system_id] = Seen(state, received_s)
        if system_id not in self._known:
            self._known.add(system_id)
            insort(self._ordered, system_id)

    def get(self, system_id: str) -> Seen | None:
        """The latest state of the system, None before its first."""
        return self._seen.get(system_id)

    def __contains__(self, system_id: object) -> bool:
        return system_id in self._known

    def __len__(self) -> int:
        return len(self._known)

    def page(self, limit: int, after: str | None) -> Sequence[str]:
        """At most `limit` ids of systems, configured or heard of, in ascending order, behind the id `after`."""
        begin = 0 if after is None else bisect_right(self._ordered, after)
        return self._ordered[begin : begin + limit]

    def age_s(self, system_id: str) -> float | None:
        """Seconds since the system was last heard of; None when it never was.

        By this machine's clocks: a system whose own clock is wrong is not stale because of that.
        """
        seen = self._seen.get(system_id)
        if seen is None:
            return None
        if seen.received_s is not None:
            return self._clock.monotonic() - seen.received_s
        return max(0.0, (self._clock.now() - seen.state.timestamp).total_seconds())


def _supersedes(state: SystemState, known: SystemState) -> bool:
    ahead, known_ahead = CLOCK_AHEAD_KEY in state.metadata, CLOCK_AHEAD_KEY in known.metadata
    return (known_ahead and not ahead) or known.timestamp <= state.timestamp
