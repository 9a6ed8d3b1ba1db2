"""Looks into the node for the API: its health with remedies, its configuration, its broker, what passes on the bus."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from polaris.api._inspection_view import BreakerView, ConfigurationView, HealthReport
from polaris.resilience import CircuitBreakerState
from polaris.runtime._bus_survey import BusSurvey
from polaris.runtime._effective import Origination, configuration_of
from polaris.runtime._remedies import OF_BREAKERS, OF_ISOLATED
from polaris.runtime._taps import Taps

if TYPE_CHECKING:
    from polaris.api._bus_view import StreamsView
    from polaris.api._tap_view import Tap
    from polaris.resilience import CircuitBreaker
    from polaris.runtime._health import HealthBoard
    from polaris.runtime._settings import Settings


class RuntimeInspection:
    """Answers from the board and what the services gave to look at. Changes nothing."""

    def __init__(
        self, settings: Settings, origination: Origination, board: HealthBoard, survey: BusSurvey, taps: Taps
    ) -> None:
        self._survey = survey
        self._taps = taps
        self._settings = settings
        self._origination = origination
        self._board = board
        self._configuration: ConfigurationView | None = None
        self.breakers: list[CircuitBreaker] = []
        """Of the action path, one a system."""

    def health(self) -> HealthReport:
        status, message = self._board.overall()
        return HealthReport(
            ready=self._board.readiness().ok,
            health_status=status,
            message=message,
            components=tuple(self._board.components()),
            breakers=tuple(map(_view_of, filter(_refuses, self.breakers))),
        )

    @property
    def dead_letters(self) -> int | None:
        return self._survey.dead_letters

    async def streams(self) -> StreamsView:
        return await self._survey.streams()

    async def tap(self, pattern: str) -> Tap:
        return await self._taps.open(pattern)

    async def configuration(self) -> ConfigurationView:
        if self._configuration is None:
            self._configuration = await asyncio.to_thread(configuration_of, self._settings, self._origination)
        return self._configuration


def _refuses(breaker: CircuitBreaker) -> bool:
    return breaker.state is not CircuitBreakerState.CLOSED


def _view_of(breaker: CircuitBreaker) -> BreakerView:
    found = breaker.snapshot()
    return BreakerView(
        name=found.name,
        state=found.state.value,
        consecutive_failures=found.consecutive_failures,
        rejected_total=found.rejected_total,
        retry_after_s=found.retry_after or None,
        remedy=OF_ISOLATED if found.state is CircuitBreakerState.ISOLATED else OF_BREAKERS,
    )
