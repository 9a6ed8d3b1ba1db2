"""The JSON Schemas of the events over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2
import pytest
from tests.living_view import LivingView

from polaris.api import create_app
from polaris.domain import EventRegistry, HealthEvent, PolarisEvent, event_schemas

OVEN = "acme.oven.measured"


class OvenMeasured(PolarisEvent, frozen=True):
    celsius: float


@pytest.fixture
def registry() -> EventRegistry:
    registry = EventRegistry()
    registry.register(HealthEvent, "polaris.health")
    registry.register(OvenMeasured, OVEN, version=3)
    registry.upcast(OVEN, 1, lambda data: data)
    registry.upcast(OVEN, 2, lambda data: data, data_type=dict[str, float])
    return registry


@pytest.fixture
async def client(view: LivingView, registry: EventRegistry) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(app=create_app(view, registry=registry))
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as client:
        yield client


async def test_every_version_that_has_a_schema_is_listed_with_the_path_that_leads_to_it(
    client: httpx2.AsyncClient, registry: EventRegistry
) -> None:
    listed = (await client.get("/api/v1/schemas")).json()["schemas"]
    assert [(one["event_type"], one["version"]) for one in listed] == [("polaris.health", 1), (OVEN, 2), (OVEN, 3)]
    for one in listed:
        answer = await client.get(one["path"])
        assert answer.headers["content-type"] == "application/schema+json"
        assert answer.json() == event_schemas(registry)[one["id"]]
        assert answer.json()["$id"] == one["id"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"{OVEN}/1", 404),
        (f"{OVEN}/4", 404),
        ("acme.nobody.knows/1", 404),
        (f"{OVEN}/0", 422),
        (f"{OVEN}/-1", 422),
        (f"{OVEN}/newest", 422),
        (f"{OVEN}/1.0", 422),
        (f"{OVEN}/{'9' * 400}", 422),
        (f"{'x' * 300}/1", 422),
        (OVEN, 404),
    ],
)
async def test_what_has_no_schema_is_a_problem(client: httpx2.AsyncClient, path: str, status: int) -> None:
    answer = await client.get(f"/api/v1/schemas/{path}")
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")


async def test_by_default_the_schemas_are_those_of_the_default_registry(view: LivingView) -> None:
    transport = httpx2.ASGITransport(app=create_app(view))
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as client:
        listed = (await client.get("/api/v1/schemas")).json()["schemas"]
    assert {one["event_type"] for one in listed} >= {"polaris.telemetry", "polaris.adaptation", "polaris.execution"}
