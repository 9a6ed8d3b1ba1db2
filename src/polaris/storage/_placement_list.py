"""The list of the stores, recorded in each of them: who may be started with which list, and how it is changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from polaris.exceptions import ConfigurationError, StoreConnectionError
from polaris.storage._data_store import PolarisDataStore
from polaris.storage._documents import ID_KEY
from polaris.storage._placement import (
    MARKS,
    PLACEMENTS,
    RECORD_ID,
    ROUTING,
    Placement,
    Rendezvous,
    StoreList,
    StoreRecord,
    document_of,
    placement_of,
    record_of,
    value_at,
)
from polaris.storage._placement_steps import named
from polaris.storage._unit_of_work import PolarisUnitOfWork
from polaris.storage.repositories._state_codec import SYSTEM_TAG

PAGE = 500

Stores = Mapping[str, PolarisDataStore]
Records = dict[str, StoreRecord | None]


async def prepare(store: PolarisDataStore, name: str, listing: StoreList) -> None:
    """Create the indexes that routing and moving use. Idempotent."""
    with named(name):
        await store.documents.create_index(MARKS, "system_id")
        await store.documents.create_index(PLACEMENTS, "at")
        for collection, path in listing.documents.items():
            await store.documents.create_index(collection, path)


async def read_record(store: PolarisDataStore, name: str) -> StoreRecord | None:
    """What a store records of itself, None for one that was never one of several."""
    with named(name):
        document = await store.documents.get_document(ROUTING, RECORD_ID)
    return None if document is None else record_of(document)


def problems_of(records: Records, wanted: StoreList) -> list[str]:
    """Why a node must not start with this list, as far as the records that could be read tell."""
    found: list[str] = []
    generations = {record.generation for record in records.values() if record is not None}
    for name, record in sorted(records.items()):
        if record is None:
            found.append(f"store {name!r} is new to the others: start once with connect(adopt=True)")
        elif record.name != name:
            found.append(f"store {name!r} calls itself {record.name!r}: were two of them exchanged?")
        elif record.adopting or record.generation != max(generations):
            found.append(f"store {name!r}: a change of the list was not finished; start once with connect(adopt=True)")
        elif record.stores != wanted:
            found.extend(f"store {name!r} records {problem}" for problem in _differences(record.stores, wanted))
    return found


def _differences(recorded: StoreList, wanted: StoreList) -> Iterator[str]:
    for field in StoreList.__struct_fields__:
        was, is_now = getattr(recorded, field), getattr(wanted, field)
        if was != is_now:
            yield f"{field} {was!r}, this node has {is_now!r}"


async def adopt(stores: Stores, wanted: StoreList) -> None:
    """Make `wanted` the list of all stores, which must all be connected. May be repeated, and must be when it failed.

    From its first step on, nodes with another list place no new systems; those that are placed go on. In the end every
    system that was anywhere has a placement there, and a signpost in the store that the hash names now.
    """
    records = {name: await read_record(store, name) for name, store in stores.items()}
    generation = _next_generation(records, wanted)
    if generation is None:
        return
    for name, store in stores.items():
        await prepare(store, name, wanted)
        await _write(store, name, generation, wanted, adopting=True)
    for name, store in stores.items():
        former = records[name]
        if former is None or former.adopting:
            await _take_in(store, name, wanted)
    await _refuse_doubles(stores)
    ring = Rendezvous(wanted.weights)
    for name, store in stores.items():
        await _put_up_signs(stores, ring, name, store)
    for name, store in stores.items():
        await _write(store, name, generation, wanted, adopting=False)


def _next_generation(records: Records, wanted: StoreList) -> int | None:
    """The number of the new list; None when it is recorded everywhere already. Raises `ConfigurationError`."""
    known = [record for record in records.values() if record is not None]
    problems = [
        f"store {name!r} calls itself {record.name!r}: were two of them exchanged?"
        for name, record in records.items()
        if record is not None and record.name != name
    ]
    recorded = {name for record in known for name in record.stores.weights}
    problems += [
        f"store {name!r} is recorded and not among those given: move its systems away, then remove_store()"
        for name in sorted(recorded - set(wanted.weights))
    ]
    problems += [
        f"shared: {record.stores.shared!r} keeps what belongs to no system; it cannot be changed to {wanted.shared!r}"
        for record in known[:1]
        if record.stores.shared != wanted.shared
    ]
    if problems:
        raise ConfigurationError(problems=problems)
    newest = max((record.generation for record in known), default=0)
    if len(known) == len(records) and all(one.stores == wanted and one.generation == newest for one in known):
        return newest if any(one.adopting for one in known) else None
    unfinished = [one for one in known if one.generation == newest]
    if unfinished and all(one.stores == wanted and one.adopting for one in unfinished):
        return newest
    return newest + 1


async def _write(store: PolarisDataStore, name: str, generation: int, wanted: StoreList, *, adopting: bool) -> None:
    async def body(work: PolarisUnitOfWork) -> None:
        document = await work.documents.get_document(ROUTING, RECORD_ID)
        moves = {} if document is None else record_of(document).moves
        record = StoreRecord(name, generation, wanted, adopting, moves)
        await work.documents.put_document(ROUTING, RECORD_ID, document_of(record))

    with named(name):
        await store.in_unit_of_work(body)


async def _take_in(store: PolarisDataStore, name: str, wanted: StoreList) -> None:
    """Place here what a store had before it was one of several."""
    with named(name):
        for collection in wanted.series:
            after: Mapping[str, str] | None = None
            while page := await store.time_series.list_series(collection, limit=PAGE, after=after):
                await _place(store, name, {tags[SYSTEM_TAG] for tags in page if SYSTEM_TAG in tags})
                after = page[-1]
        for collection, path in wanted.documents.items():
            last: str | None = None
            while documents := await store.documents.find_documents(collection, {}, PAGE, after=last):
                owners = {value_at(document, path) for document in documents}
                await _place(store, name, {owner for owner in owners if isinstance(owner, str)})
                last = documents[-1][ID_KEY]


async def _place(store: PolarisDataStore, name: str, systems: set[str]) -> None:
    """Give systems without any placement in this store one."""

    async def body(work: PolarisUnitOfWork) -> None:
        found = await work.documents.find_documents(PLACEMENTS, {ID_KEY: {"$in": sorted(systems)}})
        record = await work.documents.get_document(ROUTING, RECORD_ID)
        copies = set() if record is None else set(record_of(record).moves)
        new = sorted(systems - copies - {document[ID_KEY] for document in found})
        documents = [{**document_of(Placement(system_id, name)), ID_KEY: system_id} for system_id in new]
        if documents:
            await work.documents.put_documents(PLACEMENTS, documents)

    if systems:
        await store.in_unit_of_work(body)


async def _pages_here(store: PolarisDataStore, name: str) -> Sequence[Sequence[Placement]]:
    """The placements of the systems that are in this store."""
    pages: list[list[Placement]] = []
    last: str | None = None
    with named(name):
        while page := await store.documents.find_documents(PLACEMENTS, {"at": name}, PAGE, after=last):
            pages.append([placement_of(document) for document in page])
            last = page[-1][ID_KEY]
    return pages


async def _refuse_doubles(stores: Stores) -> None:
    """Two stores that were used apart may both have a system of the same name: nobody can tell which is right."""
    homes: dict[str, str] = {}
    problems: list[str] = []
    for name, store in stores.items():
        for page in await _pages_here(store, name):
            for placement in page:
                other = homes.setdefault(placement.system_id, name)
                if other != name and len(problems) < PAGE:
                    problems.append(f"system {placement.system_id!r} is in store {other!r} and in {name!r}")
    if problems:
        raise ConfigurationError(problems=problems)


async def _put_up_signs(stores: Stores, ring: Rendezvous, name: str, store: PolarisDataStore) -> None:
    """Let every look-up, which begins where the hash says, find the systems that are in this store."""
    for page in await _pages_here(store, name):
        elsewhere: dict[str, list[Placement]] = {}
        for placement in page:
            begin = ring.place(placement.system_id)
            if begin != name:
                elsewhere.setdefault(begin, []).append(placement)
        for begin, placements in elsewhere.items():
            await _sign(stores[begin], begin, placements)


async def _sign(store: PolarisDataStore, name: str, placements: Sequence[Placement]) -> None:
    async def body(work: PolarisUnitOfWork) -> None:
        ids = [placement.system_id for placement in placements]
        found = await work.documents.find_documents(PLACEMENTS, {ID_KEY: {"$in": ids}})
        epochs = {document[ID_KEY]: placement_of(document).epoch for document in found}
        newer = [one for one in placements if one.epoch > epochs.get(one.system_id, 0)]
        if newer:
            documents = [{**document_of(one), ID_KEY: one.system_id} for one in newer]
            await work.documents.put_documents(PLACEMENTS, documents)

    with named(name):
        await store.in_unit_of_work(body)


async def drop(stores: Stores, name: str) -> None:
    """Take an empty store out of the list of all. It says so itself from then on. May be repeated."""
    records = {one: await read_record(store, one) for one, store in stores.items()}
    record = records[name]
    if record is None:
        raise ConfigurationError(f"store {name!r} has no record of the others")
    problems: list[str] = []
    if record.stores.shared == name:
        problems.append(f"store {name!r} keeps what belongs to no system")
    if record.stores.weights.get(name, 0):
        problems.append(f"store {name!r} is still given new systems: adopt the list with weight 0 for it first")
    if record.moves or await stores[name].documents.count(PLACEMENTS, {"at": name}):
        problems.append(f"store {name!r} still has systems: move them away first")
    if problems:
        raise ConfigurationError(problems=problems)
    weights = {one: weight for one, weight in record.stores.weights.items() if one != name}
    wanted = msgspec.structs.replace(record.stores, weights=weights)
    generation = max(one.generation for one in records.values() if one is not None) + 1
    # The one that goes first: nobody can begin to use it again while the others change.
    for one in sorted(stores, key=lambda other: other != name):
        await _write(stores[one], one, generation, wanted, adopting=False)


async def check(stores: Stores, away: Mapping[str, StoreConnectionError], wanted: StoreList) -> None:
    """Refuse a list that is not the recorded one; the very first list is recorded. `away`: stores that do not answer.

    Raises `ConfigurationError` with all problems, `StoreConnectionError` when nothing is recorded and not all answer.
    """
    records = {name: await read_record(store, name) for name, store in stores.items()}
    if all(record is None for record in records.values()):
        if away:
            raise next(iter(away.values()))
        await adopt(stores, wanted)
        return
    problems = problems_of(records, wanted)
    if problems:
        raise ConfigurationError(problems=problems)
