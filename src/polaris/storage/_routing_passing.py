"""Ports that pass everything on to another one, after a look at what is asked: every method, also those to come."""

from __future__ import annotations

import inspect
from abc import update_abstractmethods
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

from polaris.storage._backend import StorageBackend, StorageEngine
from polaris.storage._documents import DocumentStorageBackend
from polaris.storage._timeseries import TimeSeriesStorageBackend

P = TypeVar("P", bound=type)


class Passing(StorageBackend):
    """Asks `admit` before each call; whatever that raises is the answer."""

    def __init__(self, inner: StorageBackend) -> None:
        self.inner = inner

    @property
    def engine(self) -> StorageEngine:
        return self.inner.engine

    async def admit(self, name: str, arguments: dict[str, Any]) -> None:
        """Refuse a call, or change its arguments: all of them are there, by name."""

    async def answered(self, name: str, arguments: dict[str, Any], answer: Any) -> Any:
        """Have a look at the answer; what is given back takes its place."""
        return answer


def _method(port: type, name: str) -> Callable[..., Any]:
    original = getattr(port, name)
    signature = inspect.signature(original)

    def bound(self: Passing, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        call = signature.bind(self, *args, **kwargs)
        call.apply_defaults()
        return {key: value for key, value in call.arguments.items() if key != "self"}

    async def call(self: Passing, *args: Any, **kwargs: Any) -> Any:
        arguments = bound(self, args, kwargs)
        await self.admit(name, arguments)
        return await self.answered(name, arguments, await getattr(self.inner, name)(**arguments))

    async def iterate(self: Passing, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        arguments = bound(self, args, kwargs)
        await self.admit(name, arguments)
        async for item in getattr(self.inner, name)(**arguments):
            yield item

    return call if inspect.iscoroutinefunction(original) else iterate


def passes(port: type) -> Callable[[P], P]:
    """Fill in the methods of the port that the class does not have."""

    def fill(chosen: P) -> P:
        for name in getattr(port, "__abstractmethods__", ()):
            if getattr(getattr(chosen, name), "__isabstractmethod__", False) and name != "engine":
                setattr(chosen, name, _method(port, name))
        update_abstractmethods(chosen)
        return chosen

    return fill


@passes(TimeSeriesStorageBackend)
class PassingTimeSeries(Passing, TimeSeriesStorageBackend):
    """A time series port before another one."""


@passes(DocumentStorageBackend)
class PassingDocuments(Passing, DocumentStorageBackend):
    """A document port before another one."""
