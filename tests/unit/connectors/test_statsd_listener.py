"""What the statsd listener makes of gunicorn's datagrams, on an injected clock."""

from __future__ import annotations

import socket

import pytest

from polaris.connectors._readings import Readings
from polaris.connectors.gunicorn._listener import StatsdListener
from polaris.domain import MetricValue, Quality
from polaris.exceptions import ConnectorError
from polaris.testing import VirtualClock


def listener_at(clock: VirtualClock, *, prefix: str = "") -> StatsdListener:
    return StatsdListener(0, prefix=prefix, window_s=10.0, clock=clock)


def readings_of(listener: StatsdListener) -> dict[str, MetricValue]:
    readings = Readings()
    listener.read_into(readings)
    return readings.metrics()


def request(duration_ms: float, status: int = 200) -> bytes:
    return (
        f"gunicorn.request.duration:{duration_ms}|ms\ngunicorn.requests:1|c|@1.0\n"
        f"gunicorn.request.status.{status}:1|c|@1.0"
    ).encode()


def test_until_gunicorn_is_heard_everything_is_missing() -> None:
    clock = VirtualClock()
    listener = listener_at(clock)
    clock.advance(60.0)
    listener.receive(b"something.else:1|c")
    readings = readings_of(listener)
    assert {key for key, metric in readings.items() if metric.quality is Quality.OK} == {
        "connector.statsd.datagrams",
        "connector.statsd.malformed",
        "connector.statsd.ignored",
        "connector.statsd.overflowed",
    }
    assert readings["connector.statsd.ignored"].value == 1


def test_requests_become_rates_by_status_and_quantiles_in_seconds() -> None:
    clock = VirtualClock()
    listener = listener_at(clock)
    clock.advance(2.0)
    for duration_ms in range(1, 101):
        listener.receive(request(duration_ms, 503 if duration_ms > 90 else 200))
    clock.advance(3.0)
    readings = readings_of(listener)
    assert readings["service.request.rate"].value == pytest.approx(20.0)
    assert readings["service.request.errors.rate"].value == pytest.approx(2.0)
    assert readings["service.request.status.2xx.rate"].value == pytest.approx(18.0)
    assert readings["service.request.status.4xx.rate"].value == 0.0
    assert readings["service.request.duration.p50"].value == 0.050
    assert readings["service.request.duration.p95"].value == 0.095
    assert readings["service.request.duration.p99"].value == 0.099
    assert readings["service.request.duration.mean"].value == pytest.approx(0.0505)
    assert readings["service.response_time.p95"].quality is Quality.MISSING


def test_an_idle_service_has_a_rate_of_zero_and_no_latency() -> None:
    clock = VirtualClock()
    listener = listener_at(clock)
    listener.receive(request(5.0))
    clock.advance(30.0)
    readings = readings_of(listener)
    assert readings["service.request.rate"].value == 0.0
    assert readings["service.request.duration.p95"].value is None
    assert readings["service.request.duration.p95"].quality is Quality.MISSING


def test_a_sampled_counter_is_weighted() -> None:
    clock = VirtualClock()
    listener = listener_at(clock)
    clock.advance(1.0)
    listener.receive(b"gunicorn.requests:1|c|@0.1")
    clock.advance(1.0)
    assert readings_of(listener)["service.request.rate"].value == pytest.approx(5.0)


def test_a_reported_level_becomes_stale_and_keeps_the_time_it_was_reported() -> None:
    clock = VirtualClock()
    listener = listener_at(clock)
    listener.receive(b"gunicorn.workers:3|g")
    reported_at = clock.now()
    listener.receive(b"gunicorn.workers:+2|g")
    listener.receive(b"gunicorn.backlog:7|h")
    clock.advance(5.0)
    readings = readings_of(listener)
    assert (readings["service.workers.reported"].value, readings["service.request.backlog"].value) == (5.0, 7.0)
    assert readings["service.workers.reported"].timestamp == reported_at
    clock.advance(6.0)
    assert readings_of(listener)["service.workers.reported"].quality is Quality.STALE


def test_only_the_configured_prefix_is_listened_to() -> None:
    clock = VirtualClock()
    listener = listener_at(clock, prefix="shop.")
    clock.advance(1.0)
    listener.receive(b"gunicorn.requests:9|c|@1.0")
    listener.receive(b"shop.gunicorn.requests:4|c|@1.0")
    clock.advance(1.0)
    readings = readings_of(listener)
    assert readings["service.request.rate"].value == pytest.approx(2.0)
    assert readings["connector.statsd.ignored"].value == 1


@pytest.mark.parametrize(
    "line",
    [
        b"gunicorn.request.duration:-5|ms",
        b"gunicorn.requests:-1|c",
        b"gunicorn.request.status.9999:1|c",
        b"gunicorn.x:1|g",
    ],
)
def test_what_makes_no_sense_is_counted_and_changes_nothing(line: bytes) -> None:
    clock = VirtualClock()
    listener = listener_at(clock)
    listener.receive(line)
    clock.advance(2.0)
    readings = readings_of(listener)
    assert readings["connector.statsd.ignored"].value == 1
    assert readings["service.request.rate"].value == 0.0
    assert readings["service.request.duration.mean"].value is None


async def test_a_port_in_use_is_named_and_nothing_is_held() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        listener = StatsdListener(port, prefix="", window_s=1.0, clock=VirtualClock())
        with pytest.raises(ConnectorError, match=str(port)):
            await listener.open()
        assert listener.port is None
    await listener.open()
    assert listener.port == port
    listener.close()
    listener.close()
    assert listener.port is None
