"""What was not well over HTTP: page by page, narrowed by whom and when, problems for what is wrong."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import httpx2
import pytest
from tests.living_view import LivingView
from tests.unit.api.conftest import NOW

PATH = "/api/v1/health/history"


async def told(client: httpx2.AsyncClient, **query: Any) -> list[str]:
    answer = await client.get(PATH, params=query)
    assert answer.status_code == 200, answer.text
    return [one["period_id"] for one in answer.json()["periods"]]


async def test_the_newest_comes_first_and_every_period_is_on_exactly_one_page(client: httpx2.AsyncClient) -> None:
    first = (await client.get(PATH, params={"limit": 2})).json()
    assert [one["period_id"] for one in first["periods"]] == ["p-3", "p-2"]
    second = (await client.get(PATH, params={"limit": 2, "cursor": first["next_cursor"]})).json()
    assert [one["period_id"] for one in second["periods"]] == ["p-1"]
    assert second["next_cursor"] is None


async def test_a_period_says_whose_it_is_why_what_to_do_and_from_when_to_when(client: httpx2.AsyncClient) -> None:
    (_, of_connector, of_system) = (await client.get(PATH)).json()["periods"]
    assert of_system == {
        "period_id": "p-1",
        "component": None,
        "system_id": "web-shop",
        "node": "atlas",
        "status": "warning",
        "message": "slow",
        "remedy": "add a worker",
        "since": (NOW - timedelta(seconds=500)).isoformat().replace("+00:00", "Z"),
        "until": (NOW - timedelta(seconds=440)).isoformat().replace("+00:00", "Z"),
        "times": 1,
        "cut_off": False,
    }
    assert (of_connector["component"], of_connector["system_id"]) == ("connector:web-shop", "web-shop")


async def test_periods_are_found_by_system_part_state_and_time(client: httpx2.AsyncClient) -> None:
    def ago(seconds: int) -> str:
        return (NOW - timedelta(seconds=seconds)).isoformat()

    assert await told(client, system="web-shop") == ["p-2", "p-1"]
    assert await told(client, component="store") == ["p-3"]
    assert await told(client, state="lasting") == ["p-3"]
    assert await told(client, start=ago(280)) == ["p-3", "p-2"]
    assert await told(client, end=ago(300)) == ["p-1"]
    assert await told(client, start=ago(430), end=ago(310)) == []


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("cursor=x", "cursor"),
        ("cursor=WzEsMl0", "cursor"),
        ("cursor=WzkyMjMzNzIwMzY4NTQ3NzU4MDcsIngiXQ", "cursor"),
        ("limit=501", "limit"),
        ("state=over", "state"),
        ("start=2026-03-01T12:00:00Z&end=2026-03-01T12:00:00Z", "start"),
        ("end=yesterday", "end"),
    ],
)
async def test_a_wrong_parameter_is_refused_by_name(client: httpx2.AsyncClient, query: str, parameter: str) -> None:
    answer = await client.get(f"{PATH}?{query}")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["parameter"] == parameter


async def test_a_period_reaches_live_clients_as_an_event_of_its_own(view: LivingView) -> None:
    with view.live.subscribe() as subscription:
        view.live.publish(view.kept_health.all[0])
        batch = await subscription.next_batch()
    assert batch is not None
    assert [event.kind for event in batch.events] == ["health"]
