"""What people read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from polaris.cli._output import ago, duration_text, fitted, moment_text, print_table, status_text, value_text

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (None, "By", "-"),
        (0.25, "1", "0.25"),
        (0.25, None, "0.25"),
        (True, None, "true"),
        (7, "{cpu}", "7 cpu"),
        (19.0, "{operation}/s", "19 operation/s"),
        (2.5, "1/s", "2.5 /s"),
        (0, "By", "0 B"),
        (1023, "By", "1023 B"),
        (1536, "By", "1.5 KiB"),
        (270553174016, "By", "252 GiB"),
        (-2048.0, "By/s", "-2 KiB/s"),
        (5e18, "By", "4.547e+06 TiB"),
        (1795400000.0, "s", "1795400000 s"),
        (1.5e300, None, "1.5e+300"),
        (1e-9, "s", "1e-09 s"),
        ("ready", None, "ready"),
    ],
)
def test_a_value_is_written_as_people_write_it(value: object, unit: str | None, text: str) -> None:
    assert value_text(value, unit) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"),
        (0.0124, "12 ms"),
        (3.42, "3.4 s"),
        (89, "89 s"),
        (300, "5.0 min"),
        (7200, "2.0 h"),
        (259_200, "3 d"),
    ],
)
def test_a_duration_has_one_unit(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_a_moment_ago_is_told_from_one_to_come_and_from_never() -> None:
    assert ago(NOW - timedelta(seconds=5), NOW) == "5.0 s ago"
    assert ago(NOW + timedelta(days=3), NOW) == "in 3 d"
    assert ago(NOW + timedelta(milliseconds=100), NOW) == "0 ms ago"
    assert ago(None) == "never"


def test_an_instant_is_utc_to_the_millisecond() -> None:
    assert moment_text(datetime.fromisoformat("2026-01-31T17:00:00.123456+05:00")) == "2026-01-31T12:00:00.123Z"


def test_a_table_is_as_wide_as_its_content(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("A", "STATUS"), [("long name", "healthy"), ("x", "")], status_column=1)
    assert capsys.readouterr().out == "A          STATUS\nlong name  healthy\nx\n"


def test_colours_are_for_terminals_only(monkeypatch: pytest.MonkeyPatch) -> None:
    assert status_text("healthy") == "healthy"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert status_text("healthy", 9) == "\x1b[32mhealthy  \x1b[0m"
    monkeypatch.setenv("NO_COLOR", "")
    assert status_text("healthy") == "healthy"


@pytest.mark.parametrize(
    ("widths", "columns", "given"),
    [
        ([10, 20, 30], None, [10, 20, 30]),
        ([10, 20, 30], 64, [10, 20, 30]),
        ([10, 20, 30], 60, [10, 20, 26]),
        ([10, 20, 30], 48, [10, 17, 17]),
        ([10, 20, 30], 20, [10, 12, 12]),
        ([12, 3], 5, [12, 3]),
    ],
)
def test_a_table_gives_its_widest_columns_away_first_and_no_short_one(
    widths: list[int], columns: int | None, given: list[int]
) -> None:
    assert fitted(widths, columns) == given


def test_into_a_pipe_nothing_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("A", "B"), [("x" * 300, "y")])
    assert capsys.readouterr().out.splitlines()[1] == "x" * 300 + "  y"
