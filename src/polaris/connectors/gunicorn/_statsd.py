"""The statsd datagrams that gunicorn sends, as samples.

Format: `name:value|type[|@rate][|#tags]`, several lines to a datagram (etsy statsd "metric types", DogStatsD for tags).
gunicorn sends counters as `name:1|c|@1.0`, timers as `name:12.5|ms`, histograms as `h` and gauges as `name:3|g`; the
value of a gauge with a sign changes it instead of setting it.
"""

from __future__ import annotations

import enum
import math
import re
from typing import NamedTuple


class Kind(enum.Enum):
    """What a sample measures."""

    COUNTER = b"c"
    GAUGE = b"g"
    TIMER = b"ms"
    HISTOGRAM = b"h"


class Sample(NamedTuple):
    """One line: `value` is weighted by `1 / rate` in counts; `relative` marks a gauge's change."""

    name: str
    kind: Kind
    value: float
    rate: float = 1.0
    relative: bool = False


# On bytes, because float() of a string would take underscores, foreign digits, "nan" and "inf".
_LINE = re.compile(
    rb"(?P<name>[!-9;-{}~]{1,200}):(?P<value>(?P<sign>[+-]?)(?:[0-9]{1,30}(?:\.[0-9]{0,30})?|\.[0-9]{1,30})(?:[eE][+-]?[0-9]{1,3})?)"
    rb"\|(?P<kind>c|g|ms|h)(?:\|@(?P<rate>[0-9]{0,10}\.?[0-9]{1,20}))?(?:\|#[^\n]*)?"
)


def parse_datagram(datagram: bytes) -> tuple[list[Sample], int]:
    """The samples of a datagram, and how many of its lines were malformed. Accepts any bytes; never raises."""
    samples, malformed = [], 0
    for line in datagram.split(b"\n"):
        if not line:
            continue
        sample = _parse(line)
        if sample is None:
            malformed += 1
        else:
            samples.append(sample)
    return samples, malformed if samples or malformed else 1


def _parse(line: bytes) -> Sample | None:
    match = _LINE.fullmatch(line)
    if match is None:
        return None
    value = float(match["value"])
    rate = float(match["rate"]) if match["rate"] else 1.0
    if not math.isfinite(value) or not 0.0 < rate <= 1.0 or not math.isfinite(value / rate):
        return None
    kind = Kind(match["kind"])
    return Sample(match["name"].decode("ascii"), kind, value, rate, kind is Kind.GAUGE and match["sign"] != b"")
