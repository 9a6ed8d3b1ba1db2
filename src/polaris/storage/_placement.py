"""Where a managed system belongs: rendezvous hashing, and the documents that record what was decided."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, Literal, TypeVar, cast

import msgspec

from polaris.exceptions import StoreCorruptError
from polaris.storage._documents import Document
from polaris.storage.repositories._states import STATES

PLACEMENTS = "polaris.placements"
"""One document for each system that a store keeps or has kept, by its id."""
ROUTING = "polaris.routing"
RECORD_ID = "store"
"""The one document of `ROUTING`: what a store knows about itself and the others."""
MARKS = "polaris.moved_writes"
"""What was written of systems while they were being copied, so that it is copied again."""
PROGRESS = "polaris.moves"
"""How far the copying of a system has come, at the store that it is copied to."""

STORES_MAX = 64
WEIGHT_MAX = 100
MOVES_MAX = 100
"""Moves that one store takes part in at once."""

OWNERS = {"adaptation_actions": "target_system", "execution_results": "target_system"}
"""The collections of documents that belong to systems, and the key that says to which."""
SERIES = (STATES,)

T = TypeVar("T")
Phase = Literal["copying", "frozen", "gone", "arriving"]


class Rendezvous:
    """Gives every system its store by the highest random weight (Thaler and Ravishankar 1998).

    Each store draws as many lots as its weight says; the highest lot of all wins, so a store of weight 2 gets twice the
    systems of one of weight 1. Another store takes its share from all and moves nothing between the others. The lots
    are integers of BLAKE2b: the same on every machine, in every version. A store of weight 0 gets nothing new.
    """

    def __init__(self, weights: Mapping[str, int]) -> None:
        self._lots = [
            (name, blake2b(f"{name}\x1f{turn}\x1f".encode(), digest_size=8))
            for name, weight in sorted(weights.items())
            for turn in range(weight)
        ]

    def place(self, system_id: str) -> str:
        """The name of the store that the system belongs to while nothing else was decided."""
        key = system_id.encode()
        best, winner = b"", ""
        for name, start in self._lots:
            lot = start.copy()
            lot.update(key)
            drawn = lot.digest()
            if drawn > best:
                best, winner = drawn, name
        return winner


class Placement(msgspec.Struct, frozen=True):
    """What a store knows of one system: that it is here, when `at` is the store's own name, or where it went.

    `epoch` grows by one with every move; of two placements the one of the higher epoch is the true one. `move` names
    the move that brought it `at`; a system may not be used there before that move has arrived.
    """

    system_id: str
    at: str
    epoch: int = 1
    move: str = ""


class MoveRecord(msgspec.Struct, frozen=True):
    """A system that a store takes part in moving.

    At the source: `copying` while it is used and copied, `frozen` while nobody may write it, `gone` when it is used at
    the `peer` and its remains have to be deleted. At the target: `arriving`. `move` changes whenever somebody takes the
    move over, so that whoever had it before can do nothing any more. `epoch` is that of the placement after it.
    """

    move: str
    peer: str
    phase: Phase
    epoch: int
    copy_id: str
    """The same from the beginning of the copying to its end, whoever does it: what was copied is of this copying."""


class StoreList(msgspec.Struct, frozen=True):
    """What all nodes that use the stores must agree on."""

    weights: dict[str, int]
    shared: str
    """The store for what belongs to no system: dependencies and patterns."""
    series: list[str]
    documents: dict[str, str]


class StoreRecord(msgspec.Struct, frozen=True):
    """What a store records about itself, the list of stores and the moves that it takes part in.

    Every write through the routing reads it in its own transaction, so whoever changes it stops the writes that were
    decided before. It changes when the list does and in the steps of a move, not otherwise.
    """

    name: str
    generation: int
    stores: StoreList
    adopting: bool = False
    moves: dict[str, MoveRecord] = {}


def placement_of(document: Mapping[str, Any]) -> Placement:
    """The placement that a document is. Raises `StoreCorruptError`."""
    return _converted(document, Placement, PLACEMENTS)


def record_of(document: Mapping[str, Any]) -> StoreRecord:
    """The record that a document is. Raises `StoreCorruptError`."""
    return _converted(document, StoreRecord, ROUTING)


def document_of(value: Placement | StoreRecord) -> Document:
    """The document that keeps a placement or a record."""
    return cast(Document, msgspec.to_builtins(value))


def value_at(document: Mapping[str, Any], path: str) -> Any:
    """What a dotted path leads to in a document, None where it leads nowhere."""
    found: Any = document
    for key in path.split("."):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def _converted(document: Mapping[str, Any], kind: type[T], collection: str) -> T:
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        raise StoreCorruptError(f"{collection}/{document.get('_id')!r} is no {kind.__name__}: {error}") from error
