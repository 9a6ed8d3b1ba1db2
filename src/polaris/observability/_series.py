"""Metric families over plain slots: cheap to change, bounded in number, collected when somebody scrapes."""

from __future__ import annotations

import math
import time
from abc import abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Exemplar
from prometheus_client.utils import floatToGoString

from polaris._redaction import redact_text
from polaris.exceptions import InvalidValueError

if TYPE_CHECKING:
    from polaris.observability._trace import TraceContext

OTHER = "_other"
SERIES_MAX = 1_000
OVERFLOW_SERIES_MAX = 16
LABEL_CHARS_MAX = 128
_INF = math.inf


class SlotCounter:
    """One series that only grows. An `inc` is a plain addition, atomic under the interpreter lock."""

    __slots__ = ("_read", "value")

    def __init__(self) -> None:
        self.value = 0.0
        self._read: Callable[[], float] | None = None

    def inc(self, amount: float = 1.0) -> None:
        """Add `amount`, which is finite and not negative (else InvalidValueError, and nothing is added)."""
        if not 0.0 <= amount < _INF:
            raise InvalidValueError("amount", "a finite number that is not negative", amount)
        self.value += amount

    def set_function(self, read: Callable[[], float]) -> None:
        """Take the value from `read` at each scrape: for counts that somebody else keeps and that never go down."""
        self._read = read

    def get(self) -> float:
        """The present value."""
        return self.value if self._read is None else float(self._read())


class SlotGauge:
    """One series that goes up and down."""

    __slots__ = ("_read", "value")

    def __init__(self) -> None:
        self.value = 0.0
        self._read: Callable[[], float] | None = None

    def set(self, value: float) -> None:
        """Replace the value; a number that is not finite is refused (InvalidValueError)."""
        if not -_INF < value < _INF:
            raise InvalidValueError("value", "a finite number", value)
        self.value = float(value)

    def inc(self, amount: float = 1.0) -> None:
        """Add `amount`."""
        if not -_INF < amount < _INF:
            raise InvalidValueError("amount", "a finite number", amount)
        self.value += amount

    def dec(self, amount: float = 1.0) -> None:
        """Subtract `amount`."""
        if not -_INF < amount < _INF:
            raise InvalidValueError("amount", "a finite number", amount)
        self.value -= amount

    def set_function(self, read: Callable[[], float]) -> None:
        """Take the value from `read` at each scrape, in the thread that scrapes."""
        self._read = read

    def get(self) -> float:
        """The present value."""
        return self.value if self._read is None else float(self._read())


class SlotHistogram:
    """One series of observations, counted by size. The bounds of the buckets are those of its family."""

    __slots__ = ("bounds", "counts", "exemplars", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.exemplars: dict[int, Exemplar] | None = None
        self.sum = 0.0

    def observe(self, value: float, trace: TraceContext | None = None) -> None:
        """Count one observation; a number that is not finite is refused (InvalidValueError).

        That of a recorded `trace` becomes the exemplar of its bucket, shown to whoever asks for OpenMetrics.
        """
        if not -_INF < value < _INF:
            raise InvalidValueError("value", "a finite number", value)
        bucket = bisect_left(self.bounds, value)
        self.counts[bucket] += 1
        self.sum += value
        if trace is not None and trace.sampled:
            exemplars = {} if self.exemplars is None else self.exemplars
            labels = {"trace_id": trace.trace_id, "span_id": trace.span_id}
            exemplars[bucket] = Exemplar(labels, value, time.time())
            self.exemplars = exemplars

    @contextmanager
    def time(self) -> Iterator[None]:
        """Observe how many seconds the body took, also when it fails."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.observe(time.perf_counter() - began)

    @property
    def count(self) -> int:
        """How many observations there were."""
        return sum(self.counts)


Key = tuple[str, ...]
"""The label values of one series, in the order of the label names."""
Report = Callable[[str], None]
"""Told the name of a metric."""

SlotT = TypeVar("SlotT", SlotCounter, SlotGauge, SlotHistogram)


class Family(Generic[SlotT]):
    """All series of one metric. Prometheus collects it; components bind their series once with `labels`.

    At most `series_max` series exist (1 000). Label sets beyond that share one series whose labels are `_other`, except
    the labels in `kept` (those with few values, such as `status`), and every such binding is counted in
    `polaris_metric_series_overflow_total`; a series whose function fails is left out of the scrape and counted in
    `polaris_metric_read_errors_total`. Label values are texts of at most 128 characters, redacted like a log line.
    """

    kind: str

    def __init__(
        self,
        name: str,
        help_text: str,
        labels: Sequence[str] = (),
        *,
        kept: Sequence[str] = (),
        series_max: int = SERIES_MAX,
        on_overflow: Report | None = None,
        on_read_error: Report | None = None,
    ) -> None:
        self.name = name
        self.help_text = help_text
        self.label_names = tuple(labels)
        self.series_max = series_max
        self._kept = tuple(label in kept for label in self.label_names)
        self._on_overflow = on_overflow
        self._on_read_error = on_read_error
        self._series: dict[Key, SlotT] = {}
        self._overflow: dict[Key, SlotT] = {}
        self._lock = Lock()
        if not self.label_names:
            self._series[()] = self._new_slot()

    def labels(self, *values: object, **named: object) -> SlotT:
        """The series of these label values, all by position or all by name; the same values give the same series."""
        key = self._key(values, named)
        slot = self._series.get(key)
        return slot if slot is not None else self._add(key)

    def remove(self, *values: object, **named: object) -> None:
        """Forget the series of these label values: of a component that is gone for good. Unknown ones are ignored."""
        with self._lock:
            self._series.pop(self._key(values, named), None)

    def series(self) -> dict[Key, SlotT]:
        """A copy of the table of all series, the overflow last."""
        with self._lock:
            return {**self._series, **self._overflow}

    def describe(self) -> list[Metric]:
        """The family without its series, as Prometheus' registry asks for it."""
        return [self._metric({})]

    def collect(self) -> list[Metric]:
        """The family with the present values."""
        return [self._metric(self.series())]

    def _numbers(self, series: Mapping[Key, SlotCounter | SlotGauge]) -> Iterator[tuple[Key, float]]:
        for key, slot in series.items():
            try:
                number = slot.get()
            except Exception:  # boundary: a function of a component; the scrape goes on and tells of it
                if self._on_read_error is not None:
                    self._on_read_error(self.name)
                continue
            yield key, number

    @abstractmethod
    def _new_slot(self) -> SlotT: ...

    @abstractmethod
    def _metric(self, series: dict[Key, SlotT]) -> Metric: ...

    def _only(self) -> SlotT:
        if self.label_names:
            raise InvalidValueError("labels", f"labels {', '.join(self.label_names)} for {self.name}", None)
        return self._series[()]

    def _key(self, values: tuple[object, ...], named: dict[str, object]) -> Key:
        if named:
            if values or len(named) != len(self.label_names) or any(label not in named for label in self.label_names):
                self._refuse()
            values = tuple(named[label] for label in self.label_names)
        elif len(values) != len(self.label_names):
            self._refuse()
        return tuple(value if value.__class__ is str else str(value) for value in values)

    def _refuse(self) -> None:
        raise InvalidValueError("labels", f"exactly the labels ({', '.join(self.label_names)}) for {self.name}", None)

    def _add(self, key: Key) -> SlotT:
        clean = tuple(redact_text(value, chars_max=LABEL_CHARS_MAX) for value in key)
        with self._lock:
            slot = self._series.get(clean)
            if slot is not None:
                return slot
            if len(self._series) < self.series_max:
                slot = self._series[clean] = self._new_slot()
                return slot
            slot = self._shared(clean)
        if self._on_overflow is not None:
            self._on_overflow(self.name)
        return slot

    def _shared(self, key: Key) -> SlotT:
        shared = tuple(value if kept else OTHER for value, kept in zip(key, self._kept, strict=True))
        if shared not in self._overflow and len(self._overflow) >= OVERFLOW_SERIES_MAX - 1:
            shared = (OTHER,) * len(key)
        slot = self._overflow.get(shared)
        if slot is None:
            slot = self._overflow[shared] = self._new_slot()
        return slot


class Counter(Family[SlotCounter]):
    """A metric that counts events; its name ends in `_total`."""

    kind = "counter"

    def _new_slot(self) -> SlotCounter:
        return SlotCounter()

    def _metric(self, series: dict[Key, SlotCounter]) -> Metric:
        metric = CounterMetricFamily(self.name, self.help_text, labels=self.label_names)
        for key, number in self._numbers(series):
            metric.add_metric(key, number)
        return metric

    def inc(self, amount: float = 1.0) -> None:
        """As `SlotCounter.inc`, for a metric without labels."""
        self._only().inc(amount)


class Gauge(Family[SlotGauge]):
    """A metric that shows a present value."""

    kind = "gauge"

    def _new_slot(self) -> SlotGauge:
        return SlotGauge()

    def _metric(self, series: dict[Key, SlotGauge]) -> Metric:
        metric = GaugeMetricFamily(self.name, self.help_text, labels=self.label_names)
        for key, number in self._numbers(series):
            metric.add_metric(key, number)
        return metric

    def set(self, value: float) -> None:
        """As `SlotGauge.set`, for a metric without labels."""
        self._only().set(value)

    def inc(self, amount: float = 1.0) -> None:
        """As `SlotGauge.inc`, for a metric without labels."""
        self._only().inc(amount)

    def dec(self, amount: float = 1.0) -> None:
        """As `SlotGauge.dec`, for a metric without labels."""
        self._only().dec(amount)

    def set_function(self, read: Callable[[], float]) -> None:
        """As `SlotGauge.set_function`, for a metric without labels."""
        self._only().set_function(read)


class Histogram(Family[SlotHistogram]):
    """A metric that shows how observations are distributed."""

    kind = "histogram"

    def __init__(
        self,
        name: str,
        help_text: str,
        labels: Sequence[str] = (),
        *,
        buckets: Sequence[float],
        kept: Sequence[str] = (),
        series_max: int = SERIES_MAX,
        on_overflow: Report | None = None,
        on_read_error: Report | None = None,
    ) -> None:
        self.buckets = tuple(float(bound) for bound in buckets)
        self._edges = [str(floatToGoString(bound)) for bound in (*self.buckets, _INF)]  # type: ignore[no-untyped-call]
        super().__init__(
            name,
            help_text,
            labels,
            kept=kept,
            series_max=series_max,
            on_overflow=on_overflow,
            on_read_error=on_read_error,
        )

    def _new_slot(self) -> SlotHistogram:
        return SlotHistogram(self.buckets)

    def _metric(self, series: dict[Key, SlotHistogram]) -> Metric:
        metric = HistogramMetricFamily(self.name, self.help_text, labels=self.label_names)
        for key, slot in series.items():
            running = 0
            buckets: list[Any] = []
            exemplars = {} if slot.exemplars is None else dict(slot.exemplars)
            for number, (edge, count) in enumerate(zip(self._edges, list(slot.counts), strict=True)):
                running += count
                buckets.append((edge, float(running), exemplars.get(number)))
            metric.add_metric(key, buckets, slot.sum)
        return metric

    def observe(self, value: float) -> None:
        """As `SlotHistogram.observe`, for a metric without labels."""
        self._only().observe(value)
