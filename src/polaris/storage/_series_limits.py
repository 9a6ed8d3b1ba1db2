"""How many series there may be: what tags of unlimited values would otherwise fill a store with."""

from __future__ import annotations

import msgspec

from polaris.exceptions import InvalidValueError, SeriesLimitError

STORE_SERIES_MAX = 1_000_000
COLLECTION_SERIES_MAX = 250_000
_MOST = 1 << 40


class SeriesLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The most series of one store, and of one of its collections."""

    series_max: int = STORE_SERIES_MAX
    collection_series_max: int = COLLECTION_SERIES_MAX

    def __post_init__(self) -> None:
        for name in ("series_max", "collection_series_max"):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= _MOST:
                raise InvalidValueError(name, f"an integer from 1 to {_MOST}", value)

    def check(self, collection: str, *, in_collection: int, in_store: int) -> None:
        """Refuse a number of series with `SeriesLimitError`."""
        if in_collection > self.collection_series_max:
            raise SeriesLimitError(collection, limit=self.collection_series_max, count=in_collection)
        if in_store > self.series_max:
            raise SeriesLimitError(collection, limit=self.series_max, count=in_store, scope="store")
