"""The page: a prebuilt bundle that comes with the package, served as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polaris._lazy import lazy_names

if TYPE_CHECKING:
    from polaris.dashboard._page import Page

_HOMES = {"Page": "_page"}

__all__ = ["Page"]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
