"""The gunicorn connector: a web service whose workers are counted, timed, added and removed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, ClassVar

import msgspec
from msgspec import Meta

from polaris.clock import SYSTEM_CLOCK, Clock
from polaris.connectors._blocking import BlockingReads
from polaris.connectors._connector import ActionDescription, ConnectorHealth
from polaris.connectors._journal import ActionJournal
from polaris.connectors._options import describe_action, near, read_parameters
from polaris.connectors._readings import CounterRates, Readings, Stamps
from polaris.connectors.gunicorn._arbiter import Arbiter, Usage, configured_pid
from polaris.connectors.gunicorn._listener import StatsdListener
from polaris.connectors.gunicorn._options import GunicornOptions
from polaris.connectors.gunicorn._scaling import Change, Scaling
from polaris.domain import AdaptationAction, ExecutionResult, ExecutionStatus, HealthStatus, MetricValue, SystemState
from polaris.exceptions import ActionNotSupportedError, ConnectorError

TIMEOUT_SHARE = 0.9
"""Of an action's own timeout: this connector's verdict shall come before the caller gives up waiting for it."""


class AddWorker(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Nothing to choose."""


class RemoveWorker(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Nothing to choose."""


class SetWorkers(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many workers there shall be."""

    workers: Annotated[int, Meta(ge=1, le=1024, description="the number of workers wanted")]


ACTIONS = (
    describe_action("add_worker", "Start one more worker (SIGTTIN).", AddWorker),
    describe_action("remove_worker", "Stop the oldest worker after its current request (SIGTTOU).", RemoveWorker),
    describe_action("set_workers", "Add or remove workers one by one until there are as many as wanted.", SetWorkers),
)


class GunicornConnector:
    """A running gunicorn, attached to by pidfile or pid; gunicorn itself is neither started nor stopped.

    Actions are carried out one after another, within the guards of the options, and verified in the process table.
    A gunicorn that was restarted is found again through its pidfile at the next call. `statsd_port` is the bound UDP
    port while connected. Follows the law of `ManagedSystemConnector`; with a journal also of `RecallsActions`.
    Without one, nothing can be recalled: gunicorn does not know action ids, and that the number of workers is the
    wanted one does not show who made it so.
    """

    summary: ClassVar[str] = "A running gunicorn service: workers, request rate, latency; adds and removes workers."
    options_type: ClassVar[type[GunicornOptions]] = GunicornOptions

    def __init__(self, system_id: str, options: GunicornOptions, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._system_id = system_id
        self._options = options
        self._clock = clock
        self._stamps = Stamps(clock)
        self._reads = BlockingReads(f"gunicorn connector {system_id}")
        self._scaling = Scaling(self._reads, clock)
        self._life = asyncio.Lock()
        self._connected = False
        self._arbiter: Arbiter | None = None
        self._rates = CounterRates()
        self._journal = ActionJournal(Path(options.journal), clock=clock) if options.journal is not None else None
        self._listener = (
            StatsdListener(options.statsd_port, prefix=options.statsd_prefix, window_s=options.window_s, clock=clock)
            if options.statsd_port is not None
            else None
        )

    @classmethod
    def from_options(cls, system_id: str, options: Mapping[str, object]) -> GunicornConnector:
        """A connector, not yet connected. Raises `ConfigurationError` whose `problems` list every mistake."""
        return cls(system_id, GunicornOptions.read(options))

    @property
    def system_id(self) -> str:
        return self._system_id

    @property
    def statsd_port(self) -> int | None:
        """The UDP port that listens on 127.0.0.1; None without a listener or while unconnected."""
        return self._listener.port if self._listener else None

    async def connect(self) -> None:
        async with self._life:
            if self._connected:
                return
            try:
                self._arbiter = await self._attach()
                if self._journal is not None:
                    await self._journal.open()
                if self._listener is not None:
                    await self._listener.open()
                self._connected = True
            finally:
                if not self._connected:
                    await self._release()

    async def disconnect(self) -> None:
        """As the port says. An action that is being carried out ends first, in its own time, and is witnessed."""
        self._connected = False
        try:
            async with self._scaling.turn:
                pass
        finally:
            async with self._life:
                if not self._connected:
                    await self._release()

    async def _release(self) -> None:
        if self._listener is not None:
            self._listener.close()
        if self._arbiter is not None:
            self._arbiter.close()
            self._arbiter = None
        self._rates = CounterRates()
        if self._journal is not None:
            await self._journal.close()

    async def _attach(self) -> Arbiter:
        pid = await self._reads.run(lambda: configured_pid(self._options))
        return Arbiter.attach(pid, self._options.command_contains)

    async def _require_arbiter(self) -> Arbiter:
        """The arbiter, found again when it was restarted. Raises `ConnectorError` when it is gone or not connected."""
        async with self._life:
            if not self._connected:
                raise ConnectorError(f"{self._system_id}: the gunicorn connector is not connected")
            if self._arbiter is None or not self._arbiter.is_running():
                if self._arbiter is not None:
                    self._arbiter.close()
                    self._arbiter = None
                self._rates = CounterRates()
                self._arbiter = await self._attach()
            return self._arbiter

    async def collect_metrics(self) -> SystemState:
        arbiter = await self._require_arbiter()

        def read() -> tuple[int, Usage, float, int | None]:
            workers = arbiter.workers()
            lost = self._listener.lost_in_kernel() if self._listener else None
            return len(workers), arbiter.usage(workers), arbiter.started_at_s(), lost

        workers, usage, started_at_s, lost = await self._reads.run(read)
        stamp = self._stamps.next()
        readings = Readings()
        readings.add("service.workers", workers, "{process}")
        rate = self._rates.rates(self._clock.monotonic(), {"cpu": usage.cpu_s})
        readings.add("service.cpu.utilization", rate["cpu"], "1")
        readings.add("service.memory.usage", usage.memory_bytes, "By")
        readings.add("service.uptime", stamp.timestamp() - started_at_s, "s")
        if self._listener is not None:
            self._listener.read_into(readings)
            readings.add("connector.statsd.lost", lost, "{datagram}")
        metrics = readings.metrics()
        status, reason = self._judge(workers, metrics)
        metadata: dict[str, object] = {
            "arbiter.pid": arbiter.pid,
            "workers.min": self._options.workers_min,
            "workers.max": self._options.workers_max,
        }
        if reason:
            metadata["health.reasons"] = [reason]
        return SystemState(self._system_id, stamp, metrics, status, metadata)

    def _judge(self, workers: int, metrics: Mapping[str, MetricValue]) -> tuple[HealthStatus, str]:
        """How the service does, and why it does not do well; no words when it does."""
        if workers == 0:
            return HealthStatus.CRITICAL, "no worker runs"
        # What clients wait is the truth where the service tells it; the time in a worker leaves the queue out.
        seen = (metrics.get(f"service.{kind}.p95") for kind in ("response_time", "request.duration"))
        p95 = next((one for one in seen if one is not None and one.value is not None), None)
        if p95 is not None and isinstance(p95.value, float):
            limits = (
                (HealthStatus.CRITICAL, self._options.latency_critical_s),
                (HealthStatus.WARNING, self._options.latency_warning_s),
            )
            for status, limit_s in limits:
                if limit_s is not None and p95.value > limit_s:
                    return status, f"{p95.name} is {p95.value:.3g} s, more than {limit_s:g} s"
        if workers < self._options.workers_min:
            return HealthStatus.WARNING, f"{workers} of at least {self._options.workers_min} workers run"
        return HealthStatus.HEALTHY, ""

    async def execute_action(self, action: AdaptationAction) -> ExecutionResult:
        wanted = self._understand(action)
        timeout_s = self._options.action_timeout_s
        if action.timeout_seconds is not None:
            timeout_s = min(timeout_s, TIMEOUT_SHARE * action.timeout_seconds)
        deadline_s = self._clock.monotonic() + timeout_s
        started_at = self._clock.now()
        async with self._turn(timeout_s):
            arbiter = await self._require_arbiter()
            settled = await self._scaling.settle(arbiter, deadline_s)
            before = await self._scaling.pids(arbiter)
            target = wanted if wanted is not None else len(before) + (1 if action.action_type == "add_worker" else -1)
            refusal = None if settled else "an earlier change of the workers has not come true yet"
            refusal = refusal or self._guard(target)
            if self._journal is not None:
                await self._journal.begin(action)
            if refusal is not None:
                change = Change(target, before, before, 0)
                outcome: tuple[ExecutionStatus, str | None] = (ExecutionStatus.REJECTED, refusal)
            else:
                change = await self._change(action, arbiter, before, target, deadline_s)
                outcome = _outcome(change, timeout_s)
            status, message = outcome
            data = _seen(change)
            result = ExecutionResult(action.action_id, status, data, message, started_at, self._clock.now())
            return await self._witnessed(result)

    def _understand(self, action: AdaptationAction) -> int | None:
        """The number of workers asked for, None when the action is relative. Raises `ActionNotSupportedError`."""
        if action.target_system != self._system_id:
            message = f"{self._system_id}: the action is meant for {action.target_system!r}"
            raise ActionNotSupportedError(message, {"action_id": action.action_id})
        if action.action_type == "set_workers":
            return read_parameters(SetWorkers, action).workers
        if action.action_type == "add_worker":
            read_parameters(AddWorker, action)
        elif action.action_type == "remove_worker":
            read_parameters(RemoveWorker, action)
        else:
            known = [description.name for description in ACTIONS]
            hint = near(action.action_type, known) or f"; known: {', '.join(known)}"
            message = f"{self._system_id}: unknown action {action.action_type!r}{hint}"
            raise ActionNotSupportedError(message, {"action_id": action.action_id})
        return None

    def _guard(self, target: int) -> str | None:
        low, high = self._options.workers_min, self._options.workers_max
        return None if low <= target <= high else f"{target} workers are outside the allowed {low} to {high}"

    @asynccontextmanager
    async def _turn(self, timeout_s: float) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(timeout_s):
                await self._scaling.turn.acquire()
        except TimeoutError as error:
            message = f"{self._system_id}: an earlier action was still running after {timeout_s:g} s; nothing was done"
            raise ConnectorError(message) from error
        try:
            yield
        finally:
            self._scaling.turn.release()

    async def _change(
        self, action: AdaptationAction, arbiter: Arbiter, before: tuple[int, ...], target: int, deadline_s: float
    ) -> Change:
        try:
            return await self._scaling.change(arbiter, before, target, deadline_s)
        except ConnectorError:
            if self._journal is not None:
                await self._journal.undone(action)
            raise

    async def _witnessed(self, result: ExecutionResult) -> ExecutionResult:
        """The result, with its end in the journal. A journal that fails now takes nothing away from what was done."""
        if self._journal is None:
            return result
        try:
            await self._journal.end(result)
        except ConnectorError as error:
            return msgspec.structs.replace(result, result_data={**result.result_data, "journal": error.message})
        return result

    async def recall_action(self, action_id: str) -> ExecutionResult | None:
        """As `RecallsActions` says; without a journal always None."""
        return await self._journal.recall(action_id) if self._journal is not None else None

    def supported_actions(self) -> Sequence[ActionDescription]:
        return ACTIONS

    async def health(self) -> ConnectorHealth:
        if not self._connected:
            return ConnectorHealth(HealthStatus.UNKNOWN, "not connected")
        try:
            await self._require_arbiter()
        except ConnectorError as error:
            return ConnectorHealth(HealthStatus.UNHEALTHY, error.message)
        return ConnectorHealth(HealthStatus.HEALTHY)


def _outcome(change: Change, timeout_s: float) -> tuple[ExecutionStatus, str | None]:
    if change.reached:
        return ExecutionStatus.SUCCESS, None
    if change.lost is not None:
        return ExecutionStatus.FAILED, f"after {change.signals} signals: {change.lost}"
    there = f"{len(change.after)} instead of {change.target} workers after {timeout_s:g} s; more may follow"
    return (ExecutionStatus.PARTIAL if change.moved else ExecutionStatus.TIMEOUT), there


def _seen(change: Change) -> dict[str, object]:
    return {
        "workers_wanted": change.target,
        "workers_before": len(change.before),
        "workers_after": len(change.after),
        "pids_before": list(change.before),
        "pids_after": list(change.after),
        "signals": change.signals,
    }
