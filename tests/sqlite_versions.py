"""Stores of former versions of the schema as files.

`python -m tests.sqlite_versions` writes the store of the schema's version with what it has to hold to
`tests/fixtures/store`, by the code of whatever revision of `polaris` is imported. Once a version is released its two
files are never written again. No revision ended with version 3: its store was written by the code of version 4, without
any policy, and the four empty tables of migration 4 were taken away.
"""

from __future__ import annotations

import asyncio
import tempfile
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import apsw
import apsw.shell
import msgspec
from tests.store_content import SMALL, content_of, fill

from polaris.domain import EventRegistry, PolarisEvent
from polaris.storage import PolarisDataStore, TimeRange, TimeSeriesPoint
from polaris.storage.backends.sqlite._migrate import known_migrations

FOLDER = Path(__file__).parent / "fixtures" / "store"
VERSIONS = sorted(int(path.stem.removeprefix("version-")) for path in FOLDER.glob("version-*.sql"))
BROUGHT = {
    2: ["event versions"],
    3: ["expiring"],
    4: [f"{kind} {name}" for name in ("windows", "tens", "hours") for kind in ("policy", "left", "cells", "hourly")],
}
"""The parts of the content that a version of the schema was the first to keep."""

PAST = datetime(2020, 1, 1, tzinfo=UTC)
"""So old that every policy below has done with it, whenever the tests run."""
EXPIRES = datetime(2200, 1, 1, tzinfo=UTC)
SPAN = TimeRange(PAST - timedelta(hours=1), PAST + timedelta(hours=5))
SUMS = ("count", "sum", "min", "max", "first", "last", "avg", "stddev", "rate", "increase")
PERCENTILES = ("median", "p90", "p99")
NUMBERS = ["load", "users"]
TEN, HOUR, DAY = timedelta(minutes=10), timedelta(hours=1), timedelta(days=1)


class Moved(PolarisEvent, frozen=True):
    """An event whose data have had three forms."""

    to: str


def readings() -> list[TimeSeriesPoint]:
    """Three hours of two hosts."""
    return [
        TimeSeriesPoint(
            PAST + timedelta(minutes=n), {"host": host}, {"load": (n % 16) / 4, "users": n * n, "note": "x"}
        )
        for n in range(0, 180, 3)
        for host in ("a", "b")
    ]


async def fill_later(store: PolarisDataStore, version: int) -> None:
    """Put in what stores have been able to hold since versions after the first."""
    if version >= 2:
        registry = EventRegistry()
        registry.register(Moved, "acme.moved", version=3)
        await store.outbox.add("acme.moved", Moved(to="there", event_id="moved"), registry=registry)
    if version >= 3:
        await store.documents.insert_document("expiring", {"_id": "short", "n": 1}, expires_at=EXPIRES)
        await store.documents.insert_document("expiring", {"_id": "long", "n": 2})
    if version >= 4:
        await _fill_policies(store)


async def _fill_policies(store: PolarisDataStore) -> None:
    from polaris.storage import RetentionPolicy, RollupPolicy  # earlier revisions have none

    policies = {
        "windows": RetentionPolicy(None, [RollupPolicy(TEN)]),
        "tens": RetentionPolicy(DAY, [RollupPolicy(TEN)]),
        "hours": RetentionPolicy(DAY, [RollupPolicy(TEN, 2 * DAY), RollupPolicy(HOUR)]),
    }
    for name, policy in policies.items():
        await store.time_series.set_retention(name, policy)
        await store.time_series.store_many(name, readings())
        await store.time_series.apply_retention(name)
    late = TimeSeriesPoint(PAST + timedelta(seconds=90), {"host": "a"}, {"load": 9.5})
    await store.time_series.store_many("tens", [late])


async def later_content_of(store: PolarisDataStore, version: int) -> dict[str, Any]:
    """Everything that `fill_later` put in, as plain JSON values."""
    found: dict[str, Any] = {}
    if version >= 2:
        moved = [entry for entry in await store.outbox.pending() if entry.event_type == "acme.moved"]
        found["event versions"] = [entry.version for entry in moved]
    if version >= 3:
        found["expiring"] = await store.documents.find_documents("expiring")
    if version >= 4:
        for name in ("windows", "tens", "hours"):
            series = store.time_series
            found[f"policy {name}"] = await series.get_retention(name)
            found[f"left {name}"] = await series.query_time_series(name, TimeRange.all())
            found[f"cells {name}"] = await series.aggregate_many(name, SPAN, SUMS, "host", bucket=TEN, fields=NUMBERS)
            found[f"hourly {name}"] = await series.aggregate_many(
                name, SPAN, [*SUMS, *PERCENTILES], bucket=HOUR, fields=NUMBERS
            )
    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(found))
    return plain


def expected_of(version: int) -> dict[str, Any]:
    """What the store of the version holds."""
    found: dict[str, Any] = msgspec.json.decode((FOLDER / f"version-{version}.json").read_bytes())
    return found


def dump_of(path: Path) -> str:
    """The whole database as SQL, version and application id included."""
    text = StringIO()
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        apsw.shell.Shell(db=connection, stdout=text, args=[]).process_command(".dump")  # type: ignore[no-untyped-call]
    finally:
        connection.close()
    lines = [line for line in text.getvalue().splitlines() if not line.startswith("--")]
    return "\n".join(lines) + "\n"


async def _summarised(path: Path) -> None:
    """Wait until the engine has looked through all windows that its policies ask for."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        while connection.execute("SELECT count(*) FROM ts_windows").get == 0:
            await asyncio.sleep(0.05)
    finally:
        connection.close()


async def write_fixture(folder: Path) -> None:
    """The store of the schema's version and its content, as files."""
    version = len(known_migrations())
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "store.db"
        async with PolarisDataStore.sqlite(path, **SMALL) as store:
            await fill(store)
            await fill_later(store, version)
            if version >= 4:
                await _summarised(path)
            content = await content_of(store) | await later_content_of(store, version)
        (folder / f"version-{version}.sql").write_text(dump_of(path), "utf-8")
    text = msgspec.json.format(msgspec.json.encode(content), indent=1)
    (folder / f"version-{version}.json").write_bytes(text + b"\n")


if __name__ == "__main__":
    asyncio.run(write_fixture(FOLDER))
