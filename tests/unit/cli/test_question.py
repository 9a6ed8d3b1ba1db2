"""What `polaris query` makes of its options."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import click
import pytest

from polaris.cli._query import Question
from polaris.storage import AggregationType

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def question(**fields: Any) -> Question:
    given = {"system_id": "web", "metric": "load", "last": timedelta(hours=1), "start": None, "end": None}
    return Question(**{**given, "aggregation": None, "bucket": None, "limit": 1000, **fields})


def test_an_open_end_takes_in_samples_of_a_clock_that_runs_ahead() -> None:
    start, end = question().bounds()
    now = datetime.now(UTC)
    assert timedelta(minutes=59) < now - start < timedelta(minutes=61)
    assert end > now + timedelta(hours=23)


def test_the_range_ends_where_it_is_told_to() -> None:
    assert question(end=NOON).bounds() == (NOON - timedelta(hours=1), NOON)
    assert question(start=NOON, end=NOON + timedelta(days=2)).bounds() == (NOON, NOON + timedelta(days=2))


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ({}, 60),
        ({"last": timedelta(seconds=5)}, 1),
        ({"start": NOON, "end": NOON + timedelta(hours=6)}, 360),
        ({"bucket": timedelta(seconds=0.5)}, 0.5),
    ],
)
def test_a_range_makes_about_sixty_buckets_unless_told_otherwise(fields: dict[str, Any], seconds: float) -> None:
    assert question(**fields).bucket_length() == timedelta(seconds=seconds)


def test_the_average_is_taken_unless_told_otherwise() -> None:
    assert question().aggregation_type() is AggregationType.AVG
    assert question(aggregation="p95").aggregation_type() is AggregationType.P95
    with pytest.raises(click.BadParameter, match=r"there is no 'p50'; one of avg, .*median"):
        question(aggregation="p50").aggregation_type()


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"metric": None, "aggregation": "avg"}, "names no metric"),
        ({"metric": None, "bucket": timedelta(seconds=1)}, "names no metric"),
        ({"start": NOON, "end": NOON}, "not before the end"),
        ({"start": datetime(2999, 1, 1, tzinfo=UTC)}, "not before the end"),
    ],
)
def test_options_that_make_no_sense_together_are_refused(fields: dict[str, Any], complaint: str) -> None:
    with pytest.raises(click.BadParameter, match=complaint):
        question(**fields).check()
