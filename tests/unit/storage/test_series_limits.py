"""Limits of the numbers of series that are none are refused; what limits do is in the conformance suite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from polaris.exceptions import InvalidValueError
from polaris.storage import PolarisDataStore, SeriesLimits


@pytest.mark.parametrize("name", ["series_max", "collection_series_max"])
@pytest.mark.parametrize("value", [0, -1, True, 1.5, "9", None])
def test_limits_that_are_none_are_refused(name: str, value: Any, tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match=name):
        SeriesLimits(**{name: value})
    with pytest.raises(InvalidValueError, match=name):
        PolarisDataStore.sqlite(tmp_path / "store.db", **{name: value})
