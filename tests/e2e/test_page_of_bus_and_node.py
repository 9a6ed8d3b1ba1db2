"""The page shows what goes through the bus of a real node, and why a node is not well."""

from __future__ import annotations

import re
from pathlib import Path

import nats
import pytest
from playwright.async_api import Page, expect
from tests.e2e import page_checks as check
from tests.e2e.browsing import PHONE, Watched, browsing, watching
from tests.e2e.test_page_accessibility import findings
from tests.frozen import freeze, thaw
from tests.nodes import NodeUnderTest, a_node, eventually_true

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]

PATIENCE_MS = 30_000
SECRET = "hunter2-Pl4nted-s3cret"
AWAY = "Failed to load resource: the server responded with a status of 503 (Service Unavailable)"


async def publish(node: NodeUnderTest, topic: str, payload: bytes, *, stored: bool = False) -> None:
    """As any NATS client would, from outside."""
    client = await nats.connect(str(node.file.bus_url), token=node.file.bus_token)
    try:
        await (client.jetstream().publish(topic, payload) if stored else client.publish(topic, payload))
        await client.flush()
    finally:
        await client.close()


async def show(watched: Watched, view: str) -> Page:
    await watched.page.evaluate("view => { location.hash = view }", f"#/{view}")
    return watched.page


async def test_the_bus_and_the_node_are_shown_as_they_are(tmp_path: Path) -> None:
    token_file = tmp_path / "http-token"
    token_file.write_text(f"{SECRET}\n")
    systems = {
        "web": {"connector": "tests.witness_connector:WitnessConnector", "interval_s": 0.2},
        "lost": {"connector": "gunicorn", "interval_s": 0.5, "options": {"pidfile": str(tmp_path / "none.pid")}},
    }
    systems["web"]["options"] = {"journal": str(tmp_path / "web.jsonl")}
    settings = {"systems": systems, "http": {"token_file": str(token_file)}}
    environment = {"POLARIS_NATS__TOKEN": SECRET, "POLARIS_TELEMETRY__BATCH_MAX": "123"}
    async with (
        a_node(tmp_path, settings, environment=environment) as node,
        browsing() as browser,
        watching(browser, f"{node.file.http_url}#/bus") as watched,
    ):
        await expect(watched.page.locator("[data-connection=live]")).to_be_visible(timeout=PATIENCE_MS)
        await the_account_moves_and_adds_up(watched)
        await streams_and_lag_are_told(watched)
        await a_tap_shows_what_others_publish(watched, node)
        await a_dead_letter_is_shown_replayed_and_dropped(watched, node)
        await what_fails_has_a_cause_and_a_remedy(watched)
        await settings_say_where_they_come_from(watched, node)
        await a_broker_that_is_silent_is_told(watched, node)
        await what_is_over_can_still_be_looked_at(watched)
        check.it_was_clean(watched)
        async with watching(browser, f"{node.file.http_url}#/bus", theme="dark", viewport=PHONE) as phone:
            for view in (
                "bus",
                "bus/streams",
                "bus/tap",
                "bus/dead-letters",
                "node",
                "node/history",
                "node/configuration",
            ):
                page = await show(phone, view)
                await expect(page.locator(".tabs [aria-current]")).to_be_visible(timeout=PATIENCE_MS)
                await check.it_fits(phone)
                await check.it_can_be_read(phone)
            check.it_was_clean(phone)


async def everybody_can_use_it(watched: Watched) -> None:
    await check.it_can_be_read(watched)
    assert await findings(watched.page) == []


async def number_in(page: Page, selector: str) -> int:
    return int((await page.locator(selector).inner_text()).replace(",", ""))


async def the_account_moves_and_adds_up(watched: Watched) -> None:
    page = watched.page
    await expect(page.locator("[data-bus=connected]")).to_be_visible(timeout=PATIENCE_MS)
    telemetry = page.locator("[data-published=telemetry]")
    await expect(telemetry).to_be_visible(timeout=PATIENCE_MS)
    before = await number_in(page, "[data-published=telemetry] [data-count=confirmed]")
    handled = await number_in(page, "[data-subscription=store-telemetry] [data-count=handled]")

    async def moved() -> bool:
        return (
            await number_in(page, "[data-published=telemetry] [data-count=confirmed]") > before
            and await number_in(page, "[data-subscription=store-telemetry] [data-count=handled]") > handled
        )

    await eventually_true(moved, "the counts move")
    told = await page.evaluate(
        """() => Object.fromEntries([...document.querySelectorAll('[data-published=telemetry] [data-count]')]
            .map((figure) => [figure.dataset.count, Number(figure.textContent.replaceAll(',', ''))]))"""
    )
    assert told["published"] == told["confirmed"] + told["waiting"] + told["dropped"], told
    await everybody_can_use_it(watched)


async def streams_and_lag_are_told(watched: Watched) -> None:
    page = await show(watched, "bus/streams")
    stream = page.locator("[data-stream=POLARIS_TELEMETRY]")
    await expect(stream).to_be_visible(timeout=PATIENCE_MS)
    await expect(stream.locator("[data-consumer=store-telemetry] [data-count=lag]")).to_have_text(
        "0", timeout=PATIENCE_MS
    )
    selector = "[data-stream=POLARIS_TELEMETRY] [data-count=messages]"
    before = await number_in(page, selector)

    async def moved() -> bool:
        return await number_in(page, selector) > before

    await eventually_true(moved, "the stream grows on the page")
    await everybody_can_use_it(watched)


async def seen(page: Page, *, hidden: bool) -> None:
    """As if the tab were covered by another one."""
    await page.evaluate(
        """hidden => {
            Object.defineProperty(document, 'hidden', { value: hidden, configurable: true })
            document.dispatchEvent(new Event('visibilitychange'))
        }""",
        hidden,
    )


async def a_tap_shows_what_others_publish(watched: Watched, node: NodeUnderTest) -> None:
    page = await show(watched, "bus/tap?pattern=polaris.config.>")
    await expect(page.locator("[data-tap=open]")).to_be_visible(timeout=PATIENCE_MS)
    event = (
        '{"specversion": "1.0", "id": "from-outside", "source": "test", "type": "org.example.changed",'
        f'"data": {{"depth": {{"answer": 42}}, "password": "{SECRET}"}}}}'
    )
    await publish(node, "polaris.config.updates", event.encode())
    row = page.locator("[data-tapped='polaris.config.updates']")
    await expect(row).to_contain_text("org.example.changed", timeout=PATIENCE_MS)
    await row.locator("summary").click()
    await expect(row.locator("pre")).to_contain_text('"answer": 42', timeout=PATIENCE_MS)
    await expect(row).to_contain_text("unknown event type", timeout=PATIENCE_MS)
    assert SECRET not in await page.content()
    await everybody_can_use_it(watched)

    await publish(node, "polaris.config.updates", b"\x00\xff")
    await expect(row).to_have_count(2, timeout=PATIENCE_MS)
    await page.get_by_label("Show only what contains this text").fill("from-OUTSIDE")
    await expect(row).to_have_count(1, timeout=PATIENCE_MS)
    await page.get_by_label("Show only what contains this text").fill("")
    await page.get_by_role("button", name="Pause").click()
    await publish(node, "polaris.config.updates", b"\x01")
    await expect(page.locator(".counts")).to_contain_text("1 passed while paused", timeout=PATIENCE_MS)
    await expect(row).to_have_count(2, timeout=PATIENCE_MS)
    await page.get_by_role("button", name="Resume").click()
    await publish(node, "polaris.config.updates", b"\x02")
    await expect(row).to_have_count(3, timeout=PATIENCE_MS)

    await seen(page, hidden=True)
    await expect(page.locator("[data-tap=closed]")).to_be_visible(timeout=PATIENCE_MS)
    await seen(page, hidden=False)
    await expect(page.locator("[data-tap=open]")).to_be_visible(timeout=PATIENCE_MS)

    await page.get_by_label("Pattern of the topics").fill("polaris.telemetry.web")
    await page.get_by_role("button", name="Look on").click()
    await expect(page.locator("[data-tapped='polaris.telemetry.web']").first).to_be_visible(timeout=PATIENCE_MS)
    await page.get_by_label("Pattern of the topics").fill(">")
    await page.get_by_role("button", name="Look on").click()
    await expect(page.get_by_role("alert")).to_contain_text("begins with a name", timeout=PATIENCE_MS)
    # That the pattern was refused is told by the browser too; nothing else is.
    (refused,) = watched.errors
    assert "status of 422" in refused
    watched.errors.clear()


async def a_dead_letter_is_shown_replayed_and_dropped(watched: Watched, node: NodeUnderTest) -> None:
    page = await show(watched, "bus/dead-letters")
    await expect(page.get_by_text("No dead letters")).to_be_visible(timeout=PATIENCE_MS)
    await publish(node, "polaris.telemetry.web", b"\x00\xff no event", stored=True)
    letter = page.locator("[data-dead-letter]")
    await expect(letter).to_be_visible(timeout=PATIENCE_MS)
    await expect(page.get_by_role("navigation", name="Views").locator(".badge")).to_contain_text(
        "1", timeout=PATIENCE_MS
    )
    number = await letter.get_attribute("data-dead-letter")
    await letter.locator("summary").click()
    await expect(letter.locator("pre")).to_have_text("00 ff 20 6e 6f 20 65 76 65 6e 74", timeout=PATIENCE_MS)
    await everybody_can_use_it(watched)

    await letter.get_by_role("button", name="Replay …").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("Token of the node").fill(SECRET)
    await dialog.get_by_role("button", name="Replay").click()
    again = page.locator(f"[data-dead-letter]:not([data-dead-letter='{number}'])")
    await expect(again).to_be_visible(timeout=PATIENCE_MS)
    await again.locator("summary").click()
    await again.get_by_role("button", name="Drop …").click()
    await dialog.get_by_role("button", name="Cancel").click()
    await expect(again).to_be_visible(timeout=PATIENCE_MS)
    await again.get_by_role("button", name="Drop …").click()
    await dialog.get_by_role("button", name="Drop").click()
    await expect(letter).to_have_count(0, timeout=PATIENCE_MS)
    status, answer = await node.get("api/v1/dead-letters")
    assert (status, answer["dead_letters"]) == (200, [])

    await publish(node, "polaris.telemetry.web", b'{"text": "none"}', stored=True)
    await expect(letter).to_be_visible(timeout=PATIENCE_MS)
    await letter.locator("summary").click()
    await expect(letter.locator("pre")).to_contain_text('"text": "none"', timeout=PATIENCE_MS)
    await letter.get_by_role("button", name="Hex").click()
    await expect(letter.locator("pre")).to_have_text(
        "7b 22 74 65 78 74 22 3a 20 22 6e 6f 6e 65 22 7d", timeout=PATIENCE_MS
    )


async def what_fails_has_a_cause_and_a_remedy(watched: Watched) -> None:
    page = await show(watched, "node")
    await expect(page.locator("[data-verdict=warn]")).to_contain_text("connector:lost", timeout=PATIENCE_MS)
    part = page.locator("[data-part='connector:lost']")
    await expect(part).to_contain_text("none.pid does not exist", timeout=PATIENCE_MS)
    await expect(part).to_contain_text("What to do: check that the managed system runs", timeout=PATIENCE_MS)
    await expect(page.locator("[data-part=store]")).to_contain_text("sqlite", timeout=PATIENCE_MS)
    await expect(page.locator("[data-part=store]")).not_to_contain_text("What to do", timeout=PATIENCE_MS)
    await everybody_can_use_it(watched)


async def settings_say_where_they_come_from(watched: Watched, node: NodeUnderTest) -> None:
    page = await show(watched, "node/configuration")
    interval = page.locator("[data-setting='systems.web.interval_s']")
    await expect(interval.locator("[data-value]")).to_have_text("0.2", timeout=PATIENCE_MS)
    await expect(interval.locator("[data-origin=file]")).to_have_text(f"file {node.config}", timeout=PATIENCE_MS)
    batch = page.locator("[data-setting='telemetry.batch_max']")
    await expect(batch.locator("[data-origin=environment]")).to_have_text(
        "POLARIS_TELEMETRY__BATCH_MAX", timeout=PATIENCE_MS
    )
    await expect(batch).to_contain_text("Default: 500", timeout=PATIENCE_MS)
    for secret in ("nats.token", "http.token"):
        await expect(page.locator(f"[data-setting='{secret}'] [data-value]")).to_have_text(
            "••••••", timeout=PATIENCE_MS
        )
    await expect(page.locator("[data-setting='http.token'] [data-origin='secret file']")).to_contain_text(
        "http-token", timeout=PATIENCE_MS
    )
    assert await page.locator("[data-setting='actions.attempts_max']").count() == 0
    await page.get_by_label("Find a setting").fill("attempts_max")
    await expect(page.locator("[data-setting='actions.attempts_max'] [data-origin=default]")).to_be_visible(
        timeout=PATIENCE_MS
    )
    await page.get_by_label("Find a setting").fill("")
    await page.get_by_label("Defaults too").check()
    await expect(page.locator("[data-setting='actions.attempts_max']")).to_be_visible(timeout=PATIENCE_MS)
    assert SECRET not in await page.content()
    status, answer = await node.get("api/v1/configuration")
    assert status == 200
    assert SECRET not in str(answer)
    await everybody_can_use_it(watched)


async def a_broker_that_is_silent_is_told(watched: Watched, node: NodeUnderTest) -> None:
    page = await show(watched, "bus/streams")
    stream = page.locator("[data-stream=POLARIS_TELEMETRY]")
    await expect(stream).to_be_visible(timeout=PATIENCE_MS)
    server = node.nats_server.pid
    freeze(server)
    try:
        await expect(page.locator(".notice")).to_contain_text("The broker does not answer", timeout=PATIENCE_MS)
        await expect(stream).to_be_visible(timeout=PATIENCE_MS)
        page = await show(watched, "node")
        await expect(page.locator("[data-verdict=bad]")).to_contain_text("Not ready", timeout=PATIENCE_MS)
        first = page.locator("[data-part]").first
        await expect(first).to_contain_text("bus", timeout=PATIENCE_MS)
        await expect(first).to_contain_text("What to do:", timeout=PATIENCE_MS)
    finally:
        thaw(server)
    page = await show(watched, "bus/streams")
    await expect(page.locator(".notice")).to_have_count(0, timeout=PATIENCE_MS)
    await expect(page.locator("[data-bus=connected]")).to_be_visible(timeout=PATIENCE_MS)
    assert all(AWAY in error for error in watched.errors), watched.errors
    watched.errors.clear()


async def what_is_over_can_still_be_looked_at(watched: Watched) -> None:
    page = await show(watched, "node/history")
    bus = page.locator("[data-of=bus]").first
    await expect(bus).to_contain_text(
        re.compile(r"bus[\d:]+ . [\d:]+ · .* s.*unhealthyconnection lost"), timeout=PATIENCE_MS
    )
    await expect(bus).not_to_contain_text("What to do", timeout=PATIENCE_MS)
    lost = page.locator("[data-of='connector:lost']")
    await expect(lost).to_contain_text(re.compile(r"since [\d:]+ · .* s"), timeout=PATIENCE_MS)
    await expect(lost).to_contain_text("What to do: check that the managed system runs", timeout=PATIENCE_MS)
    await page.get_by_label("State").select_option("lasting")
    await expect(page.locator("[data-period]")).to_have_count(1, timeout=PATIENCE_MS)
    await expect(lost).to_be_visible(timeout=PATIENCE_MS)
    await everybody_can_use_it(watched)
