"""Knowledge learned from the past, by id, by type, and by the situations it speaks of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from polaris.domain import LearnedPattern
from polaris.exceptions import InvalidValueError, QueryError, StoreCorruptError
from polaris.storage._documents import Document, DocumentChanges
from polaris.storage._filter import Filter, parse_query
from polaris.storage._filter_match import matches
from polaris.storage._limits import checked_tree, rows_wanted, whole_answer
from polaris.storage._repository import DocumentRepository
from polaris.storage._turns import in_turns

PAGE_PATTERNS = 500
"""Patterns that a search holds in memory at a time."""


class LearnedPatternRepository(DocumentRepository[LearnedPattern]):
    """What the system has learned.

    The conditions of a pattern are a query about a situation: `{"cpu": {"$gt": 0.8}, "region": "eu"}` holds in the
    situation `{"cpu": 0.9, "region": "eu", "users": 7}`. An object without operators speaks of the fields below it:
    `{"cpu": {"load": {"$gt": 2}}}` means `cpu.load`. See `DocumentStorageBackend` for the operators. Conditions that
    cannot be understood are a `QueryError` when the pattern is saved, so that none is passed over when it is sought.
    """

    collection = "learned_patterns"
    entity = LearnedPattern
    key = "pattern_id"

    async def prepare(self) -> None:
        """Create the indexes that the finds below use. Idempotent; `PolarisDataStore.connect` does it."""
        await self.documents.create_index(self.collection, ["pattern_type", "confidence"])
        await self.documents.create_index(self.collection, "confidence")

    async def find_by_type(
        self, pattern_type: str, *, confidence_min: float = 0.0, limit: int | None = None
    ) -> list[LearnedPattern]:
        """The patterns of a type with at least this confidence, the most certain first; `limit` as in `find_all`."""
        return await self.find(_wanted(pattern_type, confidence_min), limit=limit, sort="-confidence")

    async def find_matching(
        self,
        situation: Mapping[str, Any],
        *,
        pattern_type: str | None = None,
        confidence_min: float = 0.0,
        limit: int | None = None,
    ) -> list[LearnedPattern]:
        """The patterns whose conditions hold in the situation, the most certain first; ties in order of their ids.

        Finding counts nothing: whoever acts on a pattern says so with `record_usage`. All patterns of the type and the
        confidence are looked at, in pages, until there are `limit` matches; without a limit more than 1 000 000 are a
        `QueryError`. Outside a unit of work the pages are read one after the other: a pattern that is saved meanwhile
        may be met or not.
        """
        checked = checked_tree("situation", situation)
        wanted, most = _wanted(pattern_type, confidence_min), rows_wanted(limit)
        found: list[LearnedPattern] = []
        after: Document | None = None
        while len(found) < most:
            page = await self.documents.find_documents(
                self.collection, wanted, PAGE_PATTERNS, sort="-confidence", after=after
            )
            found += [
                self._entity(document)
                async for document in in_turns(page)
                if matches(self._conditions(document), checked)
            ]
            if len(page) < PAGE_PATTERNS:
                break
            after = page[-1]
        return whole_answer(found[:most], "patterns", "give a limit, or a greater confidence_min")

    async def record_usage(self, pattern_id: str, *, times: int = 1) -> bool:
        """Add to the usage count of the pattern; False when there is none. Counts of many tasks at once all count.

        The count belongs to the stored pattern: `save` replaces it with that of the value that is saved.
        """
        if type(times) is not int or times < 1:
            raise InvalidValueError("times", "an integer of at least 1", times)
        return await self.documents.update_document(
            self.collection, pattern_id, DocumentChanges(increment={"usage_count": times})
        )

    def _document(self, entity: LearnedPattern) -> Document:
        document = super()._document(entity)
        condition_filter(entity.conditions)
        document["confidence"] = entity.confidence  # the encoder leaves defaults out, and a sort wants a number
        return document

    def _conditions(self, document: Document) -> Filter:
        try:
            return condition_filter(document.get("conditions", {}))
        except QueryError as error:
            raise StoreCorruptError(
                f"the conditions of {self.collection}/{document['_id']!r} are no query: {error}"
            ) from error


def condition_filter(conditions: Mapping[str, Any]) -> Filter:
    """The filter that the conditions of a pattern mean. Raises `QueryError`."""
    return parse_query(_flat(conditions, ""))


def _flat(conditions: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The conditions with dotted paths in the place of objects without operators."""
    found: dict[str, Any] = {}
    for key, value in conditions.items():
        path = prefix + key
        inner = isinstance(value, Mapping) and not any(str(name).startswith("$") for name in value)
        parts = _flat(value, f"{path}.") if inner and value and not key.startswith("$") else {path: value}
        for name, part in parts.items():
            if name in found:
                raise QueryError(f"conditions: {name} is named twice")
            found[name] = part
    return found


def _wanted(pattern_type: str | None, confidence_min: float) -> dict[str, Any]:
    wanted: dict[str, Any] = {} if pattern_type is None else {"pattern_type": pattern_type}
    if confidence_min > 0.0:  # a pattern of no confidence may have been stored without one
        wanted["confidence"] = {"$gte": confidence_min}
    return wanted
