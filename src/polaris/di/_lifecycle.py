"""Starts hosted services level by level in dependency order, and stops them in the reverse order."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterable
from typing import Any

from polaris.clock import Clock
from polaris.di._deadline import within
from polaris.di._registration import MISSING, ProviderKind, ServiceLifetime, ServiceRegistration
from polaris.di._teardown import noted
from polaris.di._wiring import Wiring
from polaris.exceptions import DependencyInjectionError


class Hosted:
    """A live singleton whose `start` and `stop` the container calls."""

    __slots__ = ("instance", "registration")

    def __init__(self, registration: ServiceRegistration, instance: Any) -> None:
        self.registration = registration
        self.instance = instance

    async def start(self) -> None:
        await _call(self.instance.start)

    async def stop(self) -> None:
        await _call(self.instance.stop)


async def _call(hook: Any) -> None:
    outcome = hook()
    if inspect.isawaitable(outcome):
        await outcome


def is_hosted(registration: ServiceRegistration, instance: Any) -> bool:
    """Whether the container starts and stops the instance: by request, or because its type has both methods."""
    if registration.hosted is not None:
        return registration.hosted
    return all(_is_hook(type(instance), name) for name in ("start", "stop"))


def _is_hook(cls: type, name: str) -> bool:
    method = inspect.getattr_static(cls, name, None)
    if not inspect.isfunction(method):
        return False
    _, *others = inspect.signature(method).parameters.values()
    variadic = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
    return all(one.default is not one.empty or one.kind in variadic for one in others)


def hosted_levels(wiring: Wiring) -> list[list[Hosted]]:
    """The live hosted services by level: each depends only on earlier levels. One instance appears once.

    A decorator that is hosted stands for what it decorates.
    """
    registrations = wiring.registrations()
    depth: dict[ServiceRegistration, int] = {}
    levels: dict[int, list[Hosted]] = {}
    seen: set[int] = set()
    order = wiring.creation_order(*registrations)
    decorated = _decorated_by_hosted(wiring, order)
    for one in order:
        below = max((depth[need] for need in wiring.needs(one)), default=0)
        instance = wiring.held(one)
        hosted = instance is not MISSING and one not in decorated and is_hosted(one, instance)
        depth[one] = below + 1 if hosted else below
        if hosted and id(instance) not in seen:
            seen.add(id(instance))
            levels.setdefault(depth[one], []).append(Hosted(one, instance))
    return [levels[level] for level in sorted(levels)]


def _decorated_by_hosted(wiring: Wiring, registrations: Iterable[ServiceRegistration]) -> set[ServiceRegistration]:
    covered: set[ServiceRegistration] = set()
    for one in registrations:
        instance = wiring.held(one)
        inner = one.decorates
        if inner is not None and instance is not MISSING and is_hosted(one, instance):
            covered.add(inner)
    return covered


def singletons_in_order(wiring: Wiring) -> list[ServiceRegistration]:
    """Every singleton that can be built, dependencies first. An open generic is built for each choice asked for."""
    closed = {one.provider for one in wiring.registry.closed_generics()}
    order = wiring.creation_order(*wiring.registrations())
    return [
        one
        for one in order
        if one.lifetime is ServiceLifetime.SINGLETON and not one.is_open and not _is_pattern(one, closed)
    ]


def _is_pattern(registration: ServiceRegistration, closed: set[Any]) -> bool:
    return (
        registration.kind is ProviderKind.CLASS
        and registration.provider in closed
        and bool(getattr(registration.interface, "__parameters__", ()) and isinstance(registration.interface, type))
    )


class Lifecycle:
    """Remembers what began, so that exactly that is stopped."""

    def __init__(self, clock: Clock, start_timeout_s: float, stop_timeout_s: float) -> None:
        self._clock = clock
        self._start_timeout_s = start_timeout_s
        self._stop_timeout_s = stop_timeout_s
        self._begun: list[list[Hosted]] = []

    @property
    def levels_begun(self) -> int:
        """How many levels are running; a mark for `stop`."""
        return len(self._begun)

    def has_begun(self, instance: Any) -> bool:
        """Whether `start` of this instance was called since the last stop."""
        return any(one.instance is instance for level in self._begun for one in level)

    async def start(self, levels: list[list[Hosted]]) -> None:
        """Start what has not begun, one level after the other, the services of a level side by side.

        The first failure cancels the rest of its level and raises an ExceptionGroup; nothing is rolled back here.
        """
        for level in levels:
            fresh = [one for one in level if not self.has_begun(one.instance)]
            if not fresh:
                continue
            begun: list[Hosted] = []
            self._begun.append(begun)
            errors = await self._start_level(fresh, begun)
            if errors:
                raise ExceptionGroup("services failed to start", errors)

    async def _start_level(self, level: list[Hosted], begun: list[Hosted]) -> list[Exception]:
        tasks = [asyncio.ensure_future(self._start_one(one, begun)) for one in level]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            for task in tasks:
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        errors: list[Exception] = []
        for one, outcome in zip(level, outcomes, strict=True):
            if isinstance(outcome, Exception):
                errors.append(noted(outcome, "starting", one.registration))
            elif isinstance(outcome, BaseException) and not isinstance(outcome, asyncio.CancelledError):
                raise outcome
        return errors

    async def _start_one(self, one: Hosted, begun: list[Hosted]) -> None:
        begun.append(one)
        await within(self._clock, self._start_timeout_s, one.start(), f"starting {one.registration.name}")

    async def stop(self, *, down_to: int = 0) -> list[Exception]:
        """Stop what began after the mark, in reverse order; all of it, whatever happens. Returns the errors."""
        errors: list[Exception] = []
        while len(self._begun) > down_to:
            level = self._begun.pop()
            errors += await self._stop_level(level)
        return errors

    async def stop_only(self, owner: str) -> list[Exception]:
        """Stop what began and was registered by `owner`, in reverse order. Returns the errors."""
        errors: list[Exception] = []
        for level in reversed(self._begun):
            mine = [one for one in level if one.registration.owner == owner]
            level[:] = [one for one in level if one not in mine]
            errors += await self._stop_level(mine)
        return errors

    async def _stop_level(self, level: list[Hosted]) -> list[Exception]:
        outcomes = await asyncio.gather(*(self._stop_one(one) for one in level), return_exceptions=True)
        errors: list[Exception] = []
        for one, outcome in zip(level, outcomes, strict=True):
            if isinstance(outcome, Exception):
                errors.append(noted(outcome, "stopping", one.registration))
            elif isinstance(outcome, BaseException):
                errors.append(_as_error(one, outcome))
        return errors

    async def _stop_one(self, one: Hosted) -> None:
        await within(self._clock, self._stop_timeout_s, one.stop(), f"stopping {one.registration.name}")


def _as_error(one: Hosted, outcome: BaseException) -> Exception:
    reason = f"stopping {one.registration.name} ended with {type(outcome).__name__}"
    return DependencyInjectionError(reason, cause=outcome)
