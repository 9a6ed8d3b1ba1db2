"""The page tells what happened: from an adaptation to its trace and its log records, and every one is found again."""

from __future__ import annotations

import asyncio
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, expect
from tests.e2e import page_checks as check
from tests.e2e.browsing import PHONE, Watched, browsing, watching
from tests.nodes import NodeUnderTest, a_node, eventually_true

from polaris.domain import AdaptationAction, AdaptationEvent, TelemetryEvent
from polaris.messaging import adaptation_topic, telemetry_topic

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

CONNECTOR = "tests.witness_connector:WitnessConnector"
PATIENCE_MS = 30_000
BURST = 55
"""So many adaptations that they fill more than one page of each list."""
LOOP = "closes-the-loop"
BY_HAND = "asked-by-hand"
REFUSED = "refused"
UNKNOWN = "Failed to load resource: the server responded with a status of 404 (Not Found)"


def settings(folder: Path) -> dict[str, Any]:
    pump = {
        "connector": CONNECTOR,
        "interval_s": 0.3,
        "options": {"journal": str(folder / "pump.jsonl"), "refuses_first": 1},
    }
    broken = {"connector": CONNECTOR, "interval_s": 2.0, "options": {"journal": str(folder / "no" / "folder.jsonl")}}
    return {
        "tracing": {"ratio": 0.0},
        "logging": {"level": "info", "format": "json"},
        "systems": {"pump": pump, "broken": broken},
    }


async def close_the_loop(node: NodeUnderTest) -> str:
    """A controller that answers the first sample it sees; returns the correlation id, which it knows nothing of."""
    seen: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    async with node.bus() as bus:

        async def decide(event: TelemetryEvent) -> None:
            if not seen.done():
                action = AdaptationAction(LOOP, "poke", "pump", {"strength": 3, "where": {"side": "left"}})
                await bus.publish(adaptation_topic("pump"), AdaptationEvent(action, source="rule"))
                seen.set_result(event.correlation_id or "")

        await bus.subscribe(telemetry_topic("pump"), decide)
        async with asyncio.timeout(20):
            return await seen


async def ask(node: NodeUnderTest, action_id: str, system_id: str = "pump", **fields: Any) -> None:
    async with node.bus() as bus:
        action = AdaptationAction(action_id, "poke", system_id)
        await bus.publish(adaptation_topic(system_id), AdaptationEvent(action, **fields))


async def go(page: Page, place: str) -> None:
    await page.evaluate("place => { location.hash = place }", place)


async def an_adaptation_appears_as_it_happens(page: Page, node: NodeUnderTest) -> str:
    await expect(page.get_by_role("heading", name="No adaptation yet")).to_be_visible(timeout=PATIENCE_MS)
    correlation_id = await close_the_loop(node)
    row = page.locator(f"[data-adaptation={LOOP}]")
    await expect(row).to_have_attribute("data-status", "success", timeout=PATIENCE_MS)
    await expect(row).to_contain_text("asked by rule")
    await row.get_by_role("link", name="poke").click()
    return correlation_id


async def its_story_is_told(page: Page, correlation_id: str) -> None:
    await expect(page.get_by_role("heading", name="poke on pump")).to_be_visible(timeout=PATIENCE_MS)
    steps = page.locator("[data-step]")
    await expect(page.locator("[data-step=announcement]")).to_contain_text(
        "polaris.executions.pump", timeout=PATIENCE_MS
    )
    kinds = await steps.evaluate_all("steps => steps.map(step => step.dataset.step)")
    assert kinds == ["sample", "decision", "arrival", "attempt", "attempt", "outcome", "announcement"]
    await expect(page.locator("[data-step=sample]")).to_contain_text("A sample of pump")
    await expect(page.locator("[data-step=sample] .values")).to_contain_text(
        re.compile(r"Number \d+"), timeout=PATIENCE_MS
    )
    await expect(page.locator("[data-step=decision]")).to_contain_text("rule asked for poke")
    await expect(page.locator("[data-step=attempt]").first).to_contain_text("not now")
    await expect(page.locator("[data-step=attempt]").last).to_contain_text("Attempt 2 of 2")
    await expect(page.locator("[data-step=outcome]")).to_contain_text(re.compile(r"Done\s*pid\s*\d+"))
    asked = page.get_by_role("region", name="What was asked")
    for fact in ("rule", LOOP, correlation_id, '{"side":"left"}'):
        await expect(asked).to_contain_text(fact)
    await expect(page.get_by_role("img", name=re.compile(r"^Number: .* after$"))).to_be_visible()
    await expect(page.get_by_label("Log records of this adaptation")).to_contain_text("action ended")
    charts = page.get_by_role("link", name="Charts at that time")
    await expect(charts).to_have_attribute("href", re.compile(r"^#/system/pump\?from=.+&to="))


async def its_trace_is_walked_through_by_keyboard(page: Page) -> None:
    await page.get_by_role("link", name="Trace", exact=True).click()
    tree = page.get_by_role("tree")
    await expect(tree).to_be_visible(timeout=PATIENCE_MS)
    names = await tree.locator(".name > .clip").all_inner_texts()
    # The subscription for systems that are not configured sees it too, before the other or after it.
    names = [name for name in names if not name.endswith(" execute-unconfigured")]
    assert names[:4] == ["collect telemetry", "decide", "process polaris.adaptations.* execute-pump", "execute action"]
    chosen = tree.locator("[aria-selected=true]")
    details = page.locator("[data-details-of]")
    await expect(chosen).to_contain_text("attempt action 1")
    await expect(details).to_contain_text("not now")

    await chosen.focus()
    await page.keyboard.press("ArrowDown")
    await expect(chosen).to_contain_text("attempt action 2")
    await expect(details).to_contain_text("polaris.action.attempt2")
    assert "span=" in page.url, "what is chosen can be linked to"
    await page.keyboard.press("ArrowLeft")
    await expect(chosen).to_contain_text("execute action")
    await page.keyboard.press("ArrowLeft")
    await expect(chosen).to_have_attribute("aria-expanded", "false")
    await expect(tree.get_by_role("treeitem", name="attempt action 2")).to_have_count(0)
    await page.keyboard.press("ArrowRight")
    await page.keyboard.press("Home")
    await expect(chosen).to_contain_text("collect telemetry")
    await expect(chosen).to_be_focused()
    await page.keyboard.press("End")
    await expect(chosen).not_to_contain_text("collect telemetry")
    # Nothing reaches beyond the axis.
    assert await tree.evaluate(BARS_OUTSIDE) == []
    await page.reload()
    await expect(page.get_by_role("tree").locator("[aria-selected=true]")).to_be_visible(timeout=PATIENCE_MS)
    await expect(page.locator("[data-action-of-trace]")).to_have_attribute("href", f"#/adaptations/{LOOP}")


BARS_OUTSIDE = """tree => [...tree.querySelectorAll('.lane')].flatMap(lane => {
    const [outer, inner] = [lane, lane.querySelector('.fall-bar')].map(one => one.getBoundingClientRect())
    const wrong = inner.left < outer.left - 1 || inner.right > outer.right + 4 || inner.width < 1
    return wrong ? [[outer.left, outer.right, inner.left, inner.right]] : []
})"""


async def its_log_is_found_and_leads_back(page: Page, correlation_id: str) -> None:
    await page.get_by_role("link", name=f"by correlation id {correlation_id}").click()
    records = page.locator("[data-log]")
    await expect(records.first).to_be_visible(timeout=PATIENCE_MS)
    said = await records.locator(".said").all_inner_texts()
    assert len(said) >= 2
    assert all(any(word in line for word in ("action", "operation")) for line in said), said
    await expect(page.get_by_label("Correlation or trace id")).to_have_value(correlation_id)
    ended = records.filter(has_text="action ended")
    await ended.locator("summary").click()
    await expect(ended.get_by_role("link", name=LOOP)).to_have_attribute("href", f"#/adaptations/{LOOP}")
    await ended.locator("dd a[href*='#/traces/']").click()
    await expect(page.get_by_role("tree").locator("[aria-selected=true]")).to_contain_text(
        "process polaris.adaptations.*"
    )


async def records_come_while_one_looks(page: Page, node: NodeUnderTest) -> None:
    await go(page, "#/logs?about=ticket 4711")
    await expect(page.get_by_role("heading", name="Nothing fits")).to_be_visible(timeout=PATIENCE_MS)
    await ask(node, BY_HAND, correlation_id="ticket 4711", source="me")
    await expect(page.locator("[data-log]")).to_have_count(2, timeout=PATIENCE_MS)
    await page.get_by_role("button", name="Following").click()
    await expect(page.get_by_role("button", name="Follow", exact=True)).to_have_attribute("aria-pressed", "false")
    assert "follow=off" in page.url

    await go(page, "#/logs")
    await page.get_by_label("Level").select_option("error")
    await expect(page.locator("[data-level=info]")).to_have_count(0)
    assert "level=error" in page.url


async def errors_are_told_from_the_rest(page: Page) -> None:
    await go(page, "#/traces")
    flagged = page.locator("[data-trace]:has(.flag)")
    spotless = page.locator("[data-trace]:not(:has(.flag))")
    await expect(flagged.filter(has_text="broken").first).to_be_visible(timeout=PATIENCE_MS)
    await expect(spotless.first).to_be_visible(timeout=PATIENCE_MS)
    await page.get_by_label("Errors only").check()
    await expect(spotless).to_have_count(0)
    await expect(flagged.filter(has_text="adaptation")).to_have_count(1)
    await page.get_by_label("System").select_option("broken")
    await expect(flagged.filter(has_text="adaptation")).to_have_count(0)
    await flagged.first.get_by_role("link").click()
    await expect(page.locator("[data-details-of]")).to_contain_text("error.type", timeout=PATIENCE_MS)
    await page.get_by_role("link", name="← Traces").click()
    await expect(page.get_by_label("Errors only")).to_be_checked()
    await expect(page.get_by_label("System")).to_have_value("broken")


async def a_trace_is_found_by_any_id(page: Page, correlation_id: str) -> None:
    await go(page, "#/traces")
    box = page.get_by_role("searchbox")
    links = page.locator("[data-trace]")
    for wanted in (correlation_id, "ticket 4711", BY_HAND):
        await box.fill(wanted)
        await box.press("Enter")
        await expect(links).to_have_count(1, timeout=PATIENCE_MS)
    trace_id = await links.get_attribute("data-trace") or ""
    await box.fill("nothing has this id")
    await box.press("Enter")
    await expect(page.get_by_role("heading", name="Nothing fits")).to_be_visible()
    await box.fill(trace_id)
    await box.press("Enter")
    await expect(links).to_have_count(1)
    await box.fill("")
    await expect(links.nth(1)).to_be_visible()


async def long_lists_come_in_pages(page: Page, node: NodeUnderTest) -> None:
    async with node.bus() as bus:
        await bus.publish(adaptation_topic("nobody"), AdaptationEvent(AdaptationAction(REFUSED, "poke", "nobody")))
        for number in range(BURST):
            action = AdaptationAction(f"burst-{number:02}", "poke", "pump")
            await bus.publish(adaptation_topic("pump"), AdaptationEvent(action, correlation_id="burst"))

    async def done() -> bool:
        _, answer = await node.get("api/v1/actions?limit=100")
        return len(answer["actions"]) == BURST + 3 and {one["status"] for one in answer["actions"]} == {
            "success",
            "rejected",
        }

    await eventually_true(done, "all are carried out")
    await eventually_true(lambda: are_remembered(node), "all are remembered")
    await page.reload()
    for view, item, least in (
        ("adaptations", "adaptation", BURST + 3),
        ("traces", "trace", BURST + 3),
        ("logs", "log", 2 * BURST),
    ):
        await go(page, f"#/{view}")
        items = page.locator(f"[data-{item}]")
        await expect(items.nth(49)).to_be_visible(timeout=PATIENCE_MS)
        pages = 1
        while await page.get_by_role("button", name="Older").count():
            await page.get_by_role("button", name="Older").click()
            await expect(page.get_by_role("button", name="Loading …")).to_have_count(0)
            pages += 1
        ids = await items.evaluate_all(f"items => items.map(item => item.dataset.{item})")
        assert len(ids) == len(set(ids)) >= least, f"{view}: each once"
        assert pages > 1, view
    ids = await page.locator("[data-log]").evaluate_all("items => items.map(item => item.dataset.log)")
    assert ids == sorted(ids, reverse=True)

    await go(page, "#/adaptations?outcome=bad")
    await expect(page.locator("[data-adaptation]")).to_have_count(1, timeout=PATIENCE_MS)
    await page.locator(f"[data-adaptation={REFUSED}] a").click()
    await expect(page.locator("[data-step=outcome]")).to_contain_text("no managed system 'nobody' is configured")
    await expect(page.locator("[data-step=sample]")).to_contain_text("No sample is known")
    await expect(page.locator("[data-step=attempt]")).to_have_count(0)
    await page.get_by_role("link", name="← Adaptations").click()
    await page.get_by_label("System").select_option("pump")
    await expect(page.get_by_role("heading", name="Nothing fits")).to_be_visible()


async def are_remembered(node: NodeUnderTest) -> bool:
    _, traces = await node.get("api/v1/traces?about=burst&limit=100")
    # What was logged of an action is stored after its trace.
    _, logs = await node.get(f"api/v1/logs?limit={2 * BURST}")
    return len(traces["traces"]) == BURST and len(logs["logs"]) == 2 * BURST


async def what_is_not_known_is_said(watched: Watched) -> None:
    page = watched.page
    await go(page, "#/adaptations/no-such-action")
    await expect(page.get_by_role("heading", name="The node knows no such action")).to_be_visible(timeout=PATIENCE_MS)
    await go(page, f"#/traces/{'0' * 32}")
    await expect(page.get_by_role("heading", name="This trace is not kept")).to_be_visible(timeout=PATIENCE_MS)
    # The browser itself tells that an answer was 404; nothing else was wrong.
    assert [UNKNOWN in error for error in watched.errors] == [True, True]
    watched.errors.clear()


async def every_view_fits_and_can_be_read(watched: Watched, trace_id: str) -> None:
    page = watched.page
    views = {
        "#/adaptations": "[data-adaptation]",
        f"#/adaptations/{LOOP}": "[data-step=announcement]",
        f"#/adaptations/{REFUSED}": "[data-step=outcome]",
        "#/traces": "[data-trace]",
        f"#/traces/{trace_id}": "[role=treeitem]",
        "#/logs": "[data-log]",
        "#/logs?about=nothing": ".empty h3",
    }
    for place, there in views.items():
        await go(page, place)
        await expect(page.locator(there).first).to_be_visible(timeout=PATIENCE_MS)
        if place == "#/logs":
            await page.locator("[data-log] summary").first.click()
        await check.it_fits(watched)
        await check.it_can_be_read(watched)
        levels = await page.locator("h1, h2, h3, h4").evaluate_all("all => all.map(one => Number(one.tagName[1]))")
        assert levels[:2] == [1, 2]
        assert all(after - before <= 1 for before, after in pairwise(levels)), (place, levels)


async def test_an_adaptation_its_trace_and_its_log_are_found_from_each_other(tmp_path: Path) -> None:
    async with a_node(tmp_path, settings(tmp_path)) as node, browsing() as browser:
        url = f"{node.file.http_url}#/adaptations"
        async with watching(browser, url) as watched:
            page = watched.page
            correlation_id = await an_adaptation_appears_as_it_happens(page, node)
            await its_story_is_told(page, correlation_id)
            await its_trace_is_walked_through_by_keyboard(page)
            await its_log_is_found_and_leads_back(page, correlation_id)
            await records_come_while_one_looks(page, node)
            await errors_are_told_from_the_rest(page)
            await a_trace_is_found_by_any_id(page, correlation_id)
            await long_lists_come_in_pages(page, node)
            await what_is_not_known_is_said(watched)
            check.it_was_clean(watched)
        _, answer = await node.get(f"api/v1/traces?action_id={LOOP}")
        trace_id = answer["traces"][0]["trace_id"]
        async with watching(browser, url) as watched:
            await every_view_fits_and_can_be_read(watched, trace_id)
            check.it_was_clean(watched)
        async with watching(browser, url, theme="dark", viewport=PHONE) as watched:
            await every_view_fits_and_can_be_read(watched, trace_id)
            check.it_was_clean(watched)
