"""Serves the files of the page from memory."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from polaris.exceptions import ConfigurationError

_TYPES = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
    "txt": "text/plain; charset=utf-8",
}
# The build names these files by a hash of their content, so a name never means other bytes.
_IMMUTABLE = "public, max-age=31536000, immutable"
_REVALIDATE = "no-cache"


@dataclass(frozen=True)
class _File:
    body: bytes
    zipped: bytes
    media_type: str
    etag: str
    cache_control: str


class Page:
    """An ASGI application for the files of the page: `index.html` at its root, the rest by name.

    All files (together well under a megabyte) are read once, here; a request touches no disk, and no request path ever
    becomes a file path. Raises `ConfigurationError` when the package was built without the page.
    """

    def __init__(self, folder: Traversable | None = None) -> None:
        root = files("polaris.dashboard") / "static" if folder is None else folder
        self._files = dict(_read(root, "")) if root.is_dir() else {}
        if "/index.html" not in self._files:
            raise ConfigurationError("the page is missing from this installation: install the package again")
        self._files["/"] = self._files["/index.html"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        file = self._files.get(path or "/")
        if file is None:
            raise HTTPException(404)
        if scope["method"] not in ("GET", "HEAD"):
            raise HTTPException(405, headers={"Allow": "GET, HEAD"})
        await _response(file, Headers(scope=scope), head=scope["method"] == "HEAD")(scope, receive, send)


def _response(file: _File, headers: Headers, *, head: bool) -> Response:
    answer = {"ETag": file.etag, "Cache-Control": file.cache_control, "Vary": "Accept-Encoding"}
    if file.etag in headers.get("if-none-match", ""):
        return Response(status_code=304, headers=answer)
    body = file.body
    if "gzip" in headers.get("accept-encoding", ""):
        body = file.zipped
        answer["Content-Encoding"] = "gzip"
    answer |= {"Content-Type": file.media_type, "Content-Length": str(len(body))}
    return Response(b"" if head else body, headers=answer)


def _read(folder: Traversable, prefix: str) -> list[tuple[str, _File]]:
    found: list[tuple[str, _File]] = []
    for entry in folder.iterdir():
        path = f"{prefix}/{entry.name}"
        if entry.is_dir():
            found += _read(entry, path)
            continue
        media_type = _TYPES.get(entry.name.rpartition(".")[2])
        if media_type is None:
            continue
        body = entry.read_bytes()
        etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        cache_control = _IMMUTABLE if prefix == "/assets" else _REVALIDATE
        found.append((path, _File(body, gzip.compress(body, mtime=0), media_type, etag, cache_control)))
    return found
