"""The ledger of actions: what makes sure that no action id is executed twice, whatever is redelivered or restarted."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from polaris.clock import SYSTEM_CLOCK, Clock
from polaris.domain import AdaptationAction, AdaptationEvent, ExecutionResult, ExecutionResultEvent, ExecutionStatus
from polaris.exceptions import ConflictError
from polaris.messaging import execution_topic
from polaris.runtime._place import Place, SolePlace

if TYPE_CHECKING:
    from polaris.storage import PolarisDataStore, PolarisUnitOfWork

COLLECTION = "action_ledger"
LANES = "action_lanes"
SOLE = SolePlace()
CausedAt = Callable[[str | None], datetime | None]
"""The timestamp of the telemetry with a correlation id, as far as it is known."""

Timestamp = Annotated[datetime, msgspec.Meta(tz=True)]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _not_known(_: str | None) -> None:
    """Nothing is known of any telemetry."""


def microseconds(moment: datetime) -> int:
    """Exact microseconds since 1970, the form in which instants are ordered by the store."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


class LedgerEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One action in the ledger: what was asked, by whom, who took it when, and what came of it."""

    action: AdaptationAction
    status: ExecutionStatus
    taken_by: str
    """The run of the node (`boot id`) that executes or executed it."""
    taken_at: Timestamp
    source: str | None = None
    correlation_id: str | None = None
    caused_at: Timestamp | None = None
    """The timestamp of the telemetry that led to the action, when its correlation id tells."""
    result: ExecutionResult | None = None

    def document(self) -> dict[str, Any]:
        """The entry as the document that the store keeps; the plain keys beside it are for finding and ordering."""
        fields: dict[str, Any] = msgspec.to_builtins(self)
        fields["status"] = self.status.value
        fields["system_id"] = self.action.target_system
        fields["created_us"] = microseconds(self.action.created_at)
        fields["action_id"] = self.action.action_id
        return fields


def entry_of(document: dict[str, Any]) -> LedgerEntry:
    """The entry in a document of the ledger."""
    return msgspec.convert(document, LedgerEntry)


class ActionLedger:
    """Entries live in the store, one an action id, for ever.

    An entry goes from `running` to one final status. Taking it (`take`) is one transaction that only one caller can
    win; finishing it (`finish`) stores the status, the result and the event that announces it in one transaction.
    So an action that was taken is never executed again, and a result that was stored is always announced. Several nodes
    may have one ledger: each takes actions only while it has its `place`.
    """

    def __init__(
        self, store: PolarisDataStore, boot_id: str, *, place: Place = SOLE, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._store = store
        self.place = place
        self.boot_id = boot_id
        self._clock = clock

    async def prepare(self) -> None:
        """Make the indexes that listings and recovery need. Idempotent."""
        documents = self._store.documents
        await documents.create_index(COLLECTION, ["status"])
        await documents.create_index(COLLECTION, ["created_us", "action_id"])
        await documents.create_index(COLLECTION, ["system_id", "created_us", "action_id"])

    async def remember_lanes(self, systems: Iterable[str]) -> list[str]:
        """Note the systems whose actions wait on their own subscription; all that this node ever noted, or may have.

        The node that noted a system last answers for it: it carries its actions out, or refuses them.
        """
        documents, node = self._store.documents, self.place.node
        for system_id in systems:
            await documents.put_document(LANES, system_id, {"system_id": system_id, "node": node})
        return [
            document["system_id"]
            for document in await documents.find_documents(LANES, {})
            if node is None or document.get("node") in (None, node)
        ]

    async def lanes(self) -> list[str]:
        """The systems that any node answers for."""
        return [document["system_id"] for document in await self._store.documents.find_documents(LANES, {})]

    async def take(self, event: AdaptationEvent, *, caused_at: datetime | None = None) -> tuple[LedgerEntry, bool]:
        """Enter the action as running. With True the caller, and nobody else, executes it now.

        With False the ledger knew the action id already; its entry is returned and nothing has changed.
        """
        action = event.action
        entry = LedgerEntry(
            action=action,
            status=ExecutionStatus.RUNNING,
            taken_by=self.boot_id,
            taken_at=self._clock.now(),
            source=event.source,
            correlation_id=event.correlation_id,
            caused_at=caused_at,
        )
        try:
            async with self._store.unit_of_work() as work:
                await self.place.check(work)
                known = await work.documents.get_document(COLLECTION, action.action_id)
                if known is not None:
                    return entry_of(known), False
                await work.documents.put_document(COLLECTION, action.action_id, entry.document(), expected_version=0)
                await work.actions.save(action)
                await work.commit()
                return entry, True
        except ConflictError:
            # Somebody took it between the look and the commit; entries are never removed, so it is there now.
            known = await self._store.documents.get_document(COLLECTION, action.action_id)
            if known is None:
                raise
            return entry_of(known), False

    async def retake(self, entry: LedgerEntry) -> LedgerEntry:
        """Take over an entry whose execution is known not to have begun, for executing it now."""
        taken = msgspec.structs.replace(entry, taken_by=self.boot_id, taken_at=self._clock.now())

        async def body(work: PolarisUnitOfWork) -> None:
            await self.place.check(work)
            await work.documents.put_document(COLLECTION, entry.action.action_id, taken.document())

        await self._store.in_unit_of_work(body)
        return taken

    async def finish(
        self, action_id: str, result: ExecutionResult, *, source: str, caused_at: CausedAt = _not_known
    ) -> LedgerEntry | None:
        """Store the final status and the result, and announce it. The first finish wins; later ones change nothing.

        A controller may be quicker than the store: `caused_at` is asked for the telemetry that was not known at `take`.
        Returns the entry as it stands afterwards, None when the ledger does not know the action.
        """
        async with self._store.unit_of_work() as work:
            document = await work.documents.get_document(COLLECTION, action_id)
            if document is None:
                return None
            entry = entry_of(document)
            if entry.status.is_final:
                return entry
            known_at = entry.caused_at or caused_at(entry.correlation_id)
            entry = msgspec.structs.replace(entry, status=result.status, result=result, caused_at=known_at)
            await work.documents.put_document(
                COLLECTION, action_id, entry.document(), expected_version=document["_version"]
            )
            await work.results.save(result)
            announcement = ExecutionResultEvent(result, correlation_id=entry.correlation_id, source=source)
            await work.publish(execution_topic(entry.action.target_system), announcement)
            await work.commit()
            return entry

    async def interrupted(self) -> list[LedgerEntry]:
        """Entries that an earlier run took and never finished, of this node or of one whose systems it has now.

        Oldest first. Those of other nodes' systems are left to them, and those that a node is at now.
        """
        at_work = sorted({self.boot_id, *await self.place.other_boots()})
        documents = await self._store.documents.find_documents(
            COLLECTION, {"status": ExecutionStatus.RUNNING.value, "taken_by": {"$nin": at_work}}, sort="created_us"
        )
        foreign: set[str] = set()
        if documents and self.place.node is not None:
            foreign = set(await self.lanes()) - set(await self.remember_lanes(()))
        entries = [entry_of(document) for document in documents]
        return [entry for entry in entries if entry.action.target_system not in foreign]

    async def get(self, action_id: str) -> LedgerEntry | None:
        """The entry of one action."""
        document = await self._store.documents.get_document(COLLECTION, action_id)
        return None if document is None else entry_of(document)

    async def newest(
        self, *, limit: int, system_id: str | None = None, before: tuple[datetime, str] | None = None
    ) -> list[LedgerEntry]:
        """Entries by (`created_at`, `action_id`), newest first; only those before the key when it is given."""
        query: dict[str, Any] = {} if system_id is None else {"system_id": system_id}
        if before is not None:
            moment, action_id = microseconds(before[0]), before[1]
            query["$or"] = [
                {"created_us": {"$lt": moment}},
                {"created_us": moment, "action_id": {"$lt": action_id}},
            ]
        documents = await self._store.documents.find_documents(
            COLLECTION, query, limit, sort=["-created_us", "-action_id"]
        )
        return [entry_of(document) for document in documents]

    async def count(self) -> int:
        """How many actions the ledger knows."""
        return await self._store.documents.count(COLLECTION)
