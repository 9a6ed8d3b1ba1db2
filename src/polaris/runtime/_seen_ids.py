"""Handled events, remembered in the store: for handlers that must know a repetition after a restart too."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Collection, Sequence
from datetime import timedelta

from polaris.exceptions import InvalidValueError
from polaris.storage import DocumentStorageBackend

COLLECTION = "seen_events"
KEPT_S = 8 * 86_400.0
"""Longer than any stream of a node keeps what might be delivered again."""
KEPT_S_MAX = 3_650 * 86_400.0
FORGET_EVERY = 1_000


class StoredSeenIds:
    """`SeenIds` as documents of a store, each kept for `kept_s` seconds by its clock; what is older goes in passing.

    Give it to `DeduplicationMiddleware(seen=...)`. The backend stays the caller's. Raises what the backend raises.
    """

    def __init__(self, documents: DocumentStorageBackend, *, kept_s: float = KEPT_S) -> None:
        if isinstance(kept_s, bool) or not isinstance(kept_s, (int, float)) or not 0 < kept_s <= KEPT_S_MAX:
            raise InvalidValueError("kept_s", "seconds, over 0 and at most ten years", kept_s)
        self._documents = documents
        self._kept = timedelta(seconds=kept_s)
        self._since_forgetting = FORGET_EVERY

    async def seen(self, receiver: str, event_ids: Sequence[str]) -> Collection[str]:
        """Those of the ids that are remembered and not too old."""
        found = await asyncio.gather(
            *(self._documents.get_document(COLLECTION, _key(receiver, event_id)) for event_id in event_ids)
        )
        return {event_id for event_id, document in zip(event_ids, found, strict=True) if document is not None}

    async def remember(self, receiver: str, event_ids: Sequence[str]) -> None:
        """Keep the ids, from now on."""
        entries = [
            {"_id": _key(receiver, event_id), "receiver": receiver, "event_id": event_id} for event_id in event_ids
        ]
        await self._documents.put_documents(COLLECTION, entries, ttl=self._kept)
        self._since_forgetting += len(event_ids)
        if self._since_forgetting >= FORGET_EVERY:
            self._since_forgetting = 0
            await self._documents.purge_expired(COLLECTION)


def _key(receiver: str, event_id: str) -> str:
    """A legal id of a document for any receiver and event."""
    return hashlib.sha256(f"{len(receiver)} {receiver} {event_id}".encode(errors="surrogatepass")).hexdigest()
