"""The options of the gunicorn connector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta

from polaris.connectors._connector import ConnectorOptions

Seconds = Annotated[float, Meta(gt=0.0, le=3600.0)]
Workers = Annotated[int, Meta(ge=1, le=1024)]
Path = Annotated[str, Meta(min_length=1, max_length=4096)]


class GunicornOptions(ConnectorOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to find a running gunicorn, what it may be made to do, and where its statsd datagrams arrive.

    Exactly one of `pidfile` (gunicorn's `--pidfile`; a restarted service is found again) and `pid`. The arbiter's
    command line must hold `command_contains`, so that a reused pid is not taken for it. `workers_min` and
    `workers_max` bound every action. `action_timeout_s` bounds one action, and so do 90 % of its own timeout (the rest
    is for the answer); a worker that is removed finishes its request first. `statsd_port`: where to listen for
    `--statsd-host 127.0.0.1:<port>`, 0 for any free port, absent for no listener; `statsd_prefix` is gunicorn's
    `--statsd-prefix`; rates and latencies are over the last `window_s`. `latency_*_s`: a p95 above makes the service
    `warning` or `critical`. `journal`: a file that witnesses every action, which lets `recall_action` tell what became
    of it.
    """

    pidfile: Path | None = None
    pid: Annotated[int, Meta(ge=2, le=2**31 - 1)] | None = None
    command_contains: Annotated[str, Meta(min_length=1, max_length=1000)] = "gunicorn"
    workers_min: Workers = 1
    workers_max: Workers = 8
    action_timeout_s: Seconds = 25.0
    statsd_port: Annotated[int, Meta(ge=0, le=65535)] | None = None
    statsd_prefix: Annotated[str, Meta(max_length=100)] = ""
    window_s: Seconds = 10.0
    latency_warning_s: Seconds | None = None
    latency_critical_s: Seconds | None = None
    journal: Path | None = None

    def problems(self) -> Sequence[str]:
        found = []
        if (self.pidfile is None) == (self.pid is None):
            found.append("pidfile: expected exactly one of pidfile and pid")
        if self.workers_min > self.workers_max:
            found.append(f"workers_min: expected at most workers_max ({self.workers_max}), got {self.workers_min}")
        warning, critical = self.latency_warning_s, self.latency_critical_s
        if warning is not None and critical is not None and warning > critical:
            found.append(f"latency_warning_s: expected at most latency_critical_s ({critical:g}), got {warning:g}")
        return found
