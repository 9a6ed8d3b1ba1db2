"""An export of much more than fits its bounds: memory stays where it is, whatever the range holds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.faults.sizes import size

POINTS = size(200_000, 1_000_000)
LONG_S = size(110, 1_200)
GROWTH_BYTES_MAX = 120 << 20
"""What the export of all may need more than one of a thousand points: pages, a row group, what allocators keep."""

PROGRAM = """
import asyncio, psutil, sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from polaris.storage import PolarisDataStore, TimeRange, TimeSeriesPoint, export_time_series

T0 = datetime(2030, 1, 1, tzinfo=UTC)
POINTS, FORMAT = int(sys.argv[1]), sys.argv[2]

def points(start, count):
    found = []
    for n in range(start, start + count):
        fields = {"a": n / 7, "b": n, "c": n / 3, "d": "x"}
        found.append(TimeSeriesPoint(T0 + timedelta(milliseconds=n), {"host": f"h{n % 50}"}, fields))
    return found

class Memory:
    # The largest resident size at any look: what the system keeps as the peak may be that of the parent process.
    def __init__(self):
        self.peak = 0

    def look(self, _=None):
        self.peak = max(self.peak, psutil.Process().memory_info().rss)
        return self.peak

async def main():
    path = Path("store.db")
    if sys.argv[3] == "fill":
        async with PolarisDataStore.sqlite(path) as store:
            for start in range(0, POINTS, 20_000):
                await store.time_series.store_many("m", points(start, 20_000))
        return
    async with PolarisDataStore.sqlite(path, read_only=True) as store:
        few = TimeRange(T0, T0 + timedelta(seconds=1))
        await export_time_series(store.time_series, "m", few, f"few.{FORMAT}", format=FORMAT, force=True)
        memory = Memory()
        before = memory.look()
        done = await export_time_series(
            store.time_series, "m", TimeRange.all(), f"all.{FORMAT}", format=FORMAT, on_progress=memory.look
        )
        print(done.rows, memory.look() - before)

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("export")
    subprocess.run([sys.executable, "-c", PROGRAM, str(POINTS), "-", "fill"], cwd=made, check=True, timeout=LONG_S)
    return made


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "csv", "arrow"])
def test_the_memory_of_an_export_does_not_grow_with_what_is_exported(kind: str, folder: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(POINTS), kind, "export"],
        cwd=folder, check=True, timeout=LONG_S, capture_output=True, text=True,
    )  # fmt: skip
    rows, growth = map(int, ended.stdout.split())
    assert rows == POINTS
    assert growth < GROWTH_BYTES_MAX
