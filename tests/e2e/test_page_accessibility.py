"""Everybody can use every view, in both themes: axe-core finds nothing. No rule of its is left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.async_api import Page, expect
from tests.e2e import page_checks as check
from tests.e2e.browsing import browsing, watching
from tests.living_view import LivingView

from polaris.api import HttpServer, create_app
from polaris.dashboard import Page as PageFiles

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

AXE = Path(__file__).resolve().parents[2] / "web" / "node_modules" / "axe-core" / "axe.min.js"
RUN = """async () => {
    const { violations } = await axe.run(document, { resultTypes: ['violations'] })
    return violations.map(({ id, help, nodes }) => ({ id, help, nodes: nodes.map(({ html }) => html.slice(0, 200)) }))
}"""
# Each with what must be there before it is looked at.
VIEWS = {
    "#/": ".topology [data-box=host]",
    "#/system/web-shop": ".plot[data-state=shown]",
    "#/system/web-shop?range=3600": ".plot[data-state=shown]",
    "#/adaptations": "[data-adaptation]",
    "#/adaptations/action-00002": "[data-step]",
    "#/bus": ".table tbody tr",
    "#/bus/streams": "[data-stream]",
    "#/bus/tap": "[data-tapped]",
    "#/bus/dead-letters": ".empty",
    "#/traces": "[data-trace]",
    f"#/traces/{1:032x}": "[role=treeitem]",
    "#/logs": "[data-log]",
    "#/node": "[data-part]",
    "#/node/history": "[data-period]",
    "#/node/configuration": "[data-setting]",
}


def axe() -> str:
    assert AXE.is_file(), "the tools of the page are not installed: run make page"
    return AXE.read_text()


async def findings(page: Page) -> list[dict[str, Any]]:
    """What axe finds; it comes by the browser's own protocol, so the page's Content-Security-Policy stays as it is."""
    if not await page.evaluate("'axe' in window"):
        await page.evaluate(axe())
    found: list[dict[str, Any]] = await page.evaluate(RUN)
    return found


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_axe_finds_nothing_on_any_view(theme: Literal["light", "dark"]) -> None:
    async with LivingView(history_s=300).living(every_s=0.5) as view:
        view.failing["store"] = "the disk is full"
        server = HttpServer(create_app(view, page=PageFiles()))
        await server.start()
        try:
            async with browsing() as browser, watching(browser, server.url, theme=theme) as watched:
                page = watched.page
                await check.data_appear(watched)
                found = {}
                for address, there in VIEWS.items():
                    await page.evaluate("address => { location.hash = address }", address)
                    await expect(page.locator(there).first).to_be_visible(timeout=check.APPEARS_MS)
                    found[address] = await findings(page)
                faults = {address: one for address, one in found.items() if one}
                assert faults == {}, json.dumps(faults, indent=2)
                check.it_was_clean(watched)
        finally:
            await server.stop()


async def test_axe_notices_what_is_wrong() -> None:
    """A check that finds nothing in anything would prove nothing."""
    async with browsing() as browser:
        page = await browser.new_page()
        await page.set_content("<html lang=en><title>x</title><main><h1>x</h1><img src=data:,><button></button></main>")
        assert {"image-alt", "button-name"} <= {each["id"] for each in await findings(page)}
