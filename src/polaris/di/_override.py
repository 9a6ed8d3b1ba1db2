"""A service replaced for the length of a `with` statement."""

from __future__ import annotations

import inspect
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

from polaris.di._deadline import shielded
from polaris.di._declare import declare_factory, declare_instance
from polaris.di._registration import ServiceLifetime
from polaris.di._store import Store
from polaris.di._wiring import OverrideLayer

if TYPE_CHECKING:
    from polaris.di._container import DIContainer


class Override:
    """The context manager of `DIContainer.override`; good for one use."""

    def __init__(self, container: DIContainer, interface: Any, replacement: Any, key: Hashable) -> None:
        self._container = container
        replaced = container.wiring.find(interface, key)
        lifetime = ServiceLifetime.SINGLETON if replaced is None else replaced.lifetime
        if isinstance(replacement, type) or inspect.isroutine(replacement):
            registration = declare_factory(interface, replacement, lifetime, key, None)
        else:
            registration = declare_instance(interface, replacement, key, None)
        self._layer = OverrideLayer(registration, Store())

    def __enter__(self) -> None:
        self._layer.store.refuses_async = True
        self._container.push_layer(self._layer)

    def __exit__(self, *_: object) -> None:
        self._container.pop_layer(self._layer)
        _raise_together(self._layer.store.tear_down())

    async def __aenter__(self) -> None:
        self._container.push_layer(self._layer)

    async def __aexit__(self, *_: object) -> None:
        self._container.pop_layer(self._layer)
        await shielded(self._close())

    async def _close(self) -> None:
        container = self._container
        _raise_together(await self._layer.store.tear_down_async(container.clock, container.teardown_timeout_s))


def _raise_together(errors: list[Exception]) -> None:
    if errors:
        raise ExceptionGroup("teardown failed", errors)
