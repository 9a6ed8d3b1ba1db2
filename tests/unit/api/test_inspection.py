"""Looking into a node over HTTP."""

from __future__ import annotations

import httpx2
from tests.living_view import LivingView

from polaris.api import BreakerView


async def test_health_names_the_cause_of_what_fails_and_the_breakers_that_refuse(
    client: httpx2.AsyncClient, view: LivingView
) -> None:
    well = (await client.get("/api/v1/health")).json()
    assert (well["ready"], well["message"], well["breakers"]) == (True, "", [])
    view.failing["store"] = "the disk is full"
    view.inspection.breakers.append(
        BreakerView(name="actions:web", state="open", consecutive_failures=5, rejected_total=2, remedy="mend it")
    )
    answer = await client.get("/api/v1/health")
    assert answer.status_code == 200, "it tells of the node's health, it does not have it"
    told = answer.json()
    assert (told["ready"], told["health_status"]) == (False, "unhealthy")
    assert [part["message"] for part in told["components"] if part["status"] == "unhealthy"] == ["the disk is full"]
    assert [(breaker["name"], breaker["remedy"]) for breaker in told["breakers"]] == [("actions:web", "mend it")]


async def test_every_setting_says_where_it_comes_from(client: httpx2.AsyncClient) -> None:
    told = (await client.get("/api/v1/configuration")).json()
    assert told["file"] == "polaris.toml"
    assert {one["key"]: (one["source"], one["origin"]) for one in told["settings"]} == {
        "node.name": ("file", "polaris.toml"),
        "http.port": ("default", ""),
        "nats.token": ("environment", "POLARIS_NATS__TOKEN"),
    }


async def test_streams_come_with_the_lag_of_their_consumers(client: httpx2.AsyncClient) -> None:
    told = (await client.get("/api/v1/bus/streams")).json()
    assert told["streams_total"] == 1
    (stream,) = told["streams"]
    assert (stream["name"], stream["messages"], stream["bytes_max"]) == ("POLARIS_TELEMETRY", 1200, 1 << 30)
    (consumer,) = stream["consumers"]
    assert (consumer["name"], consumer["pending"], consumer["unacknowledged"]) == ("store-telemetry", 3, 2)


async def test_a_broker_that_does_not_answer_is_a_typed_problem_and_not_an_empty_list(
    client: httpx2.AsyncClient, view: LivingView
) -> None:
    view.inspection.mute = True
    answer = await client.get("/api/v1/bus/streams")
    assert (answer.status_code, answer.json()["code"]) == (503, "polaris.bus.connection")
