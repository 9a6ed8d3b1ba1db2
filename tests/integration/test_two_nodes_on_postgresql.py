"""Two nodes on one PostgreSQL database and one bus: each acts on its own systems, and one of them publishes."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import MakeNATSServer
from tests.nodes import NodeUnderTest, eventually_true
from tests.postgres_servers import PostgresServer
from tests.witness_connector import read_journal

from polaris.domain import AdaptationAction, AdaptationEvent, ExecutionResultEvent, HealthEvent, HealthStatus
from polaris.messaging import NATSMessageBroker, PolarisMessageBus, Start, adaptation_topic
from polaris.runtime._lease import BEAT_S, LEASE_S, LEASES
from polaris.storage import PolarisDataStore

MISCONFIGURED = 78
TAKEN_OVER_S_MAX = LEASE_S + 2 * BEAT_S
SLACK_S = 15.0
"""For a busy machine."""


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer(15) as running:
        yield running


class Pair:
    """Nodes by their names, in folders of their own, on one schema and one bus."""

    def __init__(self, folder: Path, server: PostgresServer, schema: str, nats: Any) -> None:
        self.folder = folder
        self.nats = nats
        self.dsn, self.schema = server.dsn, schema
        self.nodes: dict[str, NodeUnderTest] = {}

    def node(self, name: str, *systems: str, after_s: float = 0.01, **sections: Mapping[str, Any]) -> NodeUnderTest:
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        settings: dict[str, Any] = {
            "node": {"name": name},
            "nats": {"servers": [self.nats.url], "token": self.nats.token},
            "store": {"engine": "postgresql", "dsn": self.dsn, "schema": self.schema},
            "systems": {
                system: {
                    "connector": "tests.witness_connector:WitnessConnector",
                    "interval_s": 60.0,
                    "options": {"journal": str(self.journal(system)), "after_s": after_s},
                }
                for system in systems
            },
            **sections,
        }
        self.nodes[name] = NodeUnderTest(folder, settings)
        return self.nodes[name]

    def journal(self, system: str) -> Path:
        return self.folder / f"{system}.jsonl"

    def effects(self, system: str) -> Counter[str]:
        return Counter(line.action_id for line in read_journal(self.journal(system)) if line.event == "effect")

    @contextlib.asynccontextmanager
    async def bus(self) -> AsyncIterator[PolarisMessageBus]:
        bus = PolarisMessageBus(NATSMessageBroker(self.nats.client_config("test")), grace_s=2.0)
        await bus.start()
        try:
            yield bus
        finally:
            await bus.stop()

    def store(self, *, read_only: bool = True) -> PolarisDataStore:
        return PolarisDataStore.postgresql(self.dsn, schema=self.schema, read_only=read_only)


@contextlib.asynccontextmanager
async def a_pair(
    folder: Path, server: PostgresServer, schema: str, make_nats_server: MakeNATSServer
) -> AsyncIterator[Pair]:
    pair = Pair(folder, server, schema, await make_nats_server())
    try:
        yield pair
    finally:
        for node in pair.nodes.values():
            if node.starts:
                await node.close()


async def ask(bus: PolarisMessageBus, system: str, *action_ids: str) -> None:
    for action_id in action_ids:
        await bus.publish(adaptation_topic(system), AdaptationEvent(AdaptationAction(action_id, "work", system)))


async def refused(node: NodeUnderTest) -> str:
    node.launch()
    assert await node.ended() == MISCONFIGURED, node.stderr()
    return node.stderr()


async def test_each_action_is_carried_out_once_by_the_node_that_has_the_system(
    tmp_path: Path, server: PostgresServer, make_nats_server: MakeNATSServer
) -> None:
    async with a_pair(tmp_path, server, "sides", make_nats_server) as pair:
        a, b = pair.node("a", "left"), pair.node("b", "right")
        await a.start()
        await b.start()
        ids = {system: [f"{system}-{n}" for n in range(30)] for system in ("left", "right")}
        ids["nowhere"] = [f"nowhere-{n}" for n in range(5)]
        announced: Counter[str] = Counter()
        outcomes: dict[str, str] = {}

        async def listen(event: ExecutionResultEvent) -> None:
            announced[event.event_id] += 1
            assert outcomes.setdefault(event.result.action_id, event.result.status.value) == event.result.status.value

        async with pair.bus() as bus:
            await bus.subscribe("polaris.executions.*", listen, start=Start.ALL)
            for system, wanted in ids.items():
                await ask(bus, system, *wanted)
                await ask(bus, system, *wanted[:3])

            async def all_announced() -> bool:
                return len(outcomes) == 65

            await eventually_true(all_announced, "every action has its result")
            await asyncio.sleep(0.5)
        assert pair.effects("left") == dict.fromkeys(ids["left"], 1)
        assert pair.effects("right") == dict.fromkeys(ids["right"], 1)
        assert {outcomes[one] for one in (*ids["left"], *ids["right"])} == {"success"}
        assert {outcomes[one] for one in ids["nowhere"]} == {"rejected"}
        assert set(announced.values()) == {1}
        assert len(announced) == 65
        pids = {system: {line.pid for line in read_journal(pair.journal(system))} - {0} for system in ("left", "right")}
        assert pids == {"left": {a.file.pid}, "right": {b.file.pid}}
        for node in (a, b):
            for system in ("left", "right"):

                async def shows(node: NodeUnderTest = node, system: str = system) -> bool:
                    status, shown = await node.get(f"api/v1/systems/{system}")
                    return status == 200 and shown.get("last_sample_at") is not None

                await eventually_true(shows, f"{node.folder.name} shows {system}")
            assert await node.is_ready()
            assert node.untidy_lines() == []


async def test_what_cannot_be_shared_is_refused_with_the_reason(
    tmp_path: Path, server: PostgresServer, make_nats_server: MakeNATSServer
) -> None:
    async with a_pair(tmp_path, server, "refused", make_nats_server) as pair:
        await pair.node("a", "left", "shared").start()
        assert "systems.shared: belongs to the node 'a', which is running" in await refused(
            pair.node("b", "right", "shared")
        )
        assert "both must be on the same bus" in await refused(pair.node("c", "other", nats={}))
        same_name = pair.node("d", "other", node={"name": "a", "data_dir": str(tmp_path / "d" / "data")})
        assert "another node of this name" in await refused(same_name)
        await pair.node("e", "right").start()


async def test_when_the_publishing_node_is_killed_another_one_publishes_within_the_bound(
    tmp_path: Path, server: PostgresServer, make_nats_server: MakeNATSServer
) -> None:
    async with a_pair(tmp_path, server, "relay", make_nats_server) as pair:
        await pair.node("a", "left").start()
        b = pair.node("b", "right")
        await b.start()
        heard: Counter[str] = Counter()

        async def listen(event: HealthEvent) -> None:
            if event.component.startswith("told-"):
                heard[event.component] += 1

        async with pair.store(read_only=False) as store, pair.bus() as bus:
            await bus.subscribe("polaris.health.*", listen)

            async def tell(name: str) -> None:
                async with store.unit_of_work() as work:
                    await work.publish(f"polaris.health.{name}", HealthEvent(name, HealthStatus.HEALTHY))
                    await work.commit()

            async def is_heard(name: str) -> bool:
                return heard[name] > 0

            await tell("told-1")
            await eventually_true(lambda: is_heard("told-1"), "the first is heard")
            lease = await store.documents.get_document(LEASES, "outbox")
            assert lease is not None
            nodes = await store.documents.find_documents("polaris.nodes", {"boot_id": lease["holder"]})
            publisher = pair.nodes[nodes[0]["_id"]]
            publisher.kill()
            killed_s = time.monotonic()
            await tell("told-2")
            await eventually_true(
                lambda: is_heard("told-2"), "the other publishes", timeout_s=TAKEN_OVER_S_MAX + SLACK_S
            )
            assert time.monotonic() - killed_s <= TAKEN_OVER_S_MAX + SLACK_S
            await publisher.start()
            await tell("told-3")
            await eventually_true(lambda: is_heard("told-3"), "it goes on")
            await asyncio.sleep(0.3)
        assert heard == {"told-1": 1, "told-2": 1, "told-3": 1}


async def test_a_frozen_node_whose_system_was_taken_over_does_nothing_when_it_thaws(
    tmp_path: Path, server: PostgresServer, make_nats_server: MakeNATSServer
) -> None:
    async with a_pair(tmp_path, server, "frozen", make_nats_server) as pair:
        a = pair.node("a", "left", after_s=0.01)
        await a.start()
        async with pair.bus() as bus, pair.store() as store:
            await ask(bus, "left", "first")

            async def first_done() -> bool:
                return await store.results.find_by_action("first") is not None

            await eventually_true(first_done, "the first action is done")
            a.send(signal.SIGSTOP)
            try:
                b = pair.node("b", "left")
                await b.start()
                ids = [f"then-{n}" for n in range(10)]
                await ask(bus, "left", *ids)
            finally:
                a.send(signal.SIGCONT)

            async def all_done() -> bool:
                return pair.effects("left").keys() >= set(ids)

            await eventually_true(all_done, "every action is carried out", timeout_s=60)

            async def says_so() -> bool:
                return "another node has taken over" in str(await a.get("readyz"))

            await eventually_true(says_so, "the thawed node says that its place is taken")
            await ask(bus, "left", *ids)
            await asyncio.sleep(1)
        assert pair.effects("left") == dict.fromkeys(["first", *ids], 1)
        by = {line.action_id: line.pid for line in read_journal(pair.journal("left"))}
        assert {by[one] for one in ids} == {b.file.pid}
        assert await b.is_ready()
