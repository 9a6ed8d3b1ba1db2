"""Retention policies and rollups of the engine in memory: what is left of points that are gone."""

from __future__ import annotations

from collections.abc import Iterator

from polaris.storage._rollup_cells import Rollup
from polaris.storage._rollup_summaries import Summary, merged
from polaris.storage._rollups import RetentionPolicy, cut_window
from polaris.storage._timeseries_requests import Micros, SeriesKey
from polaris.storage.backends.memory._journal import Journal

Window = tuple[int, int]
"""Start and width."""
Summaries = dict[Window, dict[str, Summary]]


class MemoryRollups:
    """Of each collection its policy, and of each of its series the summaries of windows whose points are gone."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._policies: dict[str, RetentionPolicy] = {}
        self._rows: dict[tuple[str, SeriesKey], Summaries] = {}

    def policy(self, collection: str) -> RetentionPolicy | None:
        return self._policies.get(collection)

    def set_policy(self, collection: str, policy: RetentionPolicy) -> None:
        former = self._policies.get(collection)
        self._policies[collection] = policy
        if former is None:
            self._journal.note(lambda: self._policies.pop(collection))
        else:
            self._journal.note(lambda: self._policies.update({collection: former}))

    def within(self, collection: str, key: SeriesKey, micros: Micros, fields: frozenset[str] | None) -> list[Rollup]:
        """The rollups of windows that start in the range."""
        rows = self._rows.get((collection, key), {})
        return [
            Rollup(start, width, name, summary)
            for (start, width), cells in sorted(rows.items())
            if micros[0] <= start < micros[1]
            for name, summary in sorted(cells.items())
            if fields is None or name in fields
        ]

    def add(self, collection: str, key: SeriesKey, window: Window, name: str, summary: Summary) -> None:
        """Keep a summary; one that is there of the same field and window is united with it."""
        former = self._rows.get((collection, key), {}).get(window, {}).get(name)
        self._put(collection, key, window, name, summary if former is None else merged(former, summary))

    def _put(self, collection: str, key: SeriesKey, window: Window, name: str, summary: Summary | None) -> None:
        former = self._replace(collection, key, window, name, summary)
        self._journal.note(lambda: self._replace(collection, key, window, name, former))

    def _replace(
        self, collection: str, key: SeriesKey, window: Window, name: str, summary: Summary | None
    ) -> Summary | None:
        """Keep this summary, or none; gives the one that was there."""
        rows = self._rows.setdefault((collection, key), {})
        cells = rows.setdefault(window, {})
        former = cells.pop(name, None)
        if summary is not None:
            cells[name] = summary
        if not cells:
            del rows[window]
        if not rows:
            del self._rows[collection, key]
        return former

    def drop(self, collection: str, key: SeriesKey, windows: list[Window]) -> None:
        for window in windows:
            for name in list(self._rows.get((collection, key), {}).get(window, {})):
                self._put(collection, key, window, name, None)

    def check_deletable(self, collection: str, key: SeriesKey, micros: Micros) -> list[Window]:
        """The windows inside of the range. Raises `QueryError` when the range cuts one: it cannot be taken apart."""
        inside: list[Window] = []
        for start, width in sorted(self._rows.get((collection, key), {})):
            if micros[0] <= start and start + width <= micros[1]:
                inside.append((start, width))
            elif start < micros[1] and start + width > micros[0]:
                raise cut_window(width)
        return inside

    def thin(self, collection: str, since_us: int, into_us: int | None, rows_max: int) -> int:
        """Unite summaries into windows of `into_us` that end by `since_us`, or drop those that do; gives how many."""
        gone = 0
        for key, rows in self._of(collection):
            due = sorted(window for window in rows if is_due(window, since_us, into_us))
            for start, width in due[: rows_max - gone]:
                cells = rows[start, width]
                if into_us is not None:
                    for name, summary in list(cells.items()):
                        self.add(collection, key, (start - start % into_us, into_us), name, summary)
                self.drop(collection, key, [(start, width)])
                gone += 1
        return gone

    def _of(self, collection: str) -> Iterator[tuple[SeriesKey, Summaries]]:
        for (name, key), rows in sorted(self._rows.items()):
            if name == collection:
                yield key, rows


def is_due(window: Window, since_us: int, into_us: int | None) -> bool:
    """Whether the window belongs into a wider one that ends by then; without a wider one, whether it ends by then."""
    start, width = window
    if into_us is None:
        return start + width <= since_us
    return width < into_us and into_us % width == 0 and start - start % into_us + into_us <= since_us
