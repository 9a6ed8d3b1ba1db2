"""What waits in the outbox over a release is published as the new release knows it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from polaris.domain import EventRegistry, PolarisEvent
from polaris.exceptions import InvalidValueError, MessageDecodeError, UnknownEventTypeError
from polaris.storage import PolarisDataStore


class Shipped(PolarisEvent, frozen=True):
    """As the former release had it."""

    order: str


class ShippedNow(PolarisEvent, frozen=True):
    """As the present one has it."""

    orders: list[str]


BEFORE = EventRegistry()
BEFORE.register(Shipped, "acme.shipped")


def now(*, upcasts: bool = True, upcaster: Any = None) -> EventRegistry:
    registry = EventRegistry()
    registry.register(ShippedNow, "acme.shipped", version=3)
    if upcasts:
        registry.upcast("acme.shipped", 1, upcaster or (lambda data: {"list": [data["order"]]}))
        registry.upcast("acme.shipped", 2, lambda data: {"orders": data["list"]})
    return registry


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> PolarisDataStore:
    return PolarisDataStore.memory() if request.param == "memory" else PolarisDataStore.sqlite(tmp_path / "s.db")


async def test_an_older_entry_is_brought_up_to_the_current_version(store: PolarisDataStore) -> None:
    event = Shipped(order="o-1", correlation_id="c", source="shop")
    async with store:
        await store.outbox.add("acme.shipped", event, registry=BEFORE)
        (entry,) = await store.outbox.pending()
    assert entry.version == 1
    assert entry.event(registry=now()) == ShippedNow(
        orders=["o-1"], event_id=event.event_id, timestamp=event.timestamp, correlation_id="c", source="shop"
    )


async def test_an_upcaster_sees_the_data_and_not_the_envelope(store: PolarisDataStore) -> None:
    seen: list[Mapping[str, Any]] = []

    def upcaster(data: dict[str, Any]) -> dict[str, Any]:
        seen.append(dict(data))
        return {"list": []}

    async with store:
        await store.outbox.add("acme.shipped", Shipped(order="o-1", correlation_id="c"), registry=BEFORE)
        (entry,) = await store.outbox.pending()
    entry.event(registry=now(upcaster=upcaster))
    assert seen == [{"order": "o-1"}]


async def test_a_missing_step_is_an_error_that_names_it(store: PolarisDataStore) -> None:
    async with store:
        await store.outbox.add("acme.shipped", Shipped(order="o-1"), registry=BEFORE)
        (entry,) = await store.outbox.pending()
    with pytest.raises(UnknownEventTypeError, match="version 1"):
        entry.event(registry=now(upcasts=False))


async def test_an_upcaster_that_fails_makes_the_entry_unreadable_and_nothing_worse(store: PolarisDataStore) -> None:
    async with store:
        await store.outbox.add("acme.shipped", Shipped(order="o-1"), registry=BEFORE)
        (entry,) = await store.outbox.pending()
    with pytest.raises(MessageDecodeError):
        entry.event(registry=now(upcaster=lambda data: data["nothing"]))


@pytest.mark.parametrize("after", ["x", None, True, 1.0, -1, 2**63])
async def test_what_is_no_sequence_is_refused(store: PolarisDataStore, after: Any) -> None:
    async with store:
        with pytest.raises(InvalidValueError, match="after"):
            await store.outbox.pending(after=after)
