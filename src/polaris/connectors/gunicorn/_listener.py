"""The statsd listener: owns a UDP socket on loopback and reads it continuously."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from polaris.clock import Clock
from polaris.connectors._readings import Readings
from polaris.connectors.gunicorn._statsd import Kind, Sample, parse_datagram
from polaris.connectors.gunicorn._window import CountWindow, DurationWindow, quantile
from polaris.domain import MetricValue, Quality
from polaris.exceptions import ConnectorError

HOST = "127.0.0.1"
RECEIVE_BUFFER_BYTES = 4 << 20
STATUS_CLASSES = ("1xx", "2xx", "3xx", "4xx", "5xx")


DURATIONS = {"request.duration": "service.request.duration", "request.response_time": "service.response_time"}
LEVELS = {"workers": ("service.workers.reported", "{process}"), "backlog": ("service.request.backlog", "{request}")}


class Level(NamedTuple):
    """What the arbiter last reported of something that has a level, and when."""

    value: float
    at: datetime
    monotonic_s: float


class StatsdListener:
    """Receives what one gunicorn sends with `--statsd-host 127.0.0.1:<port>`.

    `open` binds the socket, `close` releases it; the port may be 0 for a free one. An unread socket loses datagrams
    silently, so the event loop reads it as they arrive, and the kernel is asked for 4 MiB of buffer (it may grant
    less). What is malformed, of no interest, or lost by the kernel is counted.
    """

    def __init__(self, port: int, *, prefix: str, window_s: float, clock: Clock) -> None:
        self._port = port
        self._prefix = prefix.rstrip(".") + "." if prefix else ""
        self._window_s = window_s
        self._clock = clock
        self._transport: asyncio.DatagramTransport | None = None
        self._inode: int | None = None
        self._counts = CountWindow(window_s, opened_at_s=clock.monotonic())
        self._durations = {name: DurationWindow(window_s) for name in DURATIONS}
        self._levels: dict[str, Level] = {}
        self._heard = False
        self.datagrams = 0
        self.malformed = 0
        self.ignored = 0

    @property
    def port(self) -> int | None:
        """The bound port, None while closed."""
        if self._transport is None:
            return None
        bound: int = self._transport.get_extra_info("sockname")[1]
        return bound

    async def open(self) -> None:
        """Bind and listen. Raises `ConnectorError` naming the port when it cannot be bound; nothing is held then."""
        receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            receiver.setblocking(False)
            with contextlib.suppress(OSError):  # a smaller buffer than asked for is still a buffer
                receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
            receiver.bind((HOST, self._port))
            self._counts = CountWindow(self._window_s, opened_at_s=self._clock.monotonic())
            loop = asyncio.get_running_loop()
            self._transport, _ = await loop.create_datagram_endpoint(lambda: _Receiver(self), sock=receiver)
        except OSError as error:
            receiver.close()
            message = f"statsd port {HOST}:{self._port} cannot be bound: {error.strerror or error}"
            raise ConnectorError(message, {"port": self._port}) from error
        except BaseException:  # boundary: cancelled between binding and listening, the socket is still ours
            receiver.close()
            raise
        self._inode = os.fstat(receiver.fileno()).st_ino

    def close(self) -> None:
        """Release the socket at once; closing twice does nothing."""
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    def receive(self, datagram: bytes) -> None:
        """Take in one datagram; any bytes are survived."""
        self.datagrams += 1
        samples, malformed = parse_datagram(datagram)
        self.malformed += malformed
        for sample in samples:
            if not self._take(sample):
                self.ignored += 1

    def _take(self, sample: Sample) -> bool:
        name = sample.name
        if not name.startswith(self._prefix + "gunicorn."):
            return False
        self._heard = True
        name = name[len(self._prefix) + len("gunicorn.") :]
        now_s = self._clock.monotonic()
        if name in DURATIONS and sample.kind in (Kind.TIMER, Kind.HISTOGRAM) and sample.value >= 0:
            self._durations[name].add(now_s, sample.value / 1000.0)
        elif name == "requests" and sample.kind is Kind.COUNTER and sample.value >= 0:
            self._counts.add(now_s, "requests", sample.value / sample.rate)
        elif name.startswith("request.status.") and sample.kind is Kind.COUNTER and sample.value >= 0:
            status = name.removeprefix("request.status.")
            if len(status) != 3 or status[0] not in "12345":
                return False
            self._counts.add(now_s, f"{status[0]}xx", sample.value / sample.rate)
        elif name in LEVELS and sample.kind in (Kind.GAUGE, Kind.HISTOGRAM):
            before = self._levels[name].value if sample.relative and name in self._levels else 0.0
            self._levels[name] = Level(before + sample.value, self._clock.now(), now_s)
        else:
            return False
        return True

    def read_into(self, readings: Readings) -> None:
        """Add the rates and latencies of the window.

        Until gunicorn has been heard nothing is known, and the rates are missing: an idle service and one that sends
        nothing look the same. Without requests in the window the latencies are missing.
        """
        now_s = self._clock.monotonic()
        known = self._heard and self._counts.covers(now_s)
        rates = self._counts.rates(now_s)

        def rate(kind: str) -> float | None:
            return rates.get(kind, 0.0) if known else None

        readings.add("service.request.rate", rate("requests"), "{request}/s")
        readings.add("service.request.errors.rate", rate("5xx"), "{request}/s")
        for status_class in STATUS_CLASSES:
            readings.add(f"service.request.status.{status_class}.rate", rate(status_class), "{request}/s")
        for name, metric in DURATIONS.items():
            durations = self._durations[name].sorted(now_s)
            for suffix, q in (("p50", 0.50), ("p95", 0.95), ("p99", 0.99)):
                readings.add(f"{metric}.{suffix}", quantile(durations, q), "s")
            readings.add(f"{metric}.mean", sum(durations) / len(durations) if durations else None, "s")
        for name in LEVELS:
            readings.put(self._reported(name, now_s))
        readings.add("connector.statsd.datagrams", self.datagrams, "{datagram}")
        readings.add("connector.statsd.malformed", self.malformed, "{line}")
        readings.add("connector.statsd.ignored", self.ignored, "{line}")
        overflowed = sum(window.overflowed for window in self._durations.values())
        readings.add("connector.statsd.overflowed", overflowed, "{request}")

    def _reported(self, name: str, now_s: float) -> MetricValue:
        """What the arbiter last reported, with the time it did; `stale` when that is longer ago than the window.

        gunicorn reports the number of workers only when it changes, so an old report may well be true still.
        """
        metric, unit = LEVELS[name]
        level = self._levels.get(name)
        if level is None:
            return MetricValue(metric, None, unit)
        old = now_s - level.monotonic_s > self._window_s
        return MetricValue(metric, level.value, unit, level.at, quality=Quality.STALE if old else Quality.OK)

    def lost_in_kernel(self) -> int | None:
        """Datagrams that found the buffer full since `open`; None where the system does not tell. Blocking."""
        if sys.platform != "linux" or self._inode is None:
            return None
        with contextlib.suppress(OSError, ValueError, IndexError):
            for line in Path("/proc/net/udp").read_text("ascii").splitlines()[1:]:
                columns = line.split()
                if columns[9] == str(self._inode):
                    return int(columns[12])
        return None


class _Receiver(asyncio.DatagramProtocol):
    def __init__(self, listener: StatsdListener) -> None:
        self._listener = listener

    def datagram_received(self, data: bytes, addr: object) -> None:
        self._listener.receive(data)
