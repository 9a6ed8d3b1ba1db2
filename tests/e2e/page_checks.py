"""What must be true of the page of any living node: each check takes an open page and fails with what it saw.

They ask for nothing but a node with at least one system that sends numbers, so they hold for the real runtime as well
as for a node in memory.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable

from playwright.async_api import Page, expect
from tests.e2e.browsing import Watched

APPEARS_MS = 15_000
MOVES_S = 15.0
RETURNS_MS = 30_000


async def data_appear(watched: Watched) -> None:
    """The node and its systems with values are there; on the overview also what flows, and the components, and on the
    view of a system a drawn chart. Nothing waits any more."""
    page = watched.page
    await expect(page.locator("[data-connection=live]")).to_be_visible(timeout=APPEARS_MS)
    await expect(page.locator("[data-system]").first).to_be_visible(timeout=APPEARS_MS)
    await expect(page.locator("[data-system] .value:not(.absent)").first).to_be_visible(timeout=APPEARS_MS)
    if await page.locator("main").get_attribute("data-view") == "overview":
        await expect(page.locator("[data-component]").first).to_be_visible(timeout=APPEARS_MS)
        await expect(page.locator("[data-rate=telemetry]")).to_contain_text(re.compile(r"\d"), timeout=APPEARS_MS)
        await expect(page.locator("[data-rate=messages]")).to_contain_text(re.compile(r"\d"), timeout=APPEARS_MS)
    else:
        await expect(page.locator(".plot[data-state=shown] canvas").first).to_be_visible(timeout=APPEARS_MS)
        await chart_is_painted(page)


async def chart_is_painted(page: Page) -> None:
    """Some pixels of the first chart's canvas are not transparent: soon, as it is drawn with the next frame."""
    await page.wait_for_function(
        """() => {
            const canvas = document.querySelector('.plot[data-state=shown] canvas')
            if (!canvas) return false
            const copy = new OffscreenCanvas(canvas.width, canvas.height)
            const context = copy.getContext('2d', { willReadFrequently: true })
            context.drawImage(canvas, 0, 0)
            const pixels = context.getImageData(0, 0, copy.width, copy.height).data
            let painted = 0
            for (let index = 3; index < pixels.length; index += 4) painted += pixels[index] > 0
            return painted > 100
        }""",
        timeout=APPEARS_MS,
    )


async def shown_values(page: Page) -> list[str]:
    return await page.locator("[data-value], [data-system] .value").all_inner_texts()


async def data_move(watched: Watched) -> None:
    """The numbers of systems and charts change by themselves, and the last sample stays young."""
    page = watched.page
    before = await shown_values(page)
    deadline = time.monotonic() + MOVES_S
    while await shown_values(page) == before:
        assert time.monotonic() < deadline, f"nothing moved in {MOVES_S} s: {before}"
        await asyncio.sleep(0.1)
    assert await page.locator("[data-connection=live]").count() == 1


async def a_restart_is_survived(
    watched: Watched, stop: Callable[[], Awaitable[object]], start: Callable[[], Awaitable[object]]
) -> None:
    """While the node is away the page says so and keeps what it knew; afterwards it is live and moves, untouched."""
    page = watched.page
    cards = await page.locator("[data-system]").count()
    watched.away_allowed = True
    await stop()
    await expect(page.locator("[data-connection=reconnecting]")).to_be_visible(timeout=RETURNS_MS)
    await expect(page.get_by_role("alert")).to_contain_text("does not answer")
    await expect(page.locator("h1 .pill")).to_have_text("unknown")
    assert await page.locator("[data-system]").count() == cards, "what was known must stay on the page"
    await start()
    await expect(page.locator("[data-connection=live]")).to_be_visible(timeout=RETURNS_MS)
    await expect(page.get_by_role("alert")).to_have_count(0)
    watched.away_allowed = False
    await data_appear(watched)
    await data_move(watched)


async def it_fits(watched: Watched) -> None:
    """Nothing sticks out sideways."""
    page = watched.page
    wide, width = await page.evaluate("[document.scrollingElement.scrollWidth, innerWidth]")
    assert wide <= width, f"the page is {wide} pixels wide in a window of {width}"


async def it_can_be_read(watched: Watched) -> None:
    """All text stands out from its ground: WCAG 2.2 contrast of at least 4.5 to 1."""
    faint = await watched.page.evaluate(CONTRAST)
    assert faint == [], faint


async def it_works_by_keyboard(watched: Watched) -> None:
    """Every control has a name and can be reached with Tab; Enter on a system selects it."""
    page = watched.page
    nameless = await page.evaluate(
        """() => [...document.querySelectorAll('a, button, input, summary')].filter((control) =>
            !(control.textContent || control.getAttribute('aria-label') || control.closest('label')?.textContent)
        ).map((control) => control.outerHTML.slice(0, 120))"""
    )
    assert nameless == [], nameless
    last = page.locator("[data-system]").last
    name = await last.get_attribute("data-system")
    await page.evaluate("document.activeElement?.blur?.()")
    for _ in range(120):
        await page.keyboard.press("Tab")
        if await page.evaluate("document.activeElement?.dataset?.system ?? null") == name:
            break
    else:
        raise AssertionError(f"Tab never reached {name}")
    await page.keyboard.press("Enter")
    await expect(page.locator("#detail-title")).to_have_text(name or "")


def it_was_clean(watched: Watched) -> None:
    """No console error or warning, no script error, no request to any other origin, ever."""
    assert watched.errors == [], watched.errors
    assert watched.foreign == [], watched.foreign


# Walks all visible text, blends the colours below it, and returns what is too faint.
CONTRAST = """() => {
    const context = document.createElement('canvas').getContext('2d', { willReadFrequently: true })
    const rgba = (colour) => {
        context.clearRect(0, 0, 1, 1)
        context.fillStyle = colour
        context.fillRect(0, 0, 1, 1)
        const [r, g, b, a] = context.getImageData(0, 0, 1, 1).data
        return [r, g, b, a / 255]
    }
    const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3])).concat(1)
    const ground = (element) => {
        const layers = []
        for (let node = element; node; node = node.parentElement) {
            layers.push(rgba(getComputedStyle(node).backgroundColor))
        }
        return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255, 1])
    }
    const light = (colour) => {
        const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
        const [r, g, b] = colour.slice(0, 3).map((c) => linear(c / 255))
        return 0.2126 * r + 0.7152 * g + 0.0722 * b
    }
    const faint = []
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
    while (walker.nextNode()) {
        const element = walker.currentNode.parentElement
        const text = walker.currentNode.textContent.trim()
        if (!text || !element.checkVisibility() || element.closest('noscript')) continue
        const below = ground(element)
        const [a, b] = [light(over(rgba(getComputedStyle(element).color), below)), light(below)].sort((x, y) => y - x)
        const ratio = (a + 0.05) / (b + 0.05)
        if (ratio < 4.5) faint.push(`${text.slice(0, 40)}: ${ratio.toFixed(2)}`)
    }
    return faint
}"""
