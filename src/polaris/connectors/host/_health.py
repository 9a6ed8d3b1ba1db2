"""How the machine is doing, judged by thresholds."""

from __future__ import annotations

from collections.abc import Mapping

from polaris.connectors.host._options import HostOptions
from polaris.domain import HealthStatus, MetricValue

_ORDER = (HealthStatus.UNKNOWN, HealthStatus.HEALTHY, HealthStatus.WARNING, HealthStatus.CRITICAL)


def judge(metrics: Mapping[str, MetricValue], options: HostOptions) -> tuple[HealthStatus, list[str]]:
    """The worst that the readings say, with a sentence for everything that is not healthy.

    A share above its threshold is `warning` or `critical`; a wanted process that does not run is `critical`. What is
    missing says nothing; when everything is missing the status is `unknown`.
    """
    limits = {
        "system.cpu.utilization": (options.cpu_warning, options.cpu_critical),
        "system.memory.utilization": (options.memory_warning, options.memory_critical),
        "system.filesystem.utilization": (options.filesystem_warning, options.filesystem_critical),
    }
    worst, reasons = HealthStatus.UNKNOWN, []
    for key, metric in metrics.items():
        value = metric.value
        if not isinstance(value, (int, float)):
            continue
        status = HealthStatus.HEALTHY
        if metric.name in limits:
            warning, critical = limits[metric.name]
            if value > warning:
                status = HealthStatus.CRITICAL if value > critical else HealthStatus.WARNING
                reasons.append(f"{key} is {value:.1%}")
        elif metric.name == "process.alive" and not value:
            status = HealthStatus.CRITICAL
            reasons.append(f"{metric.tags['process']} does not run")
        worst = max(worst, status, key=_ORDER.index)
    return worst, reasons
