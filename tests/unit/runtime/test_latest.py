"""What is known of systems now."""

from __future__ import annotations

from datetime import timedelta

import pytest

from polaris.domain import SystemState
from polaris.runtime._ingest import CLOCK_AHEAD_KEY
from polaris.runtime._latest import LatestStates
from polaris.testing import VirtualClock

CLOCK = VirtualClock()
NOW = CLOCK.now()


def state(seconds: float, system_id: str = "web", *, marked: bool = False) -> SystemState:
    metadata = {CLOCK_AHEAD_KEY: seconds} if marked else {}
    return SystemState(system_id, NOW + timedelta(seconds=seconds), metadata=metadata)


def shown(latest: LatestStates, system_id: str = "web") -> SystemState:
    seen = latest.get(system_id)
    assert seen is not None
    return seen.state


def test_the_latest_is_the_one_with_the_latest_timestamp_whatever_comes_last() -> None:
    latest = LatestStates([], clock=CLOCK)
    for seconds in (1, 5, 3):
        latest.note(state(seconds))
    assert shown(latest) == state(5)


def test_a_sample_from_the_future_gives_way_to_the_next_one_from_the_present() -> None:
    latest = LatestStates([], clock=CLOCK)
    ahead = state(3 * 86_400, marked=True)
    latest.note(state(1))
    latest.note(ahead)
    assert shown(latest) == ahead
    latest.note(state(2))
    assert shown(latest) == state(2)


def test_a_clock_that_always_runs_ahead_still_has_a_latest_sample() -> None:
    latest = LatestStates([], clock=CLOCK)
    for seconds in (100, 102, 101):
        latest.note(state(seconds, marked=True))
    assert shown(latest).timestamp == NOW + timedelta(seconds=102)


@pytest.mark.parametrize("offset_s", [-3 * 86_400.0, 0.0, 3 * 86_400.0])
def test_age_is_counted_from_the_arrival_whatever_the_clock_of_the_system_says(offset_s: float) -> None:
    clock = VirtualClock()
    latest = LatestStates([], clock=clock)
    latest.note(state(offset_s))
    clock.advance(7)
    assert latest.age_s("web") == pytest.approx(7)
    latest.note(state(offset_s - 10))
    assert latest.age_s("web") == pytest.approx(0)


def test_what_was_known_before_the_start_ages_by_its_timestamp() -> None:
    clock = VirtualClock()
    latest = LatestStates([], clock=clock)
    latest.load([state(-60)])
    assert latest.age_s("web") == pytest.approx(60)
    assert latest.age_s("db") is None


def test_systems_are_listed_in_order_page_by_page_configured_ones_included() -> None:
    latest = LatestStates(["m"], clock=CLOCK)
    for name in ("z", "a", "k", "a"):
        latest.note(state(0, name))
    assert len(latest) == 4
    assert list(latest.page(2, None)) == ["a", "k"]
    assert list(latest.page(10, "k")) == ["m", "z"]
    assert list(latest.page(10, "l")) == ["m", "z"]
    assert "m" in latest
    assert "x" not in latest
