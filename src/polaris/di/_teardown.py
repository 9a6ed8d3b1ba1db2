"""What has to be undone when a scope closes: every finalizer once, in reverse order, whatever happens."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass
from typing import Any

from polaris.clock import Clock
from polaris.di._deadline import within
from polaris.di._registration import ServiceRegistration
from polaris.exceptions import DependencyInjectionError

TEARDOWNS_MAX = 10_000
"""How many finalizers one scope may owe; asking the container itself for transients with a teardown runs into it."""

_lock = threading.Lock()
"""Guards all stacks, for the moment of a push: a lock for each would cost every scope more than it saves."""


@dataclass(frozen=True, slots=True, eq=False)
class Finalizer:
    """The second half of a generator that built an instance."""

    registration: ServiceRegistration
    generator: Generator[Any, None, None] | AsyncGenerator[Any, None]

    @property
    def is_async(self) -> bool:
        return isinstance(self.generator, AsyncGenerator)

    def run(self) -> None:
        """Finish a plain generator."""
        generator = self.generator
        if isinstance(generator, AsyncGenerator):
            raise DependencyInjectionError(f"{self.registration.name} has an asynchronous teardown")
        try:
            next(generator)
        except StopIteration:
            return
        generator.close()
        raise self._yielded_twice()

    async def run_async(self) -> None:
        """Finish a generator of either kind."""
        generator = self.generator
        if not isinstance(generator, AsyncGenerator):
            self.run()
            return
        try:
            await anext(generator)
        except StopAsyncIteration:
            return
        await generator.aclose()
        raise self._yielded_twice()

    def _yielded_twice(self) -> DependencyInjectionError:
        return DependencyInjectionError(f"the factory of {self.registration.name} yields more than once")


class TeardownStack:
    """The finalizers of one scope in the order of creation."""

    __slots__ = ("_finalizers", "closed")

    def __init__(self) -> None:
        self._finalizers: list[Finalizer] | None = None
        self.closed = False
        """No finalizer is accepted any more."""

    def push(self, finalizer: Finalizer) -> str:
        """Keep a finalizer for the end; otherwise say why not, and the caller must run it at once."""
        with _lock:
            if self._finalizers is None:
                self._finalizers = []
            if len(self._finalizers) >= TEARDOWNS_MAX:
                return f"its scope owes {TEARDOWNS_MAX} teardowns already: open a scope for a shorter stretch of work"
            self._finalizers.append(finalizer)
            # Looked at last, as `close_if_empty` looks at the finalizers last: one of the two sees the other.
            if not self.closed:
                return ""
            self._finalizers.pop()
            return "the scope was closed meanwhile"

    def take(self, owner: str) -> list[Finalizer]:
        """Remove and return the finalizers of what `owner` registered, newest first."""
        with _lock:
            owed = self._finalizers or []
            mine = [finalizer for finalizer in owed if finalizer.registration.owner == owner]
            self._finalizers = [finalizer for finalizer in owed if finalizer not in mine]
        return mine[::-1]

    def close_if_empty(self) -> bool:
        """Accept nothing any more if nothing was ever owed; otherwise leave everything as it is and say False."""
        if self._finalizers is None:
            self.closed = True
            # Somebody may have pushed in between, and then found it open still, or not.
            return not self._finalizers
        return False

    def first_async(self) -> Finalizer | None:
        """A finalizer that needs an event loop, if there is one."""
        return next((finalizer for finalizer in self._finalizers or () if finalizer.is_async), None)

    def _drain(self) -> list[Finalizer]:
        with _lock:
            self.closed = True
            finalizers, self._finalizers = self._finalizers or [], None
        return finalizers[::-1]

    def tear_down(self) -> list[Exception]:
        """Run all the finalizers, newest first; returns their errors. An interrupt comes out after the last one."""
        errors: list[Exception] = []
        interruption: BaseException | None = None
        for finalizer in self._drain():
            try:
                finalizer.run()
            except Exception as error:  # boundary: a finalizer is user code, and the others must still run
                errors.append(noted(error, "closing", finalizer.registration))
            except BaseException as error:  # boundary: an interrupt must not skip the others; raised below
                interruption = error
        if interruption is not None:
            raise interruption
        return errors

    async def tear_down_async(self, clock: Clock, timeout_s: float) -> list[Exception]:
        """Run all the finalizers, newest first, each within `timeout_s` seconds; returns their errors."""
        return await run_finalizers(self._drain(), clock, timeout_s)


async def run_finalizers(finalizers: list[Finalizer], clock: Clock, timeout_s: float) -> list[Exception]:
    """Run the finalizers in the order given, each within `timeout_s` seconds; returns their errors."""
    errors: list[Exception] = []
    for finalizer in finalizers:
        operation = f"closing {finalizer.registration.name}"
        try:
            await within(clock, timeout_s, finalizer.run_async(), operation)
        except Exception as error:  # boundary: a finalizer is user code, and the others must still run
            errors.append(noted(error, "closing", finalizer.registration))
    return errors


def noted(error: Exception, activity: str, registration: ServiceRegistration) -> Exception:
    """The same error with a note that says which service it came from."""
    note = f"while {activity} {registration.name}"
    if note not in getattr(error, "__notes__", ()):
        error.add_note(note)
    return error
