"""The page of a real node in a real browser: live data of this machine, through a restart of the runtime."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from tests.e2e import page_checks as check
from tests.e2e.browsing import browsing, watching
from tests.nodes import NodeUnderTest

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.parametrize("killed", [False, True], ids=["stopped", "killed"])
async def test_this_machine_appears_moves_and_survives_a_restart_of_the_runtime(
    tmp_path: Path, *, killed: bool
) -> None:
    node = NodeUnderTest(
        tmp_path,
        {"http": {"port": free_port()}, "systems": {"this-machine": {"connector": "host", "interval_s": 0.5}}},
    )
    try:
        facts = await node.start()
        assert facts.http_url is not None
        async with browsing() as browser, watching(browser, facts.http_url) as watched:
            await check.data_appear(watched)
            await check.data_move(watched)

            async def stop() -> None:
                if killed:
                    node.kill()
                else:
                    await node.stop()

            async def start() -> None:
                await node.start()

            await check.a_restart_is_survived(watched, stop, start)
            await check.data_move(watched)
            check.it_was_clean(watched)
    finally:
        await node.close()
