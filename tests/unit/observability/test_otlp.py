"""Spans on their way to a collector: in batches, from a bounded queue, and nobody waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult

from polaris.exceptions import ConfigurationError
from polaris.observability._otlp import BATCH_MAX, OtlpSink, otlp_wanted

SPAN = ReadableSpan("span")


class Exporter:
    """Takes spans, or holds everything up until it is let go."""

    def __init__(self, *, fails: bool = False, held: bool = False) -> None:
        self.batches: list[int] = []
        self.fails = fails
        self.go = threading.Event()
        self.busy = threading.Event()
        self.ended = False
        if not held:
            self.go.set()

    def export(self, spans: list[ReadableSpan], /) -> SpanExportResult:
        self.busy.set()
        self.go.wait(30)
        self.batches.append(len(spans))
        return SpanExportResult.FAILURE if self.fails else SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        self.ended = True


class Books:
    def __init__(self) -> None:
        self.exported = 0
        self.dropped: dict[str, int] = {}

    def export(self, count: int) -> None:
        self.exported += count

    def drop(self, reason: str, count: int) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + count


def sink_of(exporter: Exporter, books: Books, **options: float) -> OtlpSink:
    return OtlpSink(
        exporter=lambda: exporter,
        delay_s=options.get("delay_s", 0.0),
        queue_max=int(options.get("queue_max", 2_048)),
        on_exported=books.export,
        on_dropped=books.drop,
    )


def test_everything_arrives_in_batches_and_the_stop_sends_what_waits() -> None:
    exporter, books = Exporter(), Books()
    sink = sink_of(exporter, books, delay_s=60.0)
    for _ in range(1_000):
        sink.put(SPAN)
    sink.stop(10)
    assert sum(exporter.batches) == books.exported == 1_000
    assert max(exporter.batches) <= BATCH_MAX
    assert (books.dropped, exporter.ended) == ({}, True)


def test_what_finds_the_queue_full_is_counted_and_does_not_wait() -> None:
    exporter, books = Exporter(held=True), Books()
    sink = sink_of(exporter, books, queue_max=10)
    sink.put(SPAN)
    assert exporter.busy.wait(10)
    for _ in range(15):
        sink.put(SPAN)
    assert books.dropped == {"queue_full": 5}
    exporter.go.set()
    sink.stop(10)
    assert books.exported == 11


def test_a_batch_that_the_collector_refuses_is_counted() -> None:
    exporter, books = Exporter(fails=True), Books()
    sink = sink_of(exporter, books)
    sink.put(SPAN)
    sink.stop(10)
    assert (books.exported, books.dropped) == (0, {"failed": 1})


def test_a_stop_does_not_wait_for_a_collector_that_hangs_and_counts_what_is_lost() -> None:
    exporter, books = Exporter(held=True), Books()
    sink = sink_of(exporter, books)
    sink.put(SPAN)
    assert exporter.busy.wait(10)
    for _ in range(3):
        sink.put(SPAN)
    began_s = time.monotonic()
    sink.stop(0.05)
    assert time.monotonic() - began_s < 5
    assert books.dropped == {"stopped": 4}
    sink.put(SPAN)
    assert books.dropped == {"stopped": 5}
    exporter.go.set()


ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, False),
        (ENDPOINT, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces"}, True),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "true"}, False),
        ({**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"}, False),
        ({**ENDPOINT, "OTEL_TRACES_EXPORTER": "console, otlp"}, True),
        ({**ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, True),
    ],
)
def test_the_standard_variables_decide(environment: Mapping[str, str], wanted: bool) -> None:
    assert otlp_wanted(environment) is wanted


def test_a_protocol_that_is_not_spoken_is_refused_by_name() -> None:
    with pytest.raises(ConfigurationError) as caught:
        otlp_wanted({**ENDPOINT, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc"})
    assert "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL = 'grpc'" in str(caught.value.problems)
