"""One absolute deadline per piece of work, carried in the context, that everything nested inside respects."""

from __future__ import annotations

import asyncio
import time
from contextvars import Context, ContextVar, Token
from types import TracebackType
from typing import Any, Self, cast

from polaris.exceptions import DeadlineExceededError
from polaris.resilience._durations import Duration, duration_s
from polaris.resilience._signals import DeadlineExpired, Listener, emit


def monotonic_s() -> float:
    """The time that deadlines are measured in: the running event loop's, else the monotonic clock.

    Both are the same clock on asyncio's own loops; a loop in virtual time brings its own.
    """
    try:
        return asyncio.get_running_loop().time()
    except RuntimeError:
        return time.monotonic()


class DeadlineScope:
    """A `with` block that must end in time; make one with `deadline_scope`.

    The deadline is the earlier of its own and the surrounding one, and is visible inside to `current_deadline`,
    `remaining_s`, retries and nested scopes, also in tasks started inside. When it passes, the task that entered is
    cancelled at its current await and the block raises `DeadlineExceededError`. A cancellation that came from elsewhere
    stays a cancellation. A scope that is not the earliest of its task sets no timer of its own: the error then comes
    from the outer block whose time it was. Outside an event loop nothing can be interrupted; the deadline is only
    visible.

    Not reusable and not shared between tasks.
    """

    __slots__ = (
        "_cancelling",
        "_expired",
        "_handle",
        "_holder",
        "_lane",
        "_last_error",
        "_listeners",
        "_operation",
        "_task",
        "_timeout_s",
        "_token",
        "when",
    )

    def __init__(
        self,
        timeout_s: float | None,
        *,
        when: float | None = None,
        operation: str = "",
        listeners: tuple[Listener, ...] = (),
        lane: DeadlineLane | None = None,
    ) -> None:
        self.when: float | None = when
        """The absolute deadline on `monotonic_s`, None for none. Final once entered."""
        self._timeout_s = timeout_s
        self._operation = operation
        self._listeners = listeners
        self._lane = lane
        self._expired = False
        self._handle: asyncio.TimerHandle | None = None
        self._last_error: BaseException | None = None
        self._task: asyncio.Task[Any] | None = None
        self._token: Token[DeadlineScope | None] | None = None
        # The scope of this task whose timer enforces the deadline: this one, or one further out that ends earlier.
        self._holder = self

    def __enter__(self) -> Self:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            loop = None
        task = self._task = None if loop is None else asyncio.current_task(loop)
        if self.when is not None or self._timeout_s is not None:
            now = time.monotonic() if loop is None else loop.time()
            when = self._nearest(now)
            if when <= now:
                raise self._exceeded(self._holder._last_error)  # noqa: SLF001 # of the same class
            if task is not None and self._holder is self:
                self._cancelling = task.cancelling()
                if self._lane is not None:
                    self._lane.add(self, when)
                elif loop is not None:
                    self._handle = loop.call_at(when, self.expire)
        self._token = _current.set(self)
        return self

    def _nearest(self, now: float) -> float:
        """Settle on the deadline: this scope's own, or the surrounding one if that is earlier."""
        when = self.when
        if when is None:
            when = now + cast(float, self._timeout_s)
        elif self._timeout_s is None:
            self._timeout_s = max(0.0, when - now)
        outer = _current.get()
        if outer is not None and outer.when is not None and outer.when <= when:
            when = outer.when
            self._lane = None
            if outer._task is self._task:  # noqa: SLF001 # of the same class
                self._holder = outer._holder  # noqa: SLF001 # of the same class
        self.when = when
        return when

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        if self._lane is not None:
            self._lane.discard(self)
        elif self._handle is not None:
            self._handle.cancel()
        if self._token is not None:
            try:
                _current.reset(self._token)
            except ValueError:
                # A generator that was never finished is closed in a foreign context, which ends with it.
                self._last_error = None
        # An error holds frames, and they hold this scope: let go of both, so that no cycle waits for the collector.
        task, self._task = self._task, None
        last_error, self._last_error = self._last_error, None
        if self._expired and task is not None:
            # The rule of asyncio.timeout: only the cancellation that the timer asked for is turned into an error.
            ours = task.uncancel() <= self._cancelling
            if ours and kind is not None and issubclass(kind, asyncio.CancelledError):
                try:
                    raise self._exceeded(last_error) from (last_error or error)
                finally:
                    del last_error, error

    def expire(self) -> None:
        """Cancel what runs inside: the timer's part, not for callers."""
        self._expired = True
        self._handle = None
        if self._task is not None:
            self._task.cancel()

    def _exceeded(self, cause: BaseException | None) -> DeadlineExceededError:
        if self._listeners:
            emit(self._listeners, DeadlineExpired(self._operation, self._timeout_s or 0.0))
        return DeadlineExceededError(self._operation, timeout_s=self._timeout_s, cause=cause)

    def _note(self, error: BaseException) -> None:
        self._holder._last_error = error  # noqa: SLF001 # of the same class


class DeadlineLane:
    """The running calls of one `Timeout` on one event loop, with a single timer for all of them.

    All have the same limit, so they stand in order of deadline when they stand in order of arrival, and only the first
    needs a timer. A call that ends in time only leaves the row: no timer is made or cancelled for it. The timer may
    ring once more when the row is empty, and then rests.
    """

    __slots__ = ("_scopes", "_timer", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._scopes: dict[DeadlineScope, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, scope: DeadlineScope, when: float) -> None:
        """Expire `scope` at `when`, unless it is discarded first."""
        self._scopes[scope] = when
        if self._timer is None:
            self._timer = self.loop.call_at(when, self._ring, context=Context())

    def discard(self, scope: DeadlineScope) -> None:
        """Forget a scope, whether or not it is still here."""
        self._scopes.pop(scope, None)

    def _ring(self) -> None:
        now = self.loop.time()
        self._timer = None
        while self._scopes:
            scope = next(iter(self._scopes))
            when = self._scopes[scope]
            if when > now:
                self._timer = self.loop.call_at(when, self._ring, context=Context())
                return
            del self._scopes[scope]
            scope.expire()


_current: ContextVar[DeadlineScope | None] = ContextVar("polaris_deadline", default=None)


def deadline_scope(
    timeout: Duration | None, *, operation: str = "", listeners: tuple[Listener, ...] = ()
) -> DeadlineScope:
    """A `with` block whose body must end within `timeout` (seconds or timedelta), or earlier if it is nested.

        with deadline_scope(2.0, operation="scale up"):
            await connector.execute_action(action)

    `timeout=None` makes a block *without* deadline, for background work that is started by, but must outlive, a piece
    of work that has one. Raises `DeadlineExceededError` at once when the surrounding deadline has passed already.
    """
    timeout_s = None if timeout is None else duration_s("timeout", timeout, zero=True)
    return DeadlineScope(timeout_s, operation=operation, listeners=listeners)


def current_deadline() -> float | None:
    """The absolute deadline of the running work on `monotonic_s`, or None."""
    scope = _current.get()
    return None if scope is None else scope.when


def remaining_s() -> float | None:
    """The seconds left until the current deadline, 0.0 if it has passed, None without one."""
    when = current_deadline()
    return None if when is None else max(0.0, when - monotonic_s())


def note_failure(error: BaseException) -> None:
    """Remember a failed attempt, so that an expiry of the current deadline can name it as its cause."""
    scope = _current.get()
    if scope is not None:
        scope._note(error)  # noqa: SLF001 # of this module
