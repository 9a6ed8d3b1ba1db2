"""Sliding windows: exact over the time they cover, bounded, and missing where there is nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polaris.connectors.gunicorn._window import CountWindow, DurationWindow, quantile


def test_a_rate_is_over_the_time_since_the_window_opened_while_that_is_shorter() -> None:
    window = CountWindow(10.0, opened_at_s=100.0)
    window.add(101.0, "requests", 6)
    assert window.rates(102.0) == {"requests": pytest.approx(3.0)}


def test_a_window_just_opened_has_no_rate_not_a_rate_of_zero() -> None:
    window = CountWindow(10.0, opened_at_s=100.0)
    window.add(100.1, "requests", 6)
    assert window.rates(100.4) == {}
    assert not window.covers(100.4)
    assert window.covers(100.5)


def test_what_left_the_window_is_not_counted_any_more() -> None:
    window = CountWindow(10.0, opened_at_s=0.0)
    window.add(50.0, "requests", 1000)
    window.add(58.0, "requests", 19)
    assert window.rates(61.0) == {"requests": pytest.approx(19 / 9.5, rel=0.06)}
    assert window.rates(75.0) == {}


@given(st.lists(st.tuples(st.floats(0, 100), st.sampled_from("ab")), max_size=200), st.floats(1, 50))
def test_a_rate_is_exactly_what_happened_in_the_time_covered(events: list[tuple[float, str]], window_s: float) -> None:
    window = CountWindow(window_s, opened_at_s=0.0)
    events.sort()
    for at_s, kind in events:
        window.add(at_s, kind, 1.0)
    now_s = 100.0
    slice_s = window_s / 20
    start_s = max(0.0, (now_s // slice_s - 19) * slice_s)
    for kind, rate in window.rates(now_s).items():
        counted = sum(
            event_kind == kind and int(at_s // slice_s) >= int(now_s // slice_s) - 19 for at_s, event_kind in events
        )
        assert rate * (now_s - start_s) == pytest.approx(counted)


def test_durations_leave_with_time_and_the_oldest_leaves_first_when_full() -> None:
    window = DurationWindow(10.0, durations_max=3)
    for at_s, duration_s in ((0.0, 9.0), (8.0, 1.0), (9.0, 3.0), (9.5, 2.0)):
        window.add(at_s, duration_s)
    assert window.sorted(9.9) == [1.0, 2.0, 3.0]
    assert window.overflowed == 1
    assert window.sorted(18.5) == [2.0, 3.0]
    assert window.sorted(30.0) == []


def test_a_duration_that_left_in_time_was_not_pushed_out() -> None:
    window = DurationWindow(1.0, durations_max=2)
    for at_s in range(10):
        window.add(at_s, 1.0)
    assert window.overflowed == 0


def test_quantiles_are_nearest_ranks() -> None:
    values = [float(value) for value in range(1, 101)]
    assert [quantile(values, q) for q in (0.0, 0.5, 0.95, 0.99, 1.0)] == [1.0, 50.0, 95.0, 99.0, 100.0]
    assert quantile([7.0], 0.95) == 7.0
    assert quantile([], 0.95) is None
