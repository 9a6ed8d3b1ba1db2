"""The metrics of one POLARIS: the families of the catalogue, those that components add, and the text for Prometheus."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import pairwise
from threading import Lock
from typing import Any, ClassVar, cast

from prometheus_client import CollectorRegistry, disable_created_metrics, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST as OPENMETRICS_TYPE
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from polaris.exceptions import ConfigurationError, InvalidValueError
from polaris.observability import _catalogue as catalogue
from polaris.observability._catalogue import CATALOGUE, MetricKind, MetricSpec
from polaris.observability._instruments import Instruments
from polaris.observability._series import SERIES_MAX, Counter, Gauge, Histogram, SlotCounter, SlotHistogram
from polaris.observability._sinks import log_lines_dropped

_NAME = re.compile(r"[a-z_][a-z0-9_]{0,199}")
_RESERVED_LABELS = frozenset({"le", "quantile"})

AnyFamily = Counter | Gauge | Histogram


class MetricsCollector:
    """Counts and measures what POLARIS does; `render` gives the text that Prometheus reads.

    Each collector has a registry of its own unless one is given, so several live in one process; a registry takes one
    collector (ConfigurationError for a second). All methods are safe from any thread. Bind series once, outside hot
    paths: `collector.message_counter(topic, status, event_type).inc()` then costs about 0.1 us.

    The series of a metric are bounded, see `Family.labels`. `topic` labels are patterns, never concrete topics.
    """

    content_type: ClassVar[str] = CONTENT_TYPE_LATEST

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        # Unwanted for families of other libraries in the same registry too: they double the number of series.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry(auto_describe=True) if registry is None else registry
        self._families: dict[str, AnyFamily] = {}
        self._specs: dict[str, MetricSpec] = {}
        self._lock = Lock()
        try:
            for spec in CATALOGUE:
                self._family(spec)
        except BaseException:  # boundary: undone, then raised again
            for family in self._families.values():
                self.registry.unregister(family)
            raise
        self.adaptation_count = self.counter_of(catalogue.ADAPTATIONS)
        self.system_health_score = self.gauge_of(catalogue.HEALTH_SCORE)
        self.message_count = self.counter_of(catalogue.MESSAGES)
        self.message_processing_time = self.histogram_of(catalogue.MESSAGE_SECONDS)
        self.operation_duration = self.histogram_of(catalogue.OPERATION_SECONDS)
        self.active_connections = self.gauge_of(catalogue.ACTIVE_CONNECTIONS)
        self.instruments = Instruments(self)
        self.instruments.log_lines_dropped().set_function(log_lines_dropped)

    def record_adaptation(self, system_id: str, action_type: str, success: bool) -> None:
        """Count one adaptation action that ended, as `status` success or failure."""
        self.adaptation_count.labels(system_id, action_type, "success" if success else "failure").inc()

    def update_health_score(self, system_id: str, score: float) -> None:
        """Show the last health score of a system; refuses what is no finite number (InvalidValueError)."""
        if isinstance(score, bool) or not isinstance(score, (int, float)) or not math.isfinite(score):
            raise InvalidValueError("score", "a finite number", score)
        self.system_health_score.labels(system_id).set(score)

    def message_counter(self, topic: str, status: str, event_type: str) -> SlotCounter:
        """The counter of messages of one topic pattern, status and event type, to be kept by the caller."""
        return self.message_count.labels(topic, status, event_type)

    def message_timer(self, topic: str, event_type: str) -> SlotHistogram:
        """The distribution of processing times of one topic pattern and event type, in seconds."""
        return self.message_processing_time.labels(topic, event_type)

    def operation_timer(self, component: str, operation: str) -> SlotHistogram:
        """The distribution of times of one operation, in seconds."""
        return self.operation_duration.labels(component, operation)

    def counter(
        self,
        name: str,
        help_text: str,
        labels: Sequence[str] = (),
        *,
        kept: Sequence[str] = (),
        series_max: int = SERIES_MAX,
    ) -> Counter:
        """A counter of a component's own, registered at the first call; its name ends in `_total`.

        A call with the same shape (kind, labels, bounds) returns the one that exists; another shape under the same name
        is a ConfigurationError, a name or label that Prometheus does not take an InvalidValueError.
        """
        return self.counter_of(MetricSpec("counter", name, help_text, tuple(labels), tuple(kept), (), series_max))

    def gauge(
        self,
        name: str,
        help_text: str,
        labels: Sequence[str] = (),
        *,
        kept: Sequence[str] = (),
        series_max: int = SERIES_MAX,
    ) -> Gauge:
        """A gauge of a component's own; rules as for `counter`."""
        return self.gauge_of(MetricSpec("gauge", name, help_text, tuple(labels), tuple(kept), (), series_max))

    def histogram(
        self,
        name: str,
        help_text: str,
        labels: Sequence[str] = (),
        *,
        buckets: Sequence[float] = catalogue.OPERATION_BUCKETS_S,
        kept: Sequence[str] = (),
        series_max: int = SERIES_MAX,
    ) -> Histogram:
        """A histogram of a component's own; rules as for `counter`. The default buckets reach from 0.5 ms to 10 s."""
        spec = MetricSpec("histogram", name, help_text, tuple(labels), tuple(kept), tuple(buckets), series_max)
        return self.histogram_of(spec)

    def counter_of(self, spec: MetricSpec) -> Counter:
        """The counter of this specification, registered if it is not yet."""
        return cast(Counter, self._family_of_kind(spec, "counter"))

    def gauge_of(self, spec: MetricSpec) -> Gauge:
        """The gauge of this specification, registered if it is not yet."""
        return cast(Gauge, self._family_of_kind(spec, "gauge"))

    def histogram_of(self, spec: MetricSpec) -> Histogram:
        """The histogram of this specification, registered if it is not yet."""
        return cast(Histogram, self._family_of_kind(spec, "histogram"))

    def render(self, accept: str = "") -> bytes:
        """All metrics in the text format of Prometheus, to be sent with `content_type_for(accept)`.

        In OpenMetrics, which has the exemplars, when `accept`, the header of a request, asks for it.
        Takes milliseconds where there are many series: call it in a thread (`asyncio.to_thread`).
        """
        if _wants_openmetrics(accept):
            return bytes(generate_openmetrics(self.registry))  # type: ignore[no-untyped-call]
        return generate_latest(self.registry)

    def content_type_for(self, accept: str = "") -> str:
        """The media type of what `render(accept)` gives."""
        return OPENMETRICS_TYPE if _wants_openmetrics(accept) else self.content_type

    def _family_of_kind(self, spec: MetricSpec, kind: MetricKind) -> AnyFamily:
        if spec.kind != kind:
            raise ConfigurationError(
                f"metric {spec.name!r} is a {spec.kind}, not a {kind}", {"metric": spec.name, "kind": spec.kind}
            )
        return self._family(spec)

    def _family(self, spec: MetricSpec) -> AnyFamily:
        with self._lock:
            known = self._specs.get(spec.name)
            if known is None:
                return self._register(spec)
        if _shape(known) != _shape(spec):
            raise ConfigurationError(
                f"metric {spec.name!r} is registered as {_drawn(known)}; it cannot be {_drawn(spec)} as well",
                {"metric": spec.name, "registered": _drawn(known), "requested": _drawn(spec)},
            )
        return self._families[spec.name]

    def _register(self, spec: MetricSpec) -> AnyFamily:
        _check(spec)
        options: dict[str, Any] = {
            "kept": spec.kept,
            "series_max": spec.series_max,
            "on_overflow": self._count_overflow,
            "on_read_error": self._count_read_error,
        }
        family: AnyFamily
        if spec.kind == "counter":
            family = Counter(spec.name, spec.help_text, spec.labels, **options)
        elif spec.kind == "gauge":
            family = Gauge(spec.name, spec.help_text, spec.labels, **options)
        else:
            family = Histogram(spec.name, spec.help_text, spec.labels, buckets=spec.buckets, **options)
        try:
            self.registry.register(family)
        except ValueError as error:
            raise ConfigurationError(
                f"metric {spec.name!r} is in this registry already, put there by somebody else",
                {"metric": spec.name},
                cause=error,
            ) from error
        self._families[spec.name] = family
        self._specs[spec.name] = spec
        return family

    def _count_overflow(self, metric: str) -> None:
        self.counter_of(catalogue.SERIES_OVERFLOW).labels(metric).inc()

    def _count_read_error(self, metric: str) -> None:
        self.counter_of(catalogue.METRIC_READ_ERRORS).labels(metric).inc()


def _wants_openmetrics(accept: str) -> bool:
    return any(part.partition(";")[0].strip() == "application/openmetrics-text" for part in accept.split(","))


def _shape(spec: MetricSpec) -> tuple[object, ...]:
    return spec.kind, spec.labels, spec.buckets


def _drawn(spec: MetricSpec) -> str:
    return f"{spec.kind}{{{','.join(spec.labels)}}}" + (f" with {len(spec.buckets)} buckets" if spec.buckets else "")


def _check(spec: MetricSpec) -> None:
    if not _NAME.fullmatch(spec.name):
        raise InvalidValueError("name", "a metric name of lower-case letters, digits and underscores", spec.name)
    if (spec.kind == "counter") != spec.name.endswith("_total"):
        raise InvalidValueError("name", "a name that ends in _total for counters, and only for them", spec.name)
    if not spec.help_text.strip():
        raise InvalidValueError("help_text", "a sentence", spec.help_text)
    for label in spec.labels:
        if not _NAME.fullmatch(label) or label.startswith("__") or label in _RESERVED_LABELS:
            raise InvalidValueError("labels", "label names of lower-case letters, digits and underscores", label)
    if len(set(spec.labels)) != len(spec.labels) or not set(spec.kept) <= set(spec.labels):
        raise InvalidValueError("labels", "distinct names, and kept labels among them", spec.labels)
    if isinstance(spec.series_max, bool) or not isinstance(spec.series_max, int) or spec.series_max < 1:
        raise InvalidValueError("series_max", "an integer of at least 1", spec.series_max)
    if spec.kind == "histogram" and not _is_rising(spec.buckets):
        raise InvalidValueError("buckets", "finite bounds in rising order, at least one", spec.buckets)


def _is_rising(bounds: tuple[float, ...]) -> bool:
    finite = bool(bounds) and all(math.isfinite(bound) for bound in bounds)
    return finite and all(low < high for low, high in pairwise(bounds))
