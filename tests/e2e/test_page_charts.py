"""The charts of a system: any stretch of time, shared by its address, with what was done marked on it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
from playwright.async_api import Browser, Locator, Page, Request, expect
from tests.e2e import page_checks as check
from tests.e2e.browsing import Watched, browsing, watching
from tests.living_view import LivingView

from polaris.api import HttpServer, SystemView, create_app
from polaris.dashboard import Page as PageFiles

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

ACTIONS = 130
# The colours of the lowest row of the plot, at so many pixels from its left.
FOOT = """(canvas, places) => {
    const ratio = devicePixelRatio
    const plot = canvas.parentElement.querySelector('.u-over')
    const foot = Math.round((plot.offsetTop + plot.offsetHeight) * ratio) - 2
    const { data } = canvas.getContext('2d').getImageData(0, foot, canvas.width, 1)
    return places.map((x) => Math.round((plot.offsetLeft + x) * ratio) * 4).map((at) => data.slice(at, at + 4).join())
}"""
# A chart begins anew after the frame in which its stretch has changed.
PAINTED = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done))))"


class Described(LivingView):
    """A node whose systems say something of themselves."""

    def _view(self, system_id: str) -> SystemView:
        return msgspec.structs.replace(
            super()._view(system_id), metadata={"region": "north", "labels": {"tier": "front"}}
        )


@pytest.fixture
async def view() -> AsyncIterator[LivingView]:
    """Two hours of a service to which something was done every minute; most of it longer ago than the last quarter."""
    view = Described(history_s=7_200)
    del view.states["host"]
    view.records.clear()
    for number in range(ACTIONS):
        view._act(number, view.start - timedelta(minutes=ACTIONS - number, seconds=-30))
    async with view.living(every_s=0.5):
        yield view


async def shown(page: Page) -> None:
    await expect(page.locator(".plot")).to_have_count(4)
    await expect(page.locator(".plot:not([data-state=shown])")).to_have_count(0)


async def drag(plot: Locator, start: float, end: float) -> None:
    """Over these parts of the plot's width, once the plot is that of the stretch now shown."""
    await plot.page.evaluate(PAINTED)
    await shown(plot.page)
    box = await plot.bounding_box()
    assert box is not None
    mouse = plot.page.mouse
    await mouse.move(box["x"] + box["width"] * start, box["y"] + 50)
    await mouse.down()
    await mouse.move(box["x"] + box["width"] * end, box["y"] + 60, steps=4)
    await mouse.up()


def query(page: Page) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(f"x:/{page.url.partition('#')[2]}").query).items()}


async def test_any_stretch_of_time_is_looked_at_shared_and_left_again(view: LivingView) -> None:
    server = HttpServer(create_app(view, page=PageFiles()))
    await server.start()
    try:
        async with browsing() as browser, watching(browser, f"{server.url}#/system/web-shop") as watched:
            page = watched.page
            await shown(page)
            await see_what_was_done(page)
            await see_when_it_was_not_well(page, view)
            await see_buckets(page)
            await see_a_closer_look(browser, watched)
            await check.it_can_be_read(watched)
            await see_more_of_the_past(page)
            check.it_was_clean(watched)
    finally:
        await server.stop()


async def see_what_was_done(page: Page) -> None:
    chart = page.locator("[data-metric='service.request.rate']")
    # One a minute, half a minute past: fifteen in the last quarter of an hour.
    await expect(chart.locator(".mark")).to_have_count(15)
    failed = chart.locator(".mark.status-failed").last
    await failed.hover()
    await expect(failed.locator(".tip")).to_be_visible()
    await expect(failed.locator(".tip")).to_contain_text("the arbiter did not start a worker within 10 s")
    name = await failed.get_attribute("data-mark")
    assert await failed.get_attribute("href") == f"#/adaptations/{name}"
    about = page.locator(".facts-of-system")
    await expect(about.locator("[data-metadata=region]")).to_have_text("north")
    await expect(about.locator("[data-metadata=labels]")).to_have_text('{"tier":"front"}')
    await expect(about.get_by_role("link", name="host")).to_have_attribute("href", "#/system/host")


async def see_when_it_was_not_well(page: Page, view: LivingView) -> None:
    listed = page.locator(".troubles [data-period]")
    await expect(listed).to_have_count(2)
    await expect(listed.last).to_contain_text("warning")
    chart = page.locator("[data-metric='service.request.rate']")
    words = chart.locator(".chart-when")
    plot = chart.locator(".u-over")
    box = await plot.bounding_box()
    assert box is not None
    places = []
    for age_s, told in ((470, "warning: slow"), (285, "unhealthy: connection refused"), (380, None)):
        ago_s = age_s + (datetime.now(UTC) - view.start).total_seconds()
        x = box["width"] * (900 - ago_s) / 900
        await plot.hover(position={"x": x, "y": 60})
        if told is None:
            await expect(words).not_to_contain_text(re.compile("warning|unhealthy"))
        else:
            await expect(words).to_contain_text(told)
        places.append(x)
    feet = await chart.locator("canvas").evaluate(FOOT, places)
    assert len(set(feet)) == 3, feet
    await page.mouse.move(5, 5)

    period = msgspec.structs.replace(view.kept_health.all[1], period_id="p-new", until=None, message="gone again")
    view.live.publish(period)
    await expect(listed).to_have_count(3)
    await expect(listed.first).to_contain_text("gone again")
    view.live.publish(msgspec.structs.replace(period, until=view.start))
    await expect(listed.first).not_to_contain_text("since")
    await page.locator(".troubles").get_by_role("link", name="All of this system").click()
    history = page.locator("[data-period]")
    await expect(history).to_have_count(3)
    await expect(page.get_by_label("System", exact=True)).to_have_value("web-shop")
    await page.get_by_label("System", exact=True).select_option("")
    await expect(history).to_have_count(4)
    await expect(history.first).to_contain_text("store")
    await page.get_by_label("State").select_option("lasting")
    await expect(history).to_have_count(1)
    view.live.publish(msgspec.structs.replace(view.kept_health.all[2], until=view.start))
    await expect(history).to_have_count(0)
    await expect(page.locator(".empty")).to_contain_text("Nothing fits")
    await page.goto(f"{page.url.partition('#')[0]}#/system/web-shop")
    await shown(page)


async def see_buckets(page: Page) -> None:
    await expect(page.locator("[data-bucket]")).to_have_count(0)
    await page.get_by_role("button", name="1 h", exact=True).click()
    await expect(page.locator("[data-bucket='30']")).to_have_count(4)
    await shown(page)
    assert query(page) == {"range": "3600"}
    chart = page.locator("[data-metric='service.request.rate']")
    await chart.locator(".u-over").hover(position={"x": 60, "y": 60})
    # The least and the greatest value around the average.
    await expect(chart.locator(".chart-when")).to_contain_text(re.compile(r"[\d.]+ req/s . [\d.]+ req/s"))
    await page.mouse.move(5, 5)


async def see_a_closer_look(browser: Browser, watched: Watched) -> None:
    page = watched.page
    asked: list[str] = []

    def hear(request: Request) -> None:
        if "/series" in request.url or "/aggregates" in request.url:
            asked.append(request.url)

    await drag(page.locator(".u-over").first, 0.25, 0.35)
    # Some six minutes out of an hour, in all charts at once: few enough to show every point.
    stretch = page.locator("[data-stretch]")
    await expect(stretch).to_be_visible()
    await expect(page.locator("[data-bucket]")).to_have_count(0)
    await shown(page)
    count = await page.locator("[data-metric='service.workers'] .mark").count()
    assert 5 <= count <= 7
    words, address = await stretch.inner_text(), page.url
    page.on("request", hear)
    # What is past does not move: no sample that comes is a reason to ask.
    await check.data_move(watched)
    assert asked == []
    page.remove_listener("request", hear)

    async with watching(browser, address) as other:
        await shown(other.page)
        await expect(other.page.locator("[data-stretch]")).to_have_text(words)
        await expect(other.page.locator("[data-metric='service.workers'] .mark")).to_have_count(count)
        check.it_was_clean(other)

    await page.get_by_role("button", name="Earlier").click()
    await expect(stretch).not_to_have_text(words)
    await page.get_by_role("button", name="Later").click()
    await expect(stretch).to_have_text(words)
    await page.go_back()
    await expect(stretch).not_to_have_text(words)
    await page.keyboard.press("Escape")
    await expect(stretch).to_have_count(0)
    await drag(page.locator(".u-over").first, 0.2, 0.4)
    await expect(stretch).to_be_visible()
    await shown(page)
    await page.locator(".u-over").nth(1).dblclick()
    await expect(stretch).to_have_count(0)
    await page.get_by_role("button", name="15 min", exact=True).click()
    assert query(page) == {}
    await shown(page)


async def see_more_of_the_past(page: Page) -> None:
    rows = page.locator(".actions [data-action]")
    await expect(rows).to_have_count(100)
    await page.get_by_role("button", name="Older").click()
    await expect(rows).to_have_count(ACTIONS)
    await expect(page.get_by_role("button", name="Older")).to_have_count(0)
