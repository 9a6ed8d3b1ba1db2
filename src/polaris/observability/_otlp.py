"""Spans on their way to a collector by OTLP over HTTP, on a thread of their own, so that nobody waits for it."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal, Protocol

from polaris.exceptions import ConfigurationError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExportResult

QUEUE_MAX = 2_048
BATCH_MAX = 512
DELAY_S = 1.0
STOP_S = 2.0
"""What a stop may take to send what waits."""
PROTOCOL = "http/protobuf"

DropReason = Literal["queue_full", "failed", "stopped"]
OnDropped = Callable[[DropReason, int], None]
OnExported = Callable[[int], None]


class SpanExport(Protocol):
    """What sends a batch: an exporter of OpenTelemetry."""

    def export(self, spans: list[ReadableSpan], /) -> SpanExportResult: ...

    def shutdown(self) -> None: ...


def otlp_wanted(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether `OTEL_EXPORTER_OTLP_ENDPOINT` or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` names a collector.

    `OTEL_SDK_DISABLED=true`, or an `OTEL_TRACES_EXPORTER` without `otlp`, says no. Raises `ConfigurationError` for a
    protocol other than `http/protobuf`.
    """
    general, special = "OTEL_EXPORTER_OTLP_", "OTEL_EXPORTER_OTLP_TRACES_"
    if not (environment.get(f"{general}ENDPOINT") or environment.get(f"{special}ENDPOINT")):
        return False
    exporters = [name.strip() for name in environment.get("OTEL_TRACES_EXPORTER", "otlp").split(",")]
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or "otlp" not in exporters:
        return False
    name = f"{special}PROTOCOL" if environment.get(f"{special}PROTOCOL") else f"{general}PROTOCOL"
    protocol = environment.get(name) or PROTOCOL
    if protocol != PROTOCOL:
        raise ConfigurationError(problems=[f"{name} = {protocol!r}: only {PROTOCOL} is spoken here"])
    return True


def _standard_exporter() -> SpanExport:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()  # reads OTEL_EXPORTER_OTLP_... by itself


class OtlpSink:
    """Sends spans in batches of at most 512, a second after the first of them, from a queue of at most 2 048.

    A span that finds the queue full is dropped and counted, as is a batch that the collector does not take within the
    exporter's timeout (`OTEL_EXPORTER_OTLP_TIMEOUT`, 10 s). `stop` sends what waits for at most two seconds; what is
    left then is counted, and neither the caller nor the end of the process waits any longer.
    """

    def __init__(
        self,
        *,
        exporter: Callable[[], SpanExport] = _standard_exporter,
        queue_max: int = QUEUE_MAX,
        delay_s: float = DELAY_S,
        on_exported: OnExported = lambda count: None,
        on_dropped: OnDropped = lambda reason, count: None,
    ) -> None:
        self._make_exporter = exporter
        self._queue: deque[ReadableSpan] = deque()
        self._queue_max = queue_max
        self._delay_s = delay_s
        self._on_exported, self._on_dropped = on_exported, on_dropped
        self._lock = threading.Condition()
        self._thread: threading.Thread | None = None
        self._exporter: SpanExport | None = None
        self._stopping = False
        self._sending = 0

    def put(self, span: ReadableSpan) -> None:
        """Queue a span that has ended, or count it as dropped. Never waits for the network."""
        with self._lock:
            taken = not self._stopping and len(self._queue) < self._queue_max
            reason: DropReason = "stopped" if self._stopping else "queue_full"
            if taken:
                self._queue.append(span)
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="OTLP export", daemon=True)
                    self._thread.start()
                self._lock.notify()
        if not taken:
            self._on_dropped(reason, 1)

    def stop(self, timeout_s: float = STOP_S) -> None:
        """Send what waits, within `timeout_s` seconds; the rest is counted as dropped. Idempotent; blocks meanwhile."""
        with self._lock:
            self._stopping = True
            self._lock.notify()
        if self._thread is not None:
            self._thread.join(timeout_s)
        with self._lock:
            left = len(self._queue) + self._sending
            self._queue.clear()
            self._sending = 0
        if left:
            self._on_dropped("stopped", left)
        if self._exporter is not None:
            self._exporter.shutdown()  # ends the wait before a repetition

    def _run(self) -> None:
        while (batch := self._next_batch()) is not None:
            if self._exporter is None:
                self._exporter = self._make_exporter()
            try:
                done = self._exporter.export(batch).name == "SUCCESS"
            except Exception:  # boundary: of a library and the network; what it means is the same: not arrived
                done = False
            with self._lock:
                given_up, self._sending = not self._sending, 0
            if done:
                self._on_exported(len(batch))
            elif not given_up:
                self._on_dropped("failed", len(batch))

    def _next_batch(self) -> list[ReadableSpan] | None:
        """Wait for spans, and a moment for more of them; None at the end."""
        with self._lock:
            self._lock.wait_for(lambda: self._queue or self._stopping)
            until_s = time.monotonic() + self._delay_s
            while not self._stopping and len(self._queue) < BATCH_MAX and (left_s := until_s - time.monotonic()) > 0:
                self._lock.wait(left_s)
            if not self._queue:
                return None
            batch = [self._queue.popleft() for _ in range(min(BATCH_MAX, len(self._queue)))]
            self._sending = len(batch)
            return batch
