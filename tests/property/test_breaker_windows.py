"""The windows of a breaker in rate mode count what a list of all calls would."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from polaris.resilience._breaker_windows import SLICES, CountWindow, TimeWindow

OUTCOMES = st.lists(st.tuples(st.booleans(), st.booleans(), st.floats(0, 3)), max_size=80)


@given(OUTCOMES, st.integers(1, 20))
def test_the_count_window_is_the_last_calls(outcomes: list[tuple[bool, bool, float]], size: int) -> None:
    window = CountWindow(size)
    for index, (failed, slow, _) in enumerate(outcomes, 1):
        window.record(failed, slow, 0.0)
        recent = outcomes[max(0, index - size) : index]
        counts = (len(recent), sum(call[0] for call in recent), sum(call[1] for call in recent))
        assert (window.calls, window.failed, window.slow) == counts


@given(OUTCOMES, st.sampled_from([1.0, 2.5, 10.0]))
def test_the_time_window_is_the_last_ten_slices(outcomes: list[tuple[bool, bool, float]], length_s: float) -> None:
    window = TimeWindow(length_s)
    now = 100.0
    history: list[tuple[int, bool, bool]] = []
    for failed, slow, gap_s in outcomes:
        now += gap_s
        window.record(failed, slow, now)
        history.append((int(now / (length_s / SLICES)), failed, slow))
        recent = [call for call in history if call[0] > history[-1][0] - SLICES]
        counts = (len(recent), sum(call[1] for call in recent), sum(call[2] for call in recent))
        assert (window.calls, window.failed, window.slow) == counts
        assert len(window._slices) <= SLICES
