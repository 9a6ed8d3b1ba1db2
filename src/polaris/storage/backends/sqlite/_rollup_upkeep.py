"""What the writer does for rollups beside its work: it summarises windows and retires old points, a slice at a time."""

from __future__ import annotations

from polaris.clock import SYSTEM_CLOCK, Clock
from polaris.storage._ranges import to_micros
from polaris.storage._rollup_steps import RetentionStep, due_steps, run_step
from polaris.storage._rollups import decode_policy
from polaris.storage.backends.sqlite._rollup_windows import WindowKeeper
from polaris.storage.backends.sqlite._session import SqliteSession
from polaris.storage.backends.sqlite._sql import row, rows

SLICE_ROWS = 1_024
"""Rows that one slice summarises or retires, about: some ten milliseconds."""
RETENTION_INTERVAL_S = 60.0
"""How often the policies are looked at for what has become old."""
REST_BUSY = 4.0
REST_BUSY_SUMMARISED = 49.0
REST_IDLE = 1.0
"""How long the writer leaves rollups alone after a slice, in times of what it took: while there are writes, and else.

Points that are old take room, so their retirement goes on beside writes; summaries save only time, and can wait.
"""


class RollupUpkeep:
    """Decides when a slice is due, and which one. Windows come first: aggregates wait for them, old points do not."""

    def __init__(self, session: SqliteSession, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._session = session
        self._clock = session.time_series.rollups.clock = clock
        self._windows = WindowKeeper(session.connection, session.time_series.rollups, slice_rows=SLICE_ROWS)
        self._due: list[tuple[str, str, list[RetentionStep]]] = []
        """Of collections the policy, and its steps in order: what one takes away may make the next one due."""
        self._policies_at = 0.0
        self._took_s = 0.0
        self._ended_at = 0.0
        self._has_more = True
        self._rest_busy = REST_BUSY
        self.points_retired = 0
        self.rollups_thinned = 0

    @property
    def slices(self) -> int:
        """Slices of windows that were summarised."""
        return self._windows.slices

    def wait_s(self, idle_s: float) -> float:
        """How long the writer may sleep when nobody writes."""
        return min(idle_s, max(0.001, self._took_s * REST_IDLE)) if self._has_more else idle_s

    def is_due(self, *, busy: bool) -> bool:
        """Whether a slice should be run now; `busy` says that somebody waits to write, or has just written."""
        now = self._clock.monotonic()
        if now - self._ended_at < self._took_s * (self._rest_busy if busy else REST_IDLE):
            return False
        return (
            bool(self._due) or now >= self._policies_at or self._windows.is_due(self._session.time_series.cold_until())
        )

    def run_slice(self) -> None:
        """One slice, inside a transaction that the caller began."""
        begun = self._clock.monotonic()
        self._has_more = False  # when it fails, the next one waits like everything else
        try:
            self._has_more = self._run()
        finally:
            self._ended_at = self._clock.monotonic()
            self._took_s = self._ended_at - begun

    def _run(self) -> bool:
        self._rest_busy = REST_BUSY_SUMMARISED
        if self._windows.run_slice(self._session.time_series.cold_until()):
            return True
        self._rest_busy = REST_BUSY
        now = self._clock.monotonic()
        if now >= self._policies_at:
            self._due = self._due_steps()
            self._policies_at = now + RETENTION_INTERVAL_S  # only now: what fails is tried again soon
        if not self._due:
            return False
        collection, policy, steps = planned = self._due.pop(0)
        self._due.append(planned)  # a collection that fails comes again after the others
        left = self._policy(collection) == policy and self._run_step(collection, steps)  # another policy may keep more
        self._due.pop()
        if left:
            self._due.insert(0, planned)
        return bool(self._due)

    def _run_step(self, collection: str, steps: list[RetentionStep]) -> bool:
        """A slice of the first step; False when it was the last one of all."""
        went = run_step(collection, steps[0], SLICE_ROWS, self._session)
        if steps[0].of_points:
            self.points_retired += went
        else:
            self.rollups_thinned += went
        if not went:
            steps.pop(0)
        return bool(steps)

    def _policy(self, collection: str) -> object:
        found = row(self._session.connection, "SELECT policy FROM ts_policies WHERE collection = ?", (collection,))
        return None if found is None else found[0]

    def _due_steps(self) -> list[tuple[str, str, list[RetentionStep]]]:
        found = rows(self._session.connection, "SELECT collection, policy FROM ts_policies ORDER BY collection")
        now_us = to_micros(self._clock.now())
        planned = [(name, text, due_steps(decode_policy(text), now_us)) for name, text in found]
        return [(name, text, steps) for name, text, steps in planned if steps]
