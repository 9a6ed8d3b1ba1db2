"""What passes through HTTP, as metrics: requests by route and outcome, their times, streams, and refusals."""

from __future__ import annotations

from collections.abc import Iterable
from time import perf_counter
from typing import TYPE_CHECKING

from starlette.types import Scope

from polaris.exceptions import (
    BulkheadRejectedException,
    HostNotAllowedError,
    OriginNotAllowedError,
    PolarisException,
    RateLimitExceededError,
    RequestTooLargeError,
    UnauthenticatedError,
)

if TYPE_CHECKING:
    from polaris.api._stream import Streams
    from polaris.observability import Instruments

ROUTE = "polaris.route"
"""Where a request's scope holds the pattern of its path."""
METHODS = ("GET", "HEAD", "POST", "DELETE")
OTHER_METHOD = "_other"
PAGE = "page"
"""The route of whatever is no resource of the API: files of the page, and what is not there."""
NOT_ROUTED = "_none"
"""The route of what was turned away before anybody asked where it leads."""

REFUSALS: dict[type[PolarisException], str] = {
    UnauthenticatedError: "token",
    OriginNotAllowedError: "origin",
    HostNotAllowedError: "host",
    RequestTooLargeError: "too_large",
    RateLimitExceededError: "rate",
    BulkheadRejectedException: "busy",
}
LIVE, TAP = "live", "tap"


class Traffic:
    """Counts for one app. The series are bounded: routes are patterns, methods and reasons a few words."""

    def __init__(self, instruments: Instruments, endpoints: Iterable[tuple[str, str]], endless: Iterable[str]) -> None:
        """`endpoints` are methods with paths; answers of the paths in `endless` have no duration worth measuring."""
        self._instruments = instruments
        self._endless = frozenset(endless)
        for method, path in endpoints:
            for status in ("2xx", "5xx"):
                instruments.http_requests(path, method, status)
        for reason in REFUSALS.values():
            instruments.http_refused(reason)

    def watch(self, streams: Streams) -> None:
        """Show the open streams, and what slow clients of them missed."""
        self._instruments.http_streams(LIVE).set_function(lambda: streams.count)
        self._instruments.http_stream_dropped(LIVE).set_function(lambda: streams.dropped_total)
        self._instruments.http_streams(TAP).set_function(lambda: streams.taps)
        self._instruments.http_stream_dropped(TAP).set_function(lambda: streams.tap_dropped_total)

    def answered(self, scope: Scope, status: int) -> None:
        """An answer begins."""
        method = scope["method"] if scope["method"] in METHODS else OTHER_METHOD
        self._instruments.http_requests(route_of(scope), method, f"{status // 100}xx").inc()

    def ended(self, scope: Scope, begun_s: float) -> None:
        """An answer is complete, or broken off; `begun_s` is when its request came, by `perf_counter`."""
        route = route_of(scope)
        if route not in self._endless:
            self._instruments.http_request_seconds(route).observe(perf_counter() - begun_s)

    def refused(self, error: PolarisException) -> None:
        """A request was turned away because of who asks, or how much."""
        reason = REFUSALS.get(type(error))
        if reason is not None:
            self._instruments.http_refused(reason).inc()


def route_of(scope: Scope) -> str:
    """The pattern of the path that was asked for, never the path itself."""
    found: str = scope.get(ROUTE, PAGE if "router" in scope else NOT_ROUTED)
    return found
