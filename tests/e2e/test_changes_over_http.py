"""Changes asked for over HTTP reach a managed system, and the stream of dead letters, of a real node."""

from __future__ import annotations

import asyncio
import base64
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import nats
import pytest
import pytest_asyncio
from tests.commands import Polaris
from tests.nodes import NodeUnderTest, a_node, eventually_true
from tests.witness_connector import read_journal

from polaris.exceptions import ConfigurationError
from polaris.runtime import load_settings

pytestmark = pytest.mark.xdist_group("changes-over-http")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[NodeUnderTest]:
    folder = tmp_path_factory.mktemp("changes")
    options = {"journal": str(folder / "web.jsonl"), "before_s": 0.0}
    system = {"connector": "tests.witness_connector:WitnessConnector", "interval_s": 0.1, "options": options}
    async with a_node(folder, {"systems": {"web": system}}) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def client(node: NodeUnderTest) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=str(node.file.http_url)) as client:
        yield client


def token_of(node: NodeUnderTest) -> dict[str, str]:
    file = node.data.path / "http.token"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    return {"Authorization": f"Bearer {file.read_text()}"}


def carried_out(node: NodeUnderTest, action_id: str) -> int:
    lines = read_journal(node.folder / "web.jsonl")
    return sum(line.event == "begin" and line.action_id == action_id for line in lines)


async def status_of(client: httpx2.AsyncClient, action_id: str) -> str | None:
    answer = await client.get(f"/api/v1/actions/{action_id}")
    return answer.json()["status"] if answer.status_code == 200 else None


@pytest.mark.asyncio(loop_scope="module")
async def test_an_action_reaches_the_system_once_however_often_it_is_asked_for(
    node: NodeUnderTest, client: httpx2.AsyncClient
) -> None:
    async def is_known() -> bool:
        return (await client.get("/api/v1/systems/web")).status_code == 200

    await eventually_true(is_known, "the system is known")
    asked = {"action_type": "poke", "action_id": "over-http"}
    first = await client.post("/api/v1/systems/web/actions", json=asked, headers=token_of(node))
    second = await client.post("/api/v1/systems/web/actions", json=asked, headers=token_of(node))
    assert first.status_code == 202, first.text
    assert second.status_code in (200, 202), second.text

    async def has_ended() -> bool:
        return await status_of(client, "over-http") == "success"

    await eventually_true(has_ended, "the action has ended")
    again = await client.post("/api/v1/systems/web/actions", json=asked, headers=token_of(node))
    assert (again.status_code, again.json()["status"]) == (200, "success")
    assert carried_out(node, "over-http") == 1


@pytest.mark.asyncio(loop_scope="module")
async def test_a_dead_letter_is_found_with_its_bytes_replayed_and_dropped(
    node: NodeUnderTest, client: httpx2.AsyncClient
) -> None:
    hostile = b"\x00\xff no event"
    bus = await nats.connect(str(node.file.bus_url), token=node.file.bus_token)
    try:
        await bus.jetstream().publish("polaris.telemetry.web", hostile)
    finally:
        await bus.close()
    entries: list[dict[str, Any]] = []

    async def there() -> bool:
        entries[:] = (await client.get("/api/v1/dead-letters")).json()["dead_letters"]
        return bool(entries)

    await eventually_true(there, "the dead letter is there")
    number = entries[0]["sequence"]
    shown = (await client.get(f"/api/v1/dead-letters/{number}")).json()
    assert base64.b64decode(shown["payload"]) == hostile
    path = f"/api/v1/dead-letters/{number}"
    assert (await client.delete(path)).status_code == 401
    assert (await client.post(f"{path}/replay", headers=token_of(node))).status_code == 204

    async def is_back() -> bool:
        found = (await client.get("/api/v1/dead-letters")).json()["dead_letters"]
        return bool(found) and found[0]["sequence"] > number

    await eventually_true(is_back, "what is still no event is put aside again")
    (back,) = (await client.get("/api/v1/dead-letters")).json()["dead_letters"]
    assert (await client.delete(f"/api/v1/dead-letters/{back['sequence']}", headers=token_of(node))).status_code == 204
    assert (await client.get("/api/v1/dead-letters")).json()["dead_letters"] == []


@pytest.mark.asyncio(loop_scope="module")
async def test_the_token_is_in_no_log_and_no_answer(node: NodeUnderTest, client: httpx2.AsyncClient) -> None:
    token = (node.data.path / "http.token").read_text()
    await client.post("/api/v1/systems/web/actions", json={}, headers={"Authorization": f"Bearer {token}x"})
    for path in ("/api/v1/node", "/api/v1/components", "/metrics", "/openapi.json"):
        assert token not in (await client.get(path)).text
    assert token not in node.stderr() + node.stdout()


async def test_a_node_that_others_reach_asks_for_its_token_everywhere(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("a token of one's own choice\n")
    address = "127.0.0.2"  # loopback all the same, under an address that has to be written with care
    settings = {"http": {"host": "0.0.0.0", "port": free_port(), "token_file": str(tmp_path / "token")}}
    async with a_node(tmp_path, settings) as node:
        port = httpx2.URL(str(node.file.http_url)).port
        async with httpx2.AsyncClient(base_url=f"http://{address}:{port}") as client:
            for path in ("/", "/healthz", "/metrics", "/api/v1/node"):
                assert (await client.get(path)).status_code == 401
                answer = await client.get(path, auth=("me", "a token of one's own choice"))
                assert answer.status_code == 200
        for command in ("status", "doctor"):
            ended = await asyncio.to_thread(Polaris(tmp_path), command)
            assert ended.code == 0, ended
    assert not (node.data.path / "http.token").exists()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    "environment",
    [
        {"POLARIS_HTTP__HOST": "0.0.0.0"},
        {"POLARIS_HTTP__HOST": "192.0.2.1"},
        {"POLARIS_HTTP__TOKEN": "short"},
    ],
)
def test_a_node_for_others_is_refused_without_a_token_worth_the_name(environment: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError) as refused:
        load_settings(environment=environment)
    assert any(problem.startswith(("http.", "POLARIS_HTTP")) for problem in refused.value.problems)
