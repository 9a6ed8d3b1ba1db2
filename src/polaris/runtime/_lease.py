"""A turn that one node has at a time: a document in the store, which its holder renews and others watch."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from polaris.clock import SYSTEM_CLOCK, Clock
from polaris.exceptions import ConflictError, DataStoreError

if TYPE_CHECKING:
    from polaris.storage import DocumentStorageBackend

LEASES = "polaris.leases"
LEASE_S = 6.0
"""A lease whose document has not changed for so long is free: its holder is gone, or may do nothing any more."""
HELD_S = 5.0
"""So long a holder counts on what it renewed; less than `LEASE_S`, for clocks do not go at quite the same pace."""
BEAT_S = 1.5
"""Between two renewals, and between two looks of those that wait."""


class Turn(Protocol):
    """The right to do what only one node may do at a time."""

    @property
    def is_held(self) -> bool: ...

    async def wait(self) -> None:
        """Return when it is held."""

    async def while_held(self, body: Callable[[], Awaitable[object]]) -> bool:
        """Run `body`; cancelled, with False, at the moment from which another node may hold the turn."""


class Lease:
    """One document that tells who holds it, renewed by `attempt`, which somebody calls every `BEAT_S`.

    No clock of one machine is compared with that of another: who waits sees that a version of the document has stayed
    for `LEASE_S` by its own monotonic clock, and replaces exactly this version; who holds counts `HELD_S` from before
    it began to renew. So at no moment do two count on it. After a kill -9 the next holder has it within
    `LEASE_S + 2 * BEAT_S`; after a `release` with its next attempt.
    """

    def __init__(
        self,
        documents: DocumentStorageBackend,
        collection: str,
        name: str,
        holder: str,
        *,
        facts: dict[str, Any] | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._documents = documents
        self._collection = collection
        self.name = name
        self.holder = holder
        self._facts = facts or {}
        self._clock = clock
        self._version: int | None = None
        self._until_s = -math.inf
        self._seen: tuple[int, float] | None = None
        self._limits: set[asyncio.Timeout] = set()

    def document(self) -> dict[str, Any]:
        """What stands in the store while it is held."""
        return {**self._facts, "holder": self.holder}

    @property
    def is_held(self) -> bool:
        """Whether it may be counted on now."""
        return self._clock.monotonic() < self._until_s

    @property
    def is_lost(self) -> bool:
        """Whether it was replaced by somebody else, or was never held."""
        return self._version is None

    def held_since(self, begun_s: float, version: int) -> None:
        """It was written as this version, by a write that began at `begun_s`, monotonic."""
        self._version = version
        self._until(begun_s + HELD_S)

    async def attempt(self) -> bool:
        """Renew it, or take it when it is free; whether it is held then. Raises `DataStoreError`."""
        begun_s = self._clock.monotonic()
        version = self._version if self._version is not None else await self._free_version()
        if version is None:
            return False
        try:
            await self._documents.put_document(self._collection, self.name, self.document(), expected_version=version)
        except ConflictError:
            # Somebody else has it; or a renewal was done whose confirmation was lost, which the next attempt sees.
            self._version = None
            self._until(-math.inf)
            return False
        self.held_since(begun_s, version + 1)
        return True

    async def _free_version(self) -> int | None:
        """The version to be replaced by whoever takes it, 0 for none; None when it is not free."""
        found = await self._documents.get_document(self._collection, self.name)
        if found is None:
            return 0
        version, now_s = int(found["_version"]), self._clock.monotonic()
        if found["holder"] in (None, self.holder):
            return version
        if self._seen is None or self._seen[0] != version:
            self._seen = version, now_s
        return version if now_s - self._seen[1] >= LEASE_S else None

    async def release(self) -> None:
        """Let the next one have it at once, as far as the store answers. Idempotent."""
        version, self._version = self._version, None
        self._until(-math.inf)
        if version is not None:
            with suppress(DataStoreError):
                await self._documents.put_document(
                    self._collection, self.name, {**self._facts, "holder": None}, expected_version=version
                )

    async def wait(self) -> None:
        while not self.is_held:
            await self._clock.sleep(BEAT_S / 2)

    async def while_held(self, body: Callable[[], Awaitable[object]]) -> bool:
        if not self.is_held:
            return False
        limit = asyncio.timeout(self._until_s - self._clock.monotonic())
        try:
            async with limit:
                self._limits.add(limit)
                await body()
        except TimeoutError:
            if not limit.expired():
                raise
            return False
        finally:
            self._limits.discard(limit)
        return True

    def _until(self, until_s: float) -> None:
        self._until_s = until_s
        when_s = asyncio.get_running_loop().time() + max(0.0, until_s - self._clock.monotonic())
        for limit in self._limits:
            if not limit.expired():
                limit.reschedule(when_s)


class Always:
    """The turn of a node that has its store for itself."""

    is_held = True

    async def wait(self) -> None:
        """At once."""

    async def while_held(self, body: Callable[[], Awaitable[object]]) -> bool:
        await body()
        return True
