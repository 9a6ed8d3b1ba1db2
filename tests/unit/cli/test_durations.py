"""Durations and instants as people type them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import click
import pytest

from polaris.cli._durations import parse_duration, parse_instant


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("90s", 90),
        ("1.5h", 5400),
        ("15m", 900),
        ("2min", 120),
        ("7d", 604_800),
        ("1w", 604_800),
        ("250ms", 0.25),
    ],
)
def test_a_duration_has_a_number_and_a_unit(text: str, seconds: float) -> None:
    assert parse_duration(text, "--last") == timedelta(seconds=seconds)
    assert parse_duration(f" {text} ", "--last") == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "soon", "0", "0s", "-1s", "1y", "1h30m", "nan", "inf", "1e99", "9" * 400])
def test_what_is_no_duration_is_refused_by_the_name_of_its_option(text: str) -> None:
    with pytest.raises(click.BadParameter, match="no duration") as refused:
        parse_duration(text, "--last")
    assert "--last" in refused.value.format_message()


@pytest.mark.parametrize("text", ["2026-01-31T12:00:00Z", "2026-01-31T17:00:00+05:00", "2026-01-31 12:00:00.000+00:00"])
def test_an_instant_is_taken_with_any_offset(text: str) -> None:
    assert parse_instant(text, "--start") == datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize("text", ["2026-01-31T12:00:00", "2026-01-31"])
def test_an_instant_without_its_offset_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(click.BadParameter, match="has no offset from UTC"):
        parse_instant(text, "--start")


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01T00:00:00Z"])
def test_what_is_no_instant_is_refused_by_the_name_of_its_option(text: str) -> None:
    with pytest.raises(click.BadParameter, match="no time") as refused:
        parse_instant(text, "--end")
    assert "--end" in refused.value.format_message()
