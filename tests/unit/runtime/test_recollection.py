"""The last traces and logs in the store: found again, bounded, and never in anybody's way."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from opentelemetry.sdk.trace import ReadableSpan

from polaris.api._recollection_view import LogFilter, TraceFilter, TraceKey, TraceSummary
from polaris.exceptions import DataStoreError, UnconfirmedWriteError
from polaris.observability import MetricsCollector, SpanRecorder, StructuredLogger, correlation_scope, trace_of
from polaris.observability import _conventions as conventions
from polaris.runtime import _recollection
from polaris.runtime._health import HealthBoard
from polaris.runtime._recollection import LOGGER, LOGS, TRACES, Recollection
from polaris.runtime._spans import SPANS_MAX
from polaris.storage import PolarisDataStore
from polaris.testing import run_virtual, running_clock

QUIET = StructuredLogger("polaris.test")


class Kept:
    """A recollection over a store in memory, and a recorder that feeds it."""

    def __init__(self, *, traces_max: int = 100, logs_max: int = 100) -> None:
        clock = running_clock()
        self.store = PolarisDataStore.memory(clock=clock)
        self.metrics = MetricsCollector()
        self.recollection = Recollection(
            self.store,
            HealthBoard(clock=clock),
            self.metrics.instruments,
            StructuredLogger(LOGGER),
            traces_max=traces_max,
            traces_days=1.0,
            logs_max=logs_max,
            logs_days=1.0,
            clock=clock,
        )
        self.recorder = SpanRecorder("test", 0.0, [self.recollection.put])
        self.recorder.tracer()

    def tell(self, number: int, *, spans: int = 1, first: int = 0, correlation_id: str = "c", **values: Any) -> str:
        position = trace_of(f"event-{number}")
        for one in range(first, first + spans):
            at_ns = (number * 1_000 + one) * 1_000
            here = msgspec.structs.replace(position, span_id=f"{one + 1:016x}")
            self.recorder.tell(
                conventions.DECIDE if "action_id" in values else conventions.COLLECT,
                here,
                None,
                start_ns=at_ns,
                end_ns=at_ns + 500,
                system_id=f"s-{number}",
                correlation_id=correlation_id,
                **values,
            )
        return position.trace_id

    def dropped(self, sink: str, reason: str) -> float:
        return self.metrics.instruments.spans_dropped(sink, reason).get()


def test_traces_are_found_by_what_they_are_about_newest_first_and_page_by_page() -> None:
    async def scenario() -> None:
        kept = Kept()
        await kept.store.connect()
        ids = [kept.tell(number, correlation_id=f"c-{number % 2}") for number in range(4)]
        await kept.recollection.flush()
        found = await kept.recollection.traces(TraceFilter(), limit=10, before=None)
        assert [summary.trace_id for _, summary in found] == ids[::-1]
        older = await kept.recollection.traces(TraceFilter(), limit=10, before=found[1][0])
        assert [summary.trace_id for _, summary in older] == ids[1::-1]
        odd = await kept.recollection.traces(TraceFilter(correlation_id="c-1"), limit=10, before=None)
        assert [summary.trace_id for _, summary in odd] == [ids[3], ids[1]]
        (one,) = await kept.recollection.traces(TraceFilter(system_id="s-2"), limit=10, before=None)
        assert one[1].trace_id == ids[2]
        assert await kept.recollection.traces(TraceFilter(errors_only=True), limit=10, before=None) == []
        assert await kept.recollection.trace("f" * 32) is None

    run_virtual(scenario())


def test_an_id_finds_traces_whatever_it_is_of_page_by_page() -> None:
    async def scenario() -> None:
        kept = Kept()
        await kept.store.connect()
        ids = [kept.tell(number, correlation_id="one loop" if number % 2 else f"c-{number}") for number in range(6)]
        position = trace_of("event-4")
        here = msgspec.structs.replace(position, span_id="f" * 16)
        kept.recorder.tell(conventions.EXECUTE, here, None, start_ns=9_000_000, end_ns=9_000_001, action_id="a-1")
        await kept.recollection.flush()

        async def found(about: str, before: TraceKey | None = None) -> list[tuple[TraceKey, TraceSummary]]:
            return list(await kept.recollection.traces(TraceFilter(about=about), limit=2, before=before))

        first = await found("one loop")
        assert [summary.trace_id for _, summary in first] == [ids[5], ids[3]]
        assert [summary.trace_id for _, summary in await found("one loop", first[1][0])] == [ids[1]]
        assert [summary.trace_id for _, summary in await found("a-1")] == [ids[4]]
        assert [summary.trace_id for _, summary in await found(ids[2])] == [ids[2]]
        assert await found("s-1") == [], "a system is no such id"

    run_virtual(scenario())


def test_a_trace_grows_over_several_writes_up_to_its_bound() -> None:
    async def scenario() -> None:
        kept = Kept()
        await kept.store.connect()
        trace_id = kept.tell(1, spans=150)
        await kept.recollection.flush()
        kept.recollection._open.clear()  # as after many other traces: it is read back
        kept.tell(1, spans=100, first=150)
        await kept.recollection.flush()
        ((_, summary),) = await kept.recollection.traces(TraceFilter(), limit=10, before=None)
        assert summary.spans == 250
        whole = await kept.recollection.trace(trace_id)
        assert whole is not None
        assert whole.spans_left_out == 250 - SPANS_MAX
        assert kept.dropped("store", "trace_full") == 250 - SPANS_MAX

    run_virtual(scenario())


def test_the_oldest_go_first_when_there_is_too_much() -> None:
    async def scenario() -> None:
        kept = Kept(traces_max=3, logs_max=2)
        await kept.store.connect()
        await kept.recollection.start()
        ids = [kept.tell(number) for number in range(8)]
        for number in range(6):
            QUIET.warning("line", number=number)
        await kept.recollection.flush()
        await kept.recollection.prune()
        found = await kept.recollection.traces(TraceFilter(), limit=10, before=None)
        assert [summary.trace_id for _, summary in found] == ids[:4:-1]
        lines = await kept.recollection.logs(LogFilter(), limit=10, before=None)
        assert [line.fields["number"] for line in lines] == [5, 4]
        assert (await kept.store.documents.count(TRACES), await kept.store.documents.count(LOGS)) == (3, 2)
        await kept.recollection.stop()

    run_virtual(scenario())


def test_log_records_are_found_by_correlation_trace_and_level_and_their_own_are_not_kept() -> None:
    async def scenario() -> None:
        kept = Kept()
        await kept.store.connect()
        await kept.recollection.start()
        with correlation_scope("one loop"):
            QUIET.info("begins", password="s3cret")
            QUIET.error("fails", exc_info=ValueError("token=s3cret"))
        QUIET.info("something else")
        StructuredLogger(LOGGER).warning("the store is away")
        await kept.recollection.stop()
        QUIET.info("after the stop")
        lines = await kept.recollection.logs(LogFilter(correlation_id="one loop"), limit=10, before=None)
        assert [line.message for line in lines] == ["fails", "begins"]
        assert lines[0].exception is not None
        assert "s3cret" not in str(lines)
        severe = await kept.recollection.logs(LogFilter(level="ERROR"), limit=10, before=None)
        assert [line.message for line in severe] == ["fails"]
        everything = await kept.recollection.logs(LogFilter(), limit=10, before=None)
        assert [line.message for line in everything] == ["something else", "fails", "begins"]
        about = await kept.recollection.logs(LogFilter(about="one loop"), limit=10, before=None)
        assert about == lines
        begins, last = everything[2].log_id, everything[0].log_id
        later = await kept.recollection.logs(LogFilter(after=begins), limit=10, before=None)
        assert later == everything[:2]
        assert await kept.recollection.logs(LogFilter(after=begins), limit=10, before=last) == everything[1:2]
        assert await kept.recollection.logs(LogFilter(after=last), limit=10, before=None) == []

    run_virtual(scenario())


def test_what_fails_again_and_again_does_not_push_out_the_traces_of_actions() -> None:
    async def scenario() -> None:
        kept = Kept(traces_max=10)
        await kept.store.connect()
        acted = [kept.tell(number, action_id=f"a-{number}") for number in range(4)]
        for number in range(4, 40):
            kept.tell(number)
        await kept.recollection.flush()
        await kept.recollection.prune()
        left = [one.trace_id for _, one in await kept.recollection.traces(TraceFilter(), limit=50, before=None)]
        assert (len(left), left[-4:]) == (10, acted[::-1])
        # Without others all of the room is for actions, of which the oldest go too.
        for number in range(40, 60):
            kept.tell(number, action_id=f"a-{number}")
        await kept.recollection.flush()
        await kept.recollection.prune()
        found = [one.actions for _, one in await kept.recollection.traces(TraceFilter(), limit=50, before=None)]
        assert found == [(f"a-{number}",) for number in range(59, 49, -1)]

    run_virtual(scenario())


def test_while_the_store_is_away_spans_wait_and_what_is_too_much_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        monkeypatch.setattr(_recollection, "SPANS_WAITING_MAX", 5)
        kept = Kept()
        await kept.store.connect()
        away = True
        put = kept.store.documents.put_documents

        async def refuse(*arguments: Any, **options: Any) -> list[str]:
            if away:
                raise DataStoreError("away")
            return await put(*arguments, **options)

        monkeypatch.setattr(kept.recollection._documents, "put_documents", refuse)
        for number in range(7):
            kept.tell(number)
        await kept.recollection.flush()
        assert kept.dropped("store", "queue_full") == 2
        away = False
        await kept.recollection.flush()
        assert len(await kept.recollection.traces(TraceFilter(), limit=10, before=None)) == 5
        assert kept.metrics.instruments.spans_exported("store").get() == 5

    run_virtual(scenario())


def test_what_was_stored_without_anybody_knowing_is_stored_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        kept = Kept()
        await kept.store.connect()
        await kept.recollection.start()

        async def flush_unconfirmed() -> None:
            with monkeypatch.context() as patch:
                for name in ("put_documents", "insert_documents"):
                    patch.setattr(kept.store.documents, name, unconfirmed(getattr(kept.store.documents, name)))
                await kept.recollection.flush()

        kept.tell(1, spans=3)
        QUIET.warning("once")
        await flush_unconfirmed()  # the spans
        await kept.recollection.flush()
        QUIET.warning("twice")
        await flush_unconfirmed()  # the records
        await kept.recollection.flush()
        assert not kept.recollection._records
        ((_, summary),) = await kept.recollection.traces(TraceFilter(), limit=10, before=None)
        assert summary.spans == 3
        lines = await kept.recollection.logs(LogFilter(), limit=10, before=None)
        assert sorted(line.message for line in lines if line.logger == "polaris.test") == ["once", "twice"]
        await kept.recollection.stop()

    run_virtual(scenario())


def unconfirmed(write: Callable[..., Awaitable[object]]) -> Callable[..., Awaitable[None]]:
    async def written(*arguments: Any, **options: Any) -> None:
        await write(*arguments, **options)
        raise UnconfirmedWriteError("the connection was lost")

    return written


def test_a_span_without_anything_can_be_kept() -> None:
    async def scenario() -> None:
        kept = Kept()
        await kept.store.connect()
        kept.tell(0)
        span: ReadableSpan = kept.recollection._spans[0]
        assert span.start_time == 0
        await kept.recollection.flush()
        ((_, summary),) = await kept.recollection.traces(TraceFilter(), limit=1, before=None)
        assert summary.start.timestamp() == 0

    run_virtual(scenario())
