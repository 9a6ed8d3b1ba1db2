"""What the collections of a store are made of, in figures."""

from __future__ import annotations

from datetime import datetime

import msgspec


class SeriesFigures(msgspec.Struct, frozen=True):
    """A collection of time series. `points` is None unless they were counted."""

    name: str
    series: int
    newest: datetime | None
    points: int | None = None


class DocumentFigures(msgspec.Struct, frozen=True):
    """A collection of documents."""

    name: str
    documents: int
    indexes: int
