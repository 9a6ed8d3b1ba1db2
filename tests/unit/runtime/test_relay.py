"""The outbox's publisher: in order, at least once; what can never be published is kept, and holds up nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from polaris.domain import EventRegistry, HealthEvent, HealthStatus, PolarisEvent
from polaris.messaging import InMemoryHub, InMemoryMessageBroker, PolarisMessageBus
from polaris.observability import StructuredLogger
from polaris.runtime._health import HealthBoard
from polaris.runtime._lease import BEAT_S, LEASES, Lease, Turn
from polaris.runtime._relay import ALWAYS, UNPUBLISHED, OutboxRelay
from polaris.storage import PolarisDataStore
from polaris.testing import run_virtual, running_clock

LOGGER = StructuredLogger("test")


class Forgotten(PolarisEvent, frozen=True):
    """Of a type that the present release does not know any more."""

    text: str


FORMER = EventRegistry()
FORMER.register(Forgotten, "acme.forgotten")


def health(component: str) -> HealthEvent:
    return HealthEvent(component=component, status=HealthStatus.HEALTHY)


class Rig:
    def __init__(self) -> None:
        self.clock = running_clock()
        self.hub = InMemoryHub(clock=self.clock)
        self.store = PolarisDataStore.memory(clock=self.clock)
        self.heard: list[str] = []

    @asynccontextmanager
    async def relaying(self, turn: Turn = ALWAYS) -> AsyncIterator[None]:
        bus = PolarisMessageBus(InMemoryMessageBroker(self.hub), clock=self.clock)
        await bus.start()
        await bus.subscribe("polaris.health.*", self.listen)
        relay = OutboxRelay(self.store, bus, HealthBoard(clock=self.clock), LOGGER, turn=turn, clock=self.clock)
        await relay.start()
        try:
            yield
            await self.clock.sleep(60)
        finally:
            await relay.stop()
            await bus.drain()

    async def listen(self, event: HealthEvent) -> None:
        self.heard.append(event.component)


def test_what_can_never_be_published_is_kept_and_holds_up_nothing() -> None:
    async def scenario() -> None:
        rig = Rig()
        async with rig.store:
            await rig.store.outbox.add("polaris.health.a", health("a"))
            await rig.store.outbox.add("acme.forgotten", Forgotten(text="still here"), registry=FORMER)
            await rig.store.outbox.add("not a topic", health("lost"))
            await rig.store.outbox.add("polaris.health.b", health("b"))
            async with rig.relaying():
                pass
            assert rig.heard == ["a", "b"]
            assert await rig.store.outbox.count() == 0
            kept = await rig.store.documents.find_documents(UNPUBLISHED, sort="created_at")
            assert [(one["_id"], one["topic"], one["version"]) for one in kept] == [
                ("2", "acme.forgotten", 1),
                ("3", "not a topic", 1),
            ]
            assert "still here" in kept[0]["event"]
            assert kept[0]["code"] == "polaris.bus.unknown_event_type"

    run_virtual(scenario())


def test_entries_are_published_in_the_order_of_their_commits() -> None:
    async def scenario() -> None:
        rig = Rig()
        async with rig.store:
            async with rig.relaying():
                for number in range(250):
                    await rig.store.outbox.add(f"polaris.health.{number}", health(str(number)))
            assert rig.heard == [str(number) for number in range(250)]

    run_virtual(scenario())


def test_only_the_node_whose_turn_it_is_publishes() -> None:
    async def scenario() -> None:
        rig = Rig()
        await rig.store.connect()
        mine = Lease(rig.store.documents, LEASES, "outbox", "mine", clock=rig.clock)
        other = Lease(rig.store.documents, LEASES, "outbox", "other", clock=rig.clock)
        await other.attempt()

        async def tell(name: str) -> None:
            async with rig.store.unit_of_work() as work:
                await work.publish(f"polaris.health.{name}", health(name))
                await work.commit()

        async with rig.relaying(mine):
            await tell("first")
            await rig.clock.sleep(30)
            assert rig.heard == []
            await other.release()
            await mine.attempt()
            await rig.clock.sleep(2 * BEAT_S)
            assert rig.heard == ["first"]
            await mine.release()
            await tell("second")
            await rig.clock.sleep(30)
        assert rig.heard == ["first"]

    run_virtual(scenario())
