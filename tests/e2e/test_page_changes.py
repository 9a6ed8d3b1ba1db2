"""The page of a real node changes things: an action reaches its system."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import Page, expect
from tests.e2e import page_checks as check
from tests.e2e.browsing import browsing, watching
from tests.nodes import a_node
from tests.witness_connector import read_journal

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

PATIENCE_MS = 30_000
REFUSED = "Failed to load resource: the server responded with a status of 401 (Unauthorized)"


async def run_once(page: Page, token: str | None) -> None:
    if token is not None:
        await page.get_by_label("Token of the node").fill(token)
    await page.get_by_role("dialog").get_by_role("button", name="Run", exact=True).click()


async def test_an_action_from_the_page_reaches_its_system_once_and_only_with_the_token(tmp_path: Path) -> None:
    journal = tmp_path / "web.jsonl"
    options = {"journal": str(journal), "before_s": 0.0}
    system = {"connector": "tests.witness_connector:WitnessConnector", "interval_s": 0.1, "options": options}
    async with a_node(tmp_path, {"systems": {"web": system}}) as node:
        token = (node.data.path / "http.token").read_text()
        async with browsing() as browser, watching(browser, f"{node.file.http_url}#/system/web") as watched:
            page = watched.page
            # As it is over plain HTTP from another machine.
            await page.add_init_script("delete Crypto.prototype.randomUUID")
            await page.reload()
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

            row = page.locator("[data-action]")
            await expect(row.get_by_role("link")).to_have_attribute(
                "href", f"#/adaptations/{actions_begun(journal)[0]}"
            )
            # The same action is marked on the charts, where it began.
            await expect(page.locator(".mark.status-success").first).to_be_attached()
            # The wrong token is told by the browser too; nothing else is.
            (error,) = watched.errors
            assert REFUSED in error
            watched.errors.clear()
            check.it_was_clean(watched)


def actions_begun(journal: Path) -> list[str | None]:
    return [line.action_id for line in read_journal(journal) if line.event == "begin"]
