"""Asking all stores at once: each system counts where it is used, and nowhere else, also while systems are moved.

A double collect (Afek et al. 1993): what the stores record of moves is read before and after; when it is the same, all
answers are of one state of the placements, and otherwise they are asked again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, TypeVar

from polaris.exceptions import (
    DataStoreError,
    InvalidValueError,
    QueryError,
    StoreConnectionError,
    TransactionConflictError,
)
from polaris.resilience import Backoff
from polaris.storage._data_store import PolarisDataStore
from polaris.storage._placement import MoveRecord
from polaris.storage._placement_book import KnownRecord, PlacementBook
from polaris.storage.repositories._state_codec import SYSTEM_TAG

T = TypeVar("T")

ATTEMPTS_MAX = 20
_BACKOFF = Backoff(0.002, 0.1)


class View:
    """The stores that are asked, as they are at one moment."""

    def __init__(self, book: PlacementBook, records: Mapping[str, KnownRecord], answer_s_max: float) -> None:
        self._book = book
        self._answer_s_max = answer_s_max
        self.records = dict(records)
        self.names = tuple(records)

    def store(self, name: str) -> PolarisDataStore:
        """One of the stores; it is connected."""
        return self._book.stores[name]

    def left_out(self, name: str) -> list[str]:
        """The systems of which the store has points that do not count there: copies not finished, and remains."""
        return sorted(key for key, entry in self._moves(name).items() if not self._counts(name, key, entry))

    def _moves(self, name: str) -> Mapping[str, MoveRecord]:
        return self.records[name].record.moves

    def _counts(self, name: str, system_id: str, entry: MoveRecord) -> bool:
        if entry.phase != "arriving":
            return entry.phase != "gone"
        # The source has let it go, and only the last note of that is missing here.
        peer = self._moves(entry.peer).get(system_id) if entry.peer in self.records else None
        return peer is not None and peer.phase == "gone" and peer.move == entry.move

    def tags_at(self, name: str, tags: Mapping[str, Any] | None) -> dict[str, Any]:
        """The conditions on tags that leave out what does not count in the store."""
        chosen: dict[str, Any] = dict(tags or {})
        left_out = self.left_out(name)
        if left_out:
            former = chosen.get(SYSTEM_TAG, {})
            former = {"$eq": former} if isinstance(former, str) else dict(former)
            former["$nin"] = [*former.get("$nin", []), *left_out]
            chosen[SYSTEM_TAG] = former
        return chosen

    async def ask(self, question: Callable[[str, PolarisDataStore], Awaitable[T]]) -> dict[str, T]:
        """The answers of all, by name. Raises `StoreConnectionError` that names those which did not answer."""
        return await asked(self._book, self.names, question, self._answer_s_max)


async def asked(
    book: PlacementBook,
    names: Collection[str],
    question: Callable[[str, PolarisDataStore], Awaitable[T]],
    answer_s_max: float,
) -> dict[str, T]:
    """Ask several stores at once; either all answer, or the error says which did not."""

    async def one(name: str) -> T | DataStoreError:
        try:
            async with asyncio.timeout(answer_s_max):
                return await question(name, await book.store(name))
        except TimeoutError:
            return StoreConnectionError(f"store {name!r} did not answer within {answer_s_max} s", {"store": name})
        except (QueryError, TransactionConflictError):
            raise
        except DataStoreError as error:
            return error

    tasks = {name: asyncio.create_task(one(name)) for name in names}
    try:
        await asyncio.wait(tasks.values(), return_when=asyncio.FIRST_EXCEPTION)
        failed = [task for task in tasks.values() if task.done() and task.exception() is not None]
        if failed:
            failed[0].result()
        answers = {name: await task for name, task in tasks.items()}
    finally:
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)
    silent = {name: answer for name, answer in answers.items() if isinstance(answer, DataStoreError)}
    if silent:
        raise StoreConnectionError(
            f"{len(silent)} of {len(answers)} stores did not answer: "
            + "; ".join(f"{name}: {error.message}" for name, error in sorted(silent.items())),
            {"stores": sorted(silent), "answered": sorted(set(answers) - set(silent))},
        ) from next(iter(silent.values()))
    return {name: answer for name, answer in answers.items() if not isinstance(answer, DataStoreError)}


async def consistent(
    book: PlacementBook,
    names: Collection[str],
    work: Callable[[View], Awaitable[T]],
    answer_s_max: float,
) -> T:
    """Do the work on a view of the stores that was right all the time; done again while systems move."""
    attempt = 0
    before = await asked(book, names, lambda name, _: book.refresh(name), answer_s_max)
    while True:
        attempt += 1
        result = await work(View(book, before, answer_s_max))
        after = await asked(book, names, lambda name, _: book.refresh(name), answer_s_max)
        if {name: one.version for name, one in after.items()} == {name: one.version for name, one in before.items()}:
            return result
        if attempt >= ATTEMPTS_MAX:
            raise TransactionConflictError("systems move all the time; ask again later")
        before = after
        await asyncio.sleep(_BACKOFF.delay_s(attempt))


def checked_names(stores: Collection[str] | None, known: Collection[str]) -> tuple[str, ...]:
    """The stores to ask: all, or those that are named. Raises `InvalidValueError` for one that is unknown."""
    if stores is None:
        return tuple(known)
    unknown = sorted(set(stores) - set(known)) if not isinstance(stores, str) else [stores]
    if unknown or not stores:
        raise InvalidValueError("stores", f"names among {', '.join(sorted(known))}", stores)
    return tuple(dict.fromkeys(stores))
