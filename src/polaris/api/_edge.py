"""The first thing every request meets: who may ask, what may be asked, and the headers that go with every answer."""

from __future__ import annotations

import logging
from time import perf_counter

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from polaris._correlation import correlation_scope
from polaris.api._access import Access
from polaris.api._crowd import Crowd
from polaris.api._hosts import host_name
from polaris.api._problems import problem_response
from polaris.api._traffic import Traffic
from polaris.exceptions import HostNotAllowedError, PolarisException, RequestError, UnauthenticatedError

HEAD_BYTES_MAX = 16 * 1024

_HEADERS = {
    # The page is built without inline code; "connect-src" and all others follow "default-src".
    "Content-Security-Policy": (
        "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}

_logger = logging.getLogger("polaris.api")


class Edge:
    """ASGI middleware: checks the request, runs it under a correlation id, and makes every failure a problem document.

    Refused before anything else runs: whatever comes while there are too many connections, a head of more than 16 KiB,
    a `Host` that is not in `hosts` (None: any is welcome), and a request without the token where `access` asks for
    it everywhere. Cancellation passes through.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        hosts: frozenset[str] | None,
        access: Access | None = None,
        crowd: Crowd | None = None,
        traffic: Traffic | None = None,
    ) -> None:
        self._app = app
        self._hosts = hosts
        self._access = access
        self._crowd = crowd or Crowd()
        self._traffic = traffic

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False
        traffic, begun_s = self._traffic, perf_counter()

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                if traffic is not None:
                    traffic.answered(scope, message["status"])
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        with correlation_scope():
            try:
                self._check(scope)
                await self._app(scope, receive, send_with_headers)
            except PolarisException as error:
                if traffic is not None:
                    traffic.refused(error)
                if error.http_status >= 500:
                    _logger.warning("request failed: %s", error.message, extra={"code": error.code})
                if started:
                    raise
                await problem_response(error, headers=self._headers(error))(scope, receive, send_with_headers)
            except Exception as error:  # boundary: the edge of HTTP; the client gets a problem, the log the cause
                _logger.exception("request failed unexpectedly")
                if started:
                    raise  # half an answer is sent: the server must break the connection, not end it as complete
                failure = PolarisException("unexpected error", cause=error)
                await problem_response(failure)(scope, receive, send_with_headers)
            finally:
                if traffic is not None and started:
                    traffic.ended(scope, begun_s)

    def _headers(self, error: PolarisException) -> dict[str, str]:
        if isinstance(error, UnauthenticatedError) and self._access is not None:
            return {"WWW-Authenticate": self._access.challenge}
        # Whoever is one too many must not stay.
        return {"Connection": "close"} if self._crowd.is_full else {}

    def _check(self, scope: Scope) -> None:
        self._crowd.check()
        headers = Headers(scope=scope)
        # The server's own limit holds only for what has not arrived at once.
        size = len(scope.get("raw_path") or b"") + sum(len(name) + len(value) for name, value in scope["headers"])
        if size > HEAD_BYTES_MAX:
            raise RequestError(f"the head of the request has {size} bytes, the limit is {HEAD_BYTES_MAX} bytes")
        if self._hosts is not None and host_name(headers.get("host", "")) not in self._hosts:
            raise HostNotAllowedError("this node does not answer under that host name")
        if self._access is not None and self._access.everything:
            self._access.check_token(headers)
