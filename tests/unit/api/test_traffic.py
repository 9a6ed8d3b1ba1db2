"""What an app counts of its requests, and that the series do not grow with what clients send."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.types import Message
from tests.living_view import LivingView
from tests.unit.api.conftest import NOW
from tests.unit.api.test_changes import ACT, ADD, BEARER, TOKEN, NotedCommands

from polaris.api import Access, create_app
from polaris.api._app import ALL_ENDPOINTS
from polaris.api._bodies import CLIENTS_MAX, Gate
from polaris.api._commands import BODY_BYTES_MAX, CHANGES_OF_ALL_PER_S, CHANGES_PER_S
from polaris.api._crowd import CONNECTIONS_MAX
from polaris.api._tap_stream import TapResponse
from polaris.api._tap_view import TappedEvent
from polaris.dashboard import Page
from polaris.exceptions import RateLimitExceededError
from polaris.observability import MetricsCollector
from polaris.testing import VirtualClock, run_virtual

SYSTEM = "/api/v1/systems/{system_id}"


@pytest.fixture
def metrics() -> MetricsCollector:
    return MetricsCollector()


@pytest.fixture
def commands() -> NotedCommands:
    return NotedCommands()


@pytest.fixture
def app(view: LivingView, metrics: MetricsCollector, commands: NotedCommands) -> Starlette:
    access = Access(TOKEN)
    clock = VirtualClock(wall=NOW)
    return create_app(view, page=Page(), clock=clock, commands=commands, access=access, metrics=metrics)


def numbers(metrics: MetricsCollector, name: str) -> dict[tuple[str, ...], float]:
    """The series of one name by the values of their labels, in the order of these, those at 0 left out."""
    return {
        tuple(sample.labels[label] for label in sorted(sample.labels)): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
        if sample.name == name and sample.value
    }


def series(metrics: MetricsCollector) -> int:
    return sum(len(family.samples) for family in text_string_to_metric_families(metrics.render().decode()))


async def test_requests_are_counted_by_route_method_and_outcome(
    client: httpx2.AsyncClient, metrics: MetricsCollector
) -> None:
    for path in ("/api/v1/systems/host", "/api/v1/systems/web-shop", "/api/v1/systems/nobody", "/", "/nothing.js"):
        await client.get(path)
    await client.head("/healthz")
    await client.get("/openapi.json")
    await client.request("BREW", "/api/v1/node")
    await client.post(ACT, json=ADD, headers=BEARER)
    assert numbers(metrics, "polaris_http_requests_total") == {
        ("GET", SYSTEM, "2xx"): 2,
        ("GET", SYSTEM, "4xx"): 1,
        ("GET", "page", "2xx"): 1,
        ("GET", "page", "4xx"): 1,
        ("HEAD", "/healthz", "2xx"): 1,
        ("GET", "/openapi.json", "2xx"): 1,
        ("_other", "/api/v1/node", "4xx"): 1,
        ("POST", f"{SYSTEM}/actions", "2xx"): 1,
    }
    assert numbers(metrics, "polaris_http_request_seconds_count")[(SYSTEM,)] == 3


async def test_every_request_that_is_turned_away_is_counted_by_its_reason(
    client: httpx2.AsyncClient, app: Starlette, metrics: MetricsCollector
) -> None:
    await client.post(ACT, json=ADD)
    await client.post(ACT, json=ADD, headers={**BEARER, "Origin": "http://evil.example"})
    await client.get("/healthz", headers={"Host": "evil.example"})
    large = b" " * (BODY_BYTES_MAX + 1)
    await client.post(ACT, content=large, headers={**BEARER, "Content-Type": "application/json"})
    app.state.streams.close()
    assert (await client.get("/api/v1/stream")).status_code == 503
    refused = numbers(metrics, "polaris_http_refused_total")
    assert refused == {("token",): 1, ("origin",): 1, ("host",): 1, ("too_large",): 1, ("busy",): 1}
    assert numbers(metrics, "polaris_http_requests_total")[("GET", "_none", "4xx")] == 1
    answers = await asyncio.gather(
        *(client.delete("/api/v1/dead-letters/99", headers=BEARER) for _ in range(5 * CHANGES_PER_S + 40))
    )
    limited = sum(answer.status_code == 429 for answer in answers)
    assert limited > 0
    assert numbers(metrics, "polaris_http_refused_total")[("rate",)] == limited


async def test_neither_paths_nor_ids_nor_methods_of_clients_make_series(
    client: httpx2.AsyncClient, metrics: MetricsCollector
) -> None:
    async def ask(number: int) -> None:
        await client.get(f"/api/v1/systems/s{number}")
        await client.get(f"/api/v1/systems/s%{number % 10}")
        await client.get(f"/nothing/{number}")
        await client.request(f"M{number}", "/api/v1/systems")
        await client.get("/healthz", headers={"Host": f"h{number}"})

    await ask(0)
    before = series(metrics)
    for number in range(1, 50):
        await ask(number)
    assert series(metrics) == before


async def test_the_series_of_failures_are_there_before_the_first(metrics: MetricsCollector, app: Starlette) -> None:
    text = metrics.render().decode()
    for endpoint in ALL_ENDPOINTS:
        labels = f'method="{endpoint.method}",route="{endpoint.path}",status="5xx"'
        assert f"polaris_http_requests_total{{{labels}}} 0.0" in text
    assert 'polaris_http_refused_total{reason="busy"} 0.0' in text


async def test_open_streams_and_what_slow_clients_missed_are_shown(
    app: Starlette, view: LivingView, metrics: MetricsCollector
) -> None:
    stream = aiter(app.state.streams.response(None, head=False).body_iterator)
    await anext(stream)
    assert numbers(metrics, "polaris_http_streams") == {("live",): 1}
    for _ in range(2_500):
        view.sample("host")
    await anext(stream)
    assert numbers(metrics, "polaris_http_stream_dropped_total") == {("live",): 2_500 - 2_048}
    await stream.aclose()
    assert numbers(metrics, "polaris_http_streams") == {}


class OneEvent:
    """A tap that has missed three messages, shows one, and ends."""

    dropped = 3

    def __init__(self) -> None:
        self._left = [TappedEvent(topic="polaris.health.web", received_at=NOW, bytes=1, hex="00")]

    async def next_events(self) -> Sequence[TappedEvent]:
        shown, self._left = self._left, []
        return shown

    def end(self) -> None:
        self._left.clear()

    async def close(self) -> None:
        self.end()


async def test_taps_are_shown_beside_the_streams(app: Starlette, metrics: MetricsCollector) -> None:
    streams = app.state.streams
    sent: list[Message] = []
    open_taps: list[dict[tuple[str, ...], float]] = []

    async def send(message: Message) -> None:
        sent.append(message)
        open_taps.append(numbers(metrics, "polaris_http_streams"))

    async def receive() -> Message:
        await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    response = TapResponse(OneEvent(), "polaris.>", streams)
    await response({"type": "http", "asgi": {"spec_version": "2.4"}}, receive, send)
    assert b"event: dropped" in b"".join(message.get("body", b"") for message in sent)
    assert open_taps[0] == {("tap",): 1}
    assert numbers(metrics, "polaris_http_streams") == {}
    assert numbers(metrics, "polaris_http_stream_dropped_total") == {("tap",): 3}


async def test_a_stream_has_no_duration(client: httpx2.AsyncClient, metrics: MetricsCollector) -> None:
    await client.head("/api/v1/stream")
    assert numbers(metrics, "polaris_http_requests_total") == {("HEAD", "/api/v1/stream", "2xx"): 1}
    assert numbers(metrics, "polaris_http_request_seconds_count") == {}


async def test_one_connection_too_many_is_told_so_and_sent_away(
    client: httpx2.AsyncClient, app: Starlette, metrics: MetricsCollector
) -> None:
    app.state.crowd.count_by(lambda: CONNECTIONS_MAX)
    assert (await client.get("/healthz")).status_code == 200
    app.state.crowd.count_by(lambda: CONNECTIONS_MAX + 1)
    answer = await client.get("/healthz")
    assert (answer.status_code, answer.headers["connection"]) == (503, "close")
    assert answer.json()["code"] == "polaris.bulkhead.rejected"
    assert numbers(metrics, "polaris_http_refused_total") == {("busy",): 1}
    assert numbers(metrics, "polaris_active_connections") == {("http",): CONNECTIONS_MAX + 1}


@pytest.mark.parametrize("path", ["/api/v1/systems", "/api/v1/systems/host", "/openapi.json"])
async def test_a_page_at_the_root_takes_no_method_from_the_resources(client: httpx2.AsyncClient, path: str) -> None:
    answer = await client.put(path)
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("method", ["TRACE", "PATCH", "GET"])
async def test_a_wrong_method_is_wrong_whatever_it_brings(client: httpx2.AsyncClient, method: str) -> None:
    answer = await client.request(method, ACT, content=b"{}", headers=BEARER)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize("path", ["/api/v1/node", "/openapi.json"])
async def test_a_body_that_nobody_reads_is_refused(client: httpx2.AsyncClient, path: str) -> None:
    assert (await client.request("GET", path, content=b"{}")).status_code == 400


@pytest.mark.parametrize(("said", "meant"), [("7", 7), ("7.0", 7), ("1e2", 100)])
async def test_a_whole_number_may_be_written_in_all_ways_of_json(
    client: httpx2.AsyncClient, commands: NotedCommands, said: str, meant: int
) -> None:
    body = f'{{"action_type": "add_worker", "priority": {said}}}'
    answer = await client.post(ACT, content=body, headers={**BEARER, "Content-Type": "application/json"})
    assert answer.status_code == 202, answer.text
    (action,) = commands.actions
    assert repr(action.priority) == str(meant)


async def test_the_largest_number_that_the_document_allows_is_taken(client: httpx2.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    (sequence,) = document["paths"]["/api/v1/dead-letters/{sequence}"]["get"]["parameters"]
    largest = sequence["schema"]["maximum"]
    assert (await client.get(f"/api/v1/dead-letters/{largest}")).status_code == 404
    assert (await client.get(f"/api/v1/dead-letters/{largest + 1}")).status_code == 422


async def admitted(gate: Gate, client: str, times: int) -> int:
    """How many of so many changes, all at once, the gate lets pass."""
    headers = [(name.lower().encode(), value.encode()) for name, value in BEARER.items()]
    request = Request({"type": "http", "headers": headers, "client": (client, 1)})
    passed = 0
    for _ in range(times):
        with contextlib.suppress(RateLimitExceededError):
            await gate.admit(request)
            passed += 1
    return passed


def test_a_client_that_asks_too_much_does_not_keep_another_out() -> None:
    async def scenario() -> None:
        gate = Gate(Access(TOKEN))
        assert await admitted(gate, "192.0.2.1", 1_000) == 5 * CHANGES_PER_S
        assert await admitted(gate, "192.0.2.2", 3) == 3
        await asyncio.sleep(1.0)
        assert await admitted(gate, "192.0.2.1", 1_000) == CHANGES_PER_S

    run_virtual(scenario())


def test_all_clients_together_have_a_limit_too() -> None:
    async def scenario() -> None:
        gate = Gate(Access(TOKEN))
        passed = [await admitted(gate, f"192.0.2.{number}", 5 * CHANGES_PER_S) for number in range(1, 9)]
        assert sum(passed) == 5 * CHANGES_OF_ALL_PER_S

    run_virtual(scenario())


async def test_the_clients_that_are_told_apart_are_bounded() -> None:
    gate = Gate(Access(TOKEN))
    for number in range(CLIENTS_MAX + 10):
        gate._limiter_of(str(number))
    assert len(gate._clients) == CLIENTS_MAX
    assert "0" not in gate._clients
