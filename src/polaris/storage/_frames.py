"""Points as tables and data frames of other libraries, which are imported when they are asked for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from msgspec import structs

from polaris.exceptions import ConfigurationError
from polaris.storage._points import TimeSeriesPoint
from polaris.storage._ranges import to_micros
from polaris.storage._wide import Row, row_of, table_of

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa  # type: ignore[import-untyped]

    from polaris.storage._aggregation import AggregatedPoint, AggregatedRow


def to_arrow(points: Iterable[TimeSeriesPoint | AggregatedPoint | AggregatedRow]) -> pa.Table:
    """The points, or aggregates, as an Arrow table in the wide layout (docs/how-to/operate-the-store.md).

    Aggregates have, instead of fields, what else they are made of: `field`, `value`, `count` and so on. All points have
    to be in memory; for more than that, export them. Raises `ConfigurationError` naming what to install when pyarrow
    is missing.
    """
    return table_of([_row(point) for point in points])


def to_pandas(points: Iterable[TimeSeriesPoint | AggregatedPoint | AggregatedRow]) -> pd.DataFrame:
    """As `to_arrow`, as a pandas data frame. Integers and booleans are nullable, so what is missing makes them neither
    floats nor objects."""
    try:
        import pandas as pd
    except ImportError as error:
        raise ConfigurationError("data frames of pandas need it: install pandas") from error
    table = to_arrow(points)
    nullable = {"int64": pd.Int64Dtype(), "bool": pd.BooleanDtype()}
    frame: pd.DataFrame = table.to_pandas(types_mapper=lambda kind: nullable.get(str(kind)))
    return frame


def to_polars(points: Iterable[TimeSeriesPoint | AggregatedPoint | AggregatedRow]) -> pl.DataFrame:
    """As `to_arrow`, as a Polars data frame."""
    try:
        import polars as pl
    except ImportError as error:
        raise ConfigurationError("data frames of Polars need it: install polars") from error
    frame = pl.from_arrow(to_arrow(points))
    assert isinstance(frame, pl.DataFrame)  # noqa: S101 # of a table, not of a column
    return frame


def _row(point: TimeSeriesPoint | AggregatedPoint | AggregatedRow) -> Row:
    if isinstance(point, TimeSeriesPoint):
        return row_of(point)
    facts: dict[str, Any] = structs.asdict(point)
    stamp, tags = facts.pop("timestamp"), facts.pop("tags")
    values = facts.pop("values", {})
    return to_micros(stamp), tags, {**facts, **{str(name): value for name, value in values.items()}}
