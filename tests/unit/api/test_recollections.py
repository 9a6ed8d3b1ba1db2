"""Traces and logs over HTTP: pages by cursor, found by correlation id, problems for what is wrong."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest


async def pages(client: httpx2.AsyncClient, path: str, key: str) -> list[list[dict[str, Any]]]:
    found, cursor = [], None
    while True:
        answer = await client.get(path, params={"limit": 2, **({"cursor": cursor} if cursor else {})})
        assert answer.status_code == 200
        found.append(answer.json()[key])
        cursor = answer.json()["next_cursor"]
        if cursor is None:
            return found


@pytest.mark.parametrize(
    ("path", "key", "sizes"), [("/api/v1/traces", "traces", [2, 1]), ("/api/v1/logs", "logs", [2, 2, 1])]
)
async def test_every_item_is_on_exactly_one_page(
    client: httpx2.AsyncClient, path: str, key: str, sizes: list[int]
) -> None:
    found = await pages(client, path, key)
    assert [len(page) for page in found] == sizes
    ids = [item.get("log_id") or item["trace_id"] for page in found for item in page]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("kind", ["traces", "logs"])
@pytest.mark.parametrize("parameter", ["correlation_id", "about"])
async def test_a_correlation_id_finds_what_belongs_to_it(client: httpx2.AsyncClient, kind: str, parameter: str) -> None:
    answer = (await client.get(f"/api/v1/{kind}?{parameter}=c-1")).json()
    assert len(answer[kind]) == 1


async def test_who_follows_the_log_gets_only_what_came_since(client: httpx2.AsyncClient) -> None:
    answer = (await client.get("/api/v1/logs?after=log-7")).json()
    assert [line["log_id"] for line in answer["logs"]] == ["log-9", "log-8"]
    assert (await client.get("/api/v1/logs?after=log-9")).json() == {"logs": [], "next_cursor": None}


async def test_a_trace_comes_with_its_spans_and_an_unknown_one_is_a_problem(client: httpx2.AsyncClient) -> None:
    found = (await client.get(f"/api/v1/traces/{1:032x}")).json()
    assert [span["name"] for span in found["spans"]] == ["execute action"]
    missing = await client.get(f"/api/v1/traces/{9:032x}")
    assert missing.status_code == 404
    assert missing.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("traces?cursor=x", "cursor"),
        ("traces?cursor=WzEsMl0", "cursor"),
        ("traces?limit=501", "limit"),
        ("traces?status=bad", "status"),
        ("logs?level=loud", "level"),
        ("logs?limit=1001", "limit"),
    ],
)
async def test_a_wrong_parameter_is_refused_by_name(client: httpx2.AsyncClient, query: str, parameter: str) -> None:
    answer = await client.get(f"/api/v1/{query}")
    assert answer.status_code in (400, 422)
    assert answer.json()["errors"][0]["parameter"] == parameter
