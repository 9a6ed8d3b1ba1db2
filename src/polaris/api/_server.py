"""An HTTP server inside a running event loop: it owns its socket and its end, and leaves signals to the process."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from typing import TYPE_CHECKING

import uvicorn

from polaris.api._crowd import CONNECTIONS_MAX, Crowd
from polaris.api._edge import HEAD_BYTES_MAX
from polaris.api._idle import IdleWatch
from polaris.exceptions import ConfigurationError, PolarisException

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from polaris.api._stream import Streams

KEEP_ALIVE_S = 5
STOP_TIMEOUT_S = 5.0
BACKLOG = 512
SENT_BYTES_HELD_MAX = 64 * 1024
SPARE_CONNECTIONS = 64
"""Beyond the most that are served: they are told so by the app. Still more get a bare 503 of the server."""
PORT_MAX = 65_535
_POLL_S = 0.01


class HttpServer:
    """Serves `app` on `host` and `port` (0: a free port) in the loop that calls `start`.

    No signal handler is touched, nothing is printed, no access log is written. Bounds: 16 KiB of request head, 1 024
    connections (more get 503), 5 s of idle keep-alive, 10 s for a request's head and for an answer that is not taken.
    May be started again after `stop`, on the same port.
    """

    def __init__(self, app: Starlette, host: str = "127.0.0.1", port: int = 0) -> None:
        self._app = app
        self._host = host
        self._port = port
        self._address: tuple[str, int] | None = None
        self._server: uvicorn.Server | None = None
        self._socket: socket.socket | None = None
        self._ticker: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Where the server answers, with a trailing slash. Raises `PolarisException` when it does not run."""
        if self._address is None:
            raise PolarisException("the HTTP server does not run")
        host, port = self._address
        return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"

    @property
    def address(self) -> tuple[str, int]:
        """The real address. Raises `PolarisException` when it does not run."""
        if self._address is None:
            raise PolarisException("the HTTP server does not run")
        return self._address

    async def start(self) -> tuple[str, int]:
        """Begin to serve; connections are accepted when this returns the real address.

        Raises `ConfigurationError` naming `host:port` when the address cannot be had; nothing is left open then.
        """
        if self._server is not None:
            raise PolarisException("the HTTP server runs already")
        listener = await self._bind()
        server = uvicorn.Server(_config(self._app))
        try:
            server.config.load()
            server.lifespan = server.config.lifespan_class(server.config)
            await server.on_tick(0)
            await server.startup(sockets=[listener])
        except BaseException:  # boundary: whatever cuts the start short, cancellation too, the socket does not leak
            listener.close()
            raise
        streams = self._streams()
        if streams is not None:
            streams.open()
        crowd: Crowd | None = getattr(self._app.state, "crowd", None)
        if crowd is not None:
            crowd.count_by(lambda: len(server.server_state.connections))
        self._server, self._socket = server, listener
        self._address = listener.getsockname()[:2]
        self._ticker = asyncio.create_task(_tick(server), name="polaris-http-ticker")
        return self._address

    async def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Accept nothing more, end event streams at once, and let running requests finish for `timeout_s` seconds.

        What still runs then is cancelled, and its connection is cut. Cancelling `stop` cuts everything at once. When it
        returns or raises, the port is free and no task is left. Does nothing when the server does not run.
        """
        server, listener, ticker = self._server, self._socket, self._ticker
        if server is None or listener is None or ticker is None:
            return
        self._server = self._socket = self._ticker = self._address = None
        try:
            for accepting in server.servers:
                accepting.close()
            listener.close()
            ticker.cancel()
            streams = self._streams()
            if streams is not None:
                streams.close()
            state = server.server_state
            for connection in tuple(state.connections):
                connection.shutdown()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    while state.connections or state.tasks:  # noqa: ASYNC110 - the server has no event for it
                        await asyncio.sleep(_POLL_S)
        finally:
            await _cut(server, ticker)

    def _streams(self) -> Streams | None:
        return getattr(self._app.state, "streams", None)

    async def _bind(self) -> socket.socket:
        # Bound here and not by the server, so that a failure is ours to name and a free port is known at once.
        where = f"{self._host}:{self._port}"
        if not 0 <= self._port <= PORT_MAX:  # the resolver would quietly take it modulo 65 536
            raise ConfigurationError(f"http: cannot listen on {where}: a port is a number from 0 to {PORT_MAX}")
        try:
            found = await asyncio.get_running_loop().getaddrinfo(
                self._host, self._port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
            family, kind, protocol, _, address = found[0]
            listener = socket.socket(family, kind, protocol)
        except OSError as error:
            raise ConfigurationError(f"http: cannot listen on {where}: {error}", cause=error) from error
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            # What the system holds of an answer tells nothing of whether it is taken; connections inherit this.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SENT_BYTES_HELD_MAX)
            listener.setblocking(False)
            listener.bind(address)
            # Two sockets may be bound to one port until one of them listens: listening is the test.
            listener.listen(BACKLOG)
        except OSError as error:
            listener.close()
            in_use = error.errno == errno.EADDRINUSE
            reason = "the port is in use by another program" if in_use else str(error)
            raise ConfigurationError(f"http: cannot listen on {where}: {reason}", cause=error) from error
        return listener


def _config(app: Starlette) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        loop="none",
        http="h11",
        ws="none",
        server_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=HEAD_BYTES_MAX,
        limit_concurrency=CONNECTIONS_MAX + SPARE_CONNECTIONS,
        timeout_keep_alive=KEEP_ALIVE_S,
        backlog=BACKLOG,
    )


async def _tick(server: uvicorn.Server) -> None:
    """Keep the `Date` header right. The server's own main loop would do it, but also polls ten times a second.

    And end connections on which nothing goes on, which the server does only between two requests.
    """
    idle, loop = IdleWatch(), asyncio.get_running_loop()
    while True:
        await asyncio.sleep(1)
        await server.on_tick(0)
        idle.look(server.server_state.connections, loop.time())


async def _cut(server: uvicorn.Server, ticker: asyncio.Task[None]) -> None:
    """Cancel what still runs and wait for its end."""
    state = server.server_state
    running = [ticker, *state.tasks]
    for task in running:
        task.cancel()
    for connection in tuple(state.connections):
        transport = getattr(connection, "transport", None)
        if transport is not None:
            transport.abort()
    await asyncio.gather(*running, return_exceptions=True)
    for accepting in server.servers:
        await accepting.wait_closed()
