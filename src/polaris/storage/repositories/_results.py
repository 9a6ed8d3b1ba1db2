"""What came of actions, by action id and newest first."""

from __future__ import annotations

from polaris.domain import ExecutionResult
from polaris.storage._documents import Document
from polaris.storage._ranges import to_micros
from polaris.storage._repository import DocumentRepository


class ExecutionResultRepository(DocumentRepository[ExecutionResult]):
    """The latest result of every action: saving a later one of the same action replaces the earlier.

    Newest first means by time of completion; results that are not completed count by their start, and come last when
    they have neither.
    """

    collection = "execution_results"
    entity = ExecutionResult
    key = "action_id"

    async def prepare(self) -> None:
        """Create the indexes that the finds below use. Idempotent; `PolarisDataStore.connect` does it."""
        await self.documents.create_index(self.collection, ["ended_us"])
        await self.documents.create_index(self.collection, ["status", "ended_us"])

    async def find_by_action(self, action_id: str) -> ExecutionResult | None:
        """The result of the action, or None while there is none."""
        return await self.find_by_id(action_id)

    async def find_by_actions(self, action_ids: list[str]) -> dict[str, ExecutionResult]:
        """The results of several actions (at most 1 000) by action id, without those that have none."""
        found = await self.find({"action_id": {"$in": action_ids}})
        return {result.action_id: result for result in found}

    async def newest(self, *, limit: int = 100, before: str | None = None) -> list[ExecutionResult]:
        """The results, newest first. `before` is the action id of the last result of the previous page."""
        return await self._newest({}, "ended_us", limit, before)

    def _document(self, entity: ExecutionResult) -> Document:
        document = super()._document(entity)
        ended = entity.completed_at or entity.started_at
        document["ended_us"] = None if ended is None else to_micros(ended)
        return document
