"""The alert rules that are shipped: each fires when it should and not when it should not, by promtool's own engine."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from polaris.cli._templates import template
from polaris.observability._catalogue import CATALOGUE

RULES = template("alerts.yaml")
NODE = 'instance="node:8642",job="polaris"'


class Case(NamedTuple):
    """Series for twenty minutes, one value a minute, in promtool's notation."""

    series: dict[str, str]
    fires: bool
    at: str = "12m"


def lasting(value: float) -> str:
    return f"{value}x20"


def steps(per_minute: float) -> str:
    return f"0+{per_minute}x20"


BORN = "_x4 1x16"
"""A counter that appears with its first event and stays there."""
OLD = "7x20"


def slow_buckets(name: str, labels: str, over: str) -> dict[str, str]:
    """A histogram of which all observations are over the bound."""
    return {
        f'{name}_bucket{{{NODE},{labels}le="{over}"}}': lasting(0),
        f'{name}_bucket{{{NODE},{labels}le="300"}}': steps(60),
        f'{name}_bucket{{{NODE},{labels}le="+Inf"}}': steps(60),
    }


def fast_buckets(name: str, labels: str, over: str) -> dict[str, str]:
    return {series: steps(60) for series in slow_buckets(name, labels, over)}


def counter(name: str, labels: str) -> tuple[Case, ...]:
    """A counter whose every increase is worth an alert, its first one too; an old count is not."""
    series = f"{name}{{{NODE},{labels}}}"
    return (Case({series: BORN}, True), Case({series: steps(1)}, True), Case({series: OLD}, False))


LAG = "polaris_event_loop_lag_seconds"
WRITES = "polaris_store_write_seconds"
LOOP = "polaris_loop_latency_seconds"
POLLS = "polaris_connector_polls_total"
ADAPTED = "polaris_adaptations_total"
LANE = f'{NODE},consumer="store-telemetry"'
WEB = f'{NODE},system_id="web"'
SCALE = f'{WEB},action_type="scale"'
SUBSCRIBED = f'{NODE},subscription="store-telemetry"'

CASES: dict[str, tuple[Case, ...]] = {
    "PolarisNodeDown": (
        Case({f"up{{{NODE}}}": lasting(0)}, True),
        Case({f"up{{{NODE}}}": lasting(1)}, False),
        Case({'up{instance="a",job="another"}': lasting(0)}, False),
    ),
    "PolarisEventLoopBlocked": (
        Case(slow_buckets(LAG, "", "0.5"), True),
        Case(fast_buckets(LAG, "", "0.5"), False),
    ),
    "PolarisLogLinesDropped": (
        Case({f"polaris_log_lines_dropped_total{{{NODE}}}": steps(1)}, True),
        Case({f"polaris_log_lines_dropped_total{{{NODE}}}": OLD}, False),
    ),
    "PolarisRestarting": counter("polaris_supervised_restarts_total", 'task="outbox relay"'),
    "PolarisHttpFailing": (
        Case(
            {f'polaris_http_requests_total{{{NODE},route="/api/v1/systems",method="GET",status="5xx"}}': steps(1)}, True
        ),
        Case({f'polaris_http_requests_total{{{NODE},route="/api/v1/systems",method="GET",status="5xx"}}': OLD}, False),
        Case(
            {f'polaris_http_requests_total{{{NODE},route="/api/v1/systems",method="GET",status="4xx"}}': steps(9)},
            False,
        ),
        # A node that is not ready says so, and other rules say why.
        Case({f'polaris_http_requests_total{{{NODE},route="/readyz",method="GET",status="5xx"}}': steps(1)}, False),
    ),
    "PolarisMetricSeriesOverflow": counter("polaris_metric_series_overflow_total", 'metric="polaris_messages"'),
    "PolarisBusAway": (
        Case({f'polaris_broker_connected{{{NODE},broker="control"}}': lasting(0)}, True),
        Case({f'polaris_broker_connected{{{NODE},broker="control"}}': lasting(1)}, False),
    ),
    "PolarisBusUnsteady": (
        Case({f'polaris_broker_reconnects_total{{{NODE},broker="bulk"}}': steps(1)}, True),
        Case({f'polaris_broker_reconnects_total{{{NODE},broker="bulk"}}': "0x8 1x12"}, False),
    ),
    "PolarisConsumerBehind": (
        Case(
            {
                f"polaris_consumer_lag_seconds{{{LANE}}}": lasting(90),
                f"polaris_consumer_pending_messages{{{LANE}}}": lasting(5),
            },
            True,
        ),
        # What was handled last may be old when nothing waits.
        Case(
            {
                f"polaris_consumer_lag_seconds{{{LANE}}}": lasting(9000),
                f"polaris_consumer_pending_messages{{{LANE}}}": lasting(0),
            },
            False,
        ),
    ),
    "PolarisDeadLetters": counter("polaris_dead_letters_total", 'topic="polaris.telemetry.*",reason="undecodable"'),
    "PolarisMessagesDropped": (
        *counter("polaris_messages_dropped_total", 'topic="polaris.telemetry.*",subscription="s",reason="unreadable"'),
        Case({f'polaris_messages_dropped_total{{{NODE},reason="overflow"}}': steps(9)}, True),
        # Whoever asks for conflation loses nothing by it.
        Case({f'polaris_messages_dropped_total{{{NODE},reason="conflated"}}': steps(9)}, False),
    ),
    "PolarisEventsLost": (
        Case({f'polaris_events_dropped_total{{{NODE},kind="control",reason="away"}}': steps(1)}, True),
        Case({f'polaris_events_dropped_total{{{NODE},kind="control",reason="cancelled"}}': steps(1)}, False),
        Case({f'polaris_events_dropped_total{{{NODE},kind="control",reason="away"}}': lasting(0)}, False),
    ),
    "PolarisSequenceGaps": (
        Case(
            {
                f"polaris_sequence_missed_total{{{SUBSCRIBED}}}": steps(2),
                f"polaris_sequence_late_total{{{SUBSCRIBED}}}": steps(1),
            },
            True,
            at="18m",
        ),
        Case(
            {
                f"polaris_sequence_missed_total{{{SUBSCRIBED}}}": steps(2),
                f"polaris_sequence_late_total{{{SUBSCRIBED}}}": steps(2),
            },
            False,
            at="18m",
        ),
    ),
    "PolarisSystemUnreachable": (
        Case({f'{POLLS}{{{WEB},status="failure"}}': steps(60)}, True),
        Case({f'{POLLS}{{{WEB},status="failure"}}': steps(60), f'{POLLS}{{{WEB},status="success"}}': OLD}, True),
        # One of two samples failing is no reason to wake anybody.
        Case({f'{POLLS}{{{WEB},status="failure"}}': steps(30), f'{POLLS}{{{WEB},status="success"}}': steps(30)}, False),
        Case({f'{POLLS}{{{WEB},status="failure"}}': OLD}, False),
    ),
    "PolarisTelemetryLost": counter("polaris_telemetry_dropped_total", 'system_id="web",reason="buffer_full"'),
    "PolarisClockAhead": counter("polaris_telemetry_clock_ahead_total", 'system_id="web"'),
    "PolarisStoreFailing": (
        Case({f'polaris_store_writes_total{{{NODE},store="telemetry",status="failed"}}': steps(1)}, True),
        Case({f'polaris_store_writes_total{{{NODE},store="telemetry",status="failed"}}': OLD}, False),
        Case({f'polaris_store_writes_total{{{NODE},store="telemetry",status="committed"}}': steps(500)}, False),
    ),
    "PolarisStoreSlow": (
        Case(slow_buckets(WRITES, 'store="telemetry",', "1"), True),
        Case(fast_buckets(WRITES, 'store="telemetry",', "1"), False),
    ),
    "PolarisBreakerOpen": (
        Case({f'polaris_circuit_breaker_state{{{NODE},breaker="actions:web",state="open"}}': lasting(1)}, True),
        Case({f'polaris_circuit_breaker_state{{{NODE},breaker="actions:web",state="isolated"}}': lasting(1)}, True),
        Case(
            {
                f'polaris_circuit_breaker_state{{{NODE},breaker="actions:web",state="open"}}': lasting(0),
                f'polaris_circuit_breaker_state{{{NODE},breaker="actions:web",state="closed"}}': lasting(1),
            },
            False,
        ),
    ),
    "PolarisActionsFailing": (
        Case({f'{ADAPTED}{{{SCALE},status="failure"}}': steps(1)}, True),
        Case(
            {f'{ADAPTED}{{{SCALE},status="failure"}}': steps(2), f'{ADAPTED}{{{SCALE},status="success"}}': steps(1)},
            True,
        ),
        Case(
            {f'{ADAPTED}{{{SCALE},status="failure"}}': steps(1), f'{ADAPTED}{{{SCALE},status="success"}}': steps(2)},
            False,
        ),
        Case({f'{ADAPTED}{{{SCALE},status="failure"}}': OLD}, False),
    ),
    "PolarisRetriesExhausted": (
        *counter("polaris_retries_total", 'operation="act on web",outcome="exhausted"'),
        Case({f'polaris_retries_total{{{NODE},operation="act on web",outcome="retried"}}': steps(5)}, False),
    ),
    "PolarisBulkheadFull": counter("polaris_bulkhead_rejected_total", 'bulkhead="actions:web"'),
    "PolarisLoopSlow": (
        Case(slow_buckets(LOOP, 'action_type="scale",status="success",', "60"), True, at="18m"),
        Case(fast_buckets(LOOP, 'action_type="scale",status="success",', "60"), False, at="18m"),
    ),
}


def alerts() -> list[str]:
    return re.findall(r"- alert: (\w+)", RULES)


def rule_of(alert: str) -> str:
    found = re.search(rf"- alert: {alert}\n(.*?)(?=\n      - alert|\n  - name|\Z)", RULES, re.DOTALL)
    assert found is not None
    return found[1]


def promtool(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    program = shutil.which("promtool")
    assert program is not None, "promtool is missing: it comes with the package `prometheus`"
    return subprocess.run([program, *arguments], cwd=folder, capture_output=True, text=True, timeout=60, check=False)


def fired(alert: str, case: Case, number: int) -> dict[str, object]:
    """One of promtool's unit tests: whether the alert fires at the time."""
    firing = f'count(ALERTS{{alertname="{alert}",alertstate="firing"}}) > bool 0'
    samples = [{"labels": "{}", "value": 1}] if case.fires else []
    return {
        "name": f"{alert} {number}",
        "interval": "1m",
        "input_series": [{"series": series, "values": values} for series, values in case.series.items()],
        "promql_expr_test": [{"expr": firing, "eval_time": case.at, "exp_samples": samples}],
    }


def test_promtool_accepts_the_rules(tmp_path: Path) -> None:
    (tmp_path / "alerts.yaml").write_text(RULES)
    checked = promtool("check", "rules", "--lint-fatal", "alerts.yaml", folder=tmp_path)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert f"{len(alerts())} rules found" in checked.stdout


def unit_tests(folder: Path, cases: dict[str, tuple[Case, ...]]) -> subprocess.CompletedProcess[str]:
    (folder / "alerts.yaml").write_text(RULES)
    tests = [fired(alert, case, number) for alert, all_of in cases.items() for number, case in enumerate(all_of, 1)]
    (folder / "test.yaml").write_text(json.dumps({"rule_files": ["alerts.yaml"], "tests": tests}))
    return promtool("test", "rules", "test.yaml", folder=folder)


def test_every_alert_fires_when_it_should_and_only_then(tmp_path: Path) -> None:
    assert list(CASES) == alerts()
    for alert, cases in CASES.items():
        assert {case.fires for case in cases} == {True, False}, alert
    tested = unit_tests(tmp_path, CASES)
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_a_wrong_expectation_is_found_out(tmp_path: Path) -> None:
    for alert in ("PolarisNodeDown", "PolarisDeadLetters"):
        wrong = tuple(case._replace(fires=not case.fires) for case in CASES[alert])
        for case in wrong:
            assert unit_tests(tmp_path, {alert: (case,)}).returncode != 0, case


@pytest.mark.parametrize("alert", alerts())
def test_every_alert_says_what_is_wrong_and_what_to_do_in_labels_that_it_has(alert: str) -> None:
    rule = rule_of(alert)
    expression = re.search(r"expr: (.*)", rule)
    assert expression is not None
    names = set(re.findall(r"\bpolaris_\w+|\bup\b", expression[1]))
    kept = [set(re.split(r",\s*", one)) for one in re.findall(r"by \(([^)]*)\)", expression[1])]
    of_metrics = [
        {*metric.labels, "instance"}
        for metric in CATALOGUE
        if metric.name in {re.sub(r"_bucket$", "", name) for name in names}
    ]
    has = set.intersection(*kept) if kept else set.intersection(*of_metrics) if of_metrics else {"instance", "job"}
    used = set(re.findall(r"\$labels\.(\w+)", rule))
    assert used <= has, f"{alert}: {used - has}"
    assert "instance" in has, alert
    assert re.search(r"severity: (info|warning|critical)", rule)
    for part in ("summary", "description"):
        text = re.search(rf'{part}: "(.+)"$', rule, re.MULTILINE)
        assert text is not None, part
        assert len(text[1]) > 20
