"""A real Chromium that watches what a page does: its errors, and whom it asks."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from playwright.async_api import Browser, ConsoleMessage, Page, Request, ViewportSize, async_playwright, expect

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PLACES = ("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome", "/snap/bin/chromium")
FLAGS = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
EXPECTED_MS = 15_000
"""How long what is expected of a page may take where a test says nothing else; a busy machine took five seconds."""
DESKTOP: ViewportSize = {"width": 1440, "height": 1000}
PHONE: ViewportSize = {"width": 390, "height": 844}

# What the browser itself writes to the console while a server is away; no script can prevent it.
AWAY = ("net::ERR_CONNECTION_REFUSED", "net::ERR_INCOMPLETE_CHUNKED_ENCODING", "net::ERR_CONNECTION_RESET",
        "net::ERR_EMPTY_RESPONSE")  # fmt: skip

expect.set_options(timeout=EXPECTED_MS)


def chromium() -> str:
    """The browser of this machine. Fails when there is none: a page that nobody looked at is not tested."""
    named = os.environ.get("POLARIS_CHROMIUM")
    found = named or next(filter(None, (shutil.which(name) for name in (*NAMES, *PLACES))), None)
    if found is None or not os.access(found, os.X_OK):
        message = (
            f"no Chromium found ({named or ', '.join(NAMES)}): install it (Debian: apt-get install chromium) "
            "or name it in POLARIS_CHROMIUM"
        )
        raise AssertionError(message)
    return found


@contextlib.asynccontextmanager
async def browsing() -> AsyncIterator[Browser]:
    """A browser of its own, closed at the end."""
    sandbox = ["--no-sandbox"] if sys.platform == "linux" and os.geteuid() == 0 else []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium(), args=[*FLAGS, *sandbox])
        try:
            yield browser
        finally:
            await browser.close()


@dataclass
class Watched:
    """A page and what it did wrong so far."""

    page: Page
    origin: str
    errors: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    away_allowed: bool = False
    """Set while the server is stopped on purpose."""

    def hear(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            expected = self.away_allowed and any(reason in message.text for reason in AWAY)
            if not expected:
                self.errors.append(f"{message.type}: {message.text} {message.location}")

    def asked(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if f"{parts.scheme}://{parts.netloc}" != self.origin and parts.scheme not in ("data", "blob"):
            self.foreign.append(request.url)


@contextlib.asynccontextmanager
async def watching(
    browser: Browser,
    url: str,
    *,
    theme: Literal["light", "dark"] = "light",
    viewport: ViewportSize = DESKTOP,
) -> AsyncIterator[Watched]:
    """Open `url`, and note every console error, script error and request to another origin from the first moment on."""
    context = await browser.new_context(color_scheme=theme, viewport=viewport, reduced_motion="reduce")
    page = await context.new_page()
    parts = urlsplit(url)
    watched = Watched(page, f"{parts.scheme}://{parts.netloc}")
    page.on("console", watched.hear)
    page.on("pageerror", lambda error: watched.errors.append(f"script: {error}"))
    page.on("request", watched.asked)
    await page.goto(url)
    try:
        yield watched
    finally:
        await context.close()
