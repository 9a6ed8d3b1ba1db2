"""The board on which every part of the node says how it does, and since when."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import msgspec

from polaris.api._view import Check, ComponentView, Verdict
from polaris.clock import SYSTEM_CLOCK, Clock
from polaris.domain import HealthStatus, MetricScalar
from polaris.runtime._remedies import remedy_for

if TYPE_CHECKING:
    from polaris.observability import StructuredLogger

OnChange = Callable[[ComponentView], None]

READY_STATUSES = frozenset({HealthStatus.HEALTHY, HealthStatus.WARNING})
WELL_STATUSES = frozenset({HealthStatus.HEALTHY, HealthStatus.UNKNOWN})


class HealthBoard:
    """One entry a component, in the order of their first report. Belongs to the event loop's thread.

    A component is *essential* when the node cannot do its work without it; only essential ones decide on readiness. A
    managed system that is down is worth showing, but the node is ready all the same.
    """

    def __init__(self, *, clock: Clock = SYSTEM_CLOCK, logger: StructuredLogger | None = None) -> None:
        self._clock = clock
        self._logger = logger
        self._components: dict[str, ComponentView] = {}
        self._essential: set[str] = set()
        self._listeners: list[OnChange] = []
        self._restart_listeners: list[Callable[[str, int], None]] = []
        self.restarts: Counter[str] = Counter()
        """How often supervised parts were started again, by name."""

    def on_change(self, listener: OnChange) -> None:
        """Call `listener` with every component whose status or message changed."""
        self._listeners.append(listener)

    def on_restart(self, listener: Callable[[str, int], None]) -> None:
        """Call `listener` with the name of a part and how many times more it was started again; 0 when it first runs.

        It is told at once what happened before.
        """
        self._restart_listeners.append(listener)
        for name, count in self.restarts.items():
            listener(name, count)

    def count_restart(self, name: str, times: int = 1) -> None:
        """Note that a part is started again; with 0 that there is one of this name."""
        self.restarts[name] += times
        for listener in self._restart_listeners:
            listener(name, times)

    def expect(self, components: Iterable[str]) -> None:
        """Name essential components: the node is not ready before each of them has reported well."""
        for component in components:
            self._essential.add(component)
            if component not in self._components:
                self.report(component, HealthStatus.UNKNOWN, "has not reported yet")

    def report(
        self,
        component: str,
        status: HealthStatus,
        message: str = "",
        *,
        details: Mapping[str, MetricScalar] | None = None,
    ) -> None:
        """Say how `component` does. The time of the status moves only when the status itself changes."""
        known = self._components.get(component)
        same = known is not None and known.status is status
        view = ComponentView(
            name=component,
            status=status,
            message=message,
            since=known.since if known is not None and same else self._clock.now(),
            details=dict(details) if details is not None else known.details if known is not None else {},
            essential=component in self._essential,
            remedy="" if status in WELL_STATUSES else remedy_for(component),
        )
        self._components[component] = view
        if known is not None and same and known.message == message:
            return
        self._log(view, first=known is None)
        for listener in self._listeners:
            listener(view)

    def _log(self, view: ComponentView, *, first: bool) -> None:
        if self._logger is None or (first and view.status is HealthStatus.UNKNOWN):
            return
        log = self._logger.info if view.status in READY_STATUSES else self._logger.warning
        log("component health changed", component=view.name, status=view.status.value, reason=view.message)

    def detail(self, component: str, **details: MetricScalar) -> None:
        """Add facts to a component that has reported; no change of health, nobody is told."""
        known = self._components.get(component)
        if known is not None:
            self._components[component] = msgspec.structs.replace(known, details={**known.details, **details})

    def get(self, component: str) -> ComponentView | None:
        """The entry of the component, None before its first report."""
        return self._components.get(component)

    def components(self) -> tuple[ComponentView, ...]:
        """All entries, in the order of their first report."""
        return tuple(self._components.values())

    def readiness(self) -> Verdict:
        """Whether every essential component is healthy or merely warns; with the reason of each that is not."""
        return Verdict.of(
            [
                Check(component=view.name, ok=view.status in READY_STATUSES, reason=_reason(view))
                for view in self._components.values()
                if view.name in self._essential
            ]
        )

    def overall(self) -> tuple[HealthStatus, str]:
        """The node's own status: the worst essential component decides; another in trouble makes it a warning."""
        for view in self._components.values():
            if view.name in self._essential and view.status not in READY_STATUSES:
                return HealthStatus.UNHEALTHY, f"{view.name}: {view.message or view.status}"
        for view in self._components.values():
            if view.status not in WELL_STATUSES:
                return HealthStatus.WARNING, f"{view.name}: {view.message or view.status}"
        return HealthStatus.HEALTHY, ""


def _reason(view: ComponentView) -> str:
    return "" if view.status in READY_STATUSES else view.message or view.status.value
