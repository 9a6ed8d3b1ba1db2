"""Rates of counters: missing until there is something to compare with, and after every reset."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from polaris.connectors._readings import CounterRates, Readings, Stamps
from polaris.domain import Quality
from polaris.testing import VirtualClock


def test_the_first_reading_has_no_rate() -> None:
    assert CounterRates().rates(10.0, {"bytes": 1_000.0}) == {"bytes": None}


def test_a_rate_is_the_growth_over_monotonic_time() -> None:
    rates = CounterRates()
    rates.rates(10.0, {"bytes": 1_000.0})
    assert rates.rates(12.0, {"bytes": 1_500.0}) == {"bytes": 250.0}
    assert rates.rates(13.0, {"bytes": 1_500.0}) == {"bytes": 0.0}


def test_a_counter_that_was_reset_or_unreadable_has_no_rate_and_starts_again() -> None:
    rates = CounterRates()
    rates.rates(0.0, {"bytes": 1_000.0})
    assert rates.rates(1.0, {"bytes": 10.0}) == {"bytes": None}
    assert rates.rates(2.0, {"bytes": 20.0}) == {"bytes": 10.0}
    assert rates.rates(3.0, {"bytes": None}) == {"bytes": None}
    assert rates.rates(4.0, {"bytes": 40.0}) == {"bytes": None}


def test_a_counter_that_disappeared_is_forgotten() -> None:
    rates = CounterRates()
    rates.rates(0.0, {"disk": 5.0, "net": 5.0})
    rates.rates(1.0, {"net": 6.0})
    assert rates.rates(2.0, {"disk": 9.0, "net": 7.0}) == {"disk": None, "net": 1.0}


def test_without_time_passing_there_is_no_rate() -> None:
    rates = CounterRates()
    rates.rates(1.0, {"bytes": 1.0})
    assert rates.rates(1.0, {"bytes": 2.0}) == {"bytes": None}


@given(st.lists(st.tuples(st.floats(0, 1e6), st.one_of(st.none(), st.floats(0, 1e12))), max_size=30))
def test_a_rate_is_never_negative(readings: list[tuple[float, float | None]]) -> None:
    rates = CounterRates()
    for at_s, value in readings:
        rate = rates.rates(at_s, {"counter": value})["counter"]
        assert rate is None or rate >= 0.0


def test_a_reading_that_was_not_taken_is_missing_not_zero() -> None:
    readings = Readings()
    readings.add("a", None, "1")
    readings.add_of("b", "mountpoint", "/data", float("nan"), "1")
    metrics = readings.metrics()
    assert [metric.quality for metric in metrics.values()] == [Quality.MISSING, Quality.MISSING]
    assert metrics["b[/data]"].tags == {"mountpoint": "/data"}


def test_timestamps_differ_even_when_the_clock_stands_still_and_follow_it_back() -> None:
    clock = VirtualClock()
    stamps = Stamps(clock)
    first, second = stamps.next(), stamps.next()
    assert second > first
    clock.jump_wall(timedelta(hours=-1))
    assert stamps.next() < first
