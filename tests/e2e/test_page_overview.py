"""The overview of nodes in memory: with no system, a few and hundreds, whatever they depend on."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest
from playwright.async_api import Page, expect
from tests.e2e import page_checks as check
from tests.e2e.browsing import browsing, watching
from tests.living_view import LivingView, state_at

from polaris.api import ActionRecord, HttpServer, NodeFacts, create_app
from polaris.dashboard import Page as PageFiles
from polaris.domain import HealthStatus, SystemDependency, SystemState

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]


class Plant(LivingView):
    """A node whose systems depend on each other as a test says."""

    def __init__(self, names: Sequence[str], edges: Sequence[tuple[str, str, str]]) -> None:
        super().__init__(history_s=1)
        self.stale_after_s = 3600.0
        self.states = {name: [state_at(name, self.start, self.dice)] for name in names}
        self.connectors = dict.fromkeys(names, "push")
        self.edges = [SystemDependency(source, target, kind) for source, target, kind in edges]
        self.letters = 0

    async def dependencies(self, *, limit: int, after: object = None) -> Sequence[SystemDependency]:
        return self.edges[:limit]

    def node(self) -> NodeFacts:
        return msgspec.structs.replace(super().node(), dead_letters=self.letters)

    def fall_ill(self, name: str, why: str) -> None:
        state = self.states[name][-1]
        metadata = {"health.reasons": [why]}
        self.states[name].append(SystemState(name, state.timestamp, state.metrics, HealthStatus.CRITICAL, metadata))


FEW = Plant(
    ["shop", "payments", "database", "machine", "probe"],
    [
        ("shop", "payments", "calls"),
        ("payments", "database", "writes"),
        ("database", "machine", "runs_on"),
        ("shop", "machine", "runs_on"),
        # Two cycles, one through everything, and one that no sample was ever heard of.
        ("machine", "shop", "serves"),
        ("payments", "shop", "calls"),
        ("shop", "archive", "writes"),
    ],
)
FEW.fall_ill("payments", "p95 0.41 s is above 0.25 s")

ROBOTS = [f"robot-{number:03}" for number in range(280)]
CELLS = [f"cell-{number:02}" for number in range(20)]
MANY = Plant(
    ROBOTS + CELLS,
    [
        *((robot, CELLS[number % 20], "belongs_to") for number, robot in enumerate(ROBOTS[:200])),
        *((cell, CELLS[(number + 1) % 20], "hands_over") for number, cell in enumerate(CELLS)),
    ],
)
# A net in which no two systems are alike: nothing can be gathered, so most of it is left out.
KNOTS = [f"knot-{number:03}" for number in range(100)]
NET = Plant(KNOTS, [(KNOTS[n], KNOTS[m], "feeds") for n in range(100) for m in (2 * n + 1, 3 * n + 2) if m < 100])
NET.fall_ill("knot-099", "worn")


async def places(page: Page) -> dict[str, dict[str, float]]:
    """Where the boxes of the topology are."""
    found: dict[str, dict[str, float]] = await page.evaluate(
        """() => Object.fromEntries([...document.querySelectorAll('.topology [data-box]')].map((box) => {
            const { x, y, right, bottom } = box.getBoundingClientRect()
            return [box.dataset.box, { x, y, right, bottom }]
        }))"""
    )
    return found


def overlapping(boxes: dict[str, dict[str, float]]) -> list[tuple[str, str]]:
    return [
        (one, other)
        for one, a in boxes.items()
        for other, b in boxes.items()
        if one < other and a["x"] < b["right"] and b["x"] < a["right"] and a["y"] < b["bottom"] and b["y"] < a["bottom"]
    ]


async def test_the_overview_draws_a_few_systems_hundreds_and_a_tangle_and_says_what_is_wrong() -> None:
    async with browsing() as browser:
        for plant, see in ((FEW, see_few), (MANY, see_many), (NET, see_net)):
            server = HttpServer(create_app(plant, page=PageFiles()))
            await server.start()
            try:
                async with watching(browser, server.url) as watched:
                    await expect(watched.page.locator(".topology")).to_be_visible(timeout=check.APPEARS_MS)
                    assert overlapping(await places(watched.page)) == []
                    await check.it_fits(watched)
                    await check.it_can_be_read(watched)
                    await see(watched.page, plant)
                    check.it_was_clean(watched)
            finally:
                await server.stop()


async def see_few(page: Page, plant: Plant) -> None:
    boxes = await places(page)
    assert set(boxes) == {"shop", "payments", "database", "machine", "archive"}
    # What needs stands left of what it needs, as far as a cycle allows.
    assert boxes["payments"]["right"] < boxes["database"]["x"] < boxes["machine"]["x"]
    await expect(page.locator(".topology path.line")).to_have_count(7)
    await expect(page.locator(".legend li")).to_have_text(["calls", "runs on", "serves", "writes"])
    await expect(page.locator("[data-box=archive]")).to_contain_text("no telemetry")
    await expect(page.locator(".names [data-box=probe]")).to_be_visible()
    attention = page.get_by_role("region", name="Needs attention")
    await expect(attention).to_contain_text("payments")
    await expect(attention).to_contain_text("p95 0.41 s is above 0.25 s")
    await expect(page.locator(".tiles")).to_contain_text("4 of 5")
    plant.letters = 3
    plant.live.publish(plant.node())
    await expect(attention).to_contain_text("3 dead letters")
    await expect(page.locator(".flow")).to_contain_text("3 put aside")
    # What is over is told beside what is not: the one that lasts is no news of the past, until it is over too.
    lately = page.get_by_role("region", name="Not well in the last hour")
    await expect(lately.locator("[data-over]")).to_have_count(2)
    await expect(lately.locator("[data-over]").first).to_contain_text("connection refused")
    plant.live.publish(msgspec.structs.replace(plant.kept_health.all[2], until=plant.start))
    await expect(lately.locator("[data-over]")).to_have_count(3)
    await expect(lately.locator("[data-over]").first).to_contain_text("disk nearly full")
    await expect(lately.get_by_role("link", name="History")).to_have_attribute("href", "#/node/history")
    record: ActionRecord = plant.act()
    await expect(page.locator("[data-action]").first).to_have_attribute("data-action", record.action_id)
    await page.locator("[data-box=payments]").click()
    await expect(page.locator("#detail-title")).to_have_text("payments")


async def see_many(page: Page, _: Plant) -> None:
    # Ten robots of a cell are alike; the cells hand over in a circle.
    await expect(page.locator(".topology .group")).to_have_count(20)
    await expect(page.locator(".topology a.box")).to_have_count(20)
    await expect(page.locator(".loose")).to_contain_text("80")
    await expect(page.locator(".systems [data-system]")).to_have_count(24)
    await page.get_by_role("button", name="More of 300").click()
    await expect(page.locator(".systems [data-system]")).to_have_count(72)
    await page.get_by_label("Show only systems with these words").fill("robot-27 healthy")
    await expect(page.locator(".systems [data-system]")).to_have_count(10)
    await page.get_by_role("link", name="robot-011: healthy").click()
    await expect(page.locator("#detail-title")).to_have_text("robot-011")
    # Far down in the list of systems, and still there.
    await expect(page.locator("[data-system=robot-011]")).to_be_visible()


async def see_net(page: Page, _: Plant) -> None:
    await expect(page.locator(".topology a.box")).to_have_count(60)
    await expect(page.locator(".topology [data-box=knot-099]")).to_have_count(1)
    await expect(page.get_by_text("Shown are the 60 boxes with the most connections")).to_be_visible()
    await expect(page.locator(".loose .cell")).to_have_count(40)
