"""Moving a system to another store while it is used: copied, then marked windows again, frozen for a moment, switched.

Each step is one transaction in one store, that checks whose move the store's record says it is. The steps, and why no
write is lost and none doubled wherever it stops: docs/adr/0009-routing.md.
"""

from __future__ import annotations

from contextlib import suppress

import msgspec

from polaris.exceptions import ConflictError, DataStoreError, PolarisException
from polaris.ids import new_id
from polaris.storage._documents import ID_KEY, VERSION_KEY
from polaris.storage._placement import MARKS, MOVES_MAX, PLACEMENTS, MoveRecord, Placement, StoreRecord, placement_of
from polaris.storage._placement_book import PlacementBook
from polaris.storage._placement_marks import Mark, mark_of
from polaris.storage._placement_steps import (
    MoveTakenOverError,
    arrive,
    change_phase,
    in_record,
    named,
    write_moves,
    write_placement,
)
from polaris.storage._routing_copy import Copying, Side, lacks_points
from polaris.storage._unit_of_work import PolarisUnitOfWork

CATCH_UPS_MAX = 5
"""Rounds of copying what was written meanwhile before the system is frozen for the last of it."""
FREEZES_MAX = 20
MARKS_PAGE = 200


class SystemMove:
    """One move of one system, by whoever carries it out now."""

    def __init__(self, book: PlacementBook, system_id: str, source: str, target: str) -> None:
        self._book = book
        self.system_id = system_id
        self.source = source
        self.target = target

    async def check_rollups(self) -> None:
        """Refuse a system whose history is in rollups alone for a part: only points are copied."""
        source = await self._book.store(self.source)
        for collection in (await self._book.known(self.source)).record.stores.series:
            with named(self.source):
                if await lacks_points(source.time_series, collection, self.system_id):
                    raise ConflictError(
                        f"{self.system_id!r} has points in {collection!r} of which only rollups are left, and a move "
                        "does not carry them; it goes on without them when asked to drop_rollups",
                        {"system_id": self.system_id, "collection": collection},
                    )

    async def run(self) -> None:
        """Begin the move, or take it over where it is, and finish it."""
        source, target = await self._book.store(self.source), await self._book.store(self.target)
        entry = await in_record(source, self.source, self._begin)
        if entry.phase != "gone":
            await self._receive(entry)
            here = Side(source, self.source, self.system_id, entry)
            there = Side(target, self.target, self.system_id, _arriving(entry, self.source))
            entry = await self._carry(here, there)
        await self.finish(entry)

    async def finish(self, entry: MoveRecord) -> None:
        """What is left to do once the source has let the system go: nothing of it can go wrong for its users."""
        await arrive(await self._book.store(self.target), self.target, self.system_id, entry.move)
        self._book.forget([self.system_id])
        await self._put_up_sign(entry)
        await self.clear_source(entry)

    async def _begin(self, work: PolarisUnitOfWork, record: StoreRecord) -> MoveRecord:
        """Write the move into the record of the source, under a new name: nobody else goes on with it now."""
        former = record.moves.get(self.system_id)
        if former is not None and former.phase == "gone" and former.peer == self.target:
            return former
        if former is not None and former.peer != self.target:
            raise ConflictError(
                f"{self.system_id!r} is being moved between {self.source!r} and {former.peer!r}: finish that first",
                {"system_id": self.system_id, "store": self.source, "peer": former.peer},
            )
        document = await work.documents.get_document(PLACEMENTS, self.system_id)
        placement = Placement(self.system_id, self.source) if document is None else placement_of(document)
        if placement.at != self.source:
            raise ConflictError(f"{self.system_id!r} is not in store {self.source!r} any more")
        _check_room(record, self.system_id)
        if document is None:
            await write_placement(work, placement)
        move = new_id()
        copy_id = move if former is None else former.copy_id
        entry = MoveRecord(move, self.target, "copying", placement.epoch + 1, copy_id)
        await write_moves(work, record, self.system_id, entry)
        return entry

    async def _receive(self, entry: MoveRecord) -> None:
        """Write the move into the record of the target, before anything is copied there."""
        store = await self._book.store(self.target)

        async def body(work: PolarisUnitOfWork, record: StoreRecord) -> MoveRecord | None:
            document = await work.documents.get_document(PLACEMENTS, self.system_id)
            if document is not None and placement_of(document).epoch >= entry.epoch:
                raise MoveTakenOverError(f"the move of {self.system_id!r} is over: it was taken over")
            former = record.moves.get(self.system_id)
            if former is not None and former.phase != "arriving":
                return former
            _check_room(record, self.system_id)
            await write_moves(work, record, self.system_id, _arriving(entry, self.source))
            return None

        left = await in_record(store, self.target, body)
        if left is not None:
            # The remains of an earlier move away from here.
            await SystemMove(self._book, self.system_id, self.target, left.peer).clear_source(left)
            await in_record(store, self.target, body)

    async def _carry(self, here: Side, there: Side) -> MoveRecord:
        """Copy everything and switch; gives what the record of the source says then."""
        listing = (await self._book.refresh(self.source)).record.stores
        copying = Copying(here, there, listing.series, listing.documents)
        await copying.copy_all()
        for _ in range(FREEZES_MAX):
            for _ in range(CATCH_UPS_MAX):
                if not await self._catch_up(copying):
                    break
            used = here.entry
            frozen = msgspec.structs.replace(used, phase="frozen")
            if not await change_phase(here.store, self.source, self.system_id, used, frozen):
                raise MoveTakenOverError(f"the move of {self.system_id!r} was taken over")
            here.entry = frozen
            try:
                while await self._catch_up(copying):
                    pass
                gone = await self._switch(here)
            except MoveTakenOverError:
                here.entry = used
                await here.step(_nothing)  # raises unless writers took the system back into use
                gone = None
            except BaseException:  # boundary: given back to its writers, then raised again
                with suppress(PolarisException):
                    await change_phase(here.store, self.source, self.system_id, frozen, used)
                raise
            if gone is not None:
                return gone
            here.entry = used
        raise DataStoreError(
            f"{self.system_id!r} is written so much that it could not be moved; the move waits to be resumed",
            {"system_id": self.system_id},
        )

    async def _catch_up(self, copying: Copying) -> bool:
        """Copy again what was written meanwhile; False when there was nothing."""
        source = copying.source
        with named(self.source):
            query = {"system_id": self.system_id}
            found = await source.store.documents.find_documents(MARKS, query, MARKS_PAGE)
        marks = [mark_of(document) for document in found]
        for mark, _ in marks:
            await copying.carry_mark(mark)
        if marks:
            await source.step(lambda work, _: _take_down(work, marks))
        return bool(marks)

    async def _switch(self, here: Side) -> MoveRecord | None:
        """The one moment: the source lets the system go, if nothing is left to copy."""

        async def body(work: PolarisUnitOfWork, record: StoreRecord) -> MoveRecord | None:
            if await work.documents.find_documents(MARKS, {"system_id": self.system_id}, 1):
                return None
            entry = msgspec.structs.replace(here.entry, phase="gone")
            await write_placement(work, Placement(self.system_id, self.target, entry.epoch, entry.move))
            await write_moves(work, record, self.system_id, entry)
            return entry

        return await here.step(body)

    async def _put_up_sign(self, entry: MoveRecord) -> None:
        """Let the store that the hash names point to the target directly; without it the way is only longer."""
        name = self._book.hashed(self.system_id)
        if name in (self.source, self.target):
            return

        async def body(work: PolarisUnitOfWork, record: StoreRecord) -> None:
            document = await work.documents.get_document(PLACEMENTS, self.system_id)
            if document is not None and placement_of(document).epoch < entry.epoch:
                await write_placement(work, Placement(self.system_id, self.target, entry.epoch, entry.move))

        with suppress(DataStoreError):
            await in_record(await self._book.store(name), name, body)

    async def clear_source(self, entry: MoveRecord) -> None:
        """Delete what the source still has, then the move itself."""
        side = Side(await self._book.store(self.source), self.source, self.system_id, entry)
        listing = (await self._book.refresh(self.source)).record.stores
        try:
            await side.clear(listing.series, listing.documents)
            await side.step(lambda work, record: write_moves(work, record, self.system_id, None))
        except MoveTakenOverError:
            return  # somebody else has finished it

    async def abandon(self) -> None:
        """Give the move up while the system is still used at the source; what was copied is deleted at the target."""
        source = await self._book.store(self.source)

        async def body(work: PolarisUnitOfWork, record: StoreRecord) -> None:
            entry = record.moves.get(self.system_id)
            if entry is None or entry.phase not in ("copying", "frozen"):
                raise ConflictError(f"no move of {self.system_id!r} away from {self.source!r} can be given up")
            await work.documents.delete_documents(MARKS, {"system_id": self.system_id})
            await write_moves(work, record, self.system_id, None)

        await in_record(source, self.source, body)
        await self.clear_target()

    async def clear_target(self) -> None:
        """Delete what was copied to the target by a move that the source knows nothing of any more."""
        entry = (await self._book.refresh(self.target)).record.moves.get(self.system_id)
        if entry is None or entry.phase != "arriving" or entry.peer != self.source:
            return
        side = Side(await self._book.store(self.target), self.target, self.system_id, entry)
        listing = (await self._book.known(self.target)).record.stores
        await side.clear(listing.series, listing.documents)
        await side.step(lambda work, record: write_moves(work, record, self.system_id, None))


def _arriving(entry: MoveRecord, source: str) -> MoveRecord:
    return msgspec.structs.replace(entry, peer=source, phase="arriving")


def _check_room(record: StoreRecord, system_id: str) -> None:
    if system_id not in record.moves and len(record.moves) >= MOVES_MAX:
        raise ConflictError(f"store {record.name!r} takes part in {MOVES_MAX} moves already; finish them first")


async def _take_down(work: PolarisUnitOfWork, marks: list[tuple[Mark, int]]) -> None:
    """Delete the marks that nobody has made again meanwhile."""
    for version in sorted({version for _, version in marks}):
        ids = [mark.mark_id for mark, one in marks if one == version]
        await work.documents.delete_documents(MARKS, {ID_KEY: {"$in": ids}, VERSION_KEY: version})


async def _nothing(work: PolarisUnitOfWork, record: StoreRecord) -> None:
    """A step that only checks whose move it is."""
