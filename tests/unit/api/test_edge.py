from __future__ import annotations

import httpx2
import pytest
from starlette.applications import Starlette
from tests.living_view import LivingView

from polaris.api import create_app, hosts_for
from polaris.api._hosts import host_name


@pytest.mark.parametrize("path", ["/api/v1/node", "/healthz", "/nothing", "/api/v1/systems?limit=0"])
async def test_every_answer_carries_the_security_headers(client: httpx2.AsyncClient, path: str) -> None:
    headers = (await client.get(path)).headers
    assert headers["content-security-policy"].startswith("default-src 'self';")
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"
    assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"])
async def test_methods_that_change_things_are_refused(client: httpx2.AsyncClient, method: str) -> None:
    answer = await client.request(method, "/api/v1/systems")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, HEAD"
    assert answer.json()["code"] == "polaris.request.method"


@pytest.mark.parametrize("path", ["/api/v1/systems", "/api/v1/stream", "/metrics", "/openapi.json"])
async def test_head_answers_like_get_without_a_body(client: httpx2.AsyncClient, path: str) -> None:
    answer = await client.head(path)
    assert answer.status_code == 200
    assert answer.content == b""


async def test_a_request_with_a_body_is_refused(client: httpx2.AsyncClient) -> None:
    answer = await client.request("GET", "/api/v1/node", content=b"{}")
    assert answer.status_code == 400


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8080", "localhost", "LOCALHOST:1", "[::1]", "[::1]:8080"])
async def test_loopback_names_are_answered(client: httpx2.AsyncClient, host: str) -> None:
    assert (await client.get("/api/v1/node", headers={"Host": host})).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8080",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "",
        "localhost:x",
        "[::1",
    ],
)
async def test_a_foreign_name_for_loopback_is_turned_away(client: httpx2.AsyncClient, host: str) -> None:
    answer = await client.get("/api/v1/node", headers={"Host": host})
    assert answer.status_code == 421
    assert answer.json()["code"] == "polaris.request.host"


@pytest.mark.parametrize(
    ("bound_to", "host", "welcome"),
    [
        ("127.0.0.1", "localhost", True),
        ("127.0.0.2", "127.0.0.2", True),
        ("::1", "::1", True),
        ("localhost", "evil.example", False),
    ],
)
def test_a_server_on_loopback_answers_to_loopback_names_only(bound_to: str, host: str, welcome: bool) -> None:
    hosts = hosts_for(bound_to)
    assert hosts is not None
    assert (host in hosts) is welcome


def test_a_server_on_the_network_answers_to_any_name_unless_some_are_listed() -> None:
    assert hosts_for("0.0.0.0") is None
    assert hosts_for("192.0.2.7", ["node.example"]) == frozenset({"192.0.2.7", "node.example"})


async def test_any_host_is_welcome_when_none_are_listed(view: LivingView) -> None:
    app: Starlette = create_app(view, hosts=None)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://node.example") as client:
        assert (await client.get("/healthz")).status_code == 200


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("a:80", "a"),
        ("[::1]:80", "::1"),
        ("[::1]", "::1"),
        ("::1", None),
        ("a:b", None),
        ("[::1]x", None),
        (":80", None),
    ],
)
def test_the_name_in_a_host_header(header: str, name: str | None) -> None:
    assert host_name(header) == name
