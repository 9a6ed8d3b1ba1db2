"""gunicorn's configuration for this example: what it reports by statsd, and that it ends with whoever started it."""

from __future__ import annotations

import os
import time
from typing import Any

from lifeline import end_with_parent

worker_class = "sync"
workers = int(os.environ.get("WORKERS", "1"))
timeout = 6  # a worker whose arbiter was killed notices after half of it
graceful_timeout = 5
loglevel = "error"  # below it a datagram that nobody listens to is a warning with a traceback, per request
proc_name = "polaris-example"
control_socket_disable = True
if "STATSD_PORT" in os.environ:
    statsd_host = f"127.0.0.1:{os.environ['STATSD_PORT']}"


def on_starting(server: Any) -> None:
    """The arbiter starts: watch the parent."""
    end_with_parent(grace_s=graceful_timeout + 2.0)


def post_request(worker: Any, request: Any, environ: Any, response: Any) -> None:
    """A response is sent: report the time since the request arrived at the front, queueing included.

    gunicorn's own timer begins when a worker takes the request up, which hides all waiting. Proxies tell the time of
    arrival in the header `X-Request-Start: t=<Unix time in seconds>`.
    """
    started = environ.get("HTTP_X_REQUEST_START", "")
    if started.startswith("t="):
        try:
            elapsed_ms = (time.time() - float(started[2:])) * 1000.0
        except ValueError:
            return
        extra = {"metric": "gunicorn.request.response_time", "value": f"{max(0.0, elapsed_ms):.3f}", "mtype": "timer"}
        worker.log.info("", extra=extra)
