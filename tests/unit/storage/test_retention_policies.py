"""What a retention policy may say, and what is refused with the name of what is wrong."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polaris.exceptions import InvalidValueError
from polaris.storage import PolarisDataStore, RetentionPolicy, RollupPolicy
from polaris.storage._rollup_steps import RetentionStep, due_steps
from polaris.storage._rollups import ROLLUPS_MAX, WIDTH_MAX, decode_policy, encode_policy

SECOND, MINUTE, HOUR, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
MICROSECOND = timedelta(microseconds=1)


@pytest.mark.parametrize(
    "width",
    [
        timedelta(0),
        -SECOND,
        MICROSECOND,
        SECOND - MICROSECOND,
        SECOND + MICROSECOND,
        1.5 * SECOND,
        WIDTH_MAX + SECOND,
        timedelta.max,
        timedelta.min,
        60,
        60.0,
        "1m",
        None,
        True,
    ],
)
def test_widths_are_whole_seconds_up_to_a_year(width: Any) -> None:
    with pytest.raises(InvalidValueError, match=r"rollups\.width"):
        RollupPolicy(width)


@pytest.mark.parametrize("width", [SECOND, 7 * SECOND, DAY, WIDTH_MAX])
def test_widths_at_their_limits_are_taken(width: timedelta) -> None:
    assert RollupPolicy(width).width_us == width // MICROSECOND


@pytest.mark.parametrize(
    "kept", [timedelta(0), -SECOND, timedelta(days=365_000) + MICROSECOND, timedelta.max, timedelta.min, 60, "1h", True]
)
def test_how_long_something_is_kept_is_a_positive_span_up_to_a_thousand_years(kept: Any) -> None:
    with pytest.raises(InvalidValueError, match=r"rollups\.kept"):
        RollupPolicy(SECOND, kept)
    with pytest.raises(InvalidValueError, match="raw_kept"):
        RetentionPolicy(kept)


@pytest.mark.parametrize("kept", [MICROSECOND, timedelta(days=365_000), None])
def test_spans_at_their_limits_are_taken(kept: timedelta | None) -> None:
    assert RetentionPolicy(kept).raw_kept == RollupPolicy(SECOND, kept).kept == kept


@pytest.mark.parametrize("rollups", ["", "ab", b"ab", None, 7, {"a": 1}, {RollupPolicy(SECOND)}, [SECOND], [None]])
def test_rollups_are_a_list_of_rollups(rollups: Any) -> None:
    with pytest.raises(InvalidValueError, match="rollups"):
        RetentionPolicy(HOUR, rollups)


def test_there_are_at_most_four_rollups() -> None:
    rollups = [RollupPolicy(2**n * SECOND, (n + 2) * HOUR) for n in range(ROLLUPS_MAX + 1)]
    assert RetentionPolicy(HOUR, rollups[:-1]).rollups == tuple(rollups[:-1])
    with pytest.raises(InvalidValueError, match="at most 4"):
        RetentionPolicy(HOUR, rollups)


@pytest.mark.parametrize(
    "widths", [(MINUTE, MINUTE), (HOUR, MINUTE), (MINUTE, 90 * SECOND), (SECOND, MINUTE, 61 * SECOND)]
)
def test_each_rollup_is_wider_by_a_whole_number_than_the_one_before(widths: tuple[timedelta, ...]) -> None:
    rollups = [RollupPolicy(width, (n + 2) * HOUR) for n, width in enumerate(widths)]
    with pytest.raises(InvalidValueError, match=r"rollups\.width"):
        RetentionPolicy(HOUR, rollups)


@pytest.mark.parametrize(
    ("raw_kept", "kept"),
    [(HOUR, (HOUR, DAY)), (HOUR, (MINUTE, DAY)), (HOUR, (DAY, DAY)), (HOUR, (DAY, HOUR)), (DAY, (HOUR, None))],
)
def test_each_rollup_is_kept_longer_than_what_is_before_it(
    raw_kept: timedelta, kept: tuple[timedelta, timedelta | None]
) -> None:
    with pytest.raises(InvalidValueError, match=r"rollups\.kept"):
        RetentionPolicy(raw_kept, [RollupPolicy(SECOND, kept[0]), RollupPolicy(MINUTE, kept[1])])


def test_a_single_rollup_may_go_with_its_points() -> None:
    assert RetentionPolicy(HOUR, [RollupPolicy(SECOND, HOUR)]).window_us == 1_000_000
    with pytest.raises(InvalidValueError, match=r"rollups\.kept"):
        RetentionPolicy(HOUR, [RollupPolicy(SECOND, HOUR - SECOND)])


def test_nothing_comes_behind_what_is_kept_for_ever() -> None:
    with pytest.raises(InvalidValueError, match="for ever"):
        RetentionPolicy(HOUR, [RollupPolicy(SECOND), RollupPolicy(MINUTE, DAY)])
    with pytest.raises(InvalidValueError, match="for ever"):
        RetentionPolicy(None, [RollupPolicy(SECOND), RollupPolicy(MINUTE)])
    assert RetentionPolicy(None, [RollupPolicy(SECOND)]).window_us == 1_000_000


def test_points_are_kept_for_a_window_at_least() -> None:
    with pytest.raises(InvalidValueError, match="raw_kept"):
        RetentionPolicy(MINUTE - MICROSECOND, [RollupPolicy(MINUTE)])
    assert RetentionPolicy(MINUTE, [RollupPolicy(MINUTE)]).raw_kept == MINUTE


def test_a_list_that_changes_later_does_not_change_the_policy() -> None:
    rollups = [RollupPolicy(SECOND)]
    policy = RetentionPolicy(HOUR, rollups)
    rollups.clear()
    assert policy.rollups == (RollupPolicy(SECOND),)


@st.composite
def policies(draw: st.DrawFn) -> RetentionPolicy:
    width = draw(st.integers(1, 1_000)) * SECOND
    kept = draw(st.integers(1, 10**9)) * MICROSECOND + width
    raw_kept = kept
    rollups: list[RollupPolicy] = []
    for place in range(draw(st.integers(0, ROLLUPS_MAX))):
        width *= draw(st.integers(2, 12)) if place else 1
        kept += draw(st.integers(1, 10**12)) * MICROSECOND
        rollups.append(RollupPolicy(width, kept))
    is_for_ever = draw(st.booleans())
    if rollups and is_for_ever:
        rollups[-1] = RollupPolicy(rollups[-1].width)
    return RetentionPolicy(raw_kept, rollups)


@given(policies())
def test_a_policy_is_read_as_it_was_written(policy: RetentionPolicy) -> None:
    assert decode_policy(encode_policy(policy)) == policy


@given(policies(), st.integers(-(10**15), 10**16))
def test_the_steps_go_from_points_into_ever_wider_windows(policy: RetentionPolicy, now_us: int) -> None:
    steps = due_steps(policy, now_us)
    assert steps[0] == RetentionStep(now_us - (policy.raw_kept_us or 0), policy, of_points=True)
    bounds = [step.since_us for step in steps]
    assert bounds == sorted(bounds, reverse=True)
    widths = [rollup.width_us for rollup in policy.rollups]
    ends = [step.into_us for step in steps[1:]]
    is_for_ever = bool(policy.rollups) and policy.rollups[-1].kept is None
    assert ends == [*widths[1:], *([] if is_for_ever or not widths else [None])]


def test_a_policy_that_keeps_everything_has_no_steps() -> None:
    assert due_steps(RetentionPolicy(), 10**15) == []
    assert due_steps(RetentionPolicy(None, [RollupPolicy(MINUTE)]), 10**15) == []


@pytest.mark.parametrize("name", ["", "a b", "x'; DROP TABLE ts_policies; --", "ä", "n" * 129, ".hidden", 7, None])
async def test_policies_are_of_collections_with_a_name(name: Any) -> None:
    async with PolarisDataStore.memory() as store:
        for call in (
            store.time_series.set_retention(name, RetentionPolicy()),
            store.time_series.get_retention(name),
            store.time_series.apply_retention(name),
        ):
            with pytest.raises(InvalidValueError, match="collection"):
                await call


async def test_a_collection_that_nobody_knows_may_have_a_policy_before_its_first_point() -> None:
    async with PolarisDataStore.memory() as store:
        assert await store.time_series.get_retention("later") is None
        assert await store.time_series.apply_retention("later") == 0
        await store.time_series.set_retention("later", RetentionPolicy(HOUR))
        assert await store.time_series.apply_retention("later") == 0
        assert await store.time_series.list_collections() == []
