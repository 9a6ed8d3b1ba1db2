"""Which store has which system: what this process knows of it, and how it finds out.

The laws that make it right, whatever else happens (docs/adr/0009-routing.md):

- the placement of a system is read at the store that the hash names and followed from there;
- a place that was found is good for writing while the record of its store is unchanged, which every write checks in its
  own transaction: a system that leaves changes it;
- it was good for reading when the placement is unchanged after the read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from polaris.clock import Clock
from polaris.exceptions import ConfigurationError, StoreConnectionError, StoreCorruptError
from polaris.resilience import Backoff
from polaris.storage._backend import StorageTransaction
from polaris.storage._data_store import PolarisDataStore
from polaris.storage._documents import VERSION_KEY, Document
from polaris.storage._placement import (
    PLACEMENTS,
    RECORD_ID,
    ROUTING,
    STORES_MAX,
    MoveRecord,
    Placement,
    Rendezvous,
    StoreList,
    StoreRecord,
    placement_of,
    record_of,
)
from polaris.storage._placement_steps import arrive, change_phase, named

PLACES_MAX = 200_000
"""Places that are remembered; full, it starts anew."""
ASKED_MAX = 500
"""Systems that one query asks for."""
DOWN_S = 0.5
"""How long a store that could not be connected is taken to be away before it is tried again."""
FREEZE_S_MAX = 5.0
"""How long a writer waits for the last step of a move before it takes the system back into use where it is."""
HOPS_MAX = 2 * STORES_MAX

_FREEZE_BACKOFF = Backoff(0.002, 0.05)


class Place(msgspec.Struct, frozen=True):
    """Where a system is. `version` is that of its placement there, 0 while it has none; `seen` that of the record."""

    store: str
    version: int
    epoch: int
    seen: int


class KnownRecord(msgspec.Struct, frozen=True):
    """The record of a store as it was last read."""

    version: int
    record: StoreRecord


Sought = dict[str, Placement | None]
"""Systems to ask a store for, each with the signpost that led there."""
Places = dict[str, Place | StoreConnectionError]
"""Where systems are, or why that cannot be known at present."""


class PlacementBook:
    """The places of systems, remembered and looked up. Safe for many tasks at once."""

    def __init__(self, stores: Mapping[str, PolarisDataStore], wanted: StoreList, clock: Clock) -> None:
        self.stores = dict(stores)
        self.wanted = wanted
        self._ring = Rendezvous(wanted.weights)
        self._clock = clock
        self._records: dict[str, KnownRecord] = {}
        self._places: dict[str, Place] = {}
        self._connecting = {name: asyncio.Lock() for name in stores}
        self._down: dict[str, float] = {}
        self.is_open = False

    async def store(self, name: str) -> PolarisDataStore:
        """The store, connected. Raises `StoreConnectionError` when it is away, `ConfigurationError` when unknown."""
        store = self.stores.get(name)
        if store is None:
            raise ConfigurationError(f"store {name!r} was added to the others: start this node with the list of all")
        if not self.is_open:
            raise StoreConnectionError("the stores are not connected")
        if not store.is_connected:
            async with self._connecting[name]:
                await self._connect(name, store)
        return store

    async def _connect(self, name: str, store: PolarisDataStore) -> None:
        if store.is_connected:
            return
        now = self._clock.monotonic()
        if now < self._down.get(name, now):
            raise StoreConnectionError(f"store {name!r}: could not be connected a moment ago", {"store": name})
        try:
            with named(name):
                await store.connect()
        except StoreConnectionError:
            self._down[name] = self._clock.monotonic() + DOWN_S
            raise

    async def known(self, name: str) -> KnownRecord:
        """The record of a store as it is known, read when it is not."""
        return self._records.get(name) or await self.refresh(name)

    async def refresh(self, name: str) -> KnownRecord:
        """The record of a store as it is now."""
        store = await self.store(name)
        with named(name):
            return self.note(name, await store.documents.get_document(ROUTING, RECORD_ID))

    def note(self, name: str, document: Document | None) -> KnownRecord:
        """Remember a record that was read. Raises `ConfigurationError` when it is not the one of this store."""
        if document is None:
            raise ConfigurationError(f"store {name!r} is not known as one of several: it has no record of the others")
        record = record_of(document)
        if record.name != name:
            raise ConfigurationError(f"store {name!r} calls itself {record.name!r}: were two of them exchanged?")
        if name not in record.stores.weights:
            raise ConfigurationError(f"store {name!r} was removed from the others")
        known = self._records[name] = KnownRecord(document[VERSION_KEY], record)
        return known

    @property
    def is_outdated(self) -> bool:
        """Whether the list of stores was changed since this node started."""
        return any(known.record.stores != self.wanted for known in self._records.values())

    async def enter(self, transaction: StorageTransaction, name: str) -> KnownRecord | None:
        """Read the store's record in a transaction: its commit is refused when the record changes.

        None when the record is another than was known; it is known now, and places have to be asked for again.
        """
        former = self._records.get(name)
        document = await transaction.documents.get_document(ROUTING, RECORD_ID)
        if former is not None and document is not None and document[VERSION_KEY] == former.version:
            return former
        self.note(name, document)
        return None

    def hashed(self, system_id: str) -> str:
        """The store that the hash names, where every look-up begins."""
        return self._ring.place(system_id)

    def placed(self, system_id: str, name: str, seen: int) -> None:
        """Know of a system that this process has written for the first time, while the record was as seen."""
        self._places[system_id] = Place(name, 1, 1, seen)

    def forget(self, systems: Iterable[str]) -> None:
        """Have systems looked up anew."""
        for system_id in systems:
            self._places.pop(system_id, None)

    async def place(self, system_id: str) -> Place:
        """Where a system is, good for reading. Raises `StoreConnectionError` when that cannot be known."""
        known = self._places.get(system_id)
        return known if known is not None else _found((await self._look_up([system_id]))[system_id])

    async def has_stayed(self, system_id: str, place: Place) -> bool:
        """Whether the system is still there, and was all the time since its place was found; else it is forgotten."""
        store = await self.store(place.store)
        with named(place.store):
            document = await store.documents.get_document(PLACEMENTS, system_id)
        if (0 if document is None else document[VERSION_KEY]) == place.version:
            return True
        self._places.pop(system_id, None)
        return False

    async def writable(self, systems: Iterable[str]) -> Places:
        """Where systems are, good for writing while the records of their stores are unchanged.

        Waits for those that are in the last step of a move; when that takes longer than 5 s, whoever moves them is
        taken to have died, and they are used on where they are.
        """
        systems = list(systems)
        began = self._clock.monotonic()
        attempt = 0
        while True:
            places = await self._current(systems)
            frozen = self._frozen(places)
            if not frozen:
                return places
            attempt += 1
            if self._clock.monotonic() - began > FREEZE_S_MAX:
                for system_id, (name, entry) in frozen.items():
                    await self._thaw(name, system_id, entry)
            else:
                await self._clock.sleep(_FREEZE_BACKOFF.delay_s(attempt))
            for name in {name for name, _ in frozen.values()}:
                await self.refresh(name)

    async def pause(self, attempt: int) -> None:
        """Wait before the next attempt."""
        await self._clock.sleep(_FREEZE_BACKOFF.delay_s(attempt))

    async def _thaw(self, name: str, system_id: str, entry: MoveRecord) -> None:
        used = msgspec.structs.replace(entry, phase="copying")
        await change_phase(await self.store(name), name, system_id, entry, used)

    def _frozen(self, places: Places) -> dict[str, tuple[str, MoveRecord]]:
        found: dict[str, tuple[str, MoveRecord]] = {}
        busy = {name: known.record.moves for name, known in self._records.items() if known.record.moves}
        for system_id, place in places.items() if busy else ():
            if isinstance(place, Place):
                entry = busy.get(place.store, {}).get(system_id)
                if entry is not None and entry.phase == "frozen":
                    found[system_id] = (place.store, entry)
        return found

    async def _current(self, systems: Sequence[str]) -> Places:
        found: Places = {}
        unsure: list[str] = []
        for system_id in systems:
            place = self._places.get(system_id)
            known = None if place is None else self._records.get(place.store)
            if place is not None and known is not None and place.seen == known.version:
                found[system_id] = place
            else:
                unsure.append(system_id)
        if unsure:
            found.update(await self._look_up(unsure))
        return found

    async def _look_up(self, systems: Sequence[str]) -> Places:
        """Ask the stores, many systems at a time, and remember the answers."""
        found: Places = {}
        pending: dict[str, Sought] = {}
        for system_id in systems:
            place = self._places.get(system_id)
            name = self._ring.place(system_id) if place is None else place.store
            pending.setdefault(name, {})[system_id] = None
        for _ in range(HOPS_MAX):
            if not pending:
                break
            following: dict[str, Sought] = {}
            for name, sought in pending.items():
                await self._ask(name, sought, found, following)
            pending = following
        if pending:
            raise StoreCorruptError(f"the placements of {sorted(next(iter(pending.values())))[:3]} lead nowhere")
        if len(self._places) + len(found) > PLACES_MAX:
            self._places.clear()
        self._places.update((key, place) for key, place in found.items() if isinstance(place, Place))
        return found

    async def _ask(self, name: str, sought: Sought, found: Places, following: dict[str, Sought]) -> None:
        try:
            # The record first: a place is never newer than the record that it is said to be good for.
            seen = (await self.known(name)).version
            documents = await self._placements(name, list(sought))
        except StoreConnectionError as error:
            await self._ask_others(name, sought, found, error)
            return
        homeless: Sought = {}
        for system_id, sign in sought.items():
            document = documents.get(system_id)
            placement = None if document is None else placement_of(document)
            if placement is None or document is None or (sign is not None and placement.epoch < sign.epoch):
                if sign is not None:
                    await arrive(await self.store(name), name, system_id, sign.move)
                    following.setdefault(name, {})[system_id] = sign
                elif self.is_outdated:
                    homeless[system_id] = None
                else:
                    found[system_id] = Place(name, 0, 0, seen)
            elif placement.at == name:
                found[system_id] = Place(name, document[VERSION_KEY], placement.epoch, seen)
            else:
                following.setdefault(placement.at, {})[system_id] = placement
        if homeless:
            await self._ask_others(name, homeless, found, None)

    async def _ask_others(self, away: str, sought: Sought, found: Places, error: StoreConnectionError | None) -> None:
        """Find systems without the store that should know: whatever other store has them says so itself."""
        left = dict(sought)
        for name in self.stores:
            if name == away or not left:
                continue
            try:
                seen = (await self.known(name)).version
                documents = await self._placements(name, list(left))
            except StoreConnectionError as also_away:
                error = error or also_away
                continue
            for system_id, document in documents.items():
                if placement_of(document).at == name:
                    found[system_id] = Place(name, document[VERSION_KEY], placement_of(document).epoch, seen)
                    del left[system_id]
        if left and error is None:
            raise ConfigurationError(
                f"the list of stores was changed, and none that this node knows has {min(left)!r}: start it with "
                "the list of all",
                {"systems": sorted(left)[:10]},
            )
        for system_id in left:
            found[system_id] = error or StoreConnectionError(f"store {away!r} did not answer")

    async def _placements(self, name: str, systems: Sequence[str]) -> dict[str, Document]:
        store = await self.store(name)
        found: dict[str, Document] = {}
        with named(name):
            if len(systems) == 1:
                document = await store.documents.get_document(PLACEMENTS, systems[0])
                return {} if document is None else {systems[0]: document}
            for start in range(0, len(systems), ASKED_MAX):
                query = {"_id": {"$in": list(systems[start : start + ASKED_MAX])}}
                for document in await store.documents.find_documents(PLACEMENTS, query):
                    found[document["_id"]] = document
        return found


def _found(place: Place | StoreConnectionError) -> Place:
    if isinstance(place, Place):
        return place
    raise place
