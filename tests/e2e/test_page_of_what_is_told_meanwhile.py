"""What the node tells while it answers: the page keeps the newer of the two, and shows nothing in place of another."""

from __future__ import annotations

import asyncio
import json
import re
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from playwright.async_api import Page, Route, expect
from tests.e2e import page_checks as check
from tests.e2e.browsing import Watched, browsing, watching
from tests.e2e.test_page_of_a_node_in_memory import patient, serving
from tests.living_view import LivingView

from polaris.api import ActionRecord, SampleUpdate
from polaris.domain import AdaptationAction, ExecutionResult, ExecutionStatus, HealthStatus, MetricValue, SystemState

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

STATE = re.compile(r"/api/v1/(actions\?limit=100$|components$|systems\?)")
SYSTEMS = re.compile(r"/api/v1/systems\?")
TIMELINE = re.compile(r"/api/v1/actions\?limit=50$")
LISTED_MAX = 1000


def asked(action_id: str, system_id: str = "web-shop", ended: str = "", at: datetime | None = None) -> ActionRecord:
    """One that runs, or that has ended so."""
    when = at or datetime.now(UTC)
    action = AdaptationAction(action_id, "add_worker", system_id, created_at=when)
    status = ExecutionStatus(ended) if ended else ExecutionStatus.SUCCESS
    record = ActionRecord.of(action, ExecutionResult(action_id, status, {}, None, when, when), source="rule")
    return record if ended else msgspec.structs.replace(record, status=ExecutionStatus.RUNNING, completed_at=None)


async def go(page: Page, place: str) -> None:
    await page.evaluate("place => { location.hash = place }", place)


async def what_is_told_while_the_state_is_read_is_kept(watched: Watched, view: LivingView) -> None:
    page = watched.page
    late, over = asked("late"), asyncio.Event()
    view.records.append(late)
    held: list[str] = []
    all_held = asyncio.Event()

    async def hold(route: Route) -> None:
        answer = await route.fetch()
        held.append(route.request.url)
        if len(held) == 3:
            all_held.set()
        await over.wait()
        await route.fulfill(response=answer)

    await page.route(STATE, hold)
    await page.reload()
    await asyncio.wait_for(all_held.wait(), 15)
    view.records[-1] = asked("late", ended="success", at=late.created_at)
    view.live.publish(view.records[-1])
    view.act()
    view.failing["bus"] = "the server went away"
    view.live.publish(next(one for one in view.components() if one.name == "bus"))
    view.states["newcomer"], view.connectors["newcomer"] = [], "push"
    view.live.publish(view._view("newcomer"))
    row = page.locator("[data-action=late]")
    await expect(row).to_contain_text("success")
    over.set()
    await expect(page.locator("[data-connection=live]")).to_be_visible()
    await expect(page.locator("[data-action]")).to_have_count(6)
    await expect(row).to_contain_text("success")
    await expect(page.locator("[data-component=bus]")).to_contain_text("the server went away")
    await expect(page.locator("[data-system=newcomer]")).to_be_visible()
    await page.unroute(STATE)


async def what_has_ended_does_not_run_again(watched: Watched, view: LivingView) -> None:
    page = watched.page
    view.live.publish(asked("late"))
    view.live.publish(asked("next", ended="success"))
    await expect(page.locator("[data-action=next]")).to_be_visible()
    await expect(page.locator("[data-action=late]")).to_contain_text("success")


async def a_fraction_of_a_second_is_later_than_the_second(watched: Watched, view: LivingView) -> None:
    page = watched.page
    whole = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=1)
    await go(page, "#/system/host")
    value = page.locator("[data-metric='system.cpu.utilization'] [data-value]")
    for at, share, text in ((whole, 0.21, "21 %"), (whole + timedelta(seconds=0.5), 0.43, "43 %")):
        metrics = {**view.states["host"][-1].metrics}
        metrics["system.cpu.utilization"] = MetricValue("system.cpu.utilization", share, "1")
        state = SystemState("host", at, metrics, HealthStatus.HEALTHY)
        view.states["host"].append(state)
        view.live.publish(SampleUpdate.of(state))
        await expect(value).to_have_text(text)


async def a_system_keeps_its_actions_whatever_others_do(watched: Watched, view: LivingView) -> None:
    page = watched.page
    await go(page, "#/system/web-shop")
    mine = page.locator("[data-action=mine]")
    view.live.publish(asked("mine"))
    await expect(mine).to_contain_text("running")
    view.live.publish(asked("mine", ended="success"))
    await expect(mine).to_contain_text("success")
    known = await page.locator("[data-action]").count()
    for number in range(100):
        view.live.publish(asked(f"other-{number}", "host", "success"))
    view.live.publish(asked("end", ended="failed"))
    await expect(page.locator("[data-action=end]")).to_be_visible()
    await expect(mine).to_contain_text("success")
    await expect(page.locator("[data-action]")).to_have_count(known + 1)


async def a_system_that_is_not_there_is_not_replaced_by_another(watched: Watched, view: LivingView) -> None:
    page = watched.page
    for place, name in (("#/system/staging", "staging"), ("#/system/%E0%A4", "%E0%A4")):
        await go(page, place)
        await expect(page.get_by_role("heading", name="System not known")).to_be_visible()
        await expect(page.locator("main code")).to_have_text(name)
        await expect(page.locator("#detail-title, form.act, [data-action]")).to_have_count(0)
        await expect(page.locator("[data-system][aria-current]")).to_have_count(0)
    await check.it_can_be_read(watched)
    await go(page, "#/system")
    await expect(page.locator("#detail-title")).to_have_text("web-shop")


async def a_system_beyond_those_that_are_listed_is_asked_for(watched: Watched, view: LivingView) -> None:
    page = watched.page

    async def list_others(route: Route) -> None:
        first = (await (await route.fetch()).json())["systems"][0]
        others = [{**first, "system_id": f"a-{number:04}"} for number in range(LISTED_MAX)]
        await route.fulfill(json={"systems": others, "next_cursor": "a-0999"})

    await page.route(SYSTEMS, list_others)
    await go(page, "#/system/web-shop")
    await page.reload()
    await expect(page.locator("#detail-title")).to_have_text("web-shop")
    await page.unroute(SYSTEMS)
    await page.reload()
    await expect(page.locator("[data-connection=live]")).to_be_visible()


async def the_timeline_has_an_end(watched: Watched, view: LivingView) -> None:
    page = watched.page
    start = datetime.now(UTC) - timedelta(hours=1)
    many = [
        asked(f"old-{number}", ended="success", at=start - timedelta(seconds=number)) for number in range(LISTED_MAX)
    ]
    body = json.dumps({"actions": msgspec.to_builtins(many), "next_cursor": "more"})
    await page.route(TIMELINE, lambda route: route.fulfill(body=body, content_type="application/json"))
    await go(page, "#/adaptations")
    rows = page.locator("[data-adaptation]")
    # A thousand rows take a busy machine longer than a page that has little to draw.
    await expect(page.get_by_text(f"The newest {LISTED_MAX} are shown")).to_be_visible(timeout=check.APPEARS_MS)
    view.live.publish(asked("newest", ended="success"))
    await expect(rows.first).to_have_attribute("data-adaptation", "newest")
    await expect(rows).to_have_count(LISTED_MAX)


COUNT_DATES = """() => {
    const before = Date.prototype.toDateString
    window.dates = 0
    Date.prototype.toDateString = function () { window.dates += 1; return before.call(this) }
}"""
"""Every row of the timeline compares its day when it is drawn."""


async def the_clock_does_not_draw_the_rows_again(watched: Watched, view: LivingView) -> None:
    page = watched.page
    row = page.locator("[data-adaptation=newest]")
    await page.evaluate(COUNT_DATES)
    for _ in range(2):
        await expect(row).not_to_have_text(await row.inner_text(), timeout=check.APPEARS_MS, use_inner_text=True)
    assert 0 < await page.evaluate("dates") < LISTED_MAX // 10, "each tick of the clock draws all rows"
    view.live.publish(asked("newer still", ended="success"))
    await expect(page.locator("[data-adaptation]").first).to_have_attribute("data-adaptation", "newer still")
    assert await page.evaluate("dates") >= LISTED_MAX, "drawing the rows is not noticed"


async def test_the_newer_telling_wins_and_nothing_takes_the_place_of_what_is_missing() -> None:
    view = patient()
    async with serving(view) as server, browsing() as browser, watching(browser, server.url) as watched:
        await check.data_appear(watched)
        await what_is_told_while_the_state_is_read_is_kept(watched, view)
        await what_has_ended_does_not_run_again(watched, view)
        await a_fraction_of_a_second_is_later_than_the_second(watched, view)
        await a_system_keeps_its_actions_whatever_others_do(watched, view)
        await a_system_that_is_not_there_is_not_replaced_by_another(watched, view)
        await a_system_beyond_those_that_are_listed_is_asked_for(watched, view)
        await the_timeline_has_an_end(watched, view)
        await the_clock_does_not_draw_the_rows_again(watched, view)
        check.it_was_clean(watched)
