"""Knowledge learned from the past, by id and by type."""

from __future__ import annotations

from polaris.domain import LearnedPattern
from polaris.storage._repository import DocumentRepository


class LearnedPatternRepository(DocumentRepository[LearnedPattern]):
    """What the system has learned."""

    collection = "learned_patterns"
    entity = LearnedPattern
    key = "pattern_id"

    async def prepare(self) -> None:
        """Create the index that the finds below use. Idempotent; `PolarisDataStore.connect` does it."""
        await self.documents.create_index(self.collection, ["pattern_type", "confidence"])

    async def find_by_type(
        self, pattern_type: str, *, confidence_min: float = 0.0, limit: int | None = None
    ) -> list[LearnedPattern]:
        """The patterns of a type with at least this confidence, the most certain first."""
        query = {"pattern_type": pattern_type, "confidence": {"$gte": confidence_min}}
        return await self.find(query, limit=limit, sort="-confidence")
