"""The last traces and log records, kept in the store so that the page shows them with no other tool."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import msgspec

from polaris.api._recollection_view import (
    LogFilter,
    LogView,
    SpanView,
    TraceFilter,
    TraceKey,
    TraceSummary,
    TraceView,
)
from polaris.clock import SYSTEM_CLOCK, Clock
from polaris.exceptions import PolarisException
from polaris.ids import new_id
from polaris.observability._pipeline import add_tap, remove_tap
from polaris.runtime._spans import Fragment, span_of
from polaris.runtime._supervision import Supervisor

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

    from polaris.observability import Instruments, StructuredLogger
    from polaris.runtime._health import HealthBoard
    from polaris.storage import PolarisDataStore

TRACES, LOGS = "recollected_traces", "recollected_logs"
NAME = "recollection"
LOGGER = "polaris.recollection"
FLUSH_EVERY_S = 1.0
PRUNE_EVERY = 30
"""Flushes, between two looks whether there is too much."""
SPANS_WAITING_MAX = 4_096
RECORDS_WAITING_MAX = 4_096
RECORD_BYTES_MAX = 65_536
FRAGMENTS_OPEN_MAX = 256
"""Traces that may still grow, held in memory; what comes for an older one is read back from the store first."""
FRAGMENTS_SHOWN_MAX = 32
NO_ACTION = {"actions": {"$size": 0}}
_LEVELS = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40, "CRITICAL": 50}


class Recollection:
    """Takes spans and log records as they come, in any thread, and stores them once a second.

    At most `traces_max` traces of at most 200 spans and `logs_max` log records are kept, for so many days; the oldest
    go first, but half of the room is for traces with actions: what fails again and again does not push them out. What
    finds the waiting room full while the store is away is dropped and counted. Its own log lines are not kept, so that
    trouble with the store does not feed itself.
    """

    def __init__(
        self,
        store: PolarisDataStore,
        board: HealthBoard,
        instruments: Instruments,
        logger: StructuredLogger,
        *,
        traces_max: int,
        traces_days: float,
        logs_max: int,
        logs_days: float,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._documents = store.documents
        self._supervisor = Supervisor(board, logger, clock=clock)
        self._logger = logger
        self._clock = clock
        self._traces_max, self._traces_ttl = traces_max, timedelta(days=traces_days)
        self._logs_max, self._logs_ttl = logs_max, timedelta(days=logs_days)
        self._instance = new_id()[-12:]
        # A signal handler may log in the middle of it.
        self._lock = threading.RLock()
        self._spans: deque[ReadableSpan] = deque()
        self._records: deque[dict[str, Any]] = deque()
        self._open: dict[str, Fragment] = {}
        self._flushing = asyncio.Lock()
        self._flushes = 0
        self._failing = False
        self._kept, self._stored = instruments.log_records_kept(), instruments.spans_exported("store")
        self._record_lost, self._seen = instruments.log_records_dropped("queue_full"), instruments.spans()
        self._span_lost = instruments.spans_dropped("store", "queue_full")
        self._left_out = instruments.spans_dropped("store", "trace_full")
        self._unsaved = instruments.spans_dropped("store", "stopped"), instruments.log_records_dropped("stopped")

    def put(self, span: ReadableSpan) -> None:
        """A span that has ended."""
        with self._lock:
            self._seen.inc()
            if len(self._spans) >= SPANS_WAITING_MAX:
                self._span_lost.inc()
                return
            self._spans.append(span)

    def _tap(self, record: Mapping[str, Any]) -> None:
        if record["logger"] == LOGGER:
            return
        with self._lock:
            if len(self._records) >= RECORDS_WAITING_MAX:
                self._record_lost.inc()
                return
            self._records.append(_document_of(record))

    async def start(self) -> None:
        """Make the indexes, and begin to listen to the log of the process."""
        for field in ("start_us", "trace_id"):
            await self._documents.create_index(TRACES, [field])
        for field in ("correlation_id", "trace_id"):
            await self._documents.create_index(LOGS, [field])
        add_tap(self._tap)
        self._supervisor.run(NAME, self._flush_for_ever)

    async def stop(self) -> None:
        """Store what waits, if the store takes it, and end."""
        remove_tap(self._tap)
        await self._supervisor.stop()
        await self.flush()
        with self._lock:
            self._unsaved[0].inc(len(self._spans))
            self._unsaved[1].inc(len(self._records))
            self._spans.clear()
            self._records.clear()

    async def _flush_for_ever(self) -> None:
        while True:
            await self._clock.sleep(FLUSH_EVERY_S)
            await self.flush()
            self._flushes += 1
            if self._flushes % PRUNE_EVERY == 0:
                await self.prune()

    async def flush(self) -> None:
        """Store what waits now; when the store does not take it, it goes on waiting. Raises nothing of the store."""
        async with self._flushing:
            spans, records = list(self._spans), list(self._records)
            try:
                if spans:
                    await self._store_spans(spans)
                if records:
                    # Put, not inserted: whether the write before was done may be unknown.
                    await self._documents.put_documents(LOGS, records, ttl=self._logs_ttl)
                    self._kept.inc(len(records))
                    self._drop_head(self._records, len(records))
            except PolarisException as error:
                if not self._failing:
                    self._logger.warning("traces and logs are not kept for now", exc_info=error)
                self._failing = True
            else:
                self._failing = False

    async def _store_spans(self, spans: Sequence[ReadableSpan]) -> None:
        grown: dict[str, Fragment] = {}
        added = 0
        for span in spans:
            context = span.get_span_context()
            trace_id = f"{0 if context is None else context.trace_id:032x}"
            fragment = grown.get(trace_id)
            if fragment is None:
                fragment = grown[trace_id] = (await self._fragment(trace_id)).copy()
            added += fragment.add(span_of(span))
        documents = [{"_id": self._key(trace_id), **one.document()} for trace_id, one in grown.items()]
        await self._documents.put_documents(TRACES, documents, ttl=self._traces_ttl)
        self._drop_head(self._spans, len(spans))
        self._stored.inc(added)
        self._left_out.inc(len(spans) - added)
        for trace_id, fragment in grown.items():
            self._open.pop(trace_id, None)
            self._open[trace_id] = fragment
        while len(self._open) > FRAGMENTS_OPEN_MAX:
            del self._open[next(iter(self._open))]

    def _drop_head(self, queue: deque[Any], count: int) -> None:
        with self._lock:
            for _ in range(count):
                queue.popleft()

    def _key(self, trace_id: str) -> str:
        # Nodes that share a store write documents of their own, so none overwrites what another has added.
        return f"{trace_id}-{self._instance}"

    async def _fragment(self, trace_id: str) -> Fragment:
        known = self._open.get(trace_id)
        if known is not None:
            return known
        document = await self._documents.get_document(TRACES, self._key(trace_id))
        return Fragment(trace_id) if document is None else Fragment.of(document)

    async def prune(self) -> None:
        """Delete the oldest of what is too much."""
        for collection, order, most in ((TRACES, "start_us", self._traces_max), (LOGS, "_id", self._logs_max)):
            excess = await self._documents.count(collection) - most
            if excess > 0 and collection == TRACES:
                others = await self._documents.count(TRACES, NO_ACTION) - most // 2
                excess -= await self._drop_oldest(TRACES, order, min(excess, others), NO_ACTION)
            await self._drop_oldest(collection, order, excess)

    async def _drop_oldest(
        self, collection: str, order: str, count: int, among: Mapping[str, Any] = MappingProxyType({})
    ) -> int:
        if count <= 0:
            return 0
        oldest = await self._documents.find_documents(collection, among, min(count, 10_000), sort=order, fields=[order])
        ids = [document["_id"] for document in oldest]
        for begin in range(0, len(ids), 1_000):
            await self._documents.delete_documents(collection, {"_id": {"$in": ids[begin : begin + 1_000]}})
        return len(ids)

    async def traces(
        self, wanted: TraceFilter, *, limit: int, before: TraceKey | None
    ) -> Sequence[tuple[TraceKey, TraceSummary]]:
        query: dict[str, Any] = {}
        if wanted.correlation_id is not None:
            query["correlation_ids"] = {"$contains": wanted.correlation_id}
        if wanted.system_id is not None:
            query["systems"] = {"$contains": wanted.system_id}
        if wanted.action_id is not None:
            query["actions"] = {"$contains": wanted.action_id}
        if wanted.errors_only:
            query["errors"] = {"$gt": 0}
        choices = []
        if wanted.about is not None:
            names = ({name: {"$contains": wanted.about}} for name in ("correlation_ids", "actions"))
            choices.append({"$or": [{"trace_id": wanted.about}, *names]})
        if before is not None:
            older = {"start_us": {"$lt": before.start_us}}
            choices.append({"$or": [older, {"start_us": before.start_us, "_id": {"$lt": before.key}}]})
        if choices:
            query["$and"] = choices
        found = await self._documents.find_documents(TRACES, query, limit, sort=["-start_us", "-_id"])
        return [(TraceKey(one["start_us"], one["_id"]), Fragment.of(one).summary()) for one in found]

    async def trace(self, trace_id: str) -> TraceView | None:
        query = {"$or": [{"trace_id": trace_id}, {"linked": {"$contains": trace_id}}]}
        found = [Fragment.of(one) for one in await self._documents.find_documents(TRACES, query, FRAGMENTS_SHOWN_MAX)]
        own = [one for one in found if one.trace_id == trace_id]
        if not own:
            return None
        return TraceView(
            trace_id=trace_id,
            spans=_in_order(own),
            linked=_in_order([one for one in found if one.trace_id != trace_id]),
            spans_left_out=sum(one.left_out for one in own),
        )

    async def logs(self, wanted: LogFilter, *, limit: int, before: str | None) -> Sequence[LogView]:
        query: dict[str, Any] = {}
        if wanted.correlation_id is not None:
            query["correlation_id"] = wanted.correlation_id
        if wanted.trace_id is not None:
            query["trace_id"] = wanted.trace_id
        if wanted.about is not None:
            query["$or"] = [{"correlation_id": wanted.about}, {"trace_id": wanted.about}]
        if wanted.level != "DEBUG":
            query["severity"] = {"$gte": _LEVELS[wanted.level]}
        between = {"$lt": before, "$gt": wanted.after}
        if bounds := {operator: key for operator, key in between.items() if key is not None}:
            query["_id"] = bounds
        return [_log_of(one) for one in await self._documents.find_documents(LOGS, query, limit, sort="-_id")]


def _in_order(fragments: Sequence[Fragment]) -> tuple[SpanView, ...]:
    """The spans of all of them by their start, the longer before the shorter; each once, told or recorded."""
    spans = {span.span_id: span for one in fragments for span in one.spans}
    return tuple(sorted(spans.values(), key=lambda span: (span.start, -span.duration_s)))


def _document_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record as a flat document: what may be deep and wide is in it as text."""
    more = {"fields": record["fields"], "exception": record.get("exception")}
    text = msgspec.json.encode(more)
    if len(text) > RECORD_BYTES_MAX:
        text = msgspec.json.encode({"fields": {"left_out": f"{len(text)} bytes of fields"}, "exception": None})
    return {
        "_id": new_id(),
        "timestamp": record["timestamp"],
        "severity": _LEVELS.get(record["level"], 20),
        "level": record["level"],
        "logger": record["logger"],
        "message": record["message"],
        "correlation_id": record["correlation_id"],
        "trace_id": record["trace_id"],
        "span_id": record["span_id"],
        "more": text.decode(),
    }


def _log_of(document: Mapping[str, Any]) -> LogView:
    more = msgspec.json.decode(document["more"])
    return LogView(
        log_id=document["_id"],
        timestamp=datetime.fromisoformat(document["timestamp"]).astimezone(UTC),
        level=document["level"],
        logger=document["logger"],
        message=document["message"],
        correlation_id=document["correlation_id"],
        trace_id=document["trace_id"],
        span_id=document["span_id"],
        fields=more["fields"],
        exception=more["exception"],
    )
