"""Adaptation actions by id and by the system they change."""

from __future__ import annotations

from polaris.domain import AdaptationAction
from polaris.storage._documents import Document
from polaris.storage._ranges import from_micros, to_micros
from polaris.storage._repository import DocumentRepository


class AdaptationActionRepository(DocumentRepository[AdaptationAction]):
    """Every action that was asked for. The creation time is kept in microseconds, so that it sorts."""

    collection = "adaptation_actions"
    entity = AdaptationAction
    key = "action_id"

    async def prepare(self) -> None:
        """Create the indexes that the finds below use. Idempotent; `PolarisDataStore.connect` does it."""
        await self.documents.create_index(self.collection, ["target_system", "created_us"])
        await self.documents.create_index(self.collection, ["created_us"])

    async def find_by_system(
        self, system_id: str, *, limit: int = 100, before: str | None = None
    ) -> list[AdaptationAction]:
        """The actions on one system, newest first. `before` is the id of the last action of the previous page."""
        return await self._newest({"target_system": system_id}, "created_us", limit, before)

    async def newest(self, *, limit: int = 100, before: str | None = None) -> list[AdaptationAction]:
        """The actions on all systems, newest first, paged in the same way."""
        return await self._newest({}, "created_us", limit, before)

    def _document(self, entity: AdaptationAction) -> Document:
        document = super()._document(entity)
        document["created_us"] = to_micros(entity.created_at)
        return document

    def _entity(self, document: Document) -> AdaptationAction:
        stamp = document.get("created_us")
        if isinstance(stamp, int):
            document = {**document, "created_at": from_micros(stamp)}
        return super()._entity(document)
