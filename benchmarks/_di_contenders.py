"""The same services in POLARIS, in other containers, and wired by hand."""

import functools
import types
from collections.abc import Callable, Sequence
from typing import Any

import dishka
import wireup
from dependency_injector import containers, providers

from polaris.di import DIContainer

Get = Callable[[], Any]


def star() -> list[type]:
    """Four services without needs, and last one that needs them all: new classes each time, as wireup marks them."""

    class Clock: ...

    class Settings: ...

    class Codec: ...

    class Journal: ...

    class Controller:
        def __init__(self, clock: Clock, settings: Settings, codec: Codec, journal: Journal) -> None:
            self.clock = clock
            self.settings = settings
            self.codec = codec
            self.journal = journal

    return [Clock, Settings, Codec, Journal, Controller]


class ByHand:
    """What a person writes without a container."""

    def __init__(self) -> None:
        self._classes = star()
        self._controller: Any = None

    def singleton(self) -> Any:
        """The one controller, made on the first call."""
        if self._controller is None:
            self._controller = self.construct()
        return self._controller

    def construct(self) -> Any:
        """A controller and all that it needs, new."""
        clock, settings, codec, journal, controller = self._classes
        return controller(clock(), settings(), codec(), journal())


def polaris_singleton() -> Get:
    container, classes = DIContainer(), star()
    for each in classes:
        container.register_singleton(each)
    return functools.partial(container.resolve, classes[-1])


def polaris_transients() -> Get:
    container, classes = DIContainer(), star()
    for each in classes:
        container.register_transient(each)
    return functools.partial(container.resolve, classes[-1])


def polaris_scope() -> Get:
    container, classes = DIContainer(), star()
    for each in classes:
        container.register_scoped(each)

    def get() -> Any:
        with container.scope() as scope:
            return scope.resolve(classes[-1])

    return get


def dishka_singleton() -> Get:
    container, classes = _dishka(dishka.Scope.APP)
    return functools.partial(container.get, classes[-1])


def dishka_transients() -> Get:
    container, classes = _dishka(dishka.Scope.APP, cache=False)
    return functools.partial(container.get, classes[-1])


def dishka_scope() -> Get:
    container, classes = _dishka(dishka.Scope.REQUEST)

    def get() -> Any:
        with container() as scope:
            return scope.get(classes[-1])

    return get


def _dishka(scope: dishka.Scope, *, cache: bool = True) -> tuple[dishka.Container, list[type]]:
    provider, classes = dishka.Provider(scope=scope), star()
    for each in classes:
        provider.provide(each, cache=cache)
    return dishka.make_container(provider), classes


def wireup_singleton() -> Get:
    container, classes = _wireup("singleton")
    return functools.partial(container.get, classes[-1])


def wireup_transients() -> Get:
    """It builds transients inside a scope only; the scope stays open, so that its cost does not count."""
    container, classes = _wireup("transient")
    scope = container.enter_scope().__enter__()
    return functools.partial(scope.get, classes[-1])


def wireup_scope() -> Get:
    container, classes = _wireup("scoped")

    def get() -> Any:
        with container.enter_scope() as scope:
            return scope.get(classes[-1])

    return get


def _wireup(lifetime: Any) -> tuple[Any, list[type]]:
    classes = star()
    marked = [wireup.injectable(each, lifetime=lifetime) for each in classes]
    return wireup.create_sync_container(injectables=marked), classes


def dependency_injector_singleton() -> Get:
    get: Get = _dependency_injector(providers.Singleton).controller
    return get


def dependency_injector_transients() -> Get:
    get: Get = _dependency_injector(providers.Factory).controller
    return get


def _dependency_injector(provider: Any) -> Any:
    *leaves, root = star()
    container = containers.DynamicContainer()
    container.controller = provider(root, *(provider(leaf) for leaf in leaves))
    return container


# ------------------------------------------------------------------------------------------------- many services


LAYERS = 10


def layers_of(size: int) -> list[type]:
    """Services in ten layers of equal width, each needing three of the layer below."""
    width = size // LAYERS
    made: list[type] = []
    for number in range(size):
        below = made[(number // width - 1) * width :][:width] if number >= width else []
        made.append(_service(number, [below[(number + step) % width] for step in range(3)] if below else []))
    return made


def _nothing(self: Any) -> None: ...


def _three(self: Any, a: Any, b: Any, c: Any) -> None: ...


def _service(number: int, needs: Sequence[type]) -> type:
    pattern: Any = _three if needs else _nothing
    init = types.FunctionType(pattern.__code__, globals(), "__init__")
    init.__annotations__ = {**dict(zip("abc", needs, strict=False)), "return": None}
    return type(f"Service{number}", (), {"__init__": init, "__module__": __name__})


def polaris_registers(classes: Sequence[type]) -> Callable[[], Any]:
    """Takes the services in; the function returned proves their graph, as do those of the next two."""
    container = DIContainer()
    for each in classes:
        container.register_singleton(each)
    return container.validate


def dishka_registers(classes: Sequence[type]) -> Callable[[], Any]:
    provider = dishka.Provider(scope=dishka.Scope.APP)
    for each in classes:
        provider.provide(each)
    return functools.partial(dishka.make_container, provider)


def wireup_registers(classes: Sequence[type]) -> Callable[[], Any]:
    marked = [wireup.injectable(each) for each in classes]
    return functools.partial(wireup.create_sync_container, injectables=marked)
