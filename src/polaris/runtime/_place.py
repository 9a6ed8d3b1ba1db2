"""A node's place among the nodes of one store: which systems are its own, and who may join beside it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

from polaris.clock import SYSTEM_CLOCK, Clock
from polaris.domain import HealthStatus
from polaris.exceptions import ConfigurationError, DataStoreError
from polaris.ids import new_id
from polaris.observability import StructuredLogger
from polaris.runtime._lease import BEAT_S, LEASE_S, LEASES, Always, Lease, Turn
from polaris.runtime._supervision import Supervisor

if TYPE_CHECKING:
    from polaris.runtime._data_folder import DataFolder
    from polaris.runtime._health import HealthBoard
    from polaris.runtime._settings import Settings
    from polaris.storage import PolarisDataStore, PolarisUnitOfWork

COMPONENT = "place"
NODES = "polaris.nodes"
"""The collection with one document a node name: who has it, on which bus, with which systems."""

OnTaken = Callable[[], Awaitable[None]]


class Place(Protocol):
    """What the services of a node ask before they do what must be done by one node alone."""

    @property
    def outbox(self) -> Turn:
        """The turn to publish the outbox."""

    @property
    def upkeep(self) -> Turn:
        """The turn to retire what is old."""

    @property
    def boot_id(self) -> str:
        """The name of this run."""

    @property
    def node(self) -> str | None:
        """The name by which systems are noted as this node's; None when there can be no other node."""

    @property
    def is_held(self) -> bool:
        """Whether the node may begin something on its systems."""

    async def check(self, work: PolarisUnitOfWork) -> None:
        """In a transaction: make its commit depend on that the place is still the node's. Raises `DataStoreError`."""

    async def other_boots(self) -> Collection[str]:
        """The boot ids of other nodes that have a place."""

    def on_taken(self, listener: OnTaken) -> None:
        """Call `listener` once when another node has taken the place over."""

    @property
    def has_others(self) -> bool:
        """Whether other nodes may take a part of what comes on the bus."""

    def beside_others(self, name: str, work: Callable[[], Awaitable[object]]) -> None:
        """Keep `work` running as long as the place is kept, if it `has_others`."""


class SolePlace:
    """Of a node whose store no other node can use: it has everything, and nobody to ask."""

    def __init__(self) -> None:
        self.boot_id = new_id()

    node = None
    is_held = True
    outbox: Turn = Always()
    upkeep: Turn = Always()

    async def check(self, work: PolarisUnitOfWork) -> None:
        """Nobody can have taken it."""

    async def other_boots(self) -> Collection[str]:
        return ()

    has_others = False

    def on_taken(self, listener: OnTaken) -> None:
        """It never is."""

    def beside_others(self, name: str, work: Callable[[], Awaitable[object]]) -> None:
        """There are none."""


class SharedPlace:
    """Of a node beside others on one store. `take` it before anything else is done, and `release` it last.

    A name, and each managed system, belongs to one running node; nodes that run have a bus in common. Whoever would
    break that is refused while the other one runs, and takes over from one that has not renewed its place for
    `LEASE_S`. A node that finds its place taken (it was frozen, or cut off from the store) begins nothing on any
    system any more: its own place is part of every transaction that takes an action. It stays unready and has to be
    started again.
    """

    def __init__(
        self,
        store: PolarisDataStore,
        board: HealthBoard,
        logger: StructuredLogger,
        *,
        node: str,
        home: str,
        boot_id: str,
        systems: Collection[str],
        own_bus: bool,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """`home`: what only one process at a time can be in, by which a node knows that its former run has ended."""
        self.node = node
        self._store = store
        self._home = home
        self.boot_id = boot_id
        self._systems = frozenset(systems)
        self._own_bus = own_bus
        self._board = board
        self._logger = logger
        self._clock = clock
        facts = {"home": home, "boot_id": boot_id, "systems": sorted(systems), "own_bus": own_bus}
        documents = store.documents
        self._lease = Lease(documents, NODES, node, boot_id, facts=facts, clock=clock)
        self.outbox = Lease(documents, LEASES, "outbox", boot_id, clock=clock)
        self.upkeep = Lease(documents, LEASES, "upkeep", boot_id, clock=clock)
        self._supervisor = Supervisor(board, logger, clock=clock)
        self._seen: dict[str, tuple[int, float]] = {}
        self._listeners: list[OnTaken] = []
        self._taken = False

    @property
    def is_held(self) -> bool:
        return self._lease.is_held

    @property
    def has_others(self) -> bool:
        return not self._own_bus

    def on_taken(self, listener: OnTaken) -> None:
        self._listeners.append(listener)

    def beside_others(self, name: str, work: Callable[[], Awaitable[object]]) -> None:
        if self.has_others:
            self._supervisor.run(name, work)

    async def take(self) -> None:
        """Take the place, waiting at most some `LEASE_S` to see whether a node that is in the way still runs.

        Raises `ConfigurationError` with everything that is in the way; nothing is changed then.
        """
        while True:
            begun_s = self._clock.monotonic()
            rivals, version = await self._store.in_unit_of_work(self._try_to_take)
            if not rivals:
                self._lease.held_since(begun_s, version)
                await self._attempt_turns()
                return
            now_s = self._clock.monotonic()
            for name, (rival_version, _) in rivals.items():
                seen = self._seen.setdefault(name, (rival_version, now_s))
                if seen[0] != rival_version:
                    raise ConfigurationError(problems=[text for _, texts in rivals.values() for text in texts])
            await self._clock.sleep(BEAT_S / 3)

    async def _try_to_take(self, work: PolarisUnitOfWork) -> tuple[dict[str, tuple[int, list[str]]], int]:
        """Those in the way that may still run, by name; or none, and the version of the place that is written."""
        now_s = self._clock.monotonic()
        rivals: dict[str, tuple[int, list[str]]] = {}
        gone: list[dict[str, Any]] = []
        version = 0
        for other in await work.documents.find_documents(NODES, {}):
            name, at = str(other["_id"]), int(other["_version"])
            version = at if name == self.node else version
            problems = [] if other["holder"] is None else self._in_the_way(name, other)
            if not problems:
                continue
            seen = self._seen.get(name)
            if seen is not None and seen[0] == at and now_s - seen[1] >= LEASE_S:
                gone.append(other)
            else:
                rivals[name] = at, problems
        if not rivals:
            for other in gone:
                if other["_id"] != self.node:
                    await work.documents.update_document(
                        NODES, other["_id"], {"holder": None}, expected_version=other["_version"]
                    )
            await work.documents.put_document(NODES, self.node, self._lease.document(), expected_version=version)
        return rivals, version + 1

    def _in_the_way(self, name: str, other: Mapping[str, Any]) -> list[str]:
        if name == self.node:
            if other["home"] == self._home:
                return []  # its former run, which cannot run any more
            return [f"node.name = {name!r}: another node of this name uses the store; give one of them another name"]
        if self._own_bus or other["own_bus"]:
            others = "set the same nats.servers for both, or another store.schema for one of them"
            return [f"store: the node {name!r} uses it too, and both must be on the same bus: {others}"]
        return [
            f"systems.{system_id}: belongs to the node {name!r}, which is running; stop it, or remove the system here"
            for system_id in sorted(self._systems & set(other["systems"]))
        ]

    async def start(self) -> None:
        """Keep the place."""
        self._board.report(COMPONENT, HealthStatus.HEALTHY)
        self._supervisor.run(COMPONENT, self._keep_for_ever)

    async def stop(self) -> None:
        await self._supervisor.stop()

    async def release(self) -> None:
        """Let others have at once what was this node's."""
        for lease in (self.outbox, self.upkeep, self._lease):
            await lease.release()

    async def _keep_for_ever(self) -> None:
        while not self._taken:
            await self._beat()
            await self._clock.sleep(BEAT_S)
        reason = "another node has taken over what was this node's; restart this one once the other has ended"
        self._board.report(COMPONENT, HealthStatus.UNHEALTHY, reason)
        self._logger.error("another node has taken this one's place")
        for listener in self._listeners:
            await listener()
        await asyncio.Event().wait()

    async def _beat(self) -> None:
        try:
            async with asyncio.timeout(LEASE_S):
                await self._keep()
        except (DataStoreError, TimeoutError) as error:
            # The store's own health tells; the place is not counted on meanwhile.
            self._logger.warning("the node's place cannot be renewed", reason=str(error) or type(error).__name__)

    async def _keep(self) -> None:
        if not self._lease.is_lost:
            await self._lease.attempt()
        if self._lease.is_lost:
            found = await self._store.documents.get_document(NODES, self.node)
            if found is None or found["holder"] != self.boot_id:
                self._taken = True
                return
            await self._lease.attempt()
        await self._attempt_turns()
        self._board.report(COMPONENT, HealthStatus.HEALTHY)

    async def _attempt_turns(self) -> None:
        await self.outbox.attempt()
        await self.upkeep.attempt()

    async def check(self, work: PolarisUnitOfWork) -> None:
        found = await work.documents.get_document(NODES, self.node)
        if found is None or found["holder"] != self.boot_id or not self.is_held:
            raise DataStoreError(f"the node {self.node!r} has lost its place and begins nothing")

    async def other_boots(self) -> Collection[str]:
        found = await self._store.documents.find_documents(NODES, {"holder": {"$ne": None}})
        return {str(one["boot_id"]) for one in found if one["boot_id"] != self.boot_id}


@asynccontextmanager
async def place_of_node(
    settings: Settings, folder: DataFolder, store: PolarisDataStore, board: HealthBoard, systems: Collection[str]
) -> AsyncIterator[Place]:
    """The node's place, taken before anything acts and released when all that acts has been stopped."""
    if settings.store.engine != "postgresql":
        yield SolePlace()
        return
    board.expect([COMPONENT])
    place = SharedPlace(
        store,
        board,
        StructuredLogger("polaris.place"),
        node=settings.node.name,
        home=folder.identity(),
        boot_id=new_id(),
        systems=systems,
        own_bus=not settings.nats.servers,
    )
    await place.take()
    try:
        await place.start()
        yield place
    finally:
        await place.stop()
        await place.release()
