"""A subscription at work: workers, the judgement on what a handler raised, and the orderly end."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from operator import attrgetter
from typing import TYPE_CHECKING

from polaris.clock import Clock
from polaris.messaging._accepted import Accepted
from polaris.messaging._backlog import Backlog
from polaris.messaging._broker import ConsumerInfo, Delivery
from polaris.messaging._call_deadline import CallDeadline
from polaris.messaging._context import MessageContext
from polaris.messaging._dead_letters import Failure
from polaris.messaging._guard import Guard, ProbeFailed
from polaris.messaging._handling import Answer, Found, Handling
from polaris.messaging._in_place import InPlace, InSequence
from polaris.messaging._invocation import Invoker
from polaris.messaging._ordering import Ordering
from polaris.messaging._orderly_end import OrderlyEnd, cancel_all
from polaris.messaging._sequences import GapDetector
from polaris.messaging._settlement import Settlement, is_being_cancelled
from polaris.messaging._shedding import Shedding
from polaris.messaging._sources import Source
from polaris.messaging._subscription import SubscriptionOptions, SubscriptionStats

if TYPE_CHECKING:
    from polaris.observability import StructuredLogger


class Route:
    """One subscription at work.

    A source brings deliveries, at most `in_flight_max` unsettled ones; `concurrency` workers call the handler, see
    `Handling`. What is done with is acknowledged, what must come again is handed back with a delay.

    Ending it: nothing more is taken, running handlers get the grace period and are cancelled after it, and everything
    accepted that was not finished is handed back without delay.

    With `ordered_by`, messages of one key are handled one after the other, in the order of arrival, see `Ordering`.
    With `AckPolicy.ALL` all messages are, and one settlement covers many, see `Cumulative`.
    """

    def __init__(
        self,
        source: Source,
        invoker: Invoker,
        settlement: Settlement,
        options: SubscriptionOptions,
        stats: SubscriptionStats,
        *,
        clock: Clock,
        logger: StructuredLogger,
        grace_s: float,
        answer: Answer,
        gaps: GapDetector | None = None,
    ) -> None:
        self.name = settlement.name
        self.stats = stats
        self._source = source
        self._invoker = invoker
        self._settlement = settlement
        self._options = options
        self._clock = clock
        self._logger = logger
        self._grace_s = grace_s
        self._durable = settlement.settles
        self._accepted = settlement.accepted
        self._backlog: Backlog[Accepted | None] = Backlog(InSequence() if settlement.cumulative else None)
        self._ordering: Ordering | None = None
        if options.ordered_by is not None:
            self._ordering = Ordering(options.ordered_by, self._backlog.put, invoker, settlement, logger=logger)
        self._workers: list[asyncio.Task[None]] = []
        self._heartbeat: asyncio.Task[None] | None = None
        self._in_place = InPlace(settlement, clock) if settlement.cumulative else None
        self._guard = None if options.breaker is None else Guard(options.breaker, clock)
        self._handling = Handling(
            invoker,
            settlement,
            options,
            stats,
            guard=self._guard,
            answer=answer,
            repeats=attrgetter("repeats") if self._ordering is None else self._ordering.repeats,
            gaps=gaps,
        )
        sheds = options.conflate or options.stale_after_s is not None
        self._shedding = Shedding(options, settlement, stats, clock) if sheds else None
        self._resumed: asyncio.Event | None = None
        self._returning = False
        self._ending: asyncio.Task[None] | None = None

    # What a source needs.

    @property
    def room(self) -> int:
        """How many more deliveries may be accepted now."""
        return self._settlement.room

    async def wait_for_room(self) -> None:
        if self._resumed is not None:
            await self._resumed.wait()
        await self._settlement.wait_for_room()

    def accept(self, delivery: Delivery) -> bool:
        item = self._settlement.accept(delivery)
        if item is not None:
            if self._shedding is not None:
                self._shedding.accept(item)
            if self._ordering is None:
                self._backlog.put(item)
            else:
                self._ordering.enter(item)
        # Of the cumulative books' room only they can tell.
        return self._in_place is None and len(self._accepted) < self._options.in_flight_max

    # What a subscription needs.

    @property
    def in_flight(self) -> int:
        return self._settlement.in_flight

    @property
    def active(self) -> bool:
        return self._ending is None and bool(self._workers)

    @property
    def paused(self) -> bool:
        return self._resumed is not None

    def pause(self) -> None:
        """Begin no message and take none until `resume`; handlers that run finish."""
        if self._resumed is None and self._ending is None:
            self._resumed = asyncio.Event()

    def resume(self) -> None:
        """Go on after a pause."""
        resumed, self._resumed = self._resumed, None
        if resumed is not None:
            resumed.set()

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
            await cancel_all([*workers, *([self._heartbeat] if self._heartbeat else [])])
            raise

    async def stop(self, *, finish_all: bool = False) -> None:
        """End it, see the class; `finish_all` handles what was accepted and not begun instead of handing it back."""
        if self._ending is None:
            # At once, so that no worker begins anything while the source is being halted.
            self._returning = self._durable and not finish_all
            self.resume()
            if self._in_place is not None:
                self._in_place.end()
            if self._guard is not None:
                self._guard.end()
            self._ending = asyncio.create_task(self._end(), name=f"polaris-end {self.name}")
        if asyncio.current_task() not in self._workers:
            # The end goes on when the one who waits for it is cancelled.
            await asyncio.shield(self._ending)

    async def _end(self) -> None:
        # The source is let go of first: what is handed back must not come here again.
        end = OrderlyEnd(self.name, grace_s=self._grace_s, logger=self._logger)
        await end.of_source(self._source)
        if self._ordering is not None and not self._returning:
            in_order = await self._ordering.finish(within_s=self._grace_s)
            self._returning = self._durable and not in_order
        while self._returning and self._backlog:
            item = self._backlog.take()
            if item is not None:
                await self._settlement.hand_back_unbegun(item)
        for _ in self._workers:
            self._backlog.put(None)
        await end.of_workers(self._workers)
        if self._heartbeat is not None:
            await cancel_all([self._heartbeat])
        await self._settlement.hand_back_all()
        self._settlement.tell_kept_back(everything=True)

    # Workers.

    async def _work(self) -> None:
        step = self._gather_and_process if self._invoker.takes_batch else self._process_one
        if self._ordering is not None:
            step = self._process_in_order
        elif self._in_place is not None and not self._invoker.takes_batch:
            step = self._process_in_place
        straight = step == self._process_one and self._guard is None and self._shedding is None
        backlog, row, settlement = self._backlog, self._backlog.row, self._settlement
        begin, run, deadline = self._handling.begin, self._invoker.run, self._invoker.enter(for_good=True)
        try:
            while (item := row.popleft() if row else await backlog.wait_and_take()) is not None:
                if self._resumed is not None:
                    await self._resumed.wait()
                # What is not begun any more is handed back when the source is closed: it would come here again.
                if self._returning:
                    continue
                if not straight:
                    if await step(item):
                        return
                    continue
                # `_process_one`, written out where all goes well, so that nearly no message costs a coroutine here.
                try:
                    begun = begin(item)
                    if type(begun) is not MessageContext:
                        await self._process_one(item, begun)  # type: ignore[arg-type] # it is what was found
                        continue
                    if deadline is not None:
                        deadline.begin()
                    try:
                        await run(begun)
                    except (Exception, asyncio.CancelledError) as error:  # boundary: as in `Handling`
                        await self._settle_failed(item, error, deadline)
                        continue
                    if deadline is not None:
                        deadline.due_s = None
                        if deadline.overdue:
                            deadline.end()
                    if item.delivery.reply_to is not None:
                        await self._handling.succeeded(item, begun.result)
                    if not settlement.let_go(item):
                        await settlement.settle(item, None)
                except (Exception, asyncio.CancelledError) as error:  # boundary: see _survive
                    await self._survive(error, [item])
        finally:
            self._invoker.leave()

    async def _settle_failed(
        self, item: Accepted, error: Exception | asyncio.CancelledError, deadline: CallDeadline | None
    ) -> None:
        if isinstance(error, asyncio.CancelledError):
            error = self._invoker.failure_of(error, deadline)
        elif deadline is not None:
            deadline.end()
        await self._settlement.settle(item, await self._handling.failed(item, error))

    async def _process_one(self, item: Accepted, found: Found | None = None) -> bool:
        shedding = self._shedding
        try:
            if shedding is not None and await shedding.drops(item):
                return False
            if found is None:
                found = self._handling.decode(item)
            if isinstance(found, Failure):
                failed = await self._settlement.put_aside(item, found)
                done = failed is None
            else:
                failed = await self._handling.handle(item, found)
                done = failed is None and self._settlement.let_go(item)
            if not done and (failed is None or not self._keeps(item, failed)):
                await self._settlement.settle(item, failed)
            if shedding is not None:
                shedding.ended(item)
        except (Exception, asyncio.CancelledError) as error:  # boundary: see _survive
            await self._survive(error, [item])
        return False

    async def _process_in_order(self, item: Accepted) -> bool:
        ended = await self._process_one(item)
        if self._ordering is not None:
            self._ordering.ended(item)
        return ended

    async def _process_in_place(self, item: Accepted) -> bool:
        await self._process_one(item)
        while self._settlement.holds(item) and await self._may_repeat():
            await self._process_one(item)
        await self._settle_done(now=False)
        return False

    def _keeps(self, item: Accepted, error: BaseException) -> bool:
        """Keep what failed, to try it again before anything behind it; False if it must be handed back.

        A failed probe of the breaker is kept too, but behind the others: each may be the one that succeeds.
        """
        probe, in_order = isinstance(error, ProbeFailed), self._ordering is not None or self._in_place is not None
        if not self._durable or not (probe or in_order):
            return False
        if self._ending is not None:
            self._returning = True
            return False
        self.stats.retried += not probe
        if self._ordering is not None:
            self._ordering.repeat_later(item, error)
        elif self._in_place is not None:
            self._in_place.keep(item, error)
        else:
            self._backlog.put(item)
        return True

    async def _may_repeat(self) -> bool:
        """Wait until what was kept may be tried again; False if it and all behind it must be handed back instead."""
        if self._in_place is not None and await self._in_place.wait():
            if self._resumed is not None:
                await self._resumed.wait()
            if self._ending is None:
                return True
        self._returning = True
        return False

    async def _settle_done(self, *, now: bool) -> None:
        """With cumulative books: settle what is done with."""
        try:
            await self._settlement.advance(now=now)
        except (Exception, asyncio.CancelledError) as error:  # boundary: see _survive
            await self._survive(error, [])

    async def _gather_and_process(self, item: Accepted) -> bool:
        """A batch that begins with this message; whether the end was announced meanwhile."""
        batch = [(item, self._handling.decode(item))]
        ended = await self._collect(batch)
        while (batch := await self._process_batch(batch)) and await self._may_repeat():
            pass
        if self._in_place is not None:
            await self._settle_done(now=True)
        return ended

    async def _process_batch(self, batch: list[tuple[Accepted, Found]]) -> list[tuple[Accepted, Found]]:
        """Handle and settle a batch; returns what is kept, to be tried again in place."""
        try:
            if self._shedding is not None:
                batch = [each for each in batch if not await self._shedding.drops(each[0])]
            for item, error in await self._handling.handle_batch(batch):
                if not self._keeps(item, error):
                    await self._settlement.settle(item, error)
        except (Exception, asyncio.CancelledError) as error:  # boundary: see _survive
            await self._survive(error, [item for item, _ in batch])
        kept = [] if self._in_place is None else [each for each in batch if self._settlement.holds(each[0])]
        if self._shedding is not None:
            for each in batch:
                self._shedding.ended(each[0])
        return kept

    async def _collect(self, batch: list[tuple[Accepted, Found]]) -> bool:
        """Add what is there or comes within the linger, up to `batch_max` events; whether the end was announced."""
        count, row = _count(batch[0][1]), self._backlog.row
        until_s = self._clock.monotonic() + self._options.batch_linger_s
        while count < self._options.batch_max:
            if not row:
                left_s = until_s - self._clock.monotonic()
                if left_s <= 0 or self._ending is not None:
                    return False
                try:
                    async with asyncio.timeout(left_s):
                        item = await self._backlog.wait_and_take()
                except TimeoutError:
                    return False
            else:
                item = row.popleft()
            if item is None:
                return True
            found = self._handling.decode(item)
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


def _count(found: Found) -> int:
    return 1 if isinstance(found, Failure) else len(found)
