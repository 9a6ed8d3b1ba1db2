"""Checks that know what they have found good: quick for the many, and as strict as before with the few."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from polaris.domain._checks import check_tree
from polaris.exceptions import InvalidValueError
from polaris.storage import InMemoryEngine, TimeSeriesPoint
from polaris.storage._limits import COLLECTIONS_MAX, FLAT_KEYS_MAX, check_collection, checked_tree
from polaris.storage._rows import encoded_checked

T0 = datetime(2030, 1, 1, tzinfo=UTC)
LONE = "\ud800"
VALUES: list[Any] = [
    *(None, True, 0, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 1.5, float("nan"), float("inf")),
    *("text", "Grüße", LONE, b"bytes", ..., {1, 2}, 1j),
    *([1, "x"], [LONE], {"nested": {"deep": 1}}, {"nested": LONE}, {1: 2}, (1, 2)),
]


def judged(check: Any, value: Any) -> str:
    try:
        check("properties", value)
    except InvalidValueError as error:
        return error.message
    return ""


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_properties_are_judged_as_any_json_is(value: Any) -> None:
    for tree in ({"k": value}, {"before": 1, "k": value, "after": "x"}, {f"k{n}": value for n in range(FLAT_KEYS_MAX)}):
        assert judged(checked_tree, tree) == judged(check_tree, tree)


@pytest.mark.parametrize("key", ["plain", "Grüße", LONE, "", 1, None, ("a",)], ids=repr)
def test_keys_of_properties_are_judged_as_those_of_any_json_are(key: Any) -> None:
    assert judged(checked_tree, {key: 1}) == judged(check_tree, {key: 1})


def test_properties_are_copied() -> None:
    given = {"a": 1}
    checked_tree("properties", given)["a"] = 2
    assert given == {"a": 1}


def test_a_document_is_kept_without_its_id_and_version_and_is_left_as_it_was() -> None:
    given = {"_id": "x", "n": 1, "_version": 3}
    assert encoded_checked(given) == encoded_checked({"n": 1}) == '{"n":1}'
    assert given == {"_id": "x", "n": 1, "_version": 3}


@pytest.mark.parametrize(
    "tags", [{"a": ["x"]}, {"a": {}}, {"a": 1}, {1: "x"}, {"a": "\n"}, {"": "x"}, {"a": LONE}], ids=repr
)
async def test_tags_are_refused_after_good_ones_as_before_them(tags: Any) -> None:
    async with InMemoryEngine() as engine:
        for _ in range(2):
            await engine.time_series.store_time_series("m", T0, {"a": "x", "b": ""}, {"v": 1})
            with pytest.raises(InvalidValueError, match="tags"):
                await engine.time_series.store_time_series("m", T0, tags, {"v": 1})
            with pytest.raises(InvalidValueError, match="tags"):
                TimeSeriesPoint(T0, tags, {"v": 1})


@pytest.mark.parametrize("fields", [None, [("v", 1)], {}, {"v": object()}], ids=["None", "pairs", "empty", "object"])
async def test_a_single_point_is_refused_with_the_name_of_what_is_wrong(fields: Any) -> None:
    async with InMemoryEngine() as engine:
        with pytest.raises(InvalidValueError, match="fields"):
            await engine.time_series.store_time_series("m", T0, {}, fields)
        with pytest.raises(InvalidValueError, match="timezone-aware"):
            await engine.time_series.store_time_series("m", T0.replace(tzinfo=None), {}, {"v": 1})


async def test_a_single_point_is_the_store_s_own() -> None:
    async with InMemoryEngine() as engine:
        tags, fields = {"h": "a"}, {"v": 1}
        await engine.time_series.store_time_series("m", T0, tags, fields)
        tags["h"], fields["v"] = "b", 2
        (point,) = await engine.time_series.latest("m")
        assert (point.tags, point.fields) == ({"h": "a"}, {"v": 1})


def test_names_of_collections_are_judged_however_many_there_were() -> None:
    for number in range(COLLECTIONS_MAX + 2):
        check_collection(f"quick_{number}")
        check_collection(f"quick_{number}")
    for wrong in ("", "-a", "a b", "ä", "x" * 129, None, 1, ["m"]):
        for _ in range(2):
            with pytest.raises(InvalidValueError, match="collection"):
                check_collection(wrong)
