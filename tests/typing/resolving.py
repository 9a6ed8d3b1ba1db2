"""What type checkers say of the container: mypy reads this with the other sources, pyright in a test of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from typing import Annotated, Generic, Protocol, TypeVar, assert_type

from polaris.di import DIContainer, Key, Scope, ServiceLifetime

T = TypeVar("T")


class Sensor(Protocol):
    def read(self) -> float: ...


class Store(ABC):
    @abstractmethod
    def load(self) -> str: ...


class Repository(Generic[T]):
    def __init__(self, store: Store) -> None:
        self.store = store


class Thermometer:
    def read(self) -> float:
        return 71.5


class MemoryStore(Store):
    def load(self) -> str:
        return ""


class Controller:
    def __init__(self, sensor: Sensor, store: Annotated[Store, Key("main")], spare: Store | None = None) -> None:
        self.sensor = sensor


async def opened() -> AsyncIterator[Store]:
    yield MemoryStore()


def registering(container: DIContainer) -> None:
    container.register_singleton(Sensor, Thermometer)
    container.register_singleton(Store, MemoryStore, key="main")
    container.register_scoped(Controller)
    container.register_transient(Repository[int])
    container.register_instance(Store, MemoryStore())
    container.register_factory(Store, opened, lifetime=ServiceLifetime.SINGLETON)


def resolving(container: DIContainer, scope: Scope) -> None:
    assert_type(container.resolve(Sensor), Sensor)
    assert_type(container.resolve(Store, key="main"), Store)
    assert_type(container.resolve(Repository[int]), Repository[int])
    assert_type(container.resolve(Store | None), Store | None)
    assert_type(container.resolve_all(Store), list[Store])
    assert_type(scope.resolve(Controller), Controller)
    assert_type(scope.resolve_all(Sensor), list[Sensor])


async def awaiting(container: DIContainer, scope: Scope) -> None:
    assert_type(await container.aresolve(Store), Store)
    assert_type(await scope.aresolve(Controller), Controller)
    assert_type(await container.aresolve_all(Sensor), list[Sensor])
