"""The circuit breaker: stops calling what is known to fail, and finds out carefully when it works again."""

from __future__ import annotations

import functools
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, ParamSpec, TypeVar

from polaris.clock import SYSTEM_CLOCK, Clock
from polaris.exceptions import CircuitBreakerOpenException
from polaris.resilience._breaker_config import CircuitBreakerConfig, CircuitBreakerSnapshot, CircuitBreakerState
from polaris.resilience._breaker_windows import CountWindow, OutcomeWindow, TimeWindow
from polaris.resilience._durations import duration_s
from polaris.resilience._signals import BreakerRejected, BreakerStateChanged, Listener, ProbeLeaseExpired, Signal, emit
from polaris.resilience._step import Operation, PolicyStep, Step, invoke
from polaris.resilience._verdict import blames_dependency

P = ParamSpec("P")
T = TypeVar("T")

CLOSED, OPEN = CircuitBreakerState.CLOSED, CircuitBreakerState.OPEN
HALF_OPEN, ISOLATED = CircuitBreakerState.HALF_OPEN, CircuitBreakerState.ISOLATED


class CircuitBreaker:
    """Rejects calls to a dependency that keeps failing; see `CircuitBreakerConfig` for the rules.

    Law:
    - A rejected call was not started: `CircuitBreakerOpenException` with `retry_after`.
    - Half-open, at most `half_open_max_calls` probes are in flight, whatever the interleaving. A probe that is
      cancelled or ends in an ignored error gives its permit back and decides nothing; one that hangs frees its permit
      after `probe_lease` (its outcome still counts if the breaker has not changed state since).
    - An outcome counts only in the epoch in which its call was admitted: what was called before a change of state says
      nothing about the time after it.
    - Time is `clock.monotonic()`, read when needed: there is no timer and no task, and nothing to close.

    The error of the call passes through unchanged. Thread-safe; `call` and `call_sync` may be mixed, and one breaker
    may serve several event loops. Listeners run in the caller's thread, outside the lock.
    """

    def __init__(
        self,
        name: str,
        config: CircuitBreakerConfig | None = None,
        *,
        clock: Clock = SYSTEM_CLOCK,
        listeners: Iterable[Listener] = (),
    ) -> None:
        self.name = name
        self.config = config = config or CircuitBreakerConfig()
        self._now = clock.monotonic
        self._listeners = tuple(listeners)
        self._lock = threading.Lock()
        self._state = CLOSED
        self._state_text = CLOSED.value
        self._epoch = 1
        self._failures = 0
        self._window = _window_of(config)
        self._slow_s = None if config.slow_call_duration is None else duration_s("", config.slow_call_duration)
        self._outcomes_timed = self._slow_s is not None or isinstance(self._window, TimeWindow)
        self._lease_s = duration_s("probe_lease", config.probe_lease or config.timeout)
        self._probes: dict[int, float] = {}
        self._probe_number = 0
        self._probe_successes = 0
        self._failed_breaks = 0
        self._open_until = 0.0
        self._opened_total = self._rejected_total = self._expired_total = 0
        self._run = self.bind(invoke)

    def call(self, func: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]:
        """Await `func(*args, **kwargs)` if the breaker admits it, and learn from the outcome."""
        if args or kwargs:
            return self._run(functools.partial(func, *args, **kwargs), "")
        return self._run(func, "")

    def execute(self, func: Operation[T], operation_name: str = "") -> Coroutine[Any, Any, T]:
        """As `call`, in the form that all policies share."""
        return self._run(func, operation_name)

    def call_sync(self, func: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function that blocks, if the breaker admits it, and learn from the outcome."""
        epoch, probe = self._epoch, 0
        if self._state is not CLOSED:
            epoch, probe = self._admit()
        started_s = 0.0 if self._slow_s is None else self._now()
        try:
            result = func(*args, **kwargs)
        except BaseException as error:  # boundary: every outcome is judged, none is kept
            self._settle(epoch, probe, error, started_s)
            raise
        self._record(epoch, probe, False, started_s)
        return result

    def bind(self, inner: Step, /) -> PolicyStep:
        """This breaker round `inner`; see `Policy`."""
        timed = self._slow_s is not None
        windowed = self._window is not None
        counted = self._window if isinstance(self._window, CountWindow) and not timed else None
        lock, now = self._lock, self._now

        async def run(func: Callable[[], Awaitable[Any]], operation: str) -> Any:
            # The epoch first: if the state changes in between, the ticket is stale and its outcome counts nowhere.
            epoch, probe = self._epoch, 0
            if self._state is not CLOSED:
                epoch, probe = self._admit()
            started_s = now() if timed else 0.0
            try:
                result = await inner(func, operation)
            except BaseException as error:  # boundary: every outcome is judged, none is kept
                self._settle(epoch, probe, error, started_s)
                raise
            if counted is not None and not probe:
                # Nearly every call comes this way, a good one among none but good ones: hence written out, and with the
                # lock taken by hand, which costs half of a `with`.
                lock.acquire()
                try:
                    plain = epoch == self._epoch and not counted.blemishes
                    if plain:
                        counted.ended += 1
                finally:
                    lock.release()
                if plain:
                    return result
            if windowed or probe or self._failures:
                self._record(epoch, probe, False, started_s)
            return result

        return run

    @property
    def state(self) -> CircuitBreakerState:
        """The state now; OPEN reads as HALF_OPEN once the break is over, though nobody has probed yet."""
        state = self._state
        return HALF_OPEN if state is OPEN and self._now() >= self._open_until else state

    def snapshot(self) -> CircuitBreakerSnapshot:
        """All that can be said about the breaker now. Reading changes nothing."""
        with self._lock:
            now_s = self._now()
            window = self._window
            if window is not None:
                window.expire(now_s)
            return CircuitBreakerSnapshot(
                name=self.name,
                state=self.state,
                epoch=self._epoch,
                consecutive_failures=self._failures,
                window_calls=0 if window is None else window.calls,
                failed_calls=self._failures if window is None else window.failed,
                slow_calls=0 if window is None else window.slow,
                active_probes=len(self._probes),
                probe_successes=self._probe_successes,
                retry_after=max(0.0, self._open_until - now_s) if self._state is OPEN else None,
                opened_total=self._opened_total,
                rejected_total=self._rejected_total,
                expired_probes_total=self._expired_total,
            )

    def isolate(self) -> None:
        """Reject every call until `close()`. Calls already admitted run on; their outcome counts nothing."""
        self._force(ISOLATED, "isolated by hand")

    def close(self) -> None:
        """Admit calls again, from any state, with all counts at zero. Closing a closed breaker forgets its failures."""
        self._force(CLOSED, "closed by hand")

    def _force(self, state: CircuitBreakerState, reason: str) -> None:
        signals: list[Signal] = []
        with self._lock:
            self._move(state, reason, signals)
        self._report(signals)

    def _admit(self) -> tuple[int, int]:
        """A ticket for a call that came while the breaker was not closed: the epoch, and the probe's number or 0."""
        signals: list[Signal] = []
        probe = 0
        self._lock.acquire()  # by hand: half the cost of a `with`, and a rejection must be cheap
        try:
            now_s = self._now()
            if self._state is OPEN and now_s >= self._open_until:
                self._move(HALF_OPEN, "break over", signals)
            state, text, epoch = self._state, self._state_text, self._epoch
            admitted = state is CLOSED
            if state is HALF_OPEN and self._probe_permit(now_s, signals):
                admitted = True
                self._probe_number = probe = self._probe_number + 1
                self._probes[probe] = now_s + self._lease_s
            if not admitted:
                self._rejected_total += 1
            retry_after = self._open_until - now_s if state is OPEN else None
        finally:
            self._lock.release()
        if signals:
            self._report(signals)
        if admitted:
            return epoch, probe
        if self._listeners:
            emit(self._listeners, BreakerRejected(self.name, state, retry_after))
        raise CircuitBreakerOpenException(self.name, state=text, retry_after=retry_after)

    def _probe_permit(self, now_s: float, signals: list[Signal]) -> bool:
        """Whether one more probe may start; leases that have run out are taken back, oldest first."""
        probes = self._probes
        while probes:
            oldest = next(iter(probes))
            if probes[oldest] > now_s:
                break
            del probes[oldest]
            self._expired_total += 1
            signals.append(ProbeLeaseExpired(self.name))
        return len(probes) < self.config.half_open_max_calls

    def _settle(self, epoch: int, probe: int, error: BaseException, started_s: float) -> None:
        """A call raised: a failure, or nothing at all."""
        if blames_dependency(error, self.config.ignored_exceptions):
            self._record(epoch, probe, True, started_s)
        elif probe:
            with self._lock:
                self._probes.pop(probe, None)

    def _record(self, epoch: int, probe: int, failed: bool, started_s: float) -> None:
        signals: list[Signal] | None = None
        window = self._window
        with self._lock:
            if epoch != self._epoch:
                return
            now_s = self._now() if self._outcomes_timed else 0.0
            slow = self._slow_s is not None and now_s - started_s > self._slow_s
            if probe:
                signals = []
                self._probes.pop(probe, None)
                self._judge_probe(failed or slow, signals)
            elif window is not None:
                window.record(failed, slow, now_s)
                if (window.failed or window.slow) and window.calls >= self.config.minimum_calls:
                    signals = self._judge_window(window)
            elif failed:
                self._failures += 1
                if self._failures >= self.config.failure_threshold:
                    signals = []
                    self._move(OPEN, f"{self._failures} consecutive failures", signals)
            else:
                self._failures = 0
        if signals:
            self._report(signals)

    def _judge_probe(self, failed: bool, signals: list[Signal]) -> None:
        if failed:
            self._failed_breaks += 1
            self._move(OPEN, "probe failed", signals)
            return
        self._probe_successes += 1
        if self._probe_successes >= self.config.success_threshold:
            self._move(CLOSED, "probes succeeded", signals)

    def _judge_window(self, window: OutcomeWindow) -> list[Signal] | None:
        config, calls = self.config, window.calls
        if config.failure_rate_threshold is not None and window.failed / calls >= config.failure_rate_threshold:
            reason = f"{window.failed} of {calls} calls failed"
        elif config.slow_call_rate_threshold is not None and window.slow / calls >= config.slow_call_rate_threshold:
            reason = f"{window.slow} of {calls} calls were slow"
        else:
            return None
        signals: list[Signal] = []
        self._move(OPEN, reason, signals)
        return signals

    def _move(self, state: CircuitBreakerState, reason: str, signals: list[Signal]) -> None:
        """Enter a state with clean counts and a new epoch. The lock is held."""
        former = self._state
        self._failures = 0
        self._probes.clear()
        self._probe_successes = 0
        if self._window is not None:
            self._window.clear()
        break_s: float | None = None
        if state is OPEN:
            break_s = self.config.break_s(self._failed_breaks)
            self._open_until = self._now() + break_s
            self._opened_total += 1
        elif state is CLOSED:
            self._failed_breaks = 0
        # The epoch last: callers read it, then the state, without the lock; a new epoch with an old state would count.
        self._state_text = state.value
        self._state = state
        self._epoch += 1
        if state is not former:
            signals.append(BreakerStateChanged(self.name, former, state, reason, break_s))

    def _report(self, signals: list[Signal]) -> None:
        if self._listeners:
            for signal in signals:
                emit(self._listeners, signal)


def _window_of(config: CircuitBreakerConfig) -> OutcomeWindow | None:
    if not config.windowed:
        return None
    if config.window_duration is not None:
        return TimeWindow(duration_s("window_duration", config.window_duration))
    return CountWindow(config.window_calls)
