"""The metrics of the specification, by name and label, as a scrape sees them."""

from __future__ import annotations

import inspect
import math
import shutil
import subprocess
import sys
import threading
import timeit
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client import Counter as ForeignCounter
from prometheus_client.parser import text_string_to_metric_families

from polaris.exceptions import ConfigurationError, InvalidValueError, PolarisException
from polaris.observability import (
    CATALOGUE,
    Instruments,
    MetricsCollector,
    SlotCounter,
    SlotGauge,
    SlotHistogram,
    log_lines_dropped,
    start_trace,
)

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(collector: MetricsCollector) -> Samples:
    """Every sample of the rendered text, read by Prometheus' own parser."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(collector.render().decode())
        for sample in family.samples
    }


def value(collector: MetricsCollector, name: str, **labels: str) -> float | None:
    return scrape(collector).get((name, frozenset(labels.items())))


@pytest.fixture
def collector() -> MetricsCollector:
    return MetricsCollector()


SPECIFIED = [
    ("adaptation_count", "polaris_adaptations_total", ("system_id", "action_type", "status")),
    ("system_health_score", "polaris_system_health_score", ("system_id",)),
    ("message_count", "polaris_messages_total", ("topic", "status", "event_type")),
    ("message_processing_time", "polaris_message_processing_seconds", ("topic", "event_type")),
    ("operation_duration", "polaris_operation_duration_seconds", ("component", "operation")),
    ("active_connections", "polaris_active_connections", ("connection_type",)),
]


@pytest.mark.parametrize(("attribute", "name", "labels"), SPECIFIED)
def test_the_specified_metrics_have_their_names_and_labels(
    attribute: str, name: str, labels: tuple[str, ...], collector: MetricsCollector
) -> None:
    family: Any = getattr(collector, attribute)
    values = {label: f"value of {label}" for label in labels}
    series = family.labels(**values)
    suffix = ""
    if family.kind == "histogram":
        series.observe(2.0)
        suffix = "_sum"
    elif family.kind == "gauge":
        series.set(2.0)
    else:
        series.inc(2.0)
    assert value(collector, name + suffix, **values) == 2.0
    assert family.labels(*values.values()) is series
    for wrong in ({}, {**values, "more": "x"}, {"other": "x"}):
        with pytest.raises(InvalidValueError):
            family.labels(**wrong)


def test_adaptations_are_counted_by_outcome(collector: MetricsCollector) -> None:
    collector.record_adaptation("web-1", "scale_out", success=True)
    collector.record_adaptation("web-1", "scale_out", success=True)
    collector.record_adaptation("web-1", "scale_out", success=False)
    name, labels = "polaris_adaptations_total", {"system_id": "web-1", "action_type": "scale_out"}
    assert value(collector, name, **labels, status="success") == 2
    assert value(collector, name, **labels, status="failure") == 1


def test_a_health_score_is_the_last_one_and_never_nonsense(collector: MetricsCollector) -> None:
    collector.update_health_score("web-1", 0.25)
    collector.update_health_score("web-1", 0.75)
    for nonsense in (math.nan, math.inf, "0.5", None, True):
        with pytest.raises(InvalidValueError) as caught:
            collector.update_health_score("web-1", nonsense)  # type: ignore[arg-type]
        assert caught.value.field == "score"
    assert value(collector, "polaris_system_health_score", system_id="web-1") == 0.75


@pytest.mark.parametrize("amount", [-1.0, math.nan, math.inf])
def test_a_counter_never_goes_down_and_keeps_its_value_when_asked_to(
    amount: float, collector: MetricsCollector
) -> None:
    counter = collector.message_counter("t", "received", "e")
    counter.inc()
    with pytest.raises(InvalidValueError):
        counter.inc(amount)
    assert counter.get() == 1.0


@pytest.mark.parametrize("observed", [math.nan, math.inf, -math.inf])
def test_gauges_and_histograms_refuse_what_is_no_number(observed: float, collector: MetricsCollector) -> None:
    gauge, histogram = collector.gauge("g", "A gauge."), collector.histogram("h", "A histogram.")
    for change in (gauge.set, gauge.inc, gauge.dec, histogram.observe):
        with pytest.raises(InvalidValueError):
            change(observed)
    assert value(collector, "g") == 0.0
    assert value(collector, "h_count") == 0.0


def test_a_histogram_counts_every_bound_as_below_or_equal(collector: MetricsCollector) -> None:
    histogram = collector.histogram("sizes", "Sizes.", buckets=(1, 2.5, 10))
    for observed in (0.5, 1.0, 1.5, 2.5, 10.0, 11.0):
        histogram.observe(observed)
    counts = {edge: value(collector, "sizes_bucket", le=edge) for edge in ("1.0", "2.5", "10.0", "+Inf")}
    assert counts == {"1.0": 2, "2.5": 4, "10.0": 5, "+Inf": 6}
    assert value(collector, "sizes_count") == 6
    assert value(collector, "sizes_sum") == 26.5


def test_a_timed_body_is_observed_also_when_it_fails(collector: MetricsCollector) -> None:
    timer = collector.operation_timer("store", "write")
    with pytest.raises(KeyError), timer.time():
        raise KeyError
    assert timer.count == 1
    assert 0.0 <= timer.sum < 1.0


def test_two_collectors_in_one_process_count_apart() -> None:
    first, second = MetricsCollector(), MetricsCollector()
    first.record_adaptation("web-1", "scale_out", success=True)
    name, labels = "polaris_adaptations_total", {"system_id": "web-1", "action_type": "scale_out", "status": "success"}
    assert value(first, name, **labels) == 1
    assert value(second, name, **labels) is None


def test_a_second_collector_for_a_registry_is_refused_and_changes_nothing() -> None:
    registry = CollectorRegistry()
    first = MetricsCollector(registry)
    before = first.render()
    with pytest.raises(ConfigurationError):
        MetricsCollector(registry)
    assert first.render() == before


def test_a_registry_with_a_name_of_ours_in_it_is_refused_as_a_whole() -> None:
    registry = CollectorRegistry()
    ForeignCounter("polaris_log_lines_dropped", "Somebody else's.", registry=registry)
    with pytest.raises(ConfigurationError, match="polaris_log_lines_dropped_total"):
        MetricsCollector(registry)
    assert b"polaris_messages" not in generate_latest(registry)


def test_metrics_of_others_in_the_registry_are_rendered_and_have_no_created_series() -> None:
    registry = CollectorRegistry()
    collector = MetricsCollector(registry)
    ForeignCounter("foreign", "Somebody else's.", registry=registry).inc()
    text = collector.render().decode()
    assert "foreign_total 1.0" in text
    assert "_created" not in text
    assert generate_latest(registry) == collector.render()


def test_a_component_registers_its_own_metric_once(collector: MetricsCollector) -> None:
    first = collector.counter("widgets_total", "Widgets.", ["kind"])
    assert collector.counter("widgets_total", "Widgets.", ("kind",)) is first
    assert collector.gauge("depth", "Depth.") is collector.gauge("depth", "Depth.")
    assert collector.histogram("took_seconds", "Time.") is collector.histogram("took_seconds", "Time.")
    first.labels("a").inc(3)
    assert value(collector, "widgets_total", kind="a") == 3


def test_another_shape_under_the_same_name_is_refused(collector: MetricsCollector) -> None:
    collector.counter("widgets_total", "Widgets.", ["kind"])
    collector.gauge("depth", "Depth.")
    collector.histogram("took_seconds", "Time.", buckets=(1, 2))
    before = collector.render()
    for register in (
        lambda: collector.counter("widgets_total", "Widgets.", ["colour"]),
        lambda: collector.counter("widgets_total", "Widgets."),
        lambda: collector.histogram("depth", "Depth."),
        lambda: collector.histogram("took_seconds", "Time.", buckets=(1, 3)),
        lambda: collector.gauge("polaris_system_health_score", "Mine.", ["host"]),
    ):
        with pytest.raises(ConfigurationError, match="is registered as"):
            register()
    assert collector.render() == before


@pytest.mark.parametrize(
    ("register", "field"),
    [
        (lambda c: c.counter("widgets", "Without the suffix."), "name"),
        (lambda c: c.gauge("widgets_total", "With the suffix."), "name"),
        (lambda c: c.gauge("bad name", "Bad."), "name"),
        (lambda c: c.gauge("Capital", "Bad."), "name"),
        (lambda c: c.gauge("größe", "Bad."), "name"),
        (lambda c: c.gauge("g", " "), "help_text"),
        (lambda c: c.gauge("g", "Bad.", ["le"]), "labels"),
        (lambda c: c.gauge("g", "Bad.", ["__name__"]), "labels"),
        (lambda c: c.gauge("g", "Bad.", ["a", "a"]), "labels"),
        (lambda c: c.gauge("g", "Bad.", ["a"], kept=["b"]), "labels"),
        (lambda c: c.gauge("g", "Bad.", ["a"], series_max=0), "series_max"),
        (lambda c: c.histogram("h", "Bad.", buckets=()), "buckets"),
        (lambda c: c.histogram("h", "Bad.", buckets=(2, 1)), "buckets"),
        (lambda c: c.histogram("h", "Bad.", buckets=(1, math.inf)), "buckets"),
    ],
)
def test_a_metric_that_prometheus_would_not_like_is_refused(
    register: Any, field: str, collector: MetricsCollector
) -> None:
    before = collector.render()
    with pytest.raises(InvalidValueError) as caught:
        register(collector)
    assert caught.value.field == field
    assert collector.render() == before


def test_ten_thousand_systems_do_not_make_ten_thousand_series(collector: MetricsCollector) -> None:
    for number in range(10_000):
        collector.record_adaptation(f"system-{number}", "scale_out", success=number % 10 != 0)
        collector.update_health_score(f"system-{number}", 1.0)

    samples = scrape(collector)
    adaptations = {labels: v for (name, labels), v in samples.items() if name == "polaris_adaptations_total"}
    scores = [labels for (name, labels) in samples if name == "polaris_system_health_score"]
    assert len(adaptations) <= 1_000 + 2
    assert len(scores) == 1_000 + 1
    # Nothing is lost: what has no series of its own is in the common one, and its outcome is still told.
    assert sum(adaptations.values()) == 10_000
    by_status = {
        status: sum(v for labels, v in adaptations.items() if ("status", status) in labels)
        for status in ("success", "failure")
    }
    assert by_status == {"success": 9_000, "failure": 1_000}
    other = {"system_id": "_other", "action_type": "_other", "status": "success"}
    assert samples["polaris_adaptations_total", frozenset(other.items())] == 8_100
    overflow = {"metric": "polaris_adaptations_total"}
    assert samples["polaris_metric_series_overflow_total", frozenset(overflow.items())] == 9_000


def test_even_the_kept_labels_cannot_make_series_without_end(collector: MetricsCollector) -> None:
    counter = collector.counter("widgets_total", "Widgets.", ["kind", "status"], kept=["status"], series_max=5)
    for number in range(1_000):
        counter.labels("kind", f"status {number}").inc()
    assert len(counter.series()) <= 5 + 16
    assert sum(slot.get() for slot in counter.series().values()) == 1_000


def test_a_removed_series_is_gone_and_makes_room(collector: MetricsCollector) -> None:
    gauge = collector.gauge("depth", "Depth.", ["queue"], series_max=1)
    gauge.labels("a").set(1)
    gauge.remove("a")
    gauge.remove("unknown")
    gauge.labels(queue="b").set(2)
    assert value(collector, "depth", queue="a") is None
    assert value(collector, "depth", queue="b") == 2


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ('quote " and \\ backslash', 'quote " and \\ backslash'),
        ("two\nlines", "two\nlines"),
        ("größe ✓", "größe ✓"),
        ("\ud800", "\\ud800"),
        (7, "7"),
        ("nats://u:h4rdToGuess@h", "nats://[redacted]@h"),
        ("x" * 10_000, "x" * 117 + "[truncated]"),
    ],
)
def test_any_label_value_is_rendered_safely(given: object, shown: str, collector: MetricsCollector) -> None:
    collector.counter("widgets_total", "Widgets.", ["kind"]).labels(given).inc()
    assert value(collector, "widgets_total", kind=shown) == 1


def test_threads_lose_no_count_while_somebody_scrapes(collector: MetricsCollector) -> None:
    counter = collector.message_counter("polaris.telemetry.*", "received", "TelemetryEvent")
    histogram = collector.message_timer("polaris.telemetry.*", "TelemetryEvent")
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    scraped: list[float] = []

    def count(thread: int) -> None:
        for number in range(20_000):
            counter.inc()
            histogram.observe(0.001)
            if number % 100 == 0:
                collector.message_counter(f"topic {thread} {number}", "received", "e").inc()

    threads = [threading.Thread(target=count, args=(number,)) for number in range(4)]
    try:
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            labels = {"topic": "polaris.telemetry.*", "status": "received", "event_type": "TelemetryEvent"}
            scraped.append(value(collector, "polaris_messages_total", **labels) or 0.0)
    finally:
        for thread in threads:
            thread.join()
        sys.setswitchinterval(interval)
    assert counter.get() == histogram.count == 80_000
    assert histogram.sum == pytest.approx(80.0)
    assert scraped == sorted(scraped)
    assert sum(slot.get() for slot in collector.message_count.series().values()) == 80_000 + 800


def test_values_may_be_read_at_the_scrape(collector: MetricsCollector) -> None:
    depth = [3.0]
    collector.gauge("depth", "Depth.").set_function(lambda: depth[0])
    collector.counter("drops_total", "Drops.").labels().set_function(lambda: depth[0] * 2)
    depth[0] = 5.0
    assert value(collector, "depth") == 5.0
    assert value(collector, "drops_total") == 10.0
    assert value(collector, "polaris_log_lines_dropped_total") == log_lines_dropped()


def test_a_value_that_cannot_be_read_does_not_spoil_the_scrape(collector: MetricsCollector) -> None:
    def fail() -> float:
        raise OSError("gone")

    gauge = collector.gauge("depth", "Depth.", ["queue"])
    gauge.labels("broken").set_function(fail)
    gauge.labels("whole").set(1)
    assert value(collector, "depth", queue="whole") == 1.0
    assert value(collector, "depth", queue="broken") is None
    assert (value(collector, "polaris_metric_read_errors_total", metric="depth") or 0) >= 2


def fill(instruments: Instruments) -> None:
    """Feed every instrument of the catalogue once."""
    for name, make in inspect.getmembers(Instruments, inspect.isfunction):
        if name.startswith("_"):
            continue
        arguments = [f"some {parameter}" for parameter in list(inspect.signature(make).parameters)[1:]]
        match make(instruments, *arguments):
            case SlotCounter() | SlotGauge() as slot:
                slot.inc()
            case SlotHistogram() as histogram:
                histogram.observe(1.0)
            case unknown:
                raise AssertionError(f"{name} gives {unknown!r}")


def filled() -> MetricsCollector:
    collector = MetricsCollector()
    fill(collector.instruments)
    collector.record_adaptation("s", "a", success=True)
    collector.update_health_score("s", 1.0)
    collector.message_counter("t", "received", "e").inc()
    collector.message_timer("t", "e").observe(1)
    collector.operation_timer("c", "o").observe(1)
    collector.active_connections.labels("nats").set(1)
    for known in ("polaris_metric_series_overflow_total", "polaris_metric_read_errors_total"):
        collector.counter(known, "As registered.", ["metric"]).labels("m").inc()
    return collector


def test_every_metric_of_the_catalogue_can_be_fed_and_is_scraped() -> None:
    collector = filled()
    names = {name for name, _ in scrape(collector)}
    for spec in CATALOGUE:
        assert (spec.name if spec.kind != "histogram" else f"{spec.name}_count") in names
    assert len({spec.name for spec in CATALOGUE}) == len(CATALOGUE)
    assert {spec.name for spec in CATALOGUE} >= {name for _, name, _ in SPECIFIED}


def test_promtool_finds_nothing_to_complain_about() -> None:
    promtool = shutil.which("promtool")
    assert promtool is not None, "promtool is missing: it comes with the package `prometheus`"
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=filled().render(), capture_output=True, check=False, timeout=60
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def test_the_content_type_is_that_of_the_text_format(collector: MetricsCollector) -> None:
    assert collector.content_type.startswith("text/plain; version=")
    assert collector.content_type.endswith("charset=utf-8")


def test_errors_of_metrics_are_polaris_errors(collector: MetricsCollector) -> None:
    for fail in (
        lambda: collector.counter("x", "y"),
        lambda: collector.adaptation_count.inc(),
        lambda: collector.message_count.labels("one"),
    ):
        with pytest.raises(PolarisException):
            fail()


def test_a_bound_counter_costs_little_beside_a_lookup(collector: MetricsCollector) -> None:
    counter = collector.message_counter("t", "s", "e")
    assert isinstance(counter, SlotCounter)
    bound = min(timeit.repeat(counter.inc, number=20_000, repeat=5))
    looked_up = min(
        timeit.repeat(
            lambda: collector.message_count.labels(topic="t", status="s", event_type="e").inc(), number=20_000, repeat=5
        )
    )
    assert bound * 4 < looked_up


def test_openmetrics_has_the_exemplar_of_a_bucket_and_the_text_format_has_none(collector: MetricsCollector) -> None:
    latency = collector.instruments.loop_latency("scale", "success")
    recorded, passed_over = start_trace(sampled=True), start_trace(sampled=False)
    latency.observe(0.2, recorded)
    latency.observe(0.02, passed_over)
    latency.observe(0.02)
    accept = "application/openmetrics-text; version=1.0.0, text/plain;q=0.5"
    shown = collector.render(accept).decode()
    assert collector.content_type_for(accept).startswith("application/openmetrics-text")
    assert shown.count(" # {") == 1
    (line,) = [line for line in shown.splitlines() if " # {" in line]
    assert line.startswith("polaris_loop_latency_seconds_bucket{")
    assert f'trace_id="{recorded.trace_id}"' in line
    assert f'span_id="{recorded.span_id}"' in line
    assert "} 0.2 " in line
    assert passed_over.trace_id not in shown
    assert shown.endswith("# EOF\n")
    assert recorded.trace_id not in collector.render().decode()
    assert collector.content_type_for("*/*") == collector.content_type
