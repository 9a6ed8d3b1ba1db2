"""Long reads of a server's store are read in pages: however much there is, a page of it is in memory."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.conformance.conftest import QuickPostgres, schema_numbers

from polaris.storage import PolarisDataStore, TimeRange, TimeSeriesPoint
from polaris.storage import _export as exports
from polaris.storage.backends.postgresql._link import Link

T0 = datetime(2030, 1, 1, tzinfo=UTC)
ALL = TimeRange.all()
POINTS = 4_000


class Fetched:
    """How many rows came at once, and in all."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.most = self.total = 0
        original = Link.rows

        async def rows(link: Link, sql: str, *values: Any) -> list[Any]:
            found = await original(link, sql, *values)
            self.most, self.total = max(self.most, len(found)), self.total + len(found)
            return found

        patch.setattr(Link, "rows", rows)


@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_a_long_read_has_a_page_in_memory(
    quick_postgres: QuickPostgres, monkeypatch: pytest.MonkeyPatch, order: Any, tmp_path: Path
) -> None:
    schema = f"bounds_{next(schema_numbers)}"
    async with PolarisDataStore.postgresql(quick_postgres(18).dsn, schema=schema, pool_max=2) as store:
        # Many points of one instant too: a page ends between them.
        points = [
            TimeSeriesPoint(T0 + timedelta(seconds=n // 8), {"h": str(n % 8)}, {"v": n, "w": 0.5})
            for n in range(POINTS)
        ]
        await store.time_series.store_many("m", points)
        await store.documents.insert_documents("d", [{"_id": f"{n:05}", "n": n} for n in range(POINTS)])
        with monkeypatch.context() as patch:
            fetched = Fetched(patch)
            read = [
                point async for point in store.time_series.iterate_time_series("m", ALL, order=order, page_points=100)
            ]
            assert fetched.most == 100
            assert fetched.total >= POINTS
        expected = sorted(points, key=lambda point: (point.timestamp, point.tags["h"]))
        if order == "desc":
            expected = sorted(points, key=lambda point: (-point.timestamp.timestamp(), point.tags["h"]))
        assert read == expected
        with monkeypatch.context() as patch:
            patch.setattr(exports, "PAGE_ROWS_MAX", 100)
            patch.setattr(exports, "PAGE_DOCUMENTS", 100)
            fetched = Fetched(patch)
            for report in (
                await exports.export_time_series(store.time_series, "m", ALL, tmp_path / "m", format="jsonl"),
                await exports.export_documents(store.documents, "d", tmp_path / "d"),
            ):
                assert report.rows == POINTS
            assert fetched.most == 100
