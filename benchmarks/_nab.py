"""CSV files of `timestamp,value` replayed over a bus, and what the store makes of them compared with pandas."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from polaris.domain import HealthStatus, MetricValue, SystemState, TelemetryEvent
from polaris.storage import AggregationType, TimeRange

if TYPE_CHECKING:
    from polaris.messaging import PolarisMessageBus
    from polaris.storage import PolarisDataStore

METRIC = "value"
BUCKET = timedelta(hours=1)
RELATIVE_TOLERANCE = 1e-9
CHUNK = 500
PUBLISHERS = 64


class Sample(NamedTuple):
    """One line of a file. A value that is not there is None, never 0."""

    timestamp: datetime
    value: float | None


Replay = Mapping[str, Sequence[Sample]]
"""The lines of each file, in their order, by the id of the system that it stands for."""


def read_folder(folder: Path) -> dict[str, list[Sample]]:
    """Every `*.csv` below the folder as a system of its own; times without an offset are UTC.

    Raises `SystemExit` with one clear line when the folder or a file is not what it should be.
    """
    files = sorted(folder.rglob("*.csv"))
    if not files:
        raise SystemExit(f"no CSV file is below {folder}; name a folder of timestamp,value files with --data")
    return {str(file.relative_to(folder).with_suffix("")): read_file(file) for file in files}


def read_file(file: Path) -> list[Sample]:
    """The lines of one file."""
    frame = pd.read_csv(file)
    if list(frame.columns[:2]) != ["timestamp", "value"]:
        raise SystemExit(f"{file}: expected the columns timestamp,value, found {','.join(map(str, frame.columns))}")
    stamps = pd.to_datetime(frame["timestamp"], utc=True)
    return [
        Sample(stamp.to_pydatetime(), None if math.isnan(value) else float(value))
        for stamp, value in zip(stamps, frame["value"], strict=True)
    ]


def telemetry(system_id: str, sample: Sample) -> TelemetryEvent:
    """The event that reports one line."""
    reading = MetricValue(METRIC, sample.value)
    return TelemetryEvent(SystemState(system_id, sample.timestamp, {METRIC: reading}, HealthStatus.HEALTHY))


def rounds(replay: Replay) -> Iterator[list[TelemetryEvent]]:
    """All events, each system's in order, the systems in turns of `CHUNK`."""
    longest = max(len(samples) for samples in replay.values())
    for start in range(0, longest, CHUNK):
        for system_id, samples in replay.items():
            events = [telemetry(system_id, sample) for sample in samples[start : start + CHUNK]]
            if events:
                yield events


async def publish_in_batches(bus: PolarisMessageBus, replay: Replay) -> int:
    """Publish everything with `publish_many`; gives the number of events."""
    count = 0
    for events in rounds(replay):
        await bus.publish_many(events)
        count += len(events)
    return count


async def publish_one_by_one(bus: PolarisMessageBus, replay: Replay) -> int:
    """Publish every event by itself with `publish_telemetry`, from 64 tasks; gives the number of events."""
    turns = rounds(replay)
    count = 0

    async def publish() -> None:
        nonlocal count
        for events in turns:
            for event in events:
                await bus.publish_telemetry(event)
                count += 1

    await asyncio.gather(*(publish() for _ in range(PUBLISHERS)))
    return count


class Comparison(NamedTuple):
    """How far store and pandas are apart."""

    buckets: int
    numbers: int
    """How many numbers were compared."""
    worst: float
    """The greatest relative difference."""
    differences: list[str]
    """What is beyond the tolerance."""


async def compare(store: PolarisDataStore, replay: Replay) -> Comparison:
    """The hourly aggregates of every system, from the store and from pandas."""
    buckets = numbers = 0
    worst = 0.0
    differences: list[str] = []
    for system_id, samples in replay.items():
        expected = hourly(samples)
        buckets += len(expected)
        for aggregation in expected.columns:
            wanted = {stamp.to_pydatetime(): float(number) for stamp, number in expected[aggregation].items()}
            points = await store.states.aggregate(
                system_id, METRIC, TimeRange.all(), AggregationType(aggregation), bucket=BUCKET
            )
            found = {point.timestamp: float(point.value) for point in points if point.value is not None}
            if found.keys() != wanted.keys():
                differences.append(f"{system_id} {aggregation}: {len(found)} buckets, expected {len(wanted)}")
                continue
            for stamp, number in wanted.items():
                apart = _apart(found[stamp], number)
                numbers += 1
                worst = max(worst, apart)
                if apart > RELATIVE_TOLERANCE:
                    differences.append(f"{system_id} {aggregation} {stamp}: {found[stamp]!r}, expected {number!r}")
    return Comparison(buckets, numbers, worst, differences)


def hourly(samples: Sequence[Sample]) -> Any:
    """The aggregates of pandas, one row an hour that has values. Of equal timestamps the last one counts."""
    index = pd.DatetimeIndex([sample.timestamp for sample in samples])
    series = pd.Series([math.nan if sample.value is None else sample.value for sample in samples], index=index)
    series = series[~series.index.duplicated(keep="last")].sort_index()
    hours = series.resample("1h")
    frame = pd.DataFrame(
        {
            "avg": hours.mean(),
            "min": hours.min(),
            "max": hours.max(),
            "sum": hours.sum(),
            "count": hours.count(),
            "p95": hours.quantile(0.95),
            "median": hours.median(),
        }
    )
    return frame[frame["count"] > 0]


def _apart(found: float, expected: float) -> float:
    if found == expected:
        return 0.0
    return abs(found - expected) / max(abs(found), abs(expected))
