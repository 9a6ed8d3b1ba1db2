"""A stretch of work with instances of its own: a request, a message, a cycle of the control loop."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, TypeVar, cast

from polaris.clock import Clock
from polaris.di import _resolver
from polaris.di._deadline import shielded
from polaris.di._registration import MISSING
from polaris.di._slots import WouldDeadlockError
from polaris.di._store import Store
from polaris.di._wiring import Wiring
from polaris.exceptions import DependencyInjectionError

if TYPE_CHECKING:
    from typing_extensions import TypeForm

T = TypeVar("T")


class Wired(Protocol):
    """What a scope needs of its container: the wiring in force, and the services built in."""

    clock: Clock
    teardown_timeout_s: float
    built_ins: _resolver.BuiltIns
    wiring: Wiring

    def require_open(self) -> None:
        """Raise if the container was stopped."""


class Scope(Store):
    """Resolves services; scoped ones are built once per scope and torn down when it closes.

    Use it with `async with`, or with plain `with` when nothing in it is torn down asynchronously. Closing runs the
    teardown of everything that was built in the scope in reverse order of creation: each finalizer once, also if
    others fail or the closer is cancelled; their errors come out together as an ExceptionGroup. Closing twice does
    nothing; a closed scope resolves nothing more. A scope may be shared by tasks and threads.
    """

    __slots__ = ("_wired",)

    is_root = False

    def __init__(self, wired: Wired) -> None:
        # Written out instead of calling the base's: a scope is made for every message.
        self._finalizers = None
        self.closed = False
        self.values = {}
        self.refuses_async = False
        self._wired = wired

    def resolve(self, interface: TypeForm[T], key: Hashable = None) -> T:
        """The service, as `DIContainer.resolve` gives it, with scoped services allowed."""
        wired = self._wired
        place = interface if key is None else (interface, key)
        if not self.closed:
            wiring = wired.wiring
            try:
                instant: Callable[[Store], T] = wiring.instant[place]
                if instant is not MISSING:
                    return instant(self)
            except Exception as error:  # boundary: user code; it comes out typed, with the path drawn
                raise _resolver.explained_to(wiring, interface, key, error) from _resolver.cause_of(error)
        self._require_open()
        return cast(T, _resolver.resolve(wired.wiring, wired.built_ins, self, interface, key))

    async def aresolve(self, interface: TypeForm[T], key: Hashable = None) -> T:
        """As `resolve`, awaiting what is built asynchronously; it never blocks the event loop on another's build."""
        wired = self._wired
        place = interface if key is None else (interface, key)
        if not self.closed:
            wiring = wired.wiring
            try:
                instant: Callable[[Store], T] = wiring.instant[place]
                if instant is not MISSING:
                    return instant(self)
            except WouldDeadlockError:
                pass  # a task of this loop is at it: the way below awaits that task, or finds the cycle again
            except Exception as error:  # boundary: user code; it comes out typed, with the path drawn
                raise _resolver.explained_to(wiring, interface, key, error) from _resolver.cause_of(error)
        self._require_open()
        return cast(T, await _resolver.resolve_async(wired.wiring, wired.built_ins, self, interface, key))

    def resolve_all(self, interface: TypeForm[T]) -> list[T]:
        """One instance of every registration of the interface, under any key, in order of registration."""
        self._require_open()
        return _resolver.resolve_all(self._wired.wiring, self._wired.built_ins, self, interface)

    async def aresolve_all(self, interface: TypeForm[T]) -> list[T]:
        """As `resolve_all`, awaiting what is built asynchronously."""
        self._require_open()
        return await _resolver.resolve_all_async(self._wired.wiring, self._wired.built_ins, self, interface)

    def close(self) -> None:
        """Run the teardown of all that was built here, newest first.

        Raises an ExceptionGroup with the errors of finalizers, after the last one; and DependencyInjectionError, with
        nothing torn down, if a finalizer is asynchronous (`aclose` is then the way).
        """
        if self.close_if_empty():
            return
        needs_loop = self.first_async()
        if needs_loop is not None:
            reason = f"{needs_loop.registration.name} has an asynchronous teardown: close the scope with `aclose()`"
            raise DependencyInjectionError(reason)
        _raise_together(self.tear_down())

    async def aclose(self) -> None:
        """Run the teardown of all that was built here, newest first, each within the container's teardown timeout.

        Cancelling the closer skips nothing: the cancellation is delivered after the last finalizer. Raises an
        ExceptionGroup with the errors of finalizers.
        """
        if self.close_if_empty():
            return
        await shielded(self._close_all())

    async def _close_all(self) -> None:
        wired = self._wired
        _raise_together(await self.tear_down_async(wired.clock, wired.teardown_timeout_s))

    def _require_open(self) -> None:
        if self.closed:
            raise DependencyInjectionError("the scope is closed")
        self._wired.require_open()

    def __enter__(self) -> Self:
        self.refuses_async = True
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        if not self.close_if_empty():
            self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        if not self.close_if_empty():
            await self.aclose()


def _raise_together(errors: list[Exception]) -> None:
    if errors:
        raise ExceptionGroup("teardown failed", errors)
