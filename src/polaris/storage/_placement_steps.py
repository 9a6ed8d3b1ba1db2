"""The steps that change what a store records of itself: each one transaction, each safe to repeat."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

import msgspec

from polaris.exceptions import ConfigurationError, ConflictError, StoreConnectionError
from polaris.storage._data_store import PolarisDataStore
from polaris.storage._placement import (
    PLACEMENTS,
    PROGRESS,
    RECORD_ID,
    ROUTING,
    MoveRecord,
    Placement,
    StoreRecord,
    document_of,
    record_of,
)
from polaris.storage._unit_of_work import PolarisUnitOfWork

T = TypeVar("T")

ATTEMPTS_MAX = 50
"""Attempts of a step whose transaction meets others."""


class MoveTakenOverError(ConflictError):
    """Somebody else goes on with this move, or has finished it; nothing was done."""


@contextmanager
def named(name: str) -> Iterator[None]:
    """Say in the error which store could not be reached."""
    try:
        yield
    except StoreConnectionError as error:
        if "store" in error.context:
            raise
        raise StoreConnectionError(f"store {name!r}: {error.message}", {"store": name}) from error


async def in_record(
    store: PolarisDataStore, name: str, body: Callable[[PolarisUnitOfWork, StoreRecord], Awaitable[T]]
) -> T:
    """Run `body` in a unit of work that has read the store's record; repeated when others changed what it read."""

    async def run(work: PolarisUnitOfWork) -> T:
        document = await work.documents.get_document(ROUTING, RECORD_ID)
        if document is None:
            raise ConfigurationError(f"store {name!r} is not known as one of several: it has no record of the others")
        return await body(work, record_of(document))

    with named(name):
        return await store.in_unit_of_work(run, attempts_max=ATTEMPTS_MAX)


async def write_record(work: PolarisUnitOfWork, record: StoreRecord) -> None:
    """Replace the record; whoever is writing on the ground of the former one begins anew."""
    await work.documents.put_document(ROUTING, RECORD_ID, document_of(record))


async def write_moves(work: PolarisUnitOfWork, record: StoreRecord, system_id: str, entry: MoveRecord | None) -> None:
    """Replace what the record says of the move of one system; None takes it away."""
    moves: Mapping[str, MoveRecord] = {key: value for key, value in record.moves.items() if key != system_id}
    if entry is not None:
        moves = {**moves, system_id: entry}
    await write_record(work, msgspec.structs.replace(record, moves=moves))


async def write_placement(work: PolarisUnitOfWork, placement: Placement) -> None:
    """Record where a system is."""
    await work.documents.put_document(PLACEMENTS, placement.system_id, document_of(placement))


async def arrive(store: PolarisDataStore, name: str, system_id: str, move: str) -> None:
    """Let a system be used at the target of its move, now that the source has let it go. Anybody may do it, and again.

    Only after the source says so: the signpost there names the move. Does nothing when that is not the move under way.
    """

    async def body(work: PolarisUnitOfWork, record: StoreRecord) -> None:
        entry = record.moves.get(system_id)
        if entry is not None and entry.move == move and entry.phase == "arriving":
            await write_placement(work, Placement(system_id, name, entry.epoch, move))
            await write_moves(work, record, system_id, None)
            await work.documents.delete_document(PROGRESS, system_id)

    await in_record(store, name, body)


async def change_phase(
    store: PolarisDataStore, name: str, system_id: str, former: MoveRecord, entry: MoveRecord | None
) -> bool:
    """Replace the entry of a move, or take it away; False when it is no longer the former one."""

    async def body(work: PolarisUnitOfWork, record: StoreRecord) -> bool:
        if record.moves.get(system_id) != former:
            return False
        await write_moves(work, record, system_id, entry)
        return True

    return await in_record(store, name, body)
