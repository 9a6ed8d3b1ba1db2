"""What the waits between attempts promise; their distributions are in tests/property/test_retry_delays.py."""

from __future__ import annotations

from datetime import timedelta
from random import Random
from typing import Any

import pytest

from polaris.exceptions import InvalidValueError
from polaris.resilience import Backoff


def test_the_ceiling_doubles_up_to_the_longest_wait() -> None:
    backoff = Backoff(0.5, timedelta(seconds=30))
    assert [backoff.ceiling_s(attempt) for attempt in (1, 2, 3, 6, 7, 10_000)] == [0.5, 1.0, 2.0, 16.0, 30.0, 30.0]


def test_a_seed_makes_the_waits_repeatable() -> None:
    first, second = (Backoff(random=Random(7)) for _ in range(2))
    assert [first.delay_s(attempt) for attempt in range(1, 9)] == [second.delay_s(attempt) for attempt in range(1, 9)]


def test_without_jitter_nothing_is_drawn() -> None:
    backoff = Backoff(0.5, 30.0, jitter="none")
    assert backoff.delay_s(3) == backoff.ceiling_s(3)
    assert backoff.spread_s() == 0.0


def test_a_wait_that_others_were_told_too_is_spread_by_up_to_the_base() -> None:
    backoff = Backoff(0.5, 30.0, random=Random(1))
    spreads = [backoff.spread_s() for _ in range(1_000)]
    assert 0.0 <= min(spreads) < 0.05
    assert 0.45 < max(spreads) <= 0.5


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("base", {"base": -1}),
        ("base", {"base": "soon"}),
        ("longest", {"longest": float("inf")}),
        ("multiplier", {"multiplier": 0.5}),
        ("multiplier", {"multiplier": float("inf")}),
        ("jitter", {"jitter": "some"}),
    ],
)
def test_a_senseless_rule_is_refused_by_its_name(field: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidValueError) as caught:
        Backoff(**arguments)
    assert caught.value.field == field
