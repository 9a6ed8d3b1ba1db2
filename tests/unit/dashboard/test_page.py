from __future__ import annotations

import gzip
import re
from pathlib import Path

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from tests.living_view import LivingView

from polaris.api import create_app
from polaris.dashboard import Page
from polaris.exceptions import ConfigurationError


@pytest.fixture
async def client() -> httpx2.AsyncClient:
    app = create_app(LivingView(history_s=1), page=Page())
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://localhost")


async def test_the_root_is_the_page_and_is_always_asked_for_again(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    assert "<title>POLARIS</title>" in answer.text


async def test_assets_are_named_by_content_kept_for_ever_and_relative(client: httpx2.AsyncClient) -> None:
    assets = re.findall(r'(?:src|href)="(\./assets/[^"]+)"', (await client.get("/")).text)
    assert len(assets) == 2
    for asset in assets:
        assert re.search(r"-[A-Za-z0-9_-]{8}\.(js|css)$", asset)
        answer = await client.get(asset.removeprefix("."))
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert answer.headers["content-type"].split(";")[0] in ("text/javascript", "text/css")


async def test_the_page_names_no_foreign_host(client: httpx2.AsyncClient) -> None:
    html = (await client.get("/")).text
    assert "//" not in re.sub(r"<!--.*?-->", "", html)
    assert "<script>" not in html
    assert "style=" not in html


async def test_the_page_is_small(client: httpx2.AsyncClient) -> None:
    html = (await client.get("/")).text
    paths = ["/", *(path.removeprefix(".") for path in re.findall(r'"(\./[^"]+)"', html))]
    bodies = [(await client.get(path)).content for path in paths]
    assert sum(len(gzip.compress(body)) for body in bodies) <= 80_000


async def test_a_page_that_is_known_is_not_sent_again(client: httpx2.AsyncClient) -> None:
    etag = (await client.get("/")).headers["etag"]
    again = await client.get("/", headers={"If-None-Match": etag})
    assert again.status_code == 304
    assert again.content == b""


async def test_a_client_without_gzip_gets_plain_bytes(client: httpx2.AsyncClient) -> None:
    plain = await client.get("/", headers={"Accept-Encoding": "identity"})
    zipped = await client.get("/", headers={"Accept-Encoding": "gzip"})
    assert "content-encoding" not in plain.headers
    assert zipped.headers["content-encoding"] == "gzip"
    assert plain.content == zipped.content


@pytest.mark.parametrize("path", ["/secret.txt", "/../_page.py", "/%2e%2e/_page.py", "/assets", "/assets/", "/a/b"])
async def test_only_the_files_of_the_page_are_served(client: httpx2.AsyncClient, path: str) -> None:
    answer = await client.get(path)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


async def test_the_page_works_below_a_prefix() -> None:
    app = Starlette(routes=[Mount("/node-1", Page())])
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://localhost") as client:
        assert (await client.get("/node-1/")).status_code == 200
        assert (await client.get("/node-1/favicon.svg")).headers["content-type"] == "image/svg+xml"


async def test_the_licences_of_what_is_bundled_come_with_it(client: httpx2.AsyncClient) -> None:
    text = (await client.get("/THIRD_PARTY.txt")).text
    assert text.count("MIT License") == 4
    for name in ("preact ", "@preact/signals ", "uplot "):
        assert name in text


def test_an_installation_without_the_page_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="page is missing"):
        Page(tmp_path)
