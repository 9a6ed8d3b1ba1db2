"""The AsyncAPI document of a running node: its own streams, its own server, and no secret."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from pathlib import Path

from tests.nodes import NodeUnderTest

from polaris.messaging import STANDARD_STREAMS


async def test_a_node_tells_of_its_bus_and_its_streams(tmp_path: Path) -> None:
    node = NodeUnderTest(tmp_path, {})
    try:
        facts = await node.start()
        address = f"{facts.http_url}asyncapi.json"
        text = await asyncio.to_thread(lambda: urllib.request.urlopen(address, timeout=10).read().decode())
    finally:
        await node.close()
    document = json.loads(text)
    assert f"nats://{document['servers']['node']['host']}" == facts.bus_url
    assert facts.bus_token is not None
    assert facts.bus_token not in text
    stored = [channel.get("x-polaris-stream") for channel in document["channels"].values()]
    kept = {stream["name"] for stream in stored if stream is not None}
    assert kept == {stream.name for stream in STANDARD_STREAMS}
