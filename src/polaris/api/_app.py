"""Puts the endpoints, the edge and the page together as one ASGI application."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Mount, Route
from starlette.types import ASGIApp, Scope

from polaris.api._access import Access
from polaris.api._bodies import Gate, read_body, refuse_body
from polaris.api._command_endpoints import COMMAND_ENDPOINTS, body_of
from polaris.api._commands import NodeCommands
from polaris.api._crowd import Crowd
from polaris.api._document_endpoints import DOCUMENT_ENDPOINTS
from polaris.api._edge import Edge
from polaris.api._endpoints import ENDPOINTS, JSON_TYPE, Context, Endpoint, json_response
from polaris.api._history_endpoints import HISTORY_ENDPOINTS
from polaris.api._hosts import LOOPBACK_HOSTS
from polaris.api._inspection_endpoints import INSPECTION_ENDPOINTS
from polaris.api._openapi import openapi_document
from polaris.api._parameters import parse_query
from polaris.api._problems import handle_framework_error
from polaris.api._recollection_endpoints import RECOLLECTION_ENDPOINTS
from polaris.api._stream import EVENT_STREAM_TYPE, Streams
from polaris.api._traffic import ROUTE, Traffic
from polaris.api._view import NodeView
from polaris.clock import SYSTEM_CLOCK, Clock
from polaris.domain import EVENTS, EventRegistry
from polaris.exceptions import RequestError

if TYPE_CHECKING:
    from polaris.observability import MetricsCollector

READING_ENDPOINTS = (
    *ENDPOINTS,
    *DOCUMENT_ENDPOINTS,
    *RECOLLECTION_ENDPOINTS,
    *INSPECTION_ENDPOINTS,
    *HISTORY_ENDPOINTS,
)
ALL_ENDPOINTS = (*READING_ENDPOINTS, *COMMAND_ENDPOINTS)


def create_app(
    view: NodeView,
    *,
    page: ASGIApp | None = None,
    hosts: frozenset[str] | None = LOOPBACK_HOSTS,
    clock: Clock = SYSTEM_CLOCK,
    registry: EventRegistry = EVENTS,
    commands: NodeCommands | None = None,
    access: Access | None = None,
    metrics: MetricsCollector | None = None,
) -> Starlette:
    """The HTTP application of a node: JSON API, health, metrics, live updates, and `page` at the root when given.

    Read-only without `commands`: GET and HEAD are all it knows then. With them it takes actions and deals with dead
    letters, for whoever passes `access`, at most `CHANGES_PER_S` a second of one client. `hosts` are the host names it
    answers to (`hosts_for(address)` tells those that fit a listening address), None for any. `registry` holds the event
    types whose schemas it tells. `metrics` count what passes. Errors are problem documents (RFC 9457).
    `app.state.streams` holds the open event streams; `HttpServer` ends them when it stops.

    Raises `ValueError` for commands without access.
    """
    if commands is not None and access is None:
        raise ValueError("commands need access: a node that anybody may change is not offered")
    streams = Streams(view.live)
    context = Context(view, streams, clock, registry, commands)
    endpoints = READING_ENDPOINTS if commands is None else ALL_ENDPOINTS
    document = msgspec.json.encode(openapi_document(endpoints))
    gate = None if access is None else Gate(access)

    async def openapi(request: Request) -> Response:
        refuse_body(request)
        return Response(document, media_type=JSON_TYPE)

    by_path: dict[str, list[Endpoint]] = {}
    for endpoint in endpoints:
        by_path.setdefault(endpoint.path, []).append(endpoint)
    routes: list[BaseRoute] = [_route(path, methods, context, gate) for path, methods in by_path.items()]
    routes.append(_UndecodedRoute("/openapi.json", openapi))
    if page is not None:
        routes.append(Mount("/", page))
    crowd = Crowd()
    traffic = None if metrics is None else _traffic(metrics, endpoints, streams, crowd)
    app = Starlette(
        routes=routes,
        middleware=[Middleware(Edge, hosts=hosts, access=access, crowd=crowd, traffic=traffic)],
        exception_handlers={HTTPException: handle_framework_error},
    )
    app.router.redirect_slashes = False
    app.state.streams = streams
    app.state.crowd = crowd
    return app


def _traffic(metrics: MetricsCollector, endpoints: Sequence[Endpoint], streams: Streams, crowd: Crowd) -> Traffic:
    endless = (endpoint.path for endpoint in endpoints if endpoint.media_type == EVENT_STREAM_TYPE)
    traffic = Traffic(metrics.instruments, ((endpoint.method, endpoint.path) for endpoint in endpoints), endless)
    traffic.watch(streams)
    metrics.active_connections.labels("http").set_function(lambda: crowd.connections)
    return traffic


def _route(path: str, endpoints: Sequence[Endpoint], context: Context, gate: Gate | None) -> Route:
    """The route of one path, for all its methods."""
    by_method = {endpoint.method: _answering(endpoint, context, gate) for endpoint in endpoints}

    async def answer(request: Request) -> Response:
        method = request.method
        return await by_method["GET" if method == "HEAD" else method](request)  # type: ignore[index] # as routed

    return _UndecodedRoute(path, answer, methods=list(by_method), name=endpoints[0].name)


def _answering(endpoint: Endpoint, context: Context, gate: Gate | None) -> Callable[[Request], Awaitable[Response]]:
    parsers = {parameter.name: parameter.parse for parameter in endpoint.parameters if parameter.place == "path"}
    headers = [parameter.name for parameter in endpoint.parameters if parameter.place == "header"]

    async def answer(request: Request) -> Response:
        if endpoint.method != "GET":
            assert gate is not None  # noqa: S101 - such endpoints are there only with access
            await gate.admit(request)
        if endpoint.method != "POST":
            refuse_body(request)
        arguments = parse_query(request.scope["query_string"], endpoint.parameters)
        for name, text in request.path_params.items():
            arguments[name] = parsers[name](text)
        for name in headers:
            arguments[name] = request.headers.get(name)
        if endpoint.method == "POST":
            raw = await read_body(request, expected=endpoint.body is not None)
            arguments["body"] = None if endpoint.body is None else body_of(endpoint, raw)
        arguments["method"] = request.method
        arguments["accept"] = request.headers.get("accept", "")
        answered = await endpoint.handle(context, arguments)
        return answered if isinstance(answered, Response) else json_response(answered)

    return answer


class _UndecodedRoute(Route):
    """A route that splits the path before it decodes it, so an id may hold "/" as "%2F"."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        raw = scope.get("raw_path")
        encoded = scope if raw is None else {**scope, "path": raw.partition(b"?")[0].decode("latin-1")}
        match, found = super().matches(encoded)
        if match is Match.NONE:
            return match, found
        if raw is not None:
            found["path_params"] = {name: _decoded(text) for name, text in found["path_params"].items()}
        # A wrong method is this route's to refuse: the page, which answers to every path, must not be asked.
        return Match.FULL, {**found, ROUTE: self.path}


def _decoded(text: str) -> str:
    try:
        return unquote_to_bytes(text.encode("latin-1")).decode()
    except UnicodeDecodeError as error:
        raise RequestError("the path is not percent-encoded UTF-8") from error
