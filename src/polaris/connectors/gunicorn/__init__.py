"""A running gunicorn service as a managed system: read from the process table and statsd, scaled by signals.

Readings (units in UCUM). From the process table:

| Name | Unit | Meaning |
|---|---|---|
| `service.workers` | `{process}` | worker processes of the arbiter, including one that finishes its last request |
| `service.cpu.utilization` | `1` | processors kept busy by arbiter and workers since the last collection |
| `service.memory.usage` | `By` | resident memory of arbiter and workers (shared pages count for each) |
| `service.uptime` | `s` | since the arbiter started |

From statsd, over the last `window_s` seconds, when `statsd_port` is configured:

| Name | Unit | Meaning |
|---|---|---|
| `service.request.rate` | `{request}/s` | requests answered; missing until gunicorn was heard |
| `service.request.errors.rate` | `{request}/s` | requests answered with a 5xx status |
| `service.request.status.Nxx.rate` | `{request}/s` | answers by status class, N from 1 to 5 |
| `service.request.duration.p50`, `.p95`, `.p99`, `.mean` | `s` | time in a worker; missing without requests |
| `service.response_time.p50`, `.p95`, `.p99`, `.mean` | `s` | as clients see it; missing when not sent |
| `service.workers.reported` | `{process}` | what the arbiter last reported; `stale` when longer ago than the window |
| `service.request.backlog` | `{request}` | connections waiting to be accepted (`--enable-backlog-metric`); as above |
| `connector.statsd.datagrams` | `{datagram}` | received since `connect` |
| `connector.statsd.malformed`, `.ignored` | `{line}` | lines that are no statsd, and those about something else |
| `connector.statsd.lost` | `{datagram}` | dropped by the kernel because the buffer was full (Linux) |
| `connector.statsd.overflowed` | `{request}` | durations pushed out of a full window (10 000) before their time |

The duration is gunicorn's own: from the moment a worker takes a request up. It holds no waiting in the listen queue, so
an overloaded service of sync workers looks as fast in it as an idle one. What clients see is `service.response_time`: a
`post_request` hook in gunicorn's configuration sends it as the timer `gunicorn.request.response_time`, counted from the
moment that the proxy in front wrote into the header `X-Request-Start` (`examples/01_web_service/gunicorn_conf.py`).
"""

from polaris.connectors.gunicorn._connector import GunicornConnector
from polaris.connectors.gunicorn._options import GunicornOptions

__all__ = ["GunicornConnector", "GunicornOptions"]
