from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import subprocess
import urllib.request
from collections.abc import AsyncIterator

import httpx2
import msgspec
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from tests.awake import PATIENCE_S, within
from tests.living_view import LivingView

from polaris.api import HttpServer, create_app
from polaris.exceptions import ConfigurationError, PolarisException


@pytest.fixture
def view() -> LivingView:
    return LivingView(history_s=5)


@pytest.fixture
async def server(view: LivingView) -> AsyncIterator[HttpServer]:
    server = HttpServer(create_app(view))
    await server.start()
    yield server
    await server.stop()


class Events:
    """The server-sent events of an open stream, as (event, id, data)."""

    def __init__(self, answer: httpx2.Response) -> None:
        self._lines = answer.aiter_lines()

    async def next(self, timeout_s: float = 5) -> dict[str, str] | None:
        """The next event as its fields, None at the end of the stream."""
        fields: dict[str, str] = {}
        async with within(timeout_s):
            async for line in self._lines:
                if not line:
                    return fields
                name, _, value = line.partition(": ")
                fields[name] = value
        return None


@contextlib.asynccontextmanager
async def stream(url: str, **headers: str) -> AsyncIterator[Events]:
    async with (
        httpx2.AsyncClient(base_url=url, timeout=10) as client,
        client.stream("GET", "api/v1/stream", headers=headers) as answer,
    ):
        assert answer.status_code == 200, await answer.aread()
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield Events(answer)


async def test_it_answers_on_the_address_it_returns(view: LivingView) -> None:
    server = HttpServer(create_app(view))
    host, port = await server.start()
    try:
        assert port != 0
        assert server.url == f"http://{host}:{port}/"
        async with httpx2.AsyncClient(base_url=server.url) as client:
            answer = await client.get("healthz")
        assert answer.status_code == 200
        assert "date" in answer.headers
        assert "server" not in answer.headers
    finally:
        await server.stop()
    with pytest.raises(PolarisException):
        _ = server.url


async def test_a_port_in_use_is_named_and_nothing_is_left_open(server: HttpServer, view: LivingView) -> None:
    host, port = server.address
    second = HttpServer(create_app(view), host, port)
    before = asyncio.all_tasks()
    with pytest.raises(ConfigurationError, match=rf"{host}:{port}.*in use"):
        await second.start()
    assert asyncio.all_tasks() == before
    await second.stop()
    async with httpx2.AsyncClient(base_url=server.url) as client:
        assert (await client.get("healthz")).status_code == 200


@pytest.mark.parametrize(("host", "port"), [("no such host", 0), ("127.0.0.1", 99_999), ("192.0.2.1", 0)])
async def test_an_address_that_cannot_be_had_is_named(view: LivingView, host: str, port: int) -> None:
    with pytest.raises(ConfigurationError, match=f"{host}:{port}"):
        await HttpServer(create_app(view), host, port).start()


async def test_it_may_be_started_again_on_the_same_port(view: LivingView) -> None:
    server = HttpServer(create_app(view))
    host, port = await server.start()
    await server.stop()
    again = HttpServer(create_app(view), host, port)
    assert await again.start() == (host, port)
    async with stream(again.url) as events:
        assert (await events.next() or {})["event"] == "hello"
    await again.stop()
    assert await again.start() == (host, port)
    async with stream(again.url) as events:
        assert (await events.next() or {})["event"] == "hello"
    await again.stop()


async def test_stopping_ends_open_streams_at_once_and_leaves_no_task(view: LivingView) -> None:
    before = asyncio.all_tasks()
    server = HttpServer(create_app(view))
    await server.start()
    async with stream(server.url) as one, stream(server.url) as two:
        await one.next()
        await two.next()
        async with within(1.5):
            await server.stop(timeout_s=10)
        assert await one.next() is None  # a complete end, not a broken connection
        assert await two.next() is None
    assert view.live.subscribers == 0
    assert asyncio.all_tasks() == before


async def test_a_running_request_may_finish_while_it_stops() -> None:
    entered, proceed = asyncio.Event(), asyncio.Event()

    async def slow(_: Request) -> Response:
        entered.set()
        await proceed.wait()
        return PlainTextResponse("done")

    server = HttpServer(Starlette(routes=[Route("/slow", slow)]))
    await server.start()
    async with httpx2.AsyncClient(base_url=server.url) as client:
        asking = asyncio.create_task(client.get("slow"))
        await entered.wait()
        stopping = asyncio.create_task(server.stop(timeout_s=10))
        await asyncio.sleep(0.05)
        assert not stopping.done()
        proceed.set()
        assert (await asking).text == "done"
        await stopping


async def test_a_request_that_never_ends_is_cut_at_the_deadline(caplog: pytest.LogCaptureFixture) -> None:
    entered, cancelled = asyncio.Event(), asyncio.Event()

    async def endless(_: Request) -> Response:
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return PlainTextResponse("never")

    before = asyncio.all_tasks()
    caplog.set_level(logging.CRITICAL, "uvicorn.error")
    server = HttpServer(Starlette(routes=[Route("/endless", endless)]))
    await server.start()
    async with httpx2.AsyncClient(base_url=server.url) as client:
        asking = asyncio.create_task(client.get("endless"))
        await entered.wait()
        async with within(2):
            await server.stop(timeout_s=0.2)
        assert cancelled.is_set()
        with pytest.raises(httpx2.TransportError):
            await asking
    assert asyncio.all_tasks() == before


async def test_idle_connections_do_not_delay_the_stop(view: LivingView) -> None:
    server = HttpServer(create_app(view))
    address = await server.start()
    reader, writer = await asyncio.open_connection(*address)
    async with httpx2.AsyncClient(base_url=server.url) as client:
        await client.get("healthz")  # stays open as keep-alive
        async with within(1):
            await server.stop(timeout_s=10)
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()


async def test_signal_handlers_are_left_alone(view: LivingView) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    server = HttpServer(create_app(view))
    await server.start()
    during = {number: signal.getsignal(number) for number in before}
    await server.stop()
    assert during == before
    assert {number: signal.getsignal(number) for number in before} == before


async def test_a_client_follows_what_happens(server: HttpServer, view: LivingView) -> None:
    async with stream(server.url) as events:
        hello = await events.next() or {}
        assert hello["event"] == "hello"
        assert '"resumed":false' in hello["data"]
        view.sample("host")
        view.act()
        sample = await events.next() or {}
        action = await events.next() or {}
    assert sample["event"] == "sample"
    assert '"system_id":"host"' in sample["data"]
    assert sample["id"] == view.live.event_id(1)
    assert action["event"] == "action"


@pytest.mark.parametrize("by_header", [True, False])
async def test_a_client_that_comes_back_gets_what_it_missed(
    server: HttpServer, view: LivingView, by_header: bool
) -> None:
    for _ in range(3):
        view.sample("host")
    last = view.live.event_id(1)
    headers = {"Last-Event-ID": last} if by_header else {}
    query = "" if by_header else f"?last_event_id={last}"
    async with (
        httpx2.AsyncClient(base_url=server.url) as client,
        client.stream("GET", f"api/v1/stream{query}", headers=headers) as answer,
    ):
        events = Events(answer)
        assert '"resumed":true' in (await events.next() or {})["data"]
        assert [(await events.next() or {})["id"] for _ in range(2)] == [view.live.event_id(2), view.live.event_id(3)]


async def test_a_client_that_goes_away_leaves_nothing_behind(server: HttpServer, view: LivingView) -> None:
    async with stream(server.url) as events:
        await events.next()
        assert view.live.subscribers == 1
    async with within(5):
        while view.live.subscribers:
            await asyncio.sleep(0.01)


async def test_a_client_that_does_not_read_holds_up_nobody_and_learns_what_it_missed(
    server: HttpServer, view: LivingView
) -> None:
    host, port = server.address
    lazy = socket.socket()
    lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    lazy.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(lazy, (host, port))
    await loop.sock_sendall(lazy, b"GET /api/v1/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
    async with stream(server.url) as events:
        await events.next()
        for _ in range(40):
            for _ in range(400):
                view.sample("host")
            await asyncio.sleep(0.02)
        # The attentive client is up to date although the other has read nothing.
        async with within(10):
            while (await events.next() or {}).get("id") != view.live.event_id(16_000):
                pass
    received = b""
    async with within(10):
        while b"event: dropped" not in received:
            chunk = await loop.sock_recv(lazy, 65_536)
            assert chunk
            received = received[-64:] + chunk
    lazy.close()


async def test_more_streams_than_allowed_are_refused_with_a_problem(view: LivingView) -> None:
    app = create_app(view)
    app.state.streams._streams_max = 1
    server = HttpServer(app)
    await server.start()
    async with stream(server.url) as events, httpx2.AsyncClient(base_url=server.url) as client:
        await events.next()
        answer = await client.get("api/v1/stream")
        assert answer.status_code == 503
        assert answer.json()["code"] == "polaris.bulkhead.rejected"
    await server.stop()


async def test_a_quiet_stream_has_heartbeats(
    server: HttpServer, view: LivingView, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("polaris.api._stream.HEARTBEAT_S", 0.05)
    async with stream(server.url) as events:
        assert (await events.next() or {})["event"] == "hello"
        assert (await events.next() or {})["event"] == "heartbeat"
        view.sample("host")
        kinds = [(await events.next() or {})["event"] for _ in range(3)]
        assert "sample" in kinds


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /api/v1/node HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"a" * 100_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x00\x01\x02\xff\xfe\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET /api/v1/systems/\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
)
async def test_garbage_is_refused_and_the_server_lives_on(server: HttpServer, request_bytes: bytes) -> None:
    reader, writer = await asyncio.open_connection(*server.address)
    writer.write(request_bytes)
    with contextlib.suppress(ConnectionError):
        await writer.drain()
        status = await asyncio.wait_for(reader.readline(), PATIENCE_S)
        assert status.split()[1:2] in ([b"400"], [b"404"], [b"414"], [b"421"], [b"431"])
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    async with httpx2.AsyncClient(base_url=server.url) as client:
        assert (await client.get("healthz")).status_code == 200


async def test_an_id_with_a_slash_survives_the_wire(server: HttpServer) -> None:
    async with httpx2.AsyncClient(base_url=server.url) as client:
        answer = await client.get("api/v1/systems/lab%2Frack%207.%2A%3E%C3%BC")
        assert answer.json()["system_id"] == "lab/rack 7.*>ü"


@pytest.mark.parametrize("system_id", [".", ".."])
async def test_an_id_that_is_a_step_in_a_path_survives_every_client(
    server: HttpServer, view: LivingView, system_id: str
) -> None:
    view.states[system_id], view.connectors[system_id] = [], "push"
    address = f"{server.url}api/v1/systems/~{system_id}"

    def by_urllib() -> bytes:
        with urllib.request.urlopen(address, timeout=PATIENCE_S) as answer:
            return bytes(answer.read())

    def by_curl(*options: str) -> bytes:
        return subprocess.run(["curl", "-fsS", *options], capture_output=True, timeout=PATIENCE_S, check=True).stdout

    async with httpx2.AsyncClient() as client:
        told = [(await client.get(address)).content]
    told += await asyncio.gather(asyncio.to_thread(by_urllib), asyncio.to_thread(by_curl, address))
    # Who can send it as it is, is understood as well.
    bare = f"{server.url}api/v1/systems/{system_id}"
    told.append(await asyncio.to_thread(by_curl, "--path-as-is", bare))
    assert [msgspec.json.decode(one)["system_id"] for one in told] == [system_id] * 4


async def test_cancelling_the_stop_still_frees_the_port() -> None:
    entered = asyncio.Event()

    async def endless(_: Request) -> Response:
        entered.set()
        await asyncio.Event().wait()
        return PlainTextResponse("never")

    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    server = HttpServer(Starlette(routes=[Route("/endless", endless)]))
    address = await server.start()
    async with httpx2.AsyncClient(base_url=server.url) as client:
        asking = asyncio.create_task(client.get("endless"))
        await asyncio.wait_for(entered.wait(), PATIENCE_S)
        stopping = asyncio.create_task(server.stop(timeout_s=60))
        await asyncio.sleep(0.05)
        stopping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stopping
        with pytest.raises(httpx2.TransportError):
            await asking
    again = HttpServer(Starlette(), *address)
    await again.start()
    await again.stop()


async def test_a_head_that_comes_byte_by_byte_does_not_hold_the_connection(
    view: LivingView, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("polaris.api._idle.HEAD_WAIT_S", 1.0)
    server = HttpServer(create_app(view))
    address = await server.start()
    reader, writer = await asyncio.open_connection(*address)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n")
    ended = asyncio.create_task(reader.read())
    async with stream(server.url) as events:  # which is quiet for as long
        await events.next()
        async with within(10):
            while not ended.done():
                writer.write(b"X: y\r\n")
                await asyncio.wait([ended], timeout=0.05)
        assert (await asyncio.gather(ended, return_exceptions=True))[0] == b"" or ended.exception() is not None
        view.sample("host")
        assert (await events.next() or {})["event"] == "sample"
    writer.close()
    await server.stop()


@pytest.mark.slow
async def test_a_client_that_reads_slowly_but_steadily_gets_all_of_a_large_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("polaris.api._idle.TAKE_WAIT_S", 1.0)
    size, bytes_per_s, step_s = 6_000_000, 600_000, 0.05

    async def large(_: Request) -> Response:
        return Response(b"x" * size)

    server = HttpServer(Starlette(routes=[Route("/large", large)]))
    reader, writer = await asyncio.open_connection(*await server.start(), limit=2048)
    writer.write(b"GET /large HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    got = 0
    while part := await reader.read(int(bytes_per_s * step_s)):
        got += len(part)
        await asyncio.sleep(len(part) / bytes_per_s)
    assert got == size
    writer.close()
    await server.stop()
