"""What an API with commands does, and for whom: everything is asked without a network."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette
from tests.living_view import LivingView
from tests.unit.api.conftest import NOW

from polaris.api import Access, DeadLetterDetails, DeadLetterView, create_app
from polaris.api._commands import BODY_BYTES_MAX, CHANGES_PER_S
from polaris.domain import AdaptationAction
from polaris.exceptions import BusConnectionError
from polaris.testing import VirtualClock

TOKEN = "a-token-of-twenty-characters"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
ACT = "/api/v1/systems/web-shop/actions"
ADD = {"action_type": "add_worker", "parameters": {"count": 1}}


def basic(password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"anybody:{password}".encode()).decode()}


class NotedCommands:
    """Notes what it is asked for."""

    def __init__(self) -> None:
        self.actions: list[AdaptationAction] = []
        self.letters = {number: dead_letter(number) for number in range(1, 8)}
        self.replayed: list[int] = []
        self.away = False

    async def act(self, action: AdaptationAction) -> None:
        if self.away:
            raise BusConnectionError("nats://user:hunter2@10.0.0.1 is away")
        self.actions.append(action)

    async def dead_letters(self, *, limit: int, before: int | None) -> Sequence[DeadLetterView]:
        numbers = [number for number in sorted(self.letters, reverse=True) if before is None or number < before]
        fields = DeadLetterView.__struct_fields__
        return [DeadLetterView(**{name: getattr(self.letters[n], name) for name in fields}) for n in numbers[:limit]]

    async def dead_letter(self, sequence: int) -> DeadLetterDetails | None:
        return self.letters.get(sequence)

    async def replay(self, sequence: int) -> bool:
        self.replayed.append(sequence)
        return self.letters.pop(sequence, None) is not None

    async def drop(self, sequence: int) -> bool:
        return self.letters.pop(sequence, None) is not None


def dead_letter(number: int) -> DeadLetterDetails:
    return DeadLetterDetails(
        sequence=number,
        stored_at=NOW,
        topic="polaris.telemetry.web-shop",
        subscription="ingest",
        reason="undecodable",
        error_code="polaris.bus.decode",
        error_message="no JSON",
        attempts=1,
        event_id=f"e{number}",
        first_at=NOW - timedelta(seconds=1),
        failed_at=NOW,
        payload_bytes=2,
        payload=b"\xff\x00",
        headers=DeadLetterDetails.shown_headers({"trace": "1", "authorization": "Bearer hunter2"}),
    )


@pytest.fixture
def commands() -> NotedCommands:
    return NotedCommands()


@pytest.fixture
def app(view: LivingView, commands: NotedCommands) -> Starlette:
    return create_app(view, clock=VirtualClock(wall=NOW), commands=commands, access=Access(TOKEN))


@pytest.fixture
async def closed_client(view: LivingView, commands: NotedCommands) -> AsyncIterator[httpx2.AsyncClient]:
    """Of a node that is not on loopback."""
    access = Access(TOKEN, everything=True)
    app = create_app(view, clock=VirtualClock(wall=NOW), hosts=None, commands=commands, access=access)
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://node.example:8642") as client:
        yield client


async def test_commands_without_access_are_not_offered(view: LivingView, commands: NotedCommands) -> None:
    with pytest.raises(ValueError, match="access"):
        create_app(view, commands=commands)


@pytest.mark.parametrize("headers", [BEARER, {"Authorization": f"bearer  {TOKEN} "}, basic(TOKEN)])
async def test_an_action_with_the_token_is_published_and_can_be_followed(
    client: httpx2.AsyncClient, commands: NotedCommands, headers: dict[str, str]
) -> None:
    asked = {**ADD, "timeout_seconds": 4.5, "priority": 7}
    answer = await client.post(ACT, json=asked, headers=headers)
    assert answer.status_code == 202, answer.text
    (action,) = commands.actions
    assert (action.target_system, action.action_type, action.parameters) == ("web-shop", "add_worker", {"count": 1})
    assert (action.timeout_seconds, action.priority) == (4.5, 7)
    assert answer.json()["action_id"] == action.action_id
    assert answer.json()["status"] == "pending"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": f"Bearer {TOKEN[:-1]}"},
        {"Authorization": TOKEN},
        {"Authorization": f"Digest {TOKEN}"},
        {"Authorization": "Basic !!"},
        {"Authorization": "Basic " + base64.b64encode(TOKEN.encode()).decode()},
        basic(""),
        basic(TOKEN.upper()),
    ],
)
@pytest.mark.parametrize(("method", "path"), [("POST", ACT), ("DELETE", "/api/v1/dead-letters/1")])
async def test_nothing_changes_without_the_token(
    client: httpx2.AsyncClient, commands: NotedCommands, headers: dict[str, str], method: str, path: str
) -> None:
    answer = await client.request(method, path, headers=headers, json=ADD if method == "POST" else None)
    assert answer.status_code == 401
    assert answer.json()["code"] == "polaris.request.unauthenticated"
    assert answer.headers["www-authenticate"] == 'Bearer realm="POLARIS node"'
    assert TOKEN not in answer.text
    assert not commands.actions
    assert len(commands.letters) == 7


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "http://127.0.0.1:8080", "Sec-Fetch-Site": "cross-site"},
    ],
)
async def test_a_page_of_another_origin_changes_nothing_even_with_the_token(
    client: httpx2.AsyncClient, commands: NotedCommands, headers: dict[str, str]
) -> None:
    answer = await client.post(ACT, json=ADD, headers={**basic(TOKEN), **headers})
    assert (answer.status_code, answer.json()["code"]) == (403, "polaris.request.origin")
    assert not commands.actions


@pytest.mark.parametrize("origin", ["http://127.0.0.1:8080", "https://127.0.0.1:8080"])
async def test_the_nodes_own_page_may(client: httpx2.AsyncClient, commands: NotedCommands, origin: str) -> None:
    headers = {**basic(TOKEN), "Origin": origin, "Sec-Fetch-Site": "same-origin"}
    assert (await client.post(ACT, json=ADD, headers=headers)).status_code == 202
    assert len(commands.actions) == 1


async def test_asking_again_with_the_same_id_does_nothing_twice(
    client: httpx2.AsyncClient, commands: NotedCommands, view: LivingView
) -> None:
    known = view.records[0]
    again = {"action_type": known.action_type, "parameters": known.parameters, "action_id": known.action_id}
    answer = await client.post(ACT, json=again, headers=BEARER)
    assert (answer.status_code, answer.json()["status"]) == (200, known.status)
    other = await client.post(ACT, json={**again, "action_type": "restart"}, headers=BEARER)
    assert (other.status_code, other.json()["code"]) == (409, "polaris.request.conflict")
    assert not commands.actions


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ({"action_type": ""}, 422),
        ({"action_type": 7}, 422),
        ({"action_type": "a", "parametres": {}}, 422),
        ({"action_type": "a", "parameters": []}, 422),
        ({"action_type": "a", "timeout_seconds": 0}, 422),
        ({"action_type": "a", "timeout_seconds": 1e999}, 400),
        ({"action_type": "a", "priority": -1}, 422),
        ({"action_type": "a\nb"}, 422),
        ([], 422),
    ],
)
async def test_a_wrong_body_is_named_and_does_nothing(
    client: httpx2.AsyncClient, commands: NotedCommands, body: Any, status: int
) -> None:
    content = json.dumps(body).encode()
    answer = await client.post(ACT, content=content, headers={**BEARER, "Content-Type": "application/json"})
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert not commands.actions


@pytest.mark.parametrize("content", [b"", b"\xff", b"{", b'{"a":' * 10_000, b"[" * 200_000])
async def test_what_is_no_json_is_refused(client: httpx2.AsyncClient, commands: NotedCommands, content: bytes) -> None:
    answer = await client.post(ACT, content=content, headers={**BEARER, "Content-Type": "application/json"})
    assert answer.status_code in (400, 422)
    assert not commands.actions


async def test_a_body_of_another_type_or_too_large_is_refused(
    client: httpx2.AsyncClient, commands: NotedCommands
) -> None:
    form = await client.post(ACT, content=b"action_type=a", headers={**BEARER, "Content-Type": "text/plain"})
    assert (form.status_code, form.json()["code"]) == (415, "polaris.request.media_type")
    large = await client.post(ACT, json={**ADD, "parameters": {"a": "x" * BODY_BYTES_MAX}}, headers=BEARER)
    assert (large.status_code, large.json()["code"]) == (413, "polaris.request.too_large")
    unasked = await client.post("/api/v1/dead-letters/1/replay", json={}, headers=BEARER)
    assert unasked.status_code == 400
    assert not commands.actions
    assert not commands.replayed


async def test_a_system_that_nobody_knows_takes_no_action(client: httpx2.AsyncClient, commands: NotedCommands) -> None:
    answer = await client.post("/api/v1/systems/nobody/actions", json=ADD, headers=BEARER)
    assert answer.status_code == 404
    assert not commands.actions


async def test_a_bus_that_is_away_is_a_problem_that_tells_no_secret(
    client: httpx2.AsyncClient, commands: NotedCommands
) -> None:
    commands.away = True
    answer = await client.post(ACT, json=ADD, headers=BEARER)
    assert (answer.status_code, answer.json()["code"]) == (503, "polaris.bus.connection")
    assert "hunter2" not in answer.text


async def test_too_many_changes_at_once_are_held_back(client: httpx2.AsyncClient, commands: NotedCommands) -> None:
    count = 5 * CHANGES_PER_S + 40
    answers = await asyncio.gather(*(client.post(ACT, json=ADD, headers=BEARER) for _ in range(count)))
    refused = [answer for answer in answers if answer.status_code == 429]
    assert len(commands.actions) + len(refused) == count
    assert len(commands.actions) >= 5 * CHANGES_PER_S
    assert refused
    assert int(refused[0].headers["retry-after"]) >= 1
    wrong = await client.post(ACT, json=ADD)
    assert wrong.status_code == 401


async def test_dead_letters_are_paged_shown_replayed_and_dropped(
    client: httpx2.AsyncClient, commands: NotedCommands
) -> None:
    seen: list[int] = []
    cursor: str | None = None
    while True:
        query = {"limit": "3"} | ({} if cursor is None else {"cursor": cursor})
        page = (await client.get("/api/v1/dead-letters", params=query)).json()
        seen += [entry["sequence"] for entry in page["dead_letters"]]
        assert all("payload" not in entry for entry in page["dead_letters"])
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == [7, 6, 5, 4, 3, 2, 1]
    shown = (await client.get("/api/v1/dead-letters/3")).json()
    assert base64.b64decode(shown["payload"]) == b"\xff\x00"
    assert shown["headers"]["trace"] == "1"
    assert "hunter2" not in str(shown)
    assert (await client.post("/api/v1/dead-letters/3/replay", headers=BEARER)).status_code == 204
    assert (await client.delete("/api/v1/dead-letters/4", headers=BEARER)).status_code == 204
    assert commands.replayed == [3]
    assert set(commands.letters) == {1, 2, 5, 6, 7}
    for method, path in [("GET", "3"), ("DELETE", "3"), ("POST", "3/replay")]:
        gone = await client.request(method, f"/api/v1/dead-letters/{path}", headers=BEARER)
        assert gone.status_code == 404
    assert (await client.get("/api/v1/dead-letters", params={"cursor": "x"})).status_code == 422


async def test_a_path_tells_the_methods_it_knows(client: httpx2.AsyncClient) -> None:
    answer = await client.put("/api/v1/dead-letters/3", headers=BEARER)
    assert (answer.status_code, answer.headers["allow"]) == (405, "DELETE, GET, HEAD")
    assert (await client.get(ACT)).headers["allow"] == "POST"


@pytest.mark.parametrize("path", ["/healthz", "/metrics", "/api/v1/systems", "/openapi.json", "/", "/nothing"])
async def test_away_from_loopback_everything_needs_the_token(closed_client: httpx2.AsyncClient, path: str) -> None:
    answer = await closed_client.get(path)
    assert answer.status_code == 401
    assert "Basic" in answer.headers["www-authenticate"]
    with_token = await closed_client.get(path, headers=basic(TOKEN))
    assert with_token.status_code in ((404,) if path in ("/", "/nothing") else (200,))


async def test_the_document_tells_of_changes_their_bodies_and_the_token(client: httpx2.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    act = document["paths"]["/api/v1/systems/{system_id}/actions"]["post"]
    assert act["security"] == [{"bearer": []}, {"basic": []}]
    assert act["requestBody"]["content"]["application/json"]["schema"]["$ref"].endswith("/ActionRequest")
    assert {"200", "202", "409", "429"} <= set(act["responses"])
    letter = document["paths"]["/api/v1/dead-letters/{sequence}"]
    assert set(letter) == {"get", "delete"}
    assert "security" not in letter["get"]
    assert letter["delete"]["responses"]["204"] == {"description": "Done."}
