"""What the test of a node on a really full disk runs: `full_disk_node_child.py FOLDER`, the small disk of its data."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import msgspec
from tests.faults.full_disk_child import Ballast
from tests.faults.test_disk_full import READY_S_MAX, UNREADY_S_MAX, publish_for_ever, reasons, values
from tests.nodes import a_node, eventually_true

MORE = 20


async def main(folder: Path) -> None:
    ballast = Ballast(folder)
    receipts: list[float] = []

    async def more_are_confirmed() -> bool:
        return len(receipts) >= wanted

    async def is_full() -> bool:
        ballast.fill()  # again and again: the bus and the store give room back
        found = await reasons(node)
        why.update(found)
        return "bus storage" in found

    async def is_stored() -> bool:
        return set(await values(node, "pushed", "value")) >= set(receipts)

    async with a_node(folder.parent) as node, node.bus() as bus:
        await eventually_true(node.is_ready, "the node is ready")
        publishing = asyncio.create_task(publish_for_ever(bus, receipts))
        wanted = MORE
        await eventually_true(more_are_confirmed, "samples are confirmed")
        why: dict[str, str] = {}
        await eventually_true(is_full, "readiness is withdrawn", timeout_s=UNREADY_S_MAX)
        ballast.throw_away()
        await eventually_true(node.is_ready, "the node is ready again", timeout_s=READY_S_MAX)
        wanted = len(receipts) + MORE
        await eventually_true(more_are_confirmed, "samples are confirmed again")
        publishing.cancel()
        await asyncio.gather(publishing, return_exceptions=True)
        await eventually_true(is_stored, "what was confirmed is stored")
        found = await values(node, "pushed", "value")
        # The one that was on its way when publishing ended may be stored without its receipt.
        assert found[: len(receipts)] == receipts, (found, receipts)
        assert len(found) <= len(receipts) + 1
        async with node.store() as store:
            assert await store.verify() == []
        assert await node.stop() == 0
        assert node.untidy_lines() == []
    sys.stdout.write(msgspec.json.encode({"stored": len(found), "why": why}).decode() + "\n")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
