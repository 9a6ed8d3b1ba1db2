"""A live tap over HTTP: what passes is seen, and nobody who looks on outlives the server or his place."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import psutil
import pytest
from tests.awake import until, within
from tests.living_view import LivingView

from polaris.api import HttpServer, create_app
from polaris.domain import HealthEvent, HealthStatus
from polaris.messaging import EventCodec, NATSMessageBroker, OutgoingMessage
from polaris.runtime import Node, load_settings
from polaris.runtime._node_bus import broker_of_node
from polaris.runtime._taps import MESSAGES_MAX, TAPS_MAX


@pytest.fixture
async def view() -> LivingView:
    made = LivingView(history_s=5)
    await made.inspection.broker.connect()
    return made


@pytest.fixture
async def server(view: LivingView) -> AsyncIterator[HttpServer]:
    server = HttpServer(create_app(view))
    await server.start()
    yield server
    await server.stop()


class Seen:
    """The events of an open tap."""

    def __init__(self, answer: httpx2.Response) -> None:
        self._lines = answer.aiter_lines()

    async def next(self) -> tuple[str, dict[str, Any]] | None:
        """The next event as kind and data; None at the end."""
        kind = ""
        async with within(10):
            async for line in self._lines:
                name, _, value = line.partition(": ")
                if name == "event":
                    kind = value
                elif name == "data":
                    return kind, json.loads(value)
        return None


@contextlib.asynccontextmanager
async def tapping(server: HttpServer, query: str = "") -> AsyncIterator[Seen]:
    async with (
        httpx2.AsyncClient(base_url=server.url, timeout=10) as client,
        client.stream("GET", f"api/v1/tap{query}") as answer,
    ):
        assert answer.status_code == 200, await answer.aread()
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield Seen(answer)


async def publish(view: LivingView, payload: bytes, topic: str = "polaris.health.web") -> None:
    await view.inspection.broker.publish(OutgoingMessage(topic, payload))


async def test_what_passes_is_seen_as_it_passes(server: HttpServer, view: LivingView) -> None:
    async with tapping(server, "?pattern=polaris.health.>") as seen:
        assert await seen.next() == ("hello", {"pattern": "polaris.health.>"})
        event = HealthEvent("web", HealthStatus.WARNING, "slow")
        await publish(view, EventCodec().encode(event))
        await publish(view, b"not here", "polaris.telemetry.web")
        await publish(view, b"\x00")
        told = await seen.next()
        assert told is not None
        assert (told[0], told[1]["id"], told[1]["type"]) == ("event", event.event_id, "polaris.health")
        assert told[1]["event"]["data"]["message"] == "slow"
        unreadable = await seen.next()
        assert unreadable is not None
        assert unreadable[1]["hex"] == "00"


async def test_without_a_pattern_everything_of_polaris_is_seen(server: HttpServer, view: LivingView) -> None:
    async with tapping(server) as seen:
        assert await seen.next() == ("hello", {"pattern": "polaris.>"})


@pytest.mark.parametrize(
    "pattern", [">", "*", "*.telemetry", "$SYS.>", "_INBOX.>", "polaris..x", "polaris.>.x", "a b", "", "x" * 257]
)
async def test_a_pattern_that_is_none_or_looks_at_what_is_not_ours_is_refused(server: HttpServer, pattern: str) -> None:
    async with httpx2.AsyncClient(base_url=server.url) as client:
        answer = await client.get("api/v1/tap", params={"pattern": pattern})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["parameter"] == "pattern"


async def test_the_ninth_who_looks_on_is_refused_until_one_goes(server: HttpServer, view: LivingView) -> None:
    async with contextlib.AsyncExitStack() as open_taps:
        kept = [await open_taps.enter_async_context(tapping(server)) for _ in range(TAPS_MAX)]
        for seen in kept:
            await seen.next()
        async with httpx2.AsyncClient(base_url=server.url) as client:
            answer = await client.get("api/v1/tap")
            head = await client.head("api/v1/tap")
        assert (answer.status_code, answer.json()["code"]) == (503, "polaris.bulkhead.rejected")
        assert head.status_code == 200
    await until(lambda: view.inspection.taps.count == 0, "every place is free again")


async def test_a_bus_that_is_away_is_a_problem_and_no_stream(server: HttpServer, view: LivingView) -> None:
    await view.inspection.broker.disconnect()
    async with httpx2.AsyncClient(base_url=server.url) as client:
        answer = await client.get("api/v1/tap")
    assert (answer.status_code, answer.json()["code"]) == (503, "polaris.bus.connection")


async def test_a_quiet_tap_has_heartbeats(
    server: HttpServer, view: LivingView, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("polaris.api._tap_stream.HEARTBEAT_S", 0.02)
    async with tapping(server) as seen:
        assert [(await seen.next() or ("",))[0] for _ in range(3)] == ["hello", "heartbeat", "heartbeat"]


async def test_what_a_slow_one_missed_is_counted(server: HttpServer, view: LivingView) -> None:
    async with tapping(server) as seen:
        await seen.next()
        for _ in range(2 * MESSAGES_MAX):
            await publish(view, b"\x00")
        dropped = await seen.next()
        while dropped is not None and dropped[0] == "event":
            dropped = await seen.next()
    assert dropped is not None
    assert dropped[0] == "dropped"
    assert MESSAGES_MAX / 2 < dropped[1]["count"] <= MESSAGES_MAX


async def test_the_taps_of_a_node_have_a_connection_of_their_own_while_there_are_any(tmp_path: Path) -> None:
    places = {"POLARIS_NODE__DATA_DIR": str(tmp_path / "data"), "POLARIS_HTTP__PORT": "0"}
    async with Node(load_settings(environment=places)) as node:
        assert node.http_url is not None
        bus = broker_of_node(tmp_path / "data", name="test")
        await bus.connect()
        before = len(connections_to(bus))
        async with httpx2.AsyncClient(base_url=node.http_url, timeout=10) as client:
            for _ in range(2):
                async with (
                    client.stream("GET", "api/v1/tap?pattern=demo.>") as first,
                    client.stream("GET", "api/v1/tap?pattern=demo.*") as second,
                ):
                    taps = [Seen(first), Seen(second)]
                    assert [(await tap.next() or ("",))[0] for tap in taps] == ["hello", "hello"]
                    assert len(connections_to(bus)) == before + 1
                    await bus.publish(OutgoingMessage("demo.x", b"x" * 200_000))
                    for tap in taps:
                        told = await tap.next()
                        assert told is not None
                        assert told[1]["problem"] == "200000 bytes, too large to be read here"
                await until(lambda: len(connections_to(bus)) == before, "nobody looks on")
        await bus.disconnect()


def connections_to(bus: NATSMessageBroker) -> list[Any]:
    port = urlsplit(bus.config.servers[0]).port
    return [one for one in psutil.Process().net_connections("tcp") if one.raddr and one.raddr.port == port]


async def test_open_taps_end_at_once_when_the_server_stops(view: LivingView) -> None:
    server = HttpServer(create_app(view))
    await server.start()
    async with tapping(server) as seen:
        await seen.next()
        async with within(1):
            await server.stop()
        assert await seen.next() is None
    assert view.inspection.taps.count == 0
