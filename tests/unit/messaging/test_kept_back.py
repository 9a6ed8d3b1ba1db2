"""Lines that come by the thousand are written once a minute, and none goes uncounted."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from polaris.messaging._kept_back import KeptBack
from polaris.testing import VirtualClock


def test_the_first_of_a_kind_is_written_at_once_and_the_others_are_counted() -> None:
    clock = VirtualClock()
    lines: KeptBack[str] = KeptBack(clock)
    assert lines.admit("refused") == 0
    assert [lines.admit("refused") for _ in range(1_000)] == [None] * 1_000
    assert lines.admit("undecodable") == 0
    assert lines.overdue() == []
    clock.advance(60)
    assert lines.admit("refused") == 1_000
    assert lines.admit("refused") is None


def test_what_no_further_line_tells_is_told_when_the_minute_is_over() -> None:
    clock = VirtualClock()
    lines: KeptBack[str] = KeptBack(clock)
    for _ in range(5):
        lines.admit("refused")
    clock.advance(59)
    assert lines.overdue() == []
    clock.advance(1)
    assert lines.overdue() == [("refused", 4)]
    assert lines.overdue() == []
    assert lines.admit("refused") is None
    assert lines.overdue(everything=True) == [("refused", 1)]


def test_after_a_quiet_minute_the_next_line_is_a_first_one() -> None:
    clock = VirtualClock()
    lines: KeptBack[str] = KeptBack(clock)
    lines.admit("refused")
    clock.advance(61)
    assert lines.admit("refused") == 0


def test_the_number_of_kinds_is_bounded_and_what_is_forgotten_is_told() -> None:
    lines: KeptBack[int] = KeptBack(VirtualClock(), kinds_max=3)
    for kind in (1, 1, 1, 2, 3, 4):
        lines.admit(kind)
    assert len(lines._kinds) == 3
    assert lines.overdue() == [(1, 2)]


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.floats(0, 100), st.booleans())), st.integers(1, 4))
def test_every_line_is_written_or_told_exactly_once(steps: list[tuple[str, float, bool]], kinds_max: int) -> None:
    clock = VirtualClock()
    lines: KeptBack[str] = KeptBack(clock, kinds_max=kinds_max)
    happened: Counter[str] = Counter()
    accounted: Counter[str] = Counter()
    for kind, pause_s, look in steps:
        clock.advance(pause_s)
        happened[kind] += 1
        kept_back = lines.admit(kind)
        if kept_back is not None:
            accounted[kind] += 1 + kept_back
        if look:
            accounted.update(dict(lines.overdue()))
    accounted.update(dict(lines.overdue(everything=True)))
    assert accounted == happened
