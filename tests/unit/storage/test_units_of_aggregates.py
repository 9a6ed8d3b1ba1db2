"""The unit of an aggregate follows from what it does."""

from __future__ import annotations

import pytest

from polaris.storage import AggregationType


@pytest.mark.parametrize(
    ("aggregation", "unit", "expected"),
    [
        (AggregationType.AVG, "By", "By"),
        (AggregationType.P95, None, None),
        (AggregationType.COUNT, "By", None),
        (AggregationType.RATE, "By", "By/s"),
        (AggregationType.RATE, None, "1/s"),
    ],
)
def test_a_count_has_no_unit_and_a_rate_is_per_second(
    aggregation: AggregationType, unit: str | None, expected: str | None
) -> None:
    assert aggregation.unit_of(unit) == expected
