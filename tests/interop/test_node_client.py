"""A client in another language that knows only the AsyncAPI document takes part in the control loop."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import MakeNATSServer
from tests.interop import packages

from polaris.domain import AdaptationAction, AdaptationEvent, ExecutionResultEvent, Quality, TelemetryEvent
from polaris.messaging import (
    DeadLetter,
    EmbeddedNATSServer,
    NATSMessageBroker,
    PolarisMessageBus,
    adaptation_topic,
    asyncapi_document,
)

# The first test may have to install the packages.
# One worker waits for the packages, not all of them.
pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("npm")]
PATIENCE_S = 40.0
# An id that no subject token can hold as it is.
SYSTEM = "boiler no. 7/ü"
BROKEN = {"broken-time", "broken-reading"}


class Loop:
    """The POLARIS side: asks for one change when the first telemetry comes, and keeps what it gets."""

    def __init__(self, bus: PolarisMessageBus, *, dead_letters: int) -> None:
        self._bus = bus
        self._dead_letters_awaited = dead_letters
        self.telemetry: list[TelemetryEvent] = []
        self.results: list[ExecutionResultEvent] = []
        self.dead_letters: list[DeadLetter] = []
        self.closed = asyncio.Event()

    async def begin(self) -> None:
        await self._bus.subscribe("polaris.telemetry.*", self.analyse, durable="analyser")
        await self._bus.subscribe("polaris.executions.*", self.learn, durable="learner")
        await self._bus.subscribe("polaris.dead_letter.>", self.mourn, durable="mourner")

    async def analyse(self, event: TelemetryEvent) -> None:
        if not self.telemetry:
            action = AdaptationAction("heat-1", "set_target", event.system_state.system_id, {"target": 72.5})
            await self._bus.publish(adaptation_topic(event.system_state.system_id), AdaptationEvent(action))
        self.telemetry.append(event)
        self._look()

    async def learn(self, event: ExecutionResultEvent) -> None:
        self.results.append(event)
        self._look()

    async def mourn(self, letter: DeadLetter) -> None:
        self.dead_letters.append(letter)
        self._look()

    def _look(self) -> None:
        if len(self.telemetry) >= 3 and self.results and len(self.dead_letters) >= self._dead_letters_awaited:
            self.closed.set()


async def run_client(document: dict[str, Any], server: EmbeddedNATSServer, folder: Path) -> list[dict[str, Any]]:
    """Everything that the client says until it ends."""
    path = folder / "asyncapi.json"
    path.write_text(json.dumps(document))
    process = await asyncio.create_subprocess_exec(
        *packages.command("client.mjs", path, SYSTEM),
        env={**os.environ, "BUS_TOKEN": server.token or ""},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(PATIENCE_S):
            said, complained = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, complained.decode()
    return [json.loads(line) for line in said.splitlines()]


def told(said: list[dict[str, Any]], what: str) -> list[dict[str, Any]]:
    return [{key: value for key, value in one.items() if key != "what"} for one in said if one["what"] == what]


async def test_a_node_client_closes_the_loop_with_nothing_but_the_document(
    make_nats_server: MakeNATSServer, tmp_path: Path
) -> None:
    server = await make_nats_server()
    async with PolarisMessageBus(NATSMessageBroker(server.client_config("polaris"))) as bus:
        loop = Loop(bus, dead_letters=3)
        await loop.begin()
        document = asyncapi_document(streams=bus.streams, servers={"node": server.url})
        said = await run_client(document, server, tmp_path)
        async with asyncio.timeout(PATIENCE_S):
            await loop.closed.wait()

    # What the client sent arrives typed; a sample that came twice is there once.
    assert [event.event_id for event in loop.telemetry] == ["single", "first-of-many", "second-of-many"]
    for event in loop.telemetry:
        state = event.system_state
        assert (state.system_id, event.source, event.correlation_id) == (SYSTEM, "/node-client", "from-node")
        assert state.value("temperature") == 71.5
        assert (state.value("flow"), state.metrics["flow"].quality) == (None, Quality.MISSING)
    assert told(said, "fits") == [{"problems": []}]
    assert told(said, "stored")[:2] == [{"stream": "POLARIS_TELEMETRY", "duplicate": False}] * 2
    assert told(said, "stored again") == [{"stream": "POLARIS_TELEMETRY", "duplicate": True}]

    # What POLARIS sent fits the schema in the document, and the answer belongs to it.
    (asked,) = told(said, "asked")
    assert asked["problems"] == []
    assert asked["event"]["data"]["action"]["parameters"] == {"target": 72.5}
    assert asked["event"]["correlationid"] == "from-node"
    (result,) = loop.results
    assert (result.result.action_id, result.correlation_id) == ("heat-1", "from-node")

    # What the schema refuses POLARIS refuses too, and puts it aside with its bytes.
    refused = {one["id"]: one["problems"] for one in told(said, "refused")}
    assert set(refused) == BROKEN
    assert all(refused.values())
    payloads = [letter.payload for letter in loop.dead_letters]
    assert [payload for payload in payloads if payload == b"not JSON"] == [b"not JSON"]
    assert {json.loads(payload)["id"] for payload in payloads if payload != b"not JSON"} == BROKEN
    assert {letter.reason.value for letter in loop.dead_letters} == {"undecodable"}


async def test_the_client_really_looks_at_the_document(make_nats_server: MakeNATSServer, tmp_path: Path) -> None:
    server = await make_nats_server()
    async with PolarisMessageBus(NATSMessageBroker(server.client_config("polaris"))) as bus:
        loop = Loop(bus, dead_letters=3)
        await loop.begin()
        document = asyncapi_document(streams=bus.streams, servers={"node": server.url})
        document["components"]["schemas"]["AdaptationAction"]["required"].append("colour")
        del document["components"]["messages"]["polaris.adaptation.v1"]["examples"]
        said = await run_client(document, server, tmp_path)
    (asked,) = told(said, "asked")
    assert asked["problems"] == ["/data/action must have required property 'colour'"]
