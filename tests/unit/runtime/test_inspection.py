"""Looking into a node: health with remedies, and the breakers that refuse."""

from __future__ import annotations

import pytest

from polaris.domain import HealthStatus
from polaris.messaging import InMemoryMessageBroker
from polaris.observability import StructuredLogger
from polaris.resilience import CircuitBreaker, CircuitBreakerConfig
from polaris.runtime import Settings
from polaris.runtime._bus_survey import BusSurvey
from polaris.runtime._effective import OF_A_PROGRAM
from polaris.runtime._health import HealthBoard
from polaris.runtime._inspection import RuntimeInspection
from polaris.runtime._remedies import OF_BREAKERS, OF_ISOLATED
from polaris.runtime._taps import Taps
from polaris.testing import VirtualClock


def inspecting(board: HealthBoard) -> RuntimeInspection:
    survey = BusSurvey(InMemoryMessageBroker(), board, StructuredLogger("test"))
    return RuntimeInspection(Settings(), OF_A_PROGRAM, board, survey, Taps(InMemoryMessageBroker()))


async def fails() -> None:
    raise OSError("gone")


async def test_a_breaker_is_told_while_it_refuses_and_not_before_or_after() -> None:
    clock = VirtualClock()
    inspection = inspecting(HealthBoard(clock=clock))
    breaker = CircuitBreaker("actions:web", CircuitBreakerConfig(failure_threshold=1, timeout=30), clock=clock)
    inspection.breakers.append(breaker)
    assert inspection.health().breakers == ()
    with pytest.raises(OSError, match="gone"):
        await breaker.call(fails)
    clock.advance(10)
    (told,) = inspection.health().breakers
    assert (told.name, told.state, told.retry_after_s, told.remedy) == ("actions:web", "open", 20.0, OF_BREAKERS)
    clock.advance(20)
    (told,) = inspection.health().breakers
    assert (told.state, told.retry_after_s) == ("half_open", None)
    breaker.isolate()
    assert inspection.health().breakers[0].remedy == OF_ISOLATED
    breaker.close()
    assert inspection.health().breakers == ()


def test_the_node_is_told_as_its_board_has_it() -> None:
    board = HealthBoard(clock=VirtualClock())
    board.expect(["store"])
    board.report("store", HealthStatus.UNHEALTHY, "the disk is full")
    told = inspecting(board).health()
    assert (told.ready, told.health_status, told.message) == (False, "unhealthy", "store: the disk is full")
    assert told.components[0].remedy.startswith("make room on its disk")
