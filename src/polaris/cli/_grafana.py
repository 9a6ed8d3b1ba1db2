"""The Grafana dashboard of a node, made from a list of its panels; every expression names metrics of the catalogue."""

from __future__ import annotations

from typing import Any, NamedTuple

DASHBOARD_UID = "polaris-node"
COLUMNS, HEIGHT = 24, 8
_DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
_NODE = 'instance=~"$instance"'
_SYSTEM = f'{_NODE},system_id=~"$system"'


class Panel(NamedTuple):
    """One graph or figure: its expressions with the legend of each."""

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    description: str = ""
    kind: str = "timeseries"
    width: int = 8


def _rate(metric: str, by: str, where: str = _NODE) -> str:
    return f"sum by ({by}) (rate({metric}{{{where}}}[$__rate_interval]))"


def _quantile(quantile: float, metric: str, by: str) -> str:
    return f"histogram_quantile({quantile}, {_rate(f'{metric}_bucket', f'{by}, le')})"


def _quantiles(metric: str, by: str, legend: str) -> tuple[tuple[str, str], ...]:
    return tuple((_quantile(q, metric, by), f"{legend} p{q * 100:g}".strip()) for q in (0.5, 0.99))


ROWS: tuple[tuple[str, tuple[Panel, ...]], ...] = (
    (
        "Loop",
        (
            Panel(
                "Bus connected",
                "bool_yes_no",
                ((f"min(polaris_broker_connected{{{_NODE}}})", ""),),
                kind="stat",
                width=4,
            ),
            Panel(
                "Breakers open",
                "short",
                ((f'sum(polaris_circuit_breaker_state{{{_NODE},state=~"open|isolated"}})', ""),),
                kind="stat",
                width=4,
            ),
            Panel(
                "Dead letters",
                "short",
                ((f"sum(polaris_dead_letters_total{{{_NODE}}}) or vector(0)", ""),),
                "Since the nodes started. Look at them with: polaris dlq list",
                kind="stat",
                width=4,
            ),
            Panel(
                "Samples lost",
                "short",
                ((f"sum(polaris_telemetry_dropped_total{{{_NODE}}}) or vector(0)", ""),),
                "Taken of a system, never confirmed by the bus; since the nodes started.",
                kind="stat",
                width=4,
            ),
            Panel("Health score", "percentunit", ((f"polaris_system_health_score{{{_SYSTEM}}}", "{{system_id}}"),)),
            Panel(
                "Actions by outcome",
                "ops",
                (
                    (
                        _rate("polaris_adaptations_total", "system_id, action_type, status", _SYSTEM),
                        "{{system_id}} {{action_type}} {{status}}",
                    ),
                ),
            ),
            Panel(
                "Telemetry to result",
                "s",
                _quantiles("polaris_loop_latency_seconds", "action_type", "{{action_type}}"),
                "From the timestamp of the telemetry that caused an action to the action's result.",
            ),
            Panel(
                "Systems that cannot be read",
                "ops",
                (
                    (
                        _rate("polaris_connector_polls_total", "system_id", f'{_SYSTEM},status="failure"'),
                        "{{system_id}}",
                    ),
                ),
            ),
        ),
    ),
    (
        "Telemetry",
        (
            Panel(
                "Samples",
                "ops",
                (
                    (_rate("polaris_telemetry_sampled_total", "system_id", _SYSTEM), "{{system_id}} taken"),
                    (_rate("polaris_telemetry_confirmed_total", "system_id", _SYSTEM), "{{system_id}} confirmed"),
                ),
            ),
            Panel(
                "Samples waiting for the bus",
                "short",
                ((f"polaris_telemetry_waiting_samples{{{_SYSTEM}}}", "{{system_id}}"),),
            ),
            Panel(
                "Time to read a system", "s", _quantiles("polaris_connector_poll_seconds", "connector", "{{connector}}")
            ),
        ),
    ),
    (
        "Bus",
        (
            Panel("Messages", "ops", ((_rate("polaris_messages_total", "topic, status"), "{{topic}} {{status}}"),)),
            Panel(
                "Time to handle a message", "s", _quantiles("polaris_message_processing_seconds", "topic", "{{topic}}")
            ),
            Panel("Messages waiting", "short", ((f"polaris_consumer_pending_messages{{{_NODE}}}", "{{consumer}}"),)),
            Panel("Consumer lag", "s", ((f"polaris_consumer_lag_seconds{{{_NODE}}}", "{{consumer}}"),)),
            Panel(
                "Not handled",
                "ops",
                (
                    (_rate("polaris_dead_letters_total", "topic, reason"), "{{topic}} put aside: {{reason}}"),
                    (
                        _rate("polaris_messages_dropped_total", "subscription, reason"),
                        "{{subscription}} dropped: {{reason}}",
                    ),
                    (_rate("polaris_events_dropped_total", "kind, reason"), "{{kind}} not published: {{reason}}"),
                ),
            ),
            Panel(
                "Delivered again, gaps",
                "ops",
                (
                    (_rate("polaris_redeliveries_total", "topic"), "{{topic}} again"),
                    (_rate("polaris_sequence_missed_total", "subscription"), "{{subscription}} missed"),
                ),
            ),
        ),
    ),
    (
        "Store",
        (
            Panel(
                "Points written",
                "wps",
                ((_rate("polaris_store_writes_total", "collection, status"), "{{collection}} {{status}}"),),
                width=12,
            ),
            Panel("Time of a commit", "s", _quantiles("polaris_store_write_seconds", "store", "{{store}}"), width=12),
        ),
    ),
    (
        "Resilience",
        (
            Panel(
                "Breakers not closed",
                "short",
                ((f'polaris_circuit_breaker_state{{{_NODE},state!="closed"}} == 1', "{{breaker}} {{state}}"),),
            ),
            Panel(
                "Actions at work",
                "short",
                (
                    (f"polaris_bulkhead_in_use{{{_NODE}}}", "{{bulkhead}} at work"),
                    (f"polaris_bulkhead_queued{{{_NODE}}}", "{{bulkhead}} waiting"),
                    (f"polaris_bulkhead_limit{{{_NODE}}}", "{{bulkhead}} at most"),
                ),
            ),
            Panel(
                "Failed attempts",
                "ops",
                ((_rate("polaris_retries_total", "operation, outcome"), "{{operation}} {{outcome}}"),),
            ),
        ),
    ),
    (
        "Node",
        (
            Panel(
                "Event loop lag",
                "s",
                _quantiles("polaris_event_loop_lag_seconds", "instance", "{{instance}}"),
                width=12,
            ),
            Panel(
                "Log lines dropped",
                "ops",
                ((_rate("polaris_log_lines_dropped_total", "instance"), "{{instance}}"),),
                width=12,
            ),
            Panel(
                "HTTP requests",
                "reqps",
                (
                    (_rate("polaris_http_requests_total", "status"), "{{status}}"),
                    (_rate("polaris_http_refused_total", "reason"), "refused: {{reason}}"),
                ),
            ),
            Panel("Time of an HTTP request", "s", _quantiles("polaris_http_request_seconds", "route", "{{route}}")),
            Panel("Live clients", "short", ((f"polaris_http_streams{{{_NODE}}}", "{{instance}} {{stream}}"),)),
            Panel(
                "Started again after a failure",
                "short",
                ((f"sum by (task) (increase(polaris_supervised_restarts_total{{{_NODE}}}[10m]))", "{{task}}"),),
                "Parts of the node, the embedded bus server included, within ten minutes.",
            ),
        ),
    ),
)


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana imports it (schema 38, Grafana 9.5 and newer); the data source is chosen on it."""
    return {
        "uid": DASHBOARD_UID,
        "title": "POLARIS node",
        "tags": ["polaris"],
        "editable": True,
        "schemaVersion": 38,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "timezone": "utc",
        "templating": {"list": _variables()},
        "panels": _panels(),
    }


def _variables() -> list[dict[str, Any]]:
    def values_of(name: str, label: str, metric: str) -> dict[str, Any]:
        return {
            "name": name,
            "type": "query",
            "label": label,
            "datasource": _DATASOURCE,
            "query": {"query": metric, "refId": name},
            "refresh": 2,
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
            "current": {"text": "All", "value": "$__all"},
        }

    systems = f"label_values(polaris_telemetry_sampled_total{{{_NODE}}}, system_id)"
    return [
        {"name": "datasource", "type": "datasource", "label": "Data source", "query": "prometheus"},
        values_of("instance", "Node", "label_values(polaris_broker_connected, instance)"),
        values_of("system", "System", systems),
    ]


def _panels() -> list[dict[str, Any]]:
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in ROWS:
        panels.append({"type": "row", "title": title, "id": len(panels) + 1, "gridPos": _place(0, top, COLUMNS, 1)})
        top += 1
        left = 0
        for panel in row:
            if left + panel.width > COLUMNS:
                left, top = 0, top + HEIGHT
            panels.append(_panel(panel, len(panels) + 1, _place(left, top, panel.width, HEIGHT)))
            left += panel.width
        top += HEIGHT
    return panels


def _place(left: int, top: int, width: int, height: int) -> dict[str, int]:
    return {"x": left, "y": top, "w": width, "h": height}


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    targets = [
        {
            "refId": chr(ord("A") + index),
            "datasource": _DATASOURCE,
            "expr": expression,
            "legendFormat": legend or "__auto",
        }
        for index, (expression, legend) in enumerate(panel.queries)
    ]
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": _DATASOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": _OPTIONS[panel.kind],
        "targets": targets,
    }


_OPTIONS: dict[str, dict[str, Any]] = {
    "timeseries": {
        "legend": {"displayMode": "list", "placement": "bottom"},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "stat": {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value", "graphMode": "area"},
}
