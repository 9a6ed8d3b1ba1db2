"""The only place that settles deliveries: workers, redelivery, dead letters, heartbeats and the orderly end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from polaris.clock import Clock
from polaris.exceptions import MessageBusError, MessageDecodeError
from polaris.messaging._broker import ConsumerInfo, Delivery
from polaris.messaging._cloudevents import DecodedEvent, EventCodec, Undecodable
from polaris.messaging._dead_letter_entry import DeadLetterReason
from polaris.messaging._dead_letters import DeadLetterWriter, Failure
from polaris.messaging._invocation import Invoker
from polaris.messaging._sources import Source
from polaris.messaging._subjects import DEAD_LETTER_PREFIX
from polaris.messaging._subscription import SubscriptionOptions, SubscriptionStats

if TYPE_CHECKING:
    from polaris.observability import StructuredLogger

PARTIAL_MAX = 1_024
CANCEL_WAIT_S = 5.0

Answer = Callable[[Delivery, Any, BaseException | None], Awaitable[None]]
"""Replies to a request: with the delivery, what the handler returned, and what it raised."""
Observe = Callable[[Delivery, str | None], None]
"""Told of every settled delivery, and of the reason when it became a dead letter."""


class _Accepted:
    """A delivery that was taken and is not settled."""

    __slots__ = ("beat_s", "delivery")

    def __init__(self, delivery: Delivery, beat_s: float) -> None:
        self.delivery = delivery
        self.beat_s = beat_s


class Route:
    """One subscription at work.

    A source brings deliveries, at most `in_flight_max` unsettled ones; `concurrency` workers call the handler. After it
    returned the message is acknowledged. If it raised, `RedeliveryPolicy` says whether the message is handed back with
    a delay or put aside; it is settled for good only once the dead letter is stored. Bytes that are no event are put
    aside at once. Core deliveries come once: what fails is counted as lost and logged.

    Ending it: nothing more is taken, running handlers get the grace period and are cancelled after it, and everything
    accepted that was not finished is handed back without delay.
    """

    def __init__(
        self,
        name: str,
        source: Source,
        invoker: Invoker,
        options: SubscriptionOptions,
        stats: SubscriptionStats,
        *,
        codec: EventCodec,
        dead_letters: DeadLetterWriter | None,
        stream: str | None,
        clock: Clock,
        logger: StructuredLogger,
        grace_s: float,
        answer: Answer,
        observe: Observe | None = None,
    ) -> None:
        self.name = name
        self.stats = stats
        self._source = source
        self._invoker = invoker
        self._options = options
        self._codec = codec
        self._dead_letters = dead_letters
        self._stream = stream
        self._clock = clock
        self._logger = logger
        self._grace_s = grace_s
        self._answer = answer
        self._observe = observe
        self._accepted: dict[int, _Accepted] = {}
        self._queue: asyncio.Queue[_Accepted | None] = asyncio.Queue()
        self._freed = asyncio.Event()
        self._partial: dict[int, set[int]] = {}
        self._workers: list[asyncio.Task[None]] = []
        self._heartbeat: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None

    # What a source needs.

    @property
    def room(self) -> int:
        """How many more deliveries may be accepted now."""
        return self._options.in_flight_max - len(self._accepted)

    async def wait_for_room(self) -> None:
        """Until at least a quarter of the bound is free, so that messages are fetched many at a time."""
        enough = max(1, self._options.in_flight_max // 4)
        while self.room < enough:
            self._freed.clear()
            await self._freed.wait()

    def accept(self, delivery: Delivery) -> None:
        item = _Accepted(delivery, self._clock.monotonic())
        self._accepted[id(item)] = item
        self.stats.received += 1
        if delivery.attempt > 1:
            self.stats.redelivered += 1
        self._queue.put_nowait(item)

    # What a subscription needs.

    @property
    def in_flight(self) -> int:
        return len(self._accepted)

    @property
    def active(self) -> bool:
        return self._ending is None and bool(self._workers)

    async def info(self) -> ConsumerInfo | None:
        return await self._source.info()

    async def start(self) -> None:
        """Begin to take deliveries. Raises what the source raises; nothing runs then."""
        work = self._work_in_batches if self._invoker.takes_batch else self._work
        self._workers = [
            asyncio.create_task(work(), name=f"polaris-worker {self.name}") for _ in range(self._options.concurrency)
        ]
        if self._stream is not None:
            self._heartbeat = asyncio.create_task(self._beat(), name=f"polaris-heartbeat {self.name}")
        try:
            await self._source.start(self)
        except BaseException:
            tasks = [*self._workers, *([self._heartbeat] if self._heartbeat else [])]
            self._workers = []
            await _cancel(tasks)
            raise

    async def stop(self, *, finish_all: bool = False) -> None:
        if self._ending is None:
            self._ending = asyncio.create_task(self._end(finish_all), name=f"polaris-end {self.name}")
        if asyncio.current_task() not in self._workers:
            # The end goes on when the one who waits for it is cancelled.
            await asyncio.shield(self._ending)

    async def _end(self, finish_all: bool) -> None:
        await self._bounded_halt()
        if self._stream is not None and not finish_all:
            while not self._queue.empty():
                item = self._queue.get_nowait()
                if item is not None:
                    await self._hand_back(item, 0.0)
        for _ in self._workers:
            self._queue.put_nowait(None)
        if self._workers:
            _, late = await asyncio.wait(self._workers, timeout=self._grace_s)
            if late:
                self._logger.warning("handlers ran over the grace period", subscription=self.name, handlers=len(late))
                await self._abandon(late)
        if self._heartbeat is not None:
            await _cancel([self._heartbeat])
        for item in list(self._accepted.values()):
            if self._stream is None:
                self._lose(item, None)
            else:
                await self._hand_back(item, 0.0)
        await self._source.close()

    async def _bounded_halt(self) -> None:
        halting = asyncio.ensure_future(self._source.halt())
        _, late = await asyncio.wait([halting], timeout=self._grace_s)
        if late:
            await _cancel([halting])
        elif (error := halting.exception()) is not None:
            self._logger.error("the subscription did not end cleanly", subscription=self.name, error=error)

    async def _abandon(self, late: set[asyncio.Task[None]]) -> None:
        for worker in late:
            worker.cancel()
        _, stuck = await asyncio.wait(late, timeout=CANCEL_WAIT_S)
        if stuck:
            self._logger.error("handlers ignore their cancellation", subscription=self.name, handlers=len(stuck))

    # Workers.

    async def _work(self) -> None:
        while (item := await self._queue.get()) is not None:
            await self._guard(self._process(item), [item])

    async def _work_in_batches(self) -> None:
        while (item := await self._queue.get()) is not None:
            batch = [(item, self._decode(item))]
            ended = await self._collect(batch)
            await self._guard(self._process_batch(batch), [item for item, _ in batch])
            if ended:
                return

    async def _collect(self, batch: list[tuple[_Accepted, Sequence[DecodedEvent | Undecodable] | Failure]]) -> bool:
        """Add what is there or comes within the linger, up to `batch_max` events; whether the end was announced."""
        count = _count(batch[0][1])
        until_s = self._clock.monotonic() + self._options.batch_linger_s
        while count < self._options.batch_max:
            if self._queue.empty():
                left_s = until_s - self._clock.monotonic()
                if left_s <= 0 or self._ending is not None:
                    return False
                try:
                    async with asyncio.timeout(left_s):
                        item = await self._queue.get()
                except TimeoutError:
                    return False
            else:
                item = self._queue.get_nowait()
            if item is None:
                return True
            found = self._decode(item)
            batch.append((item, found))
            count += _count(found)
        return False

    async def _guard(self, work: Awaitable[None], items: Sequence[_Accepted]) -> None:
        """Whatever goes wrong with one message, the worker lives on and the message is handed back."""
        try:
            await work
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            self._logger.warning("a handler let a cancellation of its own escape", subscription=self.name)
            await self._hand_back_all(items)
        except Exception as error:  # boundary: a defect here or in the driver must not end the subscription
            self._logger.exception("settling a message failed", subscription=self.name, error=error)
            await self._hand_back_all(items)

    async def _hand_back_all(self, items: Sequence[_Accepted]) -> None:
        for item in items:
            if id(item) in self._accepted:
                await self._hand_back(item, self._options.redelivery.delay_s(item.delivery.attempt))

    # One message.

    def _decode(self, item: _Accepted) -> Sequence[DecodedEvent | Undecodable] | Failure:
        try:
            found = self._invoker.decode(item.delivery)
        except MessageDecodeError as error:
            return Failure.of_decoding(error)
        if self._stream is not None and item.delivery.attempt > self._options.redelivery.max_deliveries:
            attempts = item.delivery.attempt - 1
            message = f"delivered {attempts} times to {self.name} and never settled"
            return Failure(DeadLetterReason.ABANDONED, MessageBusError(message, {"attempts": attempts}))
        return found

    async def _process(self, item: _Accepted) -> None:
        found = self._decode(item)
        if isinstance(found, Failure):
            await self._put_aside(item, found)
            return
        if len(found) == 1:
            error = await self._try_member(item, found[0], None)
            await self._settle(item, error)
            return
        sequence = item.delivery.sequence
        done = self._partial.pop(sequence, set()) if sequence is not None else set()
        worst: BaseException | None = None
        for index, member in enumerate(found):
            if index in done:
                continue
            error = await self._try_member(item, member, index)
            if error is None:
                done.add(index)
            else:
                worst = error
        if worst is not None and sequence is not None:
            # What has succeeded is not repeated when the message comes again to this process.
            if len(self._partial) >= PARTIAL_MAX:
                del self._partial[next(iter(self._partial))]
            self._partial[sequence] = done
        await self._settle(item, worst)

    async def _try_member(
        self, item: _Accepted, member: DecodedEvent | Undecodable, index: int | None
    ) -> BaseException | None:
        """Handle one event. None when it is done with, be it as a dead letter; otherwise why it must come again."""
        if isinstance(member, Undecodable):
            return await self._store(item, Failure.of_decoding(member.error), member.payload, f"{index}")
        if not self._invoker.wants(member):
            return None
        delivery = item.delivery
        try:
            result = await self._call(delivery, [member])
        except Exception as error:  # boundary: handlers are foreign code; what they raise decides about the message
            self.stats.failed += 1
            await self._reply(delivery, None, error)
            return await self._judge(item, error, member, index)
        await self._reply(delivery, result, None)
        return None

    async def _call(self, delivery: Delivery, events: Sequence[DecodedEvent]) -> Any:
        try:
            return await self._invoker.call(delivery, events)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # Not ours: something that the handler awaited was cancelled.
            message = "the handler let a cancellation of its own escape"
            raise MessageBusError(message, {"subscription": self.name}) from error

    async def _judge(
        self, item: _Accepted, error: BaseException, member: DecodedEvent, index: int | None
    ) -> BaseException | None:
        if self._stream is None or not self._options.redelivery.gives_up(item.delivery.attempt, error):
            return error
        refused = getattr(error, "retryable", None) is False
        failure = Failure(DeadLetterReason.REFUSED if refused else DeadLetterReason.EXHAUSTED, error)
        payload = item.delivery.payload if index is None else self._codec.encode(member.event)
        return await self._store(item, failure, payload, "" if index is None else f"{index}")

    # Batches of messages.

    async def _process_batch(
        self, batch: Sequence[tuple[_Accepted, Sequence[DecodedEvent | Undecodable] | Failure]]
    ) -> None:
        ready: list[tuple[_Accepted, list[DecodedEvent]]] = []
        for item, found in batch:
            if isinstance(found, Failure):
                await self._put_aside(item, found)
                continue
            wanted: list[DecodedEvent] = []
            failed: BaseException | None = None
            for index, member in enumerate(found):
                if isinstance(member, Undecodable):
                    refusal = Failure.of_decoding(member.error)
                    failed = await self._store(item, refusal, member.payload, f"{index}") or failed
                elif self._invoker.wants(member):
                    wanted.append(member)
            if failed is not None or not wanted:
                await self._settle(item, failed)
            else:
                ready.append((item, wanted))
        if ready:
            await self._call_batch(ready)

    async def _call_batch(self, ready: Sequence[tuple[_Accepted, list[DecodedEvent]]]) -> None:
        """One call for all; when it fails, those that get no further chance are tried alone, the rest comes again."""
        events = [found for _, members in ready for found in members]
        try:
            await self._call(ready[0][0].delivery, events)
        except Exception as error:  # boundary: as in _try_member
            self.stats.failed += len(events)
            policy = self._options.redelivery
            for item, members in ready:
                final = self._stream is not None and policy.gives_up(item.delivery.attempt, error)
                if final and len(ready) > 1:
                    await self._call_batch([(item, members)])
                elif final:
                    refused = getattr(error, "retryable", None) is False
                    reason = DeadLetterReason.REFUSED if refused else DeadLetterReason.EXHAUSTED
                    await self._put_aside(item, Failure(reason, error))
                else:
                    await self._settle(item, error)
            return
        for item, _ in ready:
            await self._settle(item, None)

    # Settling.

    async def _settle(self, item: _Accepted, error: BaseException | None) -> None:
        if error is None:
            await self._finish(item, item.delivery.ack)
            if self._observe is not None:
                self._observe(item.delivery, None)
        elif self._stream is None:
            self._lose(item, error)
        else:
            delay_s = self._options.redelivery.delay_s(item.delivery.attempt, error)
            self._logger.debug(
                "a message is handed back", subscription=self.name, attempt=item.delivery.attempt, delay_s=delay_s
            )
            await self._hand_back(item, delay_s)

    async def _put_aside(self, item: _Accepted, failure: Failure) -> None:
        error = await self._store(item, failure, None, "")
        if error is not None:
            await self._settle(item, error)
        else:
            await self._finish(item, item.delivery.term)

    async def _store(self, item: _Accepted, failure: Failure, payload: bytes | None, part: str) -> BaseException | None:
        """Store a dead letter; the error when that failed, so that the message comes again instead of being lost."""
        delivery = item.delivery
        if self._dead_letters is None or delivery.subject.startswith(DEAD_LETTER_PREFIX):
            self.stats.lost += 1
            self._log_failure("a message is given up", delivery, failure.error, reason=failure.reason.value)
            return None
        try:
            await self._dead_letters.store(
                delivery, failure, subscription=self.name, stream=self._stream, payload=payload, part=part
            )
        except MessageBusError as error:
            self._log_failure("a dead letter could not be stored", delivery, error, reason=failure.reason.value)
            return error
        self.stats.dead_lettered += 1
        self._log_failure("a message is put aside", delivery, failure.error, reason=failure.reason.value)
        if self._observe is not None:
            self._observe(delivery, failure.reason.value)
        return None

    async def _hand_back(self, item: _Accepted, delay_s: float) -> None:
        self.stats.retried += 1
        delivery = item.delivery
        await self._finish(item, lambda: delivery.nak(delay_s=delay_s))

    async def _finish(self, item: _Accepted, settle: Callable[[], Awaitable[None]]) -> None:
        try:
            await settle()
        except MessageBusError as error:
            self.stats.unsettled += 1
            self._logger.debug("a settlement could not be sent", subscription=self.name, error=error)
        finally:
            self._release(item)

    def _lose(self, item: _Accepted, error: BaseException | None) -> None:
        self.stats.lost += 1
        self._log_failure("a message was delivered once and not handled", item.delivery, error)
        self._release(item)

    def _release(self, item: _Accepted) -> None:
        self._accepted.pop(id(item), None)
        self._freed.set()

    async def _reply(self, delivery: Delivery, result: Any, error: BaseException | None) -> None:
        if delivery.reply_to is not None:
            await self._answer(delivery, result, error)

    def _log_failure(self, message: str, delivery: Delivery, error: BaseException | None, **fields: object) -> None:
        self._logger.warning(
            message,
            subscription=self.name,
            topic=delivery.subject,
            sequence=delivery.sequence,
            attempt=delivery.attempt,
            error=error,
            **fields,
        )

    # Heartbeats.

    async def _beat(self) -> None:
        """Tell the broker of everything unsettled, in good time before it would deliver again."""
        every_s = self._options.ack_wait_s / 3
        while True:
            await self._clock.sleep(every_s / 2)
            now_s = self._clock.monotonic()
            for item in [item for item in self._accepted.values() if now_s - item.beat_s >= every_s / 2]:
                if id(item) not in self._accepted:
                    continue
                try:
                    await item.delivery.in_progress()
                    item.beat_s = now_s
                except MessageBusError as error:
                    self._logger.debug("a heartbeat could not be sent", subscription=self.name, error=error)
                    break


def _count(found: Sequence[DecodedEvent | Undecodable] | Failure) -> int:
    return 1 if isinstance(found, Failure) else len(found)


async def _cancel(tasks: Sequence[asyncio.Future[Any]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
