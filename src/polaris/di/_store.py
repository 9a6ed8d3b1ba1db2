"""What one scope holds: its instances, and what has to be undone at its end."""

from __future__ import annotations

from typing import Any

from polaris.di._registration import ServiceRegistration
from polaris.di._teardown import TeardownStack


class Store(TeardownStack):
    """The slots and finalizers of the container's singletons, or of one scope. For this package alone."""

    __slots__ = ("refuses_async", "values")

    is_root = True
    """Whether it outlives every scope, so that no scoped service may enter."""

    def __init__(self) -> None:
        # Written out instead of calling the base's: a scope is made for every message.
        self._finalizers = None
        self.closed = False
        self.values: dict[ServiceRegistration, Any] = {}
        self.refuses_async = False
        """It will be closed synchronously, so nothing with an asynchronous teardown may enter."""
