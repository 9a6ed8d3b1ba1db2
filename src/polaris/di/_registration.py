"""What the container knows about one service: facts, read once when it is registered."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Any, Final, TypeVar


class ServiceLifetime(StrEnum):
    """How long one built instance is shared."""

    SINGLETON = "singleton"
    """Built once for the container, whoever asks; torn down by `DIContainer.stop`."""
    SCOPED = "scoped"
    """Built once for each `scope()`; torn down when that scope closes."""
    TRANSIENT = "transient"
    """Built anew for each request; never kept, unless it has a teardown, which its scope then owns."""


class ProviderKind(Enum):
    """How a provider has to be called to get an instance out of it."""

    INSTANCE = "instance"
    CLASS = "class"
    FUNCTION = "function"
    COROUTINE = "coroutine"
    GENERATOR = "generator"
    ASYNC_GENERATOR = "async generator"

    @property
    def is_async(self) -> bool:
        """Whether building needs a running event loop."""
        return self in {ProviderKind.COROUTINE, ProviderKind.ASYNC_GENERATOR}

    @property
    def has_teardown(self) -> bool:
        """Whether the scope must come back to the provider when it closes."""
        return self in {ProviderKind.GENERATOR, ProviderKind.ASYNC_GENERATOR}


class _Missing(Enum):
    MISSING = "missing"


MISSING: Final[Any] = _Missing.MISSING
"""Stands for "no value" where None is a value."""


@dataclass(frozen=True, slots=True)
class Key:
    """Names one of several registrations of an interface in an annotation: `Annotated[Database, Key("replica")]`."""

    value: Hashable


@dataclass(frozen=True, slots=True)
class Unresolved:
    """An annotation whose text could not be turned into a type when the service was registered."""

    text: str


@dataclass(frozen=True, slots=True, eq=False)
class Dependency:
    """One parameter of a provider and what may fill it.

    `interfaces` holds the members of a union in the order written; the first one registered is taken. With none
    registered the default is used, else None if the annotation allows it, else the dependency is missing.
    """

    name: str
    interfaces: tuple[Any, ...]
    key: Hashable = None
    allows_none: bool = False
    has_default: bool = False
    default: Any = MISSING
    """Only where the default has to be passed along, because positional-only parameters follow it."""
    by_name: bool = False
    problem: str = ""
    target: ServiceRegistration | None = None
    """The one registration that fills it, whatever else is registered: how a decorator holds what it decorates."""


class Learned:
    """What only the first call of a factory can tell about it."""

    __slots__ = ("products", "returns_awaitable")

    def __init__(self) -> None:
        self.products: set[type] = set()
        """The types that it gave and that were found to fit the interface."""
        self.returns_awaitable = False
        """It is a plain function that returns something to be awaited."""


_sequence = itertools.count(1)


@dataclass(frozen=True, slots=True, eq=False)
class ServiceRegistration:
    """One way to get one service. Immutable; two registrations are never equal, not even of the same provider."""

    interface: Any
    key: Hashable
    lifetime: ServiceLifetime
    kind: ProviderKind
    provider: Any
    """The class or function to call; the object itself for an instance."""
    dependencies: tuple[Dependency, ...] = ()
    owner: str | None = None
    """Who registered it (a plugin's name), None for the application itself."""
    hosted: bool | None = None
    """Whether `start()` and `stop()` of the container call those of the instance; None: if its type has both."""
    decorates: ServiceRegistration | None = None
    learned: Learned = field(default_factory=Learned, repr=False)
    sequence: int = field(default_factory=lambda: next(_sequence))

    @property
    def name(self) -> str:
        """The interface as a person writes it, with the key in brackets."""
        return describe(self.interface, self.key)

    @property
    def is_open(self) -> bool:
        """Whether it is only a pattern: parameters of it still hold type variables, so `G` itself cannot be built."""
        return any(isinstance(form, TypeVar) or _is_open(form) for one in self.dependencies for form in one.interfaces)

    @property
    def is_async(self) -> bool:
        """Whether its provider has to be awaited, as far as is known."""
        return self.kind.is_async or self.learned.returns_awaitable

    @property
    def is_proven(self) -> bool:
        """Whether it is known if its provider has to be awaited: a plain function must have been called once."""
        return self.kind is not ProviderKind.FUNCTION or bool(self.learned.products)

    @property
    def has_teardown(self) -> bool:
        """Whether an instance of it needs its scope to close."""
        return self.kind.has_teardown


Provider = Callable[..., Any]


def _is_open(form: Any) -> bool:
    return bool(getattr(form, "__parameters__", ())) and not isinstance(form, type)


def describe(interface: object, key: Hashable = None) -> str:
    """An interface and key as a person writes them: `Database`, `Repository[User]`, `Database['replica']`."""
    if isinstance(interface, Unresolved):
        name = interface.text
    elif isinstance(interface, type) and not hasattr(interface, "__origin__"):
        name = interface.__name__
    else:
        name = _describe_form(interface)
    return name if key is None else f"{name}[{key!r}]"


def _describe_form(interface: object) -> str:
    origin, arguments = getattr(interface, "__origin__", None), getattr(interface, "__args__", ())
    if origin is not None and arguments:
        head = getattr(interface, "_name", None) or getattr(origin, "__name__", repr(origin))
        return f"{head}[{', '.join(describe(argument) for argument in arguments)}]"
    name = getattr(interface, "__name__", None)
    return name if isinstance(name, str) else repr(interface)
