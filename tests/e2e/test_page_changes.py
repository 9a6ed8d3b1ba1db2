"""The page of a real node changes things: an action reaches its system, a dead letter is replayed and dropped."""

from __future__ import annotations

from pathlib import Path

import nats
import pytest
from playwright.async_api import Page, expect
from tests.e2e import page_checks as check
from tests.e2e.browsing import browsing, watching
from tests.nodes import NodeUnderTest, a_node
from tests.witness_connector import read_journal

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

PATIENCE_MS = 30_000
REFUSED = "Failed to load resource: the server responded with a status of 401 (Unauthorized)"


async def run_once(page: Page, token: str | None) -> None:
    if token is not None:
        await page.get_by_label("Token of the node").fill(token)
    await page.get_by_role("dialog").get_by_role("button", name="Run", exact=True).click()


async def test_an_action_and_a_dead_letter_are_dealt_with_on_the_page(tmp_path: Path) -> None:
    journal = tmp_path / "web.jsonl"
    options = {"journal": str(journal), "before_s": 0.0}
    system = {"connector": "tests.witness_connector:WitnessConnector", "interval_s": 0.1, "options": options}
    async with a_node(tmp_path, {"systems": {"web": system}}) as node:
        token = (node.data.path / "http.token").read_text()
        async with browsing() as browser, watching(browser, f"{node.file.http_url}#/system/web") as watched:
            page = watched.page
            await check.data_appear(watched)
            await page.get_by_label("Parameters").fill('{"count": ')
            await expect(page.get_by_role("button", name="Run …")).to_be_disabled()
            await page.get_by_label("Parameters").fill('{"count": 2}')
            await page.get_by_role("button", name="Run …").click()
            await check.it_can_be_read(watched)

            await run_once(page, "not the token")
            await expect(page.get_by_role("alert")).to_contain_text("not the node's token")
            assert actions_begun(journal) == []
            await run_once(page, token)
            await expect(page.get_by_role("dialog")).to_be_hidden(timeout=PATIENCE_MS)
            await expect(page.locator("[data-action] .status-success")).to_be_visible(timeout=PATIENCE_MS)
            assert actions_begun(journal) == [await page.locator("[data-action]").get_attribute("data-action")]

            await put_aside(node, b"\x00\xff no event")
            letter = page.locator("[data-dead-letter]")
            await expect(letter).to_be_visible(timeout=PATIENCE_MS)
            number = await letter.get_attribute("data-dead-letter")
            await letter.locator("summary").click()
            await expect(letter.locator("pre")).to_have_text("00 ff 20 6e 6f 20 65 76 65 6e 74")
            await check.it_can_be_read(watched)
            await letter.get_by_role("button", name="Replay …").click()
            await page.get_by_role("dialog").get_by_role("button", name="Replay").click()
            again = page.locator(f"[data-dead-letter]:not([data-dead-letter='{number}'])")
            await expect(again).to_be_visible(timeout=PATIENCE_MS)

            await again.locator("summary").click()
            await again.get_by_role("button", name="Drop …").click()
            await page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
            await expect(again).to_be_visible()
            await again.get_by_role("button", name="Drop …").click()
            await page.get_by_role("dialog").get_by_role("button", name="Drop").click()
            await expect(page.locator("[data-dead-letter]")).to_have_count(0, timeout=PATIENCE_MS)
            status, answer = await node.get("api/v1/dead-letters")
            assert (status, answer["dead_letters"]) == (200, [])
            # The wrong token is told by the browser too; nothing else is.
            (error,) = watched.errors
            assert REFUSED in error
            watched.errors.clear()
            check.it_was_clean(watched)


def actions_begun(journal: Path) -> list[str | None]:
    return [line.action_id for line in read_journal(journal) if line.event == "begin"]


async def put_aside(node: NodeUnderTest, payload: bytes) -> None:
    client = await nats.connect(str(node.file.bus_url), token=node.file.bus_token)
    try:
        await client.jetstream().publish("polaris.telemetry.web", payload)
    finally:
        await client.close()
