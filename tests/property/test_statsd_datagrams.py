"""The statsd parser takes what gunicorn sends and survives everything else."""

from __future__ import annotations

import math
import os
from typing import Any

from gunicorn.instrument.statsd import Statsd
from hypothesis import example, given
from hypothesis import strategies as st

from polaris.connectors.gunicorn._statsd import Kind, Sample, parse_datagram

NAMES = st.from_regex(r"[a-z][a-z0-9_.]{0,40}", fullmatch=True)
NUMBERS = st.floats(min_value=0, max_value=1e15, allow_nan=False)


class Captured:
    """A socket that keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def send(self, datagram: bytes) -> None:
        self.sent.append(datagram)


def gunicorns_own_client(tags: str = "") -> tuple[Any, Captured]:
    client: Any = Statsd.__new__(Statsd)  # its constructor opens a real socket
    client.prefix, client.dogstatsd_tags = "", tags
    client.sock = captured = Captured()
    return client, captured


@given(name=NAMES, value=NUMBERS, rate=st.floats(min_value=0.0001, max_value=1.0), tags=st.sampled_from(["", "a:b,c"]))
def test_everything_that_gunicorns_own_client_sends_is_read_back(
    name: str, value: float, rate: float, tags: str
) -> None:
    client, captured = gunicorns_own_client(tags)
    client.increment(name, value, rate)
    client.timer(name, value)
    client.histogram(name, value)
    client.gauge(name, value)
    samples = [parse_datagram(datagram) for datagram in captured.sent]
    assert samples == [
        ([Sample(name, Kind.COUNTER, value, rate)], 0),
        ([Sample(name, Kind.TIMER, value)], 0),
        ([Sample(name, Kind.HISTOGRAM, value)], 0),
        ([Sample(name, Kind.GAUGE, value)], 0),
    ]


@given(value=NUMBERS, sign=st.sampled_from("+-"))
def test_a_gauge_with_a_sign_is_a_change(value: float, sign: str) -> None:
    (sample,), malformed = parse_datagram(f"workers:{sign}{value!r}|g".encode())
    assert (sample.value, sample.relative, malformed) == (float(f"{sign}{value!r}"), True, 0)


@given(st.binary(max_size=300))
@example(b"")
@example(b"\n\n")
@example(b"a:1|c|@0")
@example(b"a:nan|g")
@example(b"a:inf|ms")
@example(b"a:1e999|ms")
@example(b"a:1|c|@1e-300")
@example(b"a:1_000|c")
@example(b"a:\xd9\xa1|c")
@example(b"a:" + b"9" * 400 + b"|g")
def test_any_bytes_give_finite_samples_or_are_counted_as_malformed(datagram: bytes) -> None:
    samples, malformed = parse_datagram(datagram)
    assert samples or malformed
    for sample in samples:
        assert math.isfinite(sample.value)
        assert math.isfinite(sample.value / sample.rate)
        assert 0 < sample.rate <= 1


@given(st.lists(st.sampled_from([b"a:1|c", b"b:2.5|ms", b"rubbish", b"c:1|x", b"d:|g"]), min_size=1, max_size=20))
def test_a_bad_line_does_not_take_the_good_ones_with_it(lines: list[bytes]) -> None:
    samples, malformed = parse_datagram(b"\n".join(lines))
    assert len(samples) == sum(line in (b"a:1|c", b"b:2.5|ms") for line in lines)
    assert malformed == len(lines) - len(samples)


def test_a_large_hostile_datagram_is_read_in_linear_time() -> None:
    for pattern in (
        b"a" * 65_000,
        b":" * 65_000,
        b"a:1|c|@" + b"1" * 65_000,
        b"a:" + b"1." * 30_000,
        os.urandom(65_000),
    ):
        assert parse_datagram(pattern)[1] >= 1
