"""What one scope holds: its instances, who waits for them, and what has to be undone at its end."""

from __future__ import annotations

from typing import Any, Protocol

from polaris.di._registration import ServiceRegistration
from polaris.di._teardown import TeardownStack


class Waiter(Protocol):
    """Somebody waiting for a slot."""

    def wake(self) -> bool:
        """Let it look at the slot again; False if it is not sure to come round to it."""
        ...


class Store(TeardownStack):
    """The slots and finalizers of one scope, or of the container's singletons."""

    __slots__ = ("is_root", "refuses_async", "scope", "values", "waiters")

    def __init__(self, scope: Any = None) -> None:
        super().__init__()
        self.values: dict[ServiceRegistration, Any] = {}
        self.waiters: dict[ServiceRegistration, dict[Waiter, None]] = {}
        self.scope = scope
        """The public face of it; None for the root, which has no scoped services."""
        self.is_root = scope is None
        self.refuses_async = False
        """It will be closed synchronously, so nothing with an asynchronous teardown may enter."""
