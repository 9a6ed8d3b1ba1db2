"""Puts the endpoints, the edge and the page together as one ASGI application."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Mount, Route
from starlette.types import ASGIApp, Scope

from polaris.api._edge import LOOPBACK_HOSTS, Edge
from polaris.api._endpoints import ENDPOINTS, JSON_TYPE, Context, Endpoint, json_response
from polaris.api._openapi import openapi_document
from polaris.api._parameters import parse_query
from polaris.api._problems import handle_framework_error
from polaris.api._stream import Streams
from polaris.api._view import NodeView
from polaris.clock import SYSTEM_CLOCK, Clock
from polaris.domain import EVENTS, EventRegistry
from polaris.exceptions import RequestError


def create_app(
    view: NodeView,
    *,
    page: ASGIApp | None = None,
    hosts: frozenset[str] | None = LOOPBACK_HOSTS,
    clock: Clock = SYSTEM_CLOCK,
    registry: EventRegistry = EVENTS,
) -> Starlette:
    """The HTTP application of a node: JSON API, health, metrics, live updates, and `page` at the root when given.

    Read-only: GET and HEAD are all it knows. `hosts` are the host names it answers to (`hosts_for(address)` tells those
    that fit a listening address), None for any. `registry` holds the event types whose schemas it tells. Errors are
    problem documents (RFC 9457). `app.state.streams` holds the open event streams; `HttpServer` ends them when it
    stops.
    """
    streams = Streams(view.live)
    context = Context(view, streams, clock, registry)
    document = msgspec.json.encode(openapi_document(ENDPOINTS))

    async def openapi(_: Request) -> Response:
        return Response(document, media_type=JSON_TYPE)

    routes: list[BaseRoute] = [_route(endpoint, context) for endpoint in ENDPOINTS]
    routes.append(Route("/openapi.json", openapi))
    if page is not None:
        routes.append(Mount("/", page))
    app = Starlette(
        routes=routes,
        middleware=[Middleware(Edge, hosts=hosts)],
        exception_handlers={HTTPException: handle_framework_error},
    )
    app.router.redirect_slashes = False
    app.state.streams = streams
    return app


def _route(endpoint: Endpoint, context: Context) -> Route:
    parsers = {parameter.name: parameter.parse for parameter in endpoint.parameters if parameter.place == "path"}
    headers = [parameter.name for parameter in endpoint.parameters if parameter.place == "header"]

    async def answer(request: Request) -> Response:
        arguments = parse_query(request.scope["query_string"], endpoint.parameters)
        for name, text in request.path_params.items():
            arguments[name] = parsers[name](text)
        for name in headers:
            arguments[name] = request.headers.get(name)
        arguments["method"] = request.method
        answered = await endpoint.handle(context, arguments)
        return answered if isinstance(answered, Response) else json_response(answered)

    return _UndecodedRoute(endpoint.path, answer, name=endpoint.name)


class _UndecodedRoute(Route):
    """A route that splits the path before it decodes it, so an id may hold "/" as "%2F"."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        raw = scope.get("raw_path")
        if raw is None:
            return super().matches(scope)
        match, found = super().matches({**scope, "path": raw.partition(b"?")[0].decode("latin-1")})
        if match is not Match.NONE:
            found["path_params"] = {name: _decoded(text) for name, text in found["path_params"].items()}
        return match, found


def _decoded(text: str) -> str:
    try:
        return unquote_to_bytes(text.encode("latin-1")).decode()
    except UnicodeDecodeError as error:
        raise RequestError("the path is not percent-encoded UTF-8") from error
