"""How the store grows: with its values, 10^4 to 10^7 or 10^8 (18 minutes), and with its series, 10 to 10^5.

    python benchmarks/_store_growth.py [--values 10000000] [--series 100000]

Values: 100 systems report 5 fields in turns; at each power of ten what there is to ask is asked. Series: each has
reported once before the clock starts, then all go on in turns. Batches of 500 points. A figure should stay where it is.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import _store_contenders as contenders
from _harness import print_table
from _store_contenders import BATCH, BEGUN, FIELDS, INTERVAL_S, SYSTEMS
from _store_servers import DSN, emptied, postgresql, postgresql_store

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "images" / "store-growth.svg"
VALUES = (10_000, 100_000, 1_000_000, 10_000_000, 100_000_000)
SERIES = (10, 100, 1_000, 10_000, 100_000)
ENGINES = ("sqlite", "postgresql")
READS = 100
POINTS_A_ROUND = 20_000
MIB = 1 << 20


class Grown(NamedTuple):
    """What was measured at one size."""

    size: int
    write_us: float
    latest_ms: float
    hour_ms: float
    day_ms: float
    bytes_a_value: float


def opened(engine: str, folder: Path) -> Any:
    from polaris.storage import PolarisDataStore

    if engine == "postgresql":
        return postgresql_store("growth")
    return PolarisDataStore.sqlite(folder / "growth.db")


async def median_ms(ask: Callable[[int], Awaitable[object]], systems: int) -> float:
    taken = []
    for number in range(READS):
        begun = time.perf_counter()
        await ask(number * 7 % systems)
        taken.append((time.perf_counter() - begun) * 1e3)
    return statistics.median(taken)


async def stored_bytes(engine: str, folder: Path) -> int:
    if engine == "sqlite":
        import apsw

        connection = apsw.Connection(str(folder / "growth.db"), flags=apsw.SQLITE_OPEN_READONLY)
        pages = int(connection.pragma("page_count")) * int(connection.pragma("page_size"))  # with those in the log
        connection.close()
        return pages
    import asyncpg  # type: ignore[import-untyped]

    server = await asyncpg.connect(os.environ[DSN])
    size = await server.fetchval(
        "SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = 'bench_growth' AND c.relkind IN ('r', 'm')"
    )
    await server.close()
    return int(size or 0)


async def asked(store: Any, points: int, systems: int) -> tuple[float, float, float]:
    """Latest, the last hour of one system point by point, and its last day by 5 minutes."""
    from polaris.storage import AggregationType, TimeRange

    series = store.time_series
    end = BEGUN + timedelta(seconds=(points // systems + 1) * INTERVAL_S)
    hour, day = TimeRange(end - timedelta(hours=1), end), TimeRange(end - timedelta(days=1), end)
    bucket = timedelta(minutes=5)

    def tags(number: int) -> dict[str, str]:
        return {"system": str(number)}

    return (
        await median_ms(lambda n: series.latest("samples", tags(n)), systems),
        await median_ms(lambda n: series.query_time_series("samples", hour, tags(n), fields=["cpu"]), systems),
        await median_ms(
            lambda n: series.aggregate_time_series(
                "samples", day, AggregationType.AVG, "system", bucket=bucket, tags=tags(n), fields=["cpu"]
            ),
            systems,
        ),
    )


def points_of(first: int, count: int, systems: int) -> list[Any]:
    from polaris.storage import TimeSeriesPoint

    return [
        TimeSeriesPoint(
            BEGUN + timedelta(seconds=number // systems * INTERVAL_S),
            {"system": str(number % systems)},
            dict(zip(FIELDS, contenders.values_of(number), strict=True)),
        )
        for number in range(first, first + count)
    ]


async def write(store: Any, first: int, count: int, systems: int, batch: int = BATCH) -> float:
    """Microseconds a point of writing these."""
    taken = 0.0
    for start in range(first, first + count, batch):
        made = points_of(start, min(batch, first + count - start), systems)
        begun = time.perf_counter()
        await store.time_series.store_many("samples", made)
        taken += time.perf_counter() - begun
    return taken / count * 1e6


async def by_values(engine: str, values_max: int) -> list[Grown]:
    """One store that grows; at each size the last points that come are those whose writing counts."""
    found: list[Grown] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with opened(engine, folder) as store:
            there = 0
            for values in VALUES:
                if values > values_max:
                    break
                points = values // len(FIELDS)
                timed = min(points - there, POINTS_A_ROUND)
                if points - timed > there:
                    await write(store, there, points - timed - there, SYSTEMS, 5_000)
                write_us = await write(store, points - timed, timed, SYSTEMS)
                there = points
                size = await stored_bytes(engine, folder)
                found.append(Grown(values, write_us, *await asked(store, points, SYSTEMS), size / values))
    return found


async def by_series(engine: str, series_max: int) -> list[Grown]:
    """A new store for each number of series."""
    found: list[Grown] = []
    for series in SERIES:
        if series > series_max:
            break
        if engine == "postgresql":
            await emptied("growth")
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            async with opened(engine, folder) as store:
                await write(store, 0, series, series, 10_000)
                write_us = await write(store, series, POINTS_A_ROUND, series)
                points = series + POINTS_A_ROUND
                reads = await asked(store, points, series)
                size = await stored_bytes(engine, folder)
                found.append(Grown(series, write_us, *reads, size / (points * len(FIELDS))))
    return found


HEADS = (
    "us a point written",
    "latest of one, ms",
    "its last hour, ms",
    "its last day by 5 minutes, ms",
    "bytes a value",
)


def rows(grown: dict[str, list[Grown]]) -> list[Sequence[str]]:
    return [
        (engine, f"{one.size:,}", f"{one.write_us:.1f}", f"{one.latest_ms:.2f}", f"{one.hour_ms:.2f}",
         f"{one.day_ms:.2f}", f"{one.bytes_a_value:.1f}")
        for engine, sizes in grown.items()
        for one in sizes
    ]  # fmt: skip


def plot(values: dict[str, list[Grown]], series: dict[str, list[Grown]], path: Path) -> None:
    """Cost of a write above, of reads below; values on the left, series on the right."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "store-growth"
    import matplotlib.pyplot as plt

    figure, grid = plt.subplots(2, 2, sharex="col", sharey="row", figsize=(9, 5.5), layout="constrained")
    colours = {"sqlite": "#b4552d", "postgresql": "#1f6f8b"}
    lines: list[Any] = []
    for column, (title, grown) in enumerate((("values stored", values), ("series", series))):
        above: Any = grid[0][column]
        below: Any = grid[1][column]
        for engine, sizes in grown.items():
            numbers = [one.size for one in sizes]
            colour = colours[engine]
            above.plot(numbers, [one.write_us for one in sizes], "o-", color=colour, label=engine)
            lines += below.plot(
                numbers, [one.latest_ms for one in sizes], "o-", color=colour, label=f"{engine}, latest"
            )
            lines += below.plot(
                numbers, [one.hour_ms for one in sizes], "s--", color=colour, label=f"{engine}, an hour"
            )
            lines += below.plot(
                numbers, [one.day_ms for one in sizes], "^:", color=colour, label=f"{engine}, a day by 5 min"
            )
        below.set_xscale("log")
        below.set_yscale("log")
        below.set_xlabel(title)
        for axes in (above, below):
            axes.spines[["top", "right"]].set_visible(False)
    grid[0][0].set_ylim(bottom=0)
    grid[0][0].set_ylabel("us a point written")
    grid[1][0].set_ylabel("ms a read")
    grid[0][0].legend(frameon=False)
    # Those of one column are those of the other.
    handles = lines[: len(lines) // 2]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(grown), frameon=False, fontsize="small")
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


async def measure_growth(values_max: int, series_max: int, picture: Path = PICTURE) -> None:
    engines = [engine for engine in ENGINES if engine == "sqlite" or DSN in os.environ]
    values: dict[str, list[Grown]] = {}
    series: dict[str, list[Grown]] = {}
    for engine in engines:
        if engine == "postgresql":
            await emptied("growth")
        values[engine] = await by_values(engine, values_max)
        series[engine] = await by_series(engine, series_max)
    print_table(f"Growth with the values stored, {SYSTEMS} systems", ("engine", "values", *HEADS), rows(values))
    print_table("Growth with the series", ("engine", "series", *HEADS), rows(series))
    plot(values, series, picture)
    print(f"\nplotted: {picture.name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--values", type=int, default=10_000_000)
    parser.add_argument("--series", type=int, default=100_000)
    parser.add_argument("--picture", type=Path, default=PICTURE)
    options = parser.parse_args()
    with postgresql():
        asyncio.run(measure_growth(options.values, options.series, options.picture))


if __name__ == "__main__":
    main()
