"""A subscription at work: workers, the judgement on what a handler raised, and the orderly end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from polaris.clock import Clock
from polaris.exceptions import MessageBusError, MessageDecodeError
from polaris.messaging._backlog import Backlog
from polaris.messaging._broker import ConsumerInfo, Delivery
from polaris.messaging._cloudevents import DecodedEvent, EventCodec, Undecodable
from polaris.messaging._dead_letter_entry import DeadLetterReason
from polaris.messaging._dead_letters import Failure
from polaris.messaging._invocation import Invoker
from polaris.messaging._ordering import Ordering
from polaris.messaging._settlement import Accepted, Settlement, is_being_cancelled
from polaris.messaging._sources import Source
from polaris.messaging._subscription import SubscriptionOptions, SubscriptionStats

if TYPE_CHECKING:
    from polaris.observability import StructuredLogger

PARTIAL_MAX = 1_024
CANCEL_WAIT_S = 5.0

Answer: TypeAlias = Callable[[Delivery, Any, BaseException | None], Awaitable[None]]
"""Replies to a request: with the delivery, what the handler returned, and what it raised."""
Found: TypeAlias = Sequence[DecodedEvent | Undecodable] | Failure
"""What a message holds, or why it will not be handled at all."""


class Route:
    """One subscription at work.

    A source brings deliveries, at most `in_flight_max` unsettled ones; `concurrency` workers call the handler. After it
    returned the message is acknowledged. If it raised, `RedeliveryPolicy` says whether the message is handed back with
    a delay or put aside; it is settled for good only once the dead letter is stored. Bytes that are no event are put
    aside at once. The members of a batch message end one by one, the message when the last of them has.

    Ending it: nothing more is taken, running handlers get the grace period and are cancelled after it, and everything
    accepted that was not finished is handed back without delay.

    With `ordered_by`, messages of one key are handled one after the other, in the order of arrival, see `Ordering`.
    """

    def __init__(
        self,
        source: Source,
        invoker: Invoker,
        settlement: Settlement,
        options: SubscriptionOptions,
        stats: SubscriptionStats,
        *,
        codec: EventCodec,
        clock: Clock,
        logger: StructuredLogger,
        grace_s: float,
        answer: Answer,
    ) -> None:
        self.name = settlement.name
        self.stats = stats
        self._source = source
        self._invoker = invoker
        self._settlement = settlement
        self._options = options
        self._codec = codec
        self._clock = clock
        self._logger = logger
        self._grace_s = grace_s
        self._answer = answer
        self._durable = settlement.stream is not None
        self._backlog: Backlog[Accepted | None] = Backlog()
        self._partial: dict[int, set[int]] = {}
        self._ordering: Ordering | None = None
        if options.ordered_by is not None:
            self._ordering = Ordering(options.ordered_by, self._backlog.put, invoker, settlement, logger=logger)
        self._workers: list[asyncio.Task[None]] = []
        self._heartbeat: asyncio.Task[None] | None = None
        self._returning = False
        self._ending: asyncio.Task[None] | None = None

    # What a source needs.

    @property
    def room(self) -> int:
        """How many more deliveries may be accepted now."""
        return self._settlement.room

    async def wait_for_room(self) -> None:
        await self._settlement.wait_for_room()

    def accept(self, delivery: Delivery) -> None:
        item = self._settlement.accept(delivery)
        if self._ordering is None:
            self._backlog.put(item)
        else:
            self._ordering.enter(item)

    # What a subscription needs.

    @property
    def in_flight(self) -> int:
        return self._settlement.in_flight

    @property
    def active(self) -> bool:
        return self._ending is None and bool(self._workers)

    async def info(self) -> ConsumerInfo | None:
        return await self._source.info()

    async def start(self) -> None:
        """Begin to take deliveries. Raises what the source raises; nothing runs then."""
        self._workers = [
            asyncio.create_task(self._work(), name=f"polaris-worker {self.name}")
            for _ in range(self._options.concurrency)
        ]
        if self._durable:
            self._heartbeat = asyncio.create_task(self._settlement.keep_alive(), name=f"polaris-heartbeat {self.name}")
        try:
            await self._source.start(self)
        except BaseException:  # boundary: nothing may keep running after a failed start
            workers, self._workers = self._workers, []
            await _cancel([*workers, *([self._heartbeat] if self._heartbeat else [])])
            raise

    async def stop(self, *, finish_all: bool = False) -> None:
        """End it, see the class; `finish_all` handles what was accepted and not begun instead of handing it back."""
        if self._ending is None:
            # At once, so that no worker begins anything while the source is being halted.
            self._returning = self._durable and not finish_all
            self._ending = asyncio.create_task(self._end(), name=f"polaris-end {self.name}")
        if asyncio.current_task() not in self._workers:
            # The end goes on when the one who waits for it is cancelled.
            await asyncio.shield(self._ending)

    async def _end(self) -> None:
        # The source is let go of first: what is handed back must not come here again.
        await self._halt_source()
        if self._ordering is not None and not self._returning:
            in_order = await self._ordering.finish(within_s=self._grace_s)
            self._returning = self._durable and not in_order
        while self._returning and self._backlog:
            item = self._backlog.take()
            if item is not None:
                await self._settlement.hand_back(item, 0.0)
        for _ in self._workers:
            self._backlog.put(None)
        if self._workers:
            _, late = await asyncio.wait(self._workers, timeout=self._grace_s)
            if late:
                self._logger.warning("handlers ran over the grace period", subscription=self.name, handlers=len(late))
                await self._abandon(late)
        if self._heartbeat is not None:
            await _cancel([self._heartbeat])
        await self._settlement.hand_back_all()

    async def _halt_source(self) -> None:
        for step in (self._source.halt, self._source.close):
            task = asyncio.ensure_future(step())
            _, late = await asyncio.wait([task], timeout=self._grace_s)
            if late:
                await _cancel([task])
            elif (error := task.exception()) is not None:
                self._logger.error("the subscription did not end cleanly", subscription=self.name, error=error)

    async def _abandon(self, late: set[asyncio.Task[None]]) -> None:
        for worker in late:
            worker.cancel()
        _, stuck = await asyncio.wait(late, timeout=CANCEL_WAIT_S)
        if stuck:
            self._logger.error("handlers ignore their cancellation", subscription=self.name, handlers=len(stuck))

    # Workers.

    async def _work(self) -> None:
        step = self._gather_and_process if self._invoker.takes_batch else self._process_one
        if self._ordering is not None:
            step = self._process_in_order
        backlog = self._backlog
        self._invoker.enter()
        try:
            while (item := backlog.take() if backlog else await backlog.wait_and_take()) is not None:
                if self._returning:
                    await self._settlement.hand_back(item, 0.0)
                elif await step(item):
                    return
        finally:
            self._invoker.leave()

    async def _process_one(self, item: Accepted) -> bool:
        try:
            found = self._decode(item)
            if isinstance(found, Failure):
                await self._settlement.put_aside(item, found)
                return False
            if len(found) == 1:
                failed = await self._try_member(item, found[0], None)
            else:
                failed = await self._try_members(item, found)
            if failed is None or not self._keeps(item, failed):
                await self._settlement.settle(item, failed)
        except (Exception, asyncio.CancelledError) as error:  # boundary: see _survive
            await self._survive(error, [item])
        return False

    async def _process_in_order(self, item: Accepted) -> bool:
        ended = await self._process_one(item)
        if self._ordering is not None:
            self._ordering.ended(item)
        return ended

    def _keeps(self, item: Accepted, error: BaseException) -> bool:
        """Keep what failed, to try it again before anything behind it; False if it must be handed back."""
        if self._ordering is None or not self._durable:
            return False
        if self._ending is not None:
            self._returning = True
            return False
        self.stats.retried += 1
        self._ordering.repeat_later(item, error)
        return True

    async def _gather_and_process(self, item: Accepted) -> bool:
        """A batch that begins with this message; whether the end was announced meanwhile."""
        batch = [(item, self._decode(item))]
        ended = await self._collect(batch)
        try:
            await self._process_batch(batch)
        except (Exception, asyncio.CancelledError) as error:  # boundary: see _survive
            await self._survive(error, [item for item, _ in batch])
        return ended

    async def _collect(self, batch: list[tuple[Accepted, Found]]) -> bool:
        """Add what is there or comes within the linger, up to `batch_max` events; whether the end was announced."""
        count = _count(batch[0][1])
        until_s = self._clock.monotonic() + self._options.batch_linger_s
        while count < self._options.batch_max:
            if not self._backlog:
                left_s = until_s - self._clock.monotonic()
                if left_s <= 0 or self._ending is not None:
                    return False
                try:
                    async with asyncio.timeout(left_s):
                        item = await self._backlog.wait_and_take()
                except TimeoutError:
                    return False
            else:
                item = self._backlog.take()
            if item is None:
                return True
            found = self._decode(item)
            batch.append((item, found))
            count += _count(found)
        return False

    async def _survive(self, error: BaseException, items: Sequence[Accepted]) -> None:
        """A defect here or in the driver, or a stray cancellation: the worker lives on and the messages come again."""
        if not isinstance(error, asyncio.CancelledError):
            self._logger.error("settling a message failed", subscription=self.name, exc_info=error)
        elif is_being_cancelled():
            raise error
        else:
            self._logger.warning("settling a message was cancelled by somebody else", subscription=self.name)
        await self._settlement.hand_back_later(items)

    # One message.

    def _decode(self, item: Accepted) -> Found:
        try:
            found = self._invoker.decode(item.delivery)
        except MessageDecodeError as error:
            return Failure.of_decoding(error)
        if self._durable and item.delivery.attempt > self._options.redelivery.deliveries_max:
            attempts = item.delivery.attempt - 1
            message = f"delivered {attempts} times to {self.name} and never settled"
            return Failure(DeadLetterReason.ABANDONED, MessageBusError(message, {"attempts": attempts}))
        return found

    async def _try_members(self, item: Accepted, members: Sequence[DecodedEvent | Undecodable]) -> BaseException | None:
        """Handle the events of a batch message one by one; what has succeeded is not repeated when it comes again."""
        sequence = item.delivery.sequence
        done = set() if sequence is None else self._partial.pop(sequence, set())
        worst: BaseException | None = None
        for index, member in enumerate(members):
            if index not in done:
                error = await self._try_member(item, member, index)
                if error is None:
                    done.add(index)
                else:
                    worst = error
        if worst is not None and sequence is not None:
            if len(self._partial) >= PARTIAL_MAX:
                del self._partial[next(iter(self._partial))]
            self._partial[sequence] = done
        return worst

    async def _try_member(
        self, item: Accepted, member: DecodedEvent | Undecodable, index: int | None
    ) -> BaseException | None:
        """Handle one event. None when it is done with, be it as a dead letter; otherwise why it must come again."""
        if isinstance(member, Undecodable):
            return await self._settlement.store(item, Failure.of_decoding(member.error), member.payload, f"{index}")
        if not self._invoker.wants(member):
            return None
        delivery = item.delivery
        try:
            result = await self._invoker.call(delivery, [member], attempt=delivery.attempt + self._repeats(item))
        except Exception as error:  # boundary: handlers are foreign code; what they raise decides about the message
            self.stats.failed += 1
            if delivery.reply_to is not None:
                await self._answer(delivery, None, error)
            return await self._judge(item, error, member, index)
        if delivery.reply_to is not None:
            await self._answer(delivery, result, None)
        return None

    def _repeats(self, item: Accepted) -> int:
        return 0 if self._ordering is None else self._ordering.repeats(item)

    async def _judge(
        self, item: Accepted, error: BaseException, member: DecodedEvent, index: int | None
    ) -> BaseException | None:
        if not self._is_final(item, error):
            return error
        payload = item.delivery.payload if index is None else self._codec.encode(member.event)
        return await self._settlement.store(
            item, _failure(error, self._repeats(item)), payload, "" if index is None else f"{index}"
        )

    def _is_final(self, item: Accepted, error: BaseException) -> bool:
        policy = self._options.redelivery
        repeats = self._repeats(item)
        failures = self._settlement.failures(item, repeats)
        return self._durable and policy.gives_up(failures, item.delivery.attempt + repeats, error)

    # Batches of messages.

    async def _process_batch(self, batch: Sequence[tuple[Accepted, Found]]) -> None:
        ready: list[tuple[Accepted, list[DecodedEvent]]] = []
        for item, found in batch:
            if isinstance(found, Failure):
                await self._settlement.put_aside(item, found)
                continue
            wanted: list[DecodedEvent] = []
            failed: BaseException | None = None
            for index, member in enumerate(found):
                if isinstance(member, Undecodable):
                    refusal = Failure.of_decoding(member.error)
                    failed = await self._settlement.store(item, refusal, member.payload, f"{index}") or failed
                elif self._invoker.wants(member):
                    wanted.append(member)
            if failed is not None or not wanted:
                await self._settlement.settle(item, failed)
            else:
                ready.append((item, wanted))
        if ready:
            await self._call_batch(ready)

    async def _call_batch(self, ready: Sequence[tuple[Accepted, list[DecodedEvent]]]) -> None:
        """One call for all; when it fails, messages with no further chance are tried alone, the rest comes again."""
        events = [found for _, members in ready for found in members]
        try:
            await self._invoker.call(ready[0][0].delivery, events)
        except Exception as error:  # boundary: as in _try_member
            self.stats.failed += len(events)
            for item, members in ready:
                if not self._is_final(item, error):
                    await self._settlement.settle(item, error)
                elif len(ready) > 1:
                    await self._call_batch([(item, members)])
                else:
                    await self._settlement.put_aside(item, _failure(error))
            return
        for item, _ in ready:
            await self._settlement.settle(item, None)


def _failure(error: BaseException, repeats: int = 0) -> Failure:
    refused = getattr(error, "retryable", None) is False
    return Failure(DeadLetterReason.REFUSED if refused else DeadLetterReason.EXHAUSTED, error, repeats)


def _count(found: Found) -> int:
    return 1 if isinstance(found, Failure) else len(found)


async def _cancel(tasks: Sequence[asyncio.Future[Any]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
