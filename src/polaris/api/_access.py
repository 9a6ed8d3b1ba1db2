"""Who may ask for changes: whoever has the node's token, and no page of another origin on somebody's behalf."""

from __future__ import annotations

import base64
import binascii
import hmac

from starlette.datastructures import Headers

from polaris.exceptions import OriginNotAllowedError, UnauthenticatedError

TOKEN_CHARS_MIN = 16


class Access:
    """The rules of one node.

    A token comes as `Authorization: Bearer TOKEN` (RFC 6750) or as the password of `Authorization: Basic` (RFC 7617).
    Changes always need it, and must not come from a page of another origin: a browser adds a remembered password by
    itself. With `everything`, as on any address but loopback, reading needs it too.
    """

    def __init__(self, token: str, *, everything: bool = False) -> None:
        self._token = token.encode()
        self.everything = everything

    @property
    def challenge(self) -> str:
        """What `WWW-Authenticate` says. A browser answers Basic with a dialog, which only helps to open the page."""
        bearer = 'Bearer realm="POLARIS node"'
        return f'{bearer}, Basic realm="POLARIS node", charset="UTF-8"' if self.everything else bearer

    def check_token(self, headers: Headers) -> None:
        """Raise `UnauthenticatedError` unless the request has the token. Takes as long for any wrong one."""
        given = _credential(headers.get("authorization", ""))
        if given is None:
            raise UnauthenticatedError("this needs the node's token")
        if not hmac.compare_digest(given, self._token):
            raise UnauthenticatedError("this is not the node's token")

    def check_origin(self, headers: Headers) -> None:
        """Raise `OriginNotAllowedError` for a request that a browser sends for a page of another origin.

        The scheme is not compared: behind a proxy that ends TLS the page's is https and the node's is not.
        """
        site = headers.get("sec-fetch-site")
        if site is not None and site not in ("same-origin", "none"):
            raise OriginNotAllowedError("a page of another site may not change anything here")
        origin = headers.get("origin")
        if origin is not None and origin.lower().partition("://")[2] != headers.get("host", "").lower():
            raise OriginNotAllowedError("a page of another origin may not change anything here")


def _credential(header: str) -> bytes | None:
    kind, _, value = header.strip().partition(" ")
    value = value.strip()
    if kind.lower() == "bearer" and value:
        return value.encode("utf-8", "surrogateescape")
    if kind.lower() == "basic":
        try:
            _, colon, password = base64.b64decode(value, validate=True).partition(b":")
        except (binascii.Error, ValueError):
            return None
        return password if colon else None
    return None
