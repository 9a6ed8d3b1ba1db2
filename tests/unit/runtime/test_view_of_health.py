"""What the node's view notes of the health of systems: silence, and times in which nobody looked."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, cast

import pytest
from tests.unit.runtime.test_health_history import Kept

from polaris.domain import HealthStatus, MetricValue, SystemState
from polaris.observability import MetricsCollector
from polaris.runtime import Settings
from polaris.runtime._settings import SystemSettings
from polaris.runtime._view import PUSHED_STALE_AFTER_S, RuntimeView

Period = tuple[str | None, HealthStatus, float, float | None, bool]


class Looking:
    """An inspection of a node without a broker."""

    dead_letters = None


def view_of(kept: Kept) -> RuntimeView:
    """A view whose node has one system that is asked every second; nothing else of it is asked for."""
    nobody = cast("Any", None)
    return RuntimeView(
        Settings(systems={"asked": SystemSettings(connector="host", interval_s=1.0)}),
        kept.store,
        nobody,
        kept.board,
        MetricsCollector(),
        {},
        nobody,
        version="1",
        recollections=nobody,
        inspection=cast("Any", Looking()),
        health_history=kept.history,
        clock=kept.clock,
    )


def state(kept: Kept, system_id: str, status: HealthStatus = HealthStatus.HEALTHY) -> SystemState:
    return SystemState(system_id, kept.clock.now(), [MetricValue("load", 1.0)], status)  # type: ignore[arg-type] # a list


async def told(kept: Kept) -> list[Period]:
    """By when they began: whose, how, from when to when in seconds before now, and whether nobody saw the end."""
    now = kept.clock.now()
    return [
        (
            one.system_id,
            one.status,
            (now - one.since).total_seconds(),
            None if one.until is None else (now - one.until).total_seconds(),
            one.cut_off,
        )
        for one in await kept.periods()
    ]


async def test_a_system_is_silent_when_it_is_stale_by_its_own_interval_and_until_it_is_heard_again() -> None:
    kept = await Kept().start()
    view = view_of(kept)
    view.note_states([state(kept, "asked"), state(kept, "pushed")])
    kept.clock.advance(3.5)
    view.publish_node()
    assert await told(kept) == [("asked", HealthStatus.UNKNOWN, 3.5, None, False)]
    kept.clock.advance(PUSHED_STALE_AFTER_S - 3.0)
    view.publish_node()
    assert {one[0] for one in await told(kept)} == {"asked", "pushed"}
    view.note_states([state(kept, "asked"), state(kept, "pushed")])
    assert all(until == 0.0 for _, _, _, until, _ in await told(kept))


async def test_an_old_sample_that_comes_late_ends_the_silence_too() -> None:
    kept = await Kept().start()
    view = view_of(kept)
    view.note_states([state(kept, "asked")])
    late = state(kept, "asked")
    kept.clock.advance(5.0)
    view.publish_node()
    view.note_states([SystemState("asked", late.timestamp - timedelta(seconds=1), late.metrics)])
    view.publish_node()
    assert await told(kept) == [("asked", HealthStatus.UNKNOWN, 5.0, 0.0, False)]


async def test_no_system_is_silent_because_the_node_was_not_there() -> None:
    kept = await Kept().start()
    await kept.store.states.save_current_state(state(kept, "asked"))
    kept.clock.advance(600.0)
    view = view_of(kept)
    await view.load()
    kept.clock.advance(2.0)
    view.publish_node()
    assert await told(kept) == []
    kept.clock.advance(2.0)
    view.publish_node()
    assert await told(kept) == [("asked", HealthStatus.UNKNOWN, 604.0, None, False)]


AT_ONCE: list[Period] = [("asked", HealthStatus.WARNING, 2.0, None, False)]
LATE: list[Period] = [
    ("asked", HealthStatus.WARNING, 0.0, None, False),
    ("asked", HealthStatus.WARNING, 60.0, 0.0, True),
]


@pytest.mark.parametrize(("away_s", "expected"), [(2.0, AT_ONCE), (60.0, LATE)], ids=["a moment", "a minute"])
async def test_trouble_from_before_goes_on_only_when_the_node_was_away_for_a_moment(
    away_s: float, expected: list[Period]
) -> None:
    kept = await Kept().start()
    kept.state(HealthStatus.WARNING, "asked")
    await kept.store.states.save_current_state(state(kept, "asked", HealthStatus.WARNING))
    kept.clock.advance(away_s)
    view = view_of(kept)
    await view.load()
    view.note_states([state(kept, "asked", HealthStatus.WARNING)])
    assert await told(kept) == expected
