"""Versions of an event's data in the registry: what leads from older ones to the current one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from polaris.domain import EventRegistry, PolarisEvent, event_type
from polaris.domain._versions import version_of
from polaris.exceptions import ConfigurationError, InvalidValueError, MessageDecodeError, UnknownEventTypeError

NAME = "acme.order.shipped"
URI = f"urn:polaris:schema:{NAME}:"


class OrderShipped(PolarisEvent, frozen=True):
    order: str


def first(data: dict[str, Any]) -> Mapping[str, Any]:
    return data


def second(data: dict[str, Any]) -> Mapping[str, Any]:
    return data


@pytest.fixture
def registry() -> EventRegistry:
    registry = EventRegistry()
    registry.register(OrderShipped, NAME, version=3)
    return registry


def test_the_path_from_an_older_version_has_every_step_in_order(registry: EventRegistry) -> None:
    registry.upcast(NAME, 2, second)
    registry.upcast(NAME, 1, first)
    entry = registry.require(OrderShipped)
    assert [(step.version, step.function) for step in registry.path(entry, 1)] == [(1, first), (2, second)]
    assert [step.version for step in registry.path(entry, 2)] == [2]
    assert [step.version for step in registry.older_versions(NAME)] == [1, 2]


@pytest.mark.parametrize("version", [3, 4, 999_999])
def test_the_current_version_and_newer_ones_need_no_path(registry: EventRegistry, version: int) -> None:
    assert registry.path(registry.require(OrderShipped), version) == ()


def test_a_path_with_a_gap_is_refused_and_the_gap_is_named(registry: EventRegistry) -> None:
    registry.upcast(NAME, 1, first)
    with pytest.raises(
        UnknownEventTypeError, match=r"version 1 cannot be read: the current version is 3, and no .* 2$"
    ):
        registry.path(registry.require(OrderShipped), 1)


def test_a_child_finds_the_steps_of_its_parent(registry: EventRegistry) -> None:
    registry.upcast(NAME, 1, first)
    child = EventRegistry(parent=registry)
    child.upcast(NAME, 2, second)
    assert [step.version for step in child.path(child.require(OrderShipped), 1)] == [1, 2]
    assert [step.version for step in child.older_versions(NAME)] == [1, 2]
    assert [step.version for step in registry.older_versions(NAME)] == [1]
    with pytest.raises(ConfigurationError):
        child.upcast(NAME, 1, second)


def test_the_steps_may_be_registered_before_their_type() -> None:
    registry = EventRegistry()
    registry.upcast(NAME, 1, first)
    event_type(NAME, version=2, registry=registry)(OrderShipped)
    assert [step.function for step in registry.path(registry.require(OrderShipped), 1)] == [first]


def test_the_same_step_twice_is_harmless_and_another_is_a_clash(registry: EventRegistry) -> None:
    registry.upcast(NAME, 1, first)
    registry.upcast(NAME, 1, first)
    for function, data_type in ((second, None), (first, dict)):
        with pytest.raises(ConfigurationError, match="another function"):
            registry.upcast(NAME, 1, function, data_type=data_type)
    assert [step.function for step in registry.older_versions(NAME)] == [first]


@pytest.mark.parametrize("version", [3, 4])
def test_nothing_leads_on_from_the_current_version(registry: EventRegistry, version: int) -> None:
    with pytest.raises(ConfigurationError, match="at version 3"):
        registry.upcast(NAME, version, first)


@pytest.mark.parametrize("version", [0, -1, True, 1.0, "1", 1_000_000, None])
def test_a_version_is_a_positive_integer(registry: EventRegistry, version: Any) -> None:
    for call in (
        lambda: registry.upcast(NAME, version, first),
        lambda: EventRegistry().register(OrderShipped, NAME, version=version),
    ):
        with pytest.raises(InvalidValueError, match="version: expected an integer from 1"):
            call()


@pytest.mark.parametrize("name", ["", "Upper.Case", "noDots", "x." + "y" * 200, None])
def test_a_bad_type_name_is_refused(registry: EventRegistry, name: Any) -> None:
    with pytest.raises(InvalidValueError):
        registry.upcast(name, 1, first)


@pytest.mark.parametrize(
    ("dataschema", "version"),
    [(None, 3), ("", 3), (URI + "1", 1), (URI + "3", 3), (URI + "12", 12), ("https://acme.example/order.json", 3)],
)
def test_the_dataschema_tells_the_version(registry: EventRegistry, dataschema: str | None, version: int) -> None:
    assert version_of(registry.require(OrderShipped), dataschema) == version


@pytest.mark.parametrize(
    "dataschema",
    [
        URI,
        URI + "0",
        URI + "01",
        URI + "-1",
        URI + "1.0",
        URI + "one",
        URI + "1\n",
        URI + "٣",
        URI + "9" * 5_000,
        "urn:polaris:schema:acme.order.lost:1",
        "urn:polaris:schema:1",
        "urn:polaris:schema:",
    ],
)
def test_a_dataschema_of_polaris_that_names_no_version_of_the_type_is_refused(
    registry: EventRegistry, dataschema: str
) -> None:
    with pytest.raises(MessageDecodeError, match=r"names no version of 'acme\.order\.shipped'") as caught:
        version_of(registry.require(OrderShipped), dataschema)
    assert len(str(caught.value)) < 300


def test_a_step_gets_a_dictionary_of_its_own(registry: EventRegistry) -> None:
    def rename(data: dict[str, Any]) -> dict[str, Any]:
        data["order"] = data.pop("order_id")
        return data

    registry.upcast(NAME, 1, rename)
    data = {"order_id": "7"}
    assert registry.older_versions(NAME)[0].lift(data) == {"order": "7"}
    assert data == {"order_id": "7"}


class OrderOfOld(msgspec.Struct):
    order_id: int


def test_data_that_are_not_of_the_type_of_their_version_never_reach_the_step(registry: EventRegistry) -> None:
    seen: list[object] = []

    def note(data: dict[str, Any]) -> dict[str, Any]:
        seen.append(data)
        return {"order": str(data["order_id"])}

    registry.upcast(NAME, 1, note, data_type=OrderOfOld)
    (step,) = registry.older_versions(NAME)
    assert step.lift({"order_id": 7, "more": 1}) == {"order": "7"}
    with pytest.raises(MessageDecodeError, match=r"from version 1 failed: ValidationError: Expected `int`"):
        step.lift({"order_id": "seven"})
    assert seen == [{"order_id": 7, "more": 1}]


@pytest.mark.parametrize("outcome", [None, [], "text", 7])
def test_a_step_that_gives_no_mapping_is_a_decode_error(registry: EventRegistry, outcome: Any) -> None:
    registry.upcast(NAME, 1, lambda _: outcome)
    with pytest.raises(MessageDecodeError, match="it gave no mapping"):
        registry.older_versions(NAME)[0].lift({})
