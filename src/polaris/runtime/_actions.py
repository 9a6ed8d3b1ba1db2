"""The action path: from the bus through the ledger to the managed system, and the result back, each action once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

from polaris.clock import SYSTEM_CLOCK, Clock
from polaris.domain import AdaptationAction, AdaptationEvent, ExecutionResult, ExecutionStatus
from polaris.exceptions import DataStoreError
from polaris.messaging import RedeliveryPolicy, adaptation_topic, encode_token
from polaris.observability import current_trace
from polaris.observability._conventions import STORE_WRITE
from polaris.resilience import RetryPolicy
from polaris.runtime._execution import ActionExecution, rejection
from polaris.runtime._ledger import ActionLedger, CausedAt, LedgerEntry
from polaris.runtime._patience import DELIVERIES_MAX, REDELIVERY_AFTER_S, UNTIL_STORED
from polaris.runtime._supervision import Supervisor
from polaris.runtime._traces import Traces

if TYPE_CHECKING:
    from polaris.messaging import MessageContext, PolarisMessageBus, Subscription
    from polaris.observability import MetricsCollector, StructuredLogger

OnAction = Callable[[LedgerEntry], None]
Handle = Callable[[AdaptationEvent, "MessageContext"], Awaitable[None]]

INTERRUPTED = (
    "the node stopped in mid-execution and the connector cannot tell whether the action was carried out; "
    "it is not executed again"
)


class ActionService:
    """Takes actions from the bus, executes each once, and stores and announces what came of it.

    One durable subscription a system that is or was configured, so a slow system delays nobody else and its actions
    keep their order; one more for actions on all others. Those on systems not configured now are refused visibly, but
    for those that another node of the store answers for. A
    delivery is acknowledged only when the ledger holds the final status. What an earlier run was cut off in is settled
    at the start.
    """

    def __init__(
        self,
        bus: PolarisMessageBus,
        ledger: ActionLedger,
        executions: Mapping[str, ActionExecution],
        supervisor: Supervisor,
        metrics: MetricsCollector,
        logger: StructuredLogger,
        *,
        source: str,
        caused_at: CausedAt,
        on_action: OnAction,
        traces: Traces | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._bus = bus
        self._ledger = ledger
        self._executions = dict(executions)
        self._lanes: dict[str, str] = {}
        self._elsewhere: set[str] = set()
        self._supervisor = supervisor
        self._metrics = metrics
        self._logger = logger
        self._source = source
        self._caused_at = caused_at
        self._on_action = on_action
        self._traces = traces or Traces()
        self._clock = clock
        self._until_stored = RetryPolicy(UNTIL_STORED, clock=clock)
        self._subscriptions: list[Subscription] = []
        self._running: set[str] = set()
        # Executions that began in this run and have no result yet: after a cut they are never begun again.
        self._begun: set[str] = set()
        # Results that could not be stored yet: the action is executed, so a redelivery only stores.
        self._unsaved: dict[str, ExecutionResult] = {}

    async def start(self) -> None:
        """Settle what was cut off, then take actions."""
        await self._ledger.prepare()
        # Of systems that left the configuration too: what waits for them must be refused, not forgotten.
        lanes = await self._ledger.remember_lanes(self._executions)
        await self._settle_interrupted()
        self._lanes = {adaptation_topic(system_id): system_id for system_id in lanes}
        for topic, system_id in self._lanes.items():
            await self._subscribe(topic, f"execute-{encode_token(system_id)}", self._carry_out)
        await self._subscribe("polaris.adaptations.>", "execute-unconfigured", self._refuse_unconfigured)

    async def _subscribe(self, pattern: str, durable: str, handler: Handle) -> None:
        self._subscriptions.append(
            await self._bus.subscribe(
                pattern,
                handler,
                event_type=AdaptationEvent,
                durable=durable,
                concurrency=1,
                in_flight_max=16,
                ack_wait_s=REDELIVERY_AFTER_S,
                handler_timeout_s=None,
                redelivery=RedeliveryPolicy(max_deliveries=DELIVERIES_MAX),
            )
        )

    async def stop(self) -> None:
        """Let the actions that run come to their end; those that wait come again at the next start."""
        subscriptions, self._subscriptions = self._subscriptions, []
        await asyncio.gather(*(subscription.unsubscribe() for subscription in subscriptions))
        await self._supervisor.stop()

    @property
    def running(self) -> int:
        """How many actions are being carried out or settled now."""
        return len(self._running)

    @property
    def subscriptions(self) -> tuple[Subscription, ...]:
        """The live subscriptions, one a system and one for all others; none before the start and after the stop."""
        return tuple(self._subscriptions)

    async def _refuse_unconfigured(self, event: AdaptationEvent, context: MessageContext) -> None:
        # The topics of configured systems have subscriptions of their own, here or at another node.
        if context.topic not in self._lanes and not await self._is_answered_elsewhere(context.topic):
            await self._carry_out(event, context)

    async def _is_answered_elsewhere(self, topic: str) -> bool:
        if self._ledger.place.node is not None and topic not in self._elsewhere:
            lanes = await self._until_stored.execute(self._ledger.lanes, "look for the system's node")
            self._elsewhere = {adaptation_topic(system_id) for system_id in lanes} - set(self._lanes)
        return topic in self._elsewhere

    async def _carry_out(self, event: AdaptationEvent, context: MessageContext) -> None:
        """Bring one delivered action to its final status. Returning acknowledges it; raising brings it back later."""
        action = event.action
        action_id = action.action_id
        if action_id in self._running:
            return  # Delivered twice: the other delivery is at it, and the ledger holds the action.
        self._running.add(action_id)
        try:
            if action_id in self._unsaved:
                await self._finish(action, self._unsaved[action_id])
                return
            caused_at = self._caused_at(event.correlation_id)
            entry, taken = await self._until_stored.execute(
                lambda: self._ledger.take(event, caused_at=caused_at), "take action"
            )
            if taken:
                self._on_action(entry)
            if taken or self._was_taken_but_not_begun(entry):
                # Another message may bear the same id: what is carried out is what the ledger shows.
                await self._execute(entry.action, topic=context.topic)
            elif not entry.status.is_final:
                if not await self._settled(entry):
                    await self._execute(entry.action, topic=context.topic)
            elif entry.action != action:
                self._logger.warning(
                    "action bears the id of another and is not executed",
                    action_id=action_id,
                    system_id=action.target_system,
                    id_of=f"{entry.action.action_type} on {entry.action.target_system}",
                )
            else:
                self._logger.info("action is known already", action_id=action_id, status=entry.status.value)
        finally:
            self._running.discard(action_id)

    def _was_taken_but_not_begun(self, entry: LedgerEntry) -> bool:
        mine = entry.taken_by == self._ledger.boot_id and not entry.status.is_final
        return mine and entry.action.action_id not in self._begun

    async def _execute(self, action: AdaptationAction, *, topic: str | None = None) -> None:
        execution = self._executions.get(action.target_system)
        if execution is None:
            result = rejection(action, f"no managed system {action.target_system!r} is configured", self._clock)
        elif topic is not None and self._lanes.get(topic) != action.target_system:
            result = rejection(action, f"published on {topic!r}, which is not the topic of its system", self._clock)
        else:
            if not self._ledger.place.is_held:
                raise DataStoreError("the node does not know whether it still has its place; nothing is begun")
            self._logger.info("action begins", action_id=action.action_id, action_type=action.action_type)
            self._begun.add(action.action_id)
            result = await execution.execute(action)
        await self._finish(action, result)

    async def _finish(self, action: AdaptationAction, result: ExecutionResult) -> None:
        self._unsaved[action.action_id] = result
        self._traces.note_end(action.action_id)
        with self._traces.recorder.span(STORE_WRITE, operation="finish", collection="action_ledger", rows=1):
            entry = await self._until_stored.execute(
                lambda: self._ledger.finish(action.action_id, result, source=self._source, caused_at=self._caused_at),
                "finish action",
            )
        del self._unsaved[action.action_id]
        self._begun.discard(action.action_id)
        if entry is None or entry.result is None:
            return
        self._count(entry, entry.result)
        self._on_action(entry)

    def _count(self, entry: LedgerEntry, result: ExecutionResult) -> None:
        action = entry.action
        success = result.status is ExecutionStatus.SUCCESS
        if result.duration_s is not None:
            seconds = self._metrics.instruments.action_seconds(action.action_type, result.status.value)
            seconds.observe(max(0.0, result.duration_s), current_trace())
        self._metrics.record_adaptation(action.target_system, action.action_type, success)
        if entry.caused_at is not None:
            latency_s = (self._clock.now() - entry.caused_at).total_seconds()
            latency = self._metrics.instruments.loop_latency(action.action_type, result.status.value)
            latency.observe(max(0.0, latency_s), current_trace())
        log = self._logger.info if success else self._logger.warning
        log(
            "action ended",
            action_id=action.action_id,
            action_type=action.action_type,
            system_id=action.target_system,
            status=result.status.value,
            duration_s=result.duration_s,
            reason=result.error_message,
        )

    async def _settle_interrupted(self) -> None:
        for entry in await self._ledger.interrupted():
            if not await self._settled(entry):
                self._begin_anew(entry.action)

    async def _settled(self, entry: LedgerEntry) -> bool:
        """Give an action whose execution was cut off its honest end; False when it has certainly not begun.

        It is this run's then, and the caller executes it.
        """
        action = entry.action
        execution = self._executions.get(action.target_system)
        recalled = None if execution is None else await execution.recalled(action)
        if recalled is None:
            recalled = ExecutionResult(
                action.action_id,
                ExecutionStatus.UNKNOWN,
                error_message=INTERRUPTED,
                started_at=entry.taken_at,
                completed_at=self._clock.now(),
            )
        if not recalled.status.is_final:
            await self._ledger.retake(entry)
            return False
        await self._finish(action, recalled)
        return True

    def _begin_anew(self, action: AdaptationAction) -> None:
        # From now on a delivery of the same action finds it running.
        self._running.add(action.action_id)

        async def execute() -> None:
            if action.action_id in self._unsaved:
                await self._finish(action, self._unsaved[action.action_id])
            elif action.action_id not in self._begun:
                await self._execute(action)
            self._running.discard(action.action_id)

        self._supervisor.run_once(f"execute {action.action_id}", execute, kind="execute action")
