"""What can be set on the embedded engine."""

from __future__ import annotations

import msgspec

from polaris.exceptions import InvalidValueError
from polaris.storage._series_limits import COLLECTION_SERIES_MAX, STORE_SERIES_MAX, SeriesLimits
from polaris.storage.backends.sqlite._compaction import HOT_ROWS_MAX, SLICE_ROWS


class SqliteOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds of one embedded store.

    `writes_queued_max`: awaiting writers that the store holds; further ones wait for a place. `readers`: reading
    connections, each with a thread. `size_bytes_max`: the greatest size of the file, None for none; full is
    `StoreFullError`. The log beside it is not counted: who keeps a read open makes it grow, and `health` tells so.
    `hot_rows_max`, `slice_rows`: when compaction begins, and how much it moves at a time. `series_max`,
    `collection_series_max`: how many time series the store and each of its collections may have; a write that would
    make more is a `SeriesLimitError`.
    """

    writes_queued_max: int = 1_024
    readers: int = 4
    size_bytes_max: int | None = None
    hot_rows_max: int = HOT_ROWS_MAX
    slice_rows: int = SLICE_ROWS
    series_max: int = STORE_SERIES_MAX
    collection_series_max: int = COLLECTION_SERIES_MAX

    def __post_init__(self) -> None:
        for name, least, most in (
            ("writes_queued_max", 1, 1 << 20),
            ("readers", 1, 64),
            ("hot_rows_max", 1, 1 << 24),
            ("slice_rows", 1, 1 << 20),
            ("series_max", 1, 1 << 40),
            ("collection_series_max", 1, 1 << 40),
        ):
            value = getattr(self, name)
            if type(value) is not int or not least <= value <= most:
                raise InvalidValueError(name, f"an integer from {least} to {most}", value)
        size = self.size_bytes_max
        if size is not None and (type(size) is not int or size < 1 << 16):
            raise InvalidValueError("size_bytes_max", "at least 65 536 bytes, or None", size)

    @property
    def series_limits(self) -> SeriesLimits:
        """The bounds of the numbers of series."""
        return SeriesLimits(series_max=self.series_max, collection_series_max=self.collection_series_max)
