from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Literal, Self

import msgspec
import pytest
from playwright.async_api import expect
from tests.e2e import page_checks as check
from tests.e2e.browsing import PHONE, browsing, watching
from tests.living_view import WEIRD_ID, LivingView

from polaris.api import HttpServer, SampleUpdate, create_app
from polaris.dashboard import Page
from polaris.domain import HealthStatus, MetricValue, SystemState

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

HOST = "#/system/host"


@contextlib.asynccontextmanager
async def serving(view: LivingView, port: int = 0) -> AsyncIterator[HttpServer]:
    server = HttpServer(create_app(view, page=Page()), "127.0.0.1", port)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_live_data_appear_and_move_in_both_themes(theme: Literal["light", "dark"]) -> None:
    async with (
        LivingView(history_s=300).living() as view,
        serving(view) as server,
        browsing() as browser,
        watching(browser, server.url, theme=theme) as watched,
    ):
        await check.data_appear(watched)
        await check.data_move(watched)
        await check.it_fits(watched)
        await check.it_can_be_read(watched)
        await check.it_works_by_keyboard(watched)
        ground = await watched.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert ground == {"light": "rgb(245, 246, 248)", "dark": "rgb(13, 17, 23)"}[theme]
        check.it_was_clean(watched)


async def test_the_page_fits_a_phone() -> None:
    async with (
        LivingView(history_s=60).living() as view,
        serving(view) as server,
        browsing() as browser,
        watching(browser, server.url, viewport=PHONE) as watched,
    ):
        await check.data_appear(watched)
        await check.it_fits(watched)
        await watched.page.goto(server.url + HOST)
        await check.data_appear(watched)
        await check.it_fits(watched)
        await watched.page.get_by_text("metrics choose").click()
        await check.it_fits(watched)
        await check.it_can_be_read(watched)
        await watched.page.goto(server.url + "#/node/history")
        listed = watched.page.locator("[data-period]")
        await expect(listed).to_have_count(3)
        wide = f"connector:{'very-' * 12}long"
        view.live.publish(msgspec.structs.replace(view.kept_health.all[0], period_id="p-wide", component=wide))
        await expect(listed).to_have_count(4)
        await check.it_fits(watched)
        check.it_was_clean(watched)


class RestartedNode:
    """A node whose process is replaced by another one on the same port: another view, another feed."""

    def __init__(self, first: LivingView, second: LivingView) -> None:
        self.first, self.second = first, second
        self.server = HttpServer(create_app(first, page=Page()))
        self.address = ("127.0.0.1", 0)

    async def __aenter__(self) -> Self:
        self.address = await self.server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.server.stop()

    async def stop(self) -> None:
        await self.server.stop()

    async def start(self) -> None:
        await asyncio.sleep(0.5)  # the page tries in vain for a while
        self.server = HttpServer(create_app(self.second, page=Page()), *self.address)
        await self.server.start()


async def test_a_restart_of_the_node_is_survived_and_its_new_state_is_read() -> None:
    first, second = LivingView(history_s=60), LivingView(history_s=60)
    second.connectors["newcomer"] = "push"
    second.states["newcomer"] = []
    second.act()
    async with (
        first.living(),
        second.living(),
        RestartedNode(first, second) as node,
        browsing() as browser,
        watching(browser, node.server.url) as watched,
    ):
        await check.data_appear(watched)
        await expect(watched.page.locator("[data-action]")).to_have_count(4)
        await check.a_restart_is_survived(watched, node.stop, node.start)
        await expect(watched.page.locator("[data-system=newcomer]")).to_be_visible()
        await expect(watched.page.locator("[data-action]")).to_have_count(5)
        check.it_was_clean(watched)


async def test_a_connection_that_breaks_goes_on_where_it_was() -> None:
    async with (
        LivingView(history_s=60).living() as view,
        RestartedNode(view, view) as node,
        browsing() as browser,
        watching(browser, node.server.url) as watched,
    ):
        await check.data_appear(watched)

        async def stop() -> None:
            await node.stop()
            view.act()  # while nobody listens

        await check.a_restart_is_survived(watched, stop, node.start)
        await expect(watched.page.locator("[data-action]")).to_have_count(5)
        check.it_was_clean(watched)


async def test_an_action_appears_with_its_outcome_as_it_happens() -> None:
    async with (
        LivingView(history_s=60).living() as view,
        serving(view) as server,
        browsing() as browser,
        watching(browser, server.url) as watched,
    ):
        await check.data_appear(watched)
        page = watched.page
        await expect(page.locator("[data-action]")).to_have_count(4)
        failed = page.locator("[data-action=action-00002]")
        await expect(failed).to_contain_text("failed")
        await expect(failed).to_contain_text("the arbiter did not start a worker within 10 s")
        record = view.act()
        newest = page.locator("[data-action]").first
        await expect(newest).to_have_attribute("data-action", record.action_id)
        await expect(newest).to_contain_text("success")
        await expect(newest).to_contain_text("66 ms")
        check.it_was_clean(watched)


async def test_a_first_visit_is_never_empty() -> None:
    view = LivingView(history_s=1)
    view.states.clear()
    view.records.clear()
    async with serving(view) as server, browsing() as browser, watching(browser, server.url) as watched:
        page = watched.page
        await expect(page.get_by_text("No managed system yet")).to_be_visible()
        await expect(page.get_by_text("No action yet")).to_be_visible()
        view.states["first"], view.connectors["first"] = [], "push"
        view.live.publish(view._view("first"))
        await expect(page.get_by_text("waiting for the first sample").first).to_be_visible()
        view.sample("first")
        await check.data_appear(watched)
        check.it_was_clean(watched)


def patient() -> LivingView:
    """A view whose systems stay fresh however slow the machine is."""
    view = LivingView(history_s=10)
    view.stale_after_s = 3600.0
    return view


async def test_a_system_that_goes_silent_is_shown_as_stale_and_not_as_healthy() -> None:
    view = patient()
    async with serving(view) as server, browsing() as browser, watching(browser, server.url + HOST) as watched:
        card = watched.page.locator("[data-system=host]")
        await expect(card).to_contain_text("healthy")
        view.stale_after_s = 2.0
        view.sample("host")
        view.live.publish(view._view("host"))
        # From here on the page hears nothing more about the system, and still notices.
        await expect(card).to_contain_text("stale", timeout=15_000)
        await expect(card).not_to_contain_text("healthy")
        view.stale_after_s = 3600.0
        view.sample("host")
        view.live.publish(view._view("host"))
        await expect(card).to_contain_text("healthy")
        check.it_was_clean(watched)


async def test_a_missing_value_is_called_missing_and_not_zero() -> None:
    view = patient()
    async with serving(view) as server, browsing() as browser, watching(browser, server.url + HOST) as watched:
        chart = watched.page.locator("[data-metric='system.cpu.utilization'] [data-value]")
        await expect(chart).to_contain_text("%")
        metrics = {**view.sample("host").metrics, "system.cpu.utilization": MetricValue("system.cpu.utilization")}
        state = SystemState("host", view.node().now, metrics, HealthStatus.WARNING)
        view.live.publish(SampleUpdate.of(state))
        await expect(chart).to_have_text("missing")
        await expect(watched.page.locator("[data-system=host]")).to_contain_text("warning")
        check.it_was_clean(watched)


async def test_a_system_that_falls_ill_says_why_and_takes_it_back() -> None:
    view = patient()
    async with serving(view) as server, browsing() as browser, watching(browser, server.url + HOST) as watched:
        card = watched.page.locator("[data-system=host]")
        await expect(card).to_contain_text("healthy")
        fall_ill(view, "cpu at 98 %")
        await expect(card).to_contain_text("critical")
        await expect(card).to_contain_text("cpu at 98 %")
        view.sample("host")
        await expect(card).to_contain_text("healthy")
        await expect(card).not_to_contain_text("cpu at 98 %")
        # Again before the page asks for a system another time: it must not forget to.
        fall_ill(view, "disk is full")
        await expect(card).to_contain_text("critical")
        await expect(card).to_contain_text("disk is full", timeout=15_000)
        # The words may change while the health does not.
        fall_ill(view, "disk is nearly full")
        await expect(card).to_contain_text("disk is nearly full", timeout=15_000)
        # Said once, where it is kept true: what is told about the system is read less often.
        await expect(watched.page.get_by_text("health.reasons")).to_have_count(0)
        check.it_was_clean(watched)


def fall_ill(view: LivingView, why: str) -> None:
    metrics = view.states["host"][-1].metrics
    state = SystemState("host", view.node().now, metrics, HealthStatus.CRITICAL, {"health.reasons": [why]})
    view.states["host"].append(state)
    view.live.publish(SampleUpdate.of(state))


async def test_charts_are_chosen_and_the_range_is_changed_and_both_are_kept() -> None:
    async with (
        LivingView(history_s=120).living() as view,
        serving(view) as server,
        browsing() as browser,
        watching(browser, server.url + HOST) as watched,
    ):
        page = watched.page
        await check.data_appear(watched)
        await page.get_by_text("metrics choose").click()
        await page.get_by_label("system.memory.usage").check()
        await expect(page.locator("[data-metric='system.memory.usage'] [data-value]")).to_contain_text("GiB")
        await page.get_by_role("button", name="Remove the chart of system.cpu.utilization").click(force=True)
        await expect(page.locator("[data-metric='system.cpu.utilization']")).to_have_count(0)
        await page.get_by_role("button", name="1 h").click()
        await expect(page.locator(".plot:not([data-state=shown])")).to_have_count(0)
        await check.chart_is_painted(page)
        await page.reload()
        await expect(page.locator("[data-metric='system.memory.usage']")).to_be_visible()
        await expect(page.locator("[data-metric='system.cpu.utilization']")).to_have_count(0)
        await expect(page.get_by_role("button", name="1 h")).to_have_attribute("aria-pressed", "true")
        check.it_was_clean(watched)


async def test_a_system_of_any_name_has_its_page() -> None:
    begun = LivingView(history_s=60)
    for name in (".", "..", "~."):
        begun.states[name], begun.connectors[name] = [], "push"
    async with (
        begun.living() as view,
        serving(view) as server,
        browsing() as browser,
        watching(browser, server.url) as watched,
    ):
        await check.data_appear(watched)
        await watched.page.locator("[data-system]").filter(has_text=WEIRD_ID).click()
        await expect(watched.page.locator("#detail-title")).to_have_text(WEIRD_ID)
        await check.data_appear(watched)
        await watched.page.reload()
        await expect(watched.page.locator("#detail-title")).to_have_text(WEIRD_ID)
        for name in (".", "..", "~."):
            await watched.page.locator(f"[data-system='{name}']").click()
            await expect(watched.page.locator("#detail-title")).to_have_text(name)
            await expect(watched.page.locator(".plot[data-state=shown]")).to_have_count(4)
        check.it_was_clean(watched)


async def test_markup_in_the_data_is_shown_as_text() -> None:
    view = LivingView(history_s=5)
    name = "<img src=x onerror=alert(1)>"
    view.states[name], view.connectors[name] = [], "<b>push</b>"
    view.sample(name)
    view.failing["bus"] = "<script>alert(2)</script>"
    async with serving(view) as server, browsing() as browser, watching(browser, server.url) as watched:
        await expect(watched.page.locator("[data-system]").filter(has_text=name)).to_contain_text("<b>push</b>")
        await expect(watched.page.locator("[data-component=bus]")).to_contain_text("<script>alert(2)</script>")
        await expect(watched.page.locator(".banner")).to_contain_text("<script>")
        check.it_was_clean(watched)
