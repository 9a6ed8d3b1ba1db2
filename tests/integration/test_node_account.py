"""The account of a node: every sample it took is confirmed, waiting or dropped, over an outage of the bus too."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import httpx2
import psutil

from polaris.runtime import Node, load_settings


def node_in(folder: Path) -> Node:
    environment = {
        "POLARIS_NODE__DATA_DIR": str(folder),
        "POLARIS_HTTP__PORT": "0",
        "POLARIS_SYSTEMS__HERE__CONNECTOR": "host",
        "POLARIS_SYSTEMS__HERE__INTERVAL_S": "0.1",
    }
    return Node(load_settings(environment=environment))


def balanced(account: dict[str, Any]) -> bool:
    dropped = account["dropped"] if isinstance(account["dropped"], int) else sum(account["dropped"].values())
    total = account["sampled"] if "sampled" in account else account["published"]
    return bool(total == account["confirmed"] + account["waiting"] + dropped)


async def test_samples_and_events_are_accounted_for_while_the_server_is_killed(tmp_path: Path) -> None:
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    node = node_in(tmp_path / "data")
    await node.start()
    try:
        assert node.http_url is not None
        async with httpx2.AsyncClient(base_url=node.http_url) as client:

            async def books() -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
                system = (await client.get("/api/v1/systems/here")).json()
                bus = (await client.get("/api/v1/bus")).json()
                (readings,) = [one for one in bus["published"] if one["kind"] == "telemetry"]
                (storing,) = [one for one in bus["subscriptions"] if one["name"] == "store-telemetry"]
                return system["samples"], readings, storing

            async def until_confirmed(count: int) -> None:
                async with asyncio.timeout(30):
                    while True:
                        answer = (await client.get("/api/v1/systems/here")).json()
                        if (answer.get("samples") or {}).get("confirmed", 0) >= count:
                            return
                        await asyncio.sleep(0.05)

            await until_confirmed(3)
            servers = [
                child
                for child in psutil.Process().children(recursive=True)
                if child.pid not in before and "nats-server" in child.name()
            ]
            assert len(servers) == 1
            os.kill(servers[0].pid, signal.SIGKILL)
            for _ in range(10):
                samples, readings, _ = await books()
                assert balanced(samples)
                assert balanced(readings)
                await asyncio.sleep(0.05)
            await until_confirmed(samples["sampled"] + 5)

            samples, readings, storing = await books()
            assert balanced(samples)
            assert balanced(readings)
            assert samples["dropped"] == 0
            async with asyncio.timeout(20):
                while storing["counts"]["handled"] < samples["confirmed"]:
                    await asyncio.sleep(0.05)
                    _, _, storing = await books()
            assert storing["counts"]["missed"] - storing["counts"]["late"] == 0
    finally:
        await node.stop()
