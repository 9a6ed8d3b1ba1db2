"""What a request that changes something passes before it is read, and the reading of its body."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from starlette.requests import ClientDisconnect, Request

from polaris.api._access import Access
from polaris.api._commands import BODY_BYTES_MAX, BODY_WAIT_S, CHANGES_OF_ALL_PER_S, CHANGES_PER_S
from polaris.exceptions import MediaTypeError, RequestError, RequestTooLargeError
from polaris.resilience import RateLimiter, RateLimiterConfig

CLIENTS_MAX = 1_024
"""Clients whose changes are counted apart; of more, those that asked longest ago are counted anew."""
BURST_S = 5


class Gate:
    """Lets those changes pass that come with the token, from no foreign page, and not too many at once.

    Each client's address has a limit of its own, so that one that asks too much does not keep the others out, and all
    together have another one.
    """

    def __init__(self, access: Access) -> None:
        self._access = access
        self._everybody = _limiter("api.changes.all", CHANGES_OF_ALL_PER_S)
        self._clients: OrderedDict[str, RateLimiter] = OrderedDict()

    async def admit(self, request: Request) -> None:
        """Raise `UnauthenticatedError`, `OriginNotAllowedError` or `RateLimitExceededError`; nothing was read then."""
        self._access.check_token(request.headers)
        self._access.check_origin(request.headers)
        await self._limiter_of(request.client.host if request.client else "").execute(_nothing, "change")
        await self._everybody.execute(_nothing, "change")

    def _limiter_of(self, client: str) -> RateLimiter:
        limiter = self._clients.get(client)
        if limiter is None:
            limiter = self._clients[client] = _limiter("api.changes", CHANGES_PER_S)
            if len(self._clients) > CLIENTS_MAX:
                self._clients.popitem(last=False)
        self._clients.move_to_end(client)
        return limiter


def _limiter(name: str, per_s: int) -> RateLimiter:
    return RateLimiter(name, RateLimiterConfig(per_s, burst=BURST_S * per_s))


async def _nothing() -> None:
    pass


def refuse_body(request: Request) -> None:
    """Raise `RequestError` when a request has a body although its method takes none."""
    headers = request.headers
    if headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
        raise RequestError("a request body is not accepted")


async def read_body(request: Request, *, expected: bool) -> bytes:
    """The whole body, of at most `BODY_BYTES_MAX`, which must come within `BODY_WAIT_S`.

    Raises `RequestTooLargeError`, `MediaTypeError` when it is not JSON, and `RequestError`, also for a body where none
    is read.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if expected and kind != "application/json":
        raise MediaTypeError("send application/json")
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_WAIT_S):
            async for chunk in request.stream():
                size += len(chunk)
                if size and not expected:
                    raise RequestError("a request body is not accepted here")
                if size > BODY_BYTES_MAX:
                    raise RequestTooLargeError(f"the body is over {BODY_BYTES_MAX} bytes")
                chunks.append(chunk)
    except TimeoutError as error:
        raise RequestError(f"the body did not come within {BODY_WAIT_S:g} s") from error
    except ClientDisconnect as error:
        raise RequestError("the client went away in the middle of the body") from error
    return b"".join(chunks)
