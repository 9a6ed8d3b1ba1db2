"""The only place that settles deliveries: acknowledged, handed back, or put aside; nothing accepted is forgotten."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Hashable, Iterable
from typing import TYPE_CHECKING

from polaris.clock import Clock
from polaris.exceptions import MessageBusError
from polaris.messaging._accepted import Accepted
from polaris.messaging._broker import AckPolicy, Delivery
from polaris.messaging._cumulative import Cumulative
from polaris.messaging._dead_letter_entry import DeadLetterReason
from polaris.messaging._dead_letters import DeadLetterWriter, Failure
from polaris.messaging._kept_back import KeptBack
from polaris.messaging._redelivery import is_rejection
from polaris.messaging._subjects import DEAD_LETTER_PREFIX
from polaris.messaging._subscription import SubscriptionOptions, SubscriptionStats

if TYPE_CHECKING:
    from polaris.observability import StructuredLogger

FAILURES_KEPT_MAX = 8_192
SETTLED_TOGETHER_MAX = 64
"""With `AckPolicy.ALL`: so many messages are done with before one settlement covers them, if more are waiting."""
LEFT_OUT_BEATS = 12
"""Heartbeats, two `ack_wait_s` long, after which what somebody else has should have come here."""

Observe = Callable[[Delivery, str | None], None]
"""Told of every settled delivery, and of the reason when it became a dead letter."""

ObserveDrop = Callable[[Delivery, str], None]
"""Told of every delivery that nobody will handle, and of the reason."""


def is_being_cancelled() -> bool:
    """Whether a `CancelledError` seen now is meant for the running task, and not left over from what it awaited."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class Settlement:
    """The books of one subscription: what was accepted, and how each of it ends.

    A settlement that cannot be sent is counted, and the broker delivers the message again. Core deliveries
    (`stream` is None), and those of a consumer with `AckPolicy.NONE`, come once: what fails is counted as lost and
    logged.

    With `cumulative` books (`AckPolicy.ALL`), what is done with is kept until `advance` settles many at a time.
    """

    def __init__(
        self,
        name: str,
        options: SubscriptionOptions,
        stats: SubscriptionStats,
        *,
        stream: str | None,
        ack: AckPolicy = AckPolicy.EACH,
        cumulative: Cumulative | None = None,
        dead_letters: DeadLetterWriter | None,
        clock: Clock,
        logger: StructuredLogger,
        observe: Observe | None = None,
        observe_drop: ObserveDrop | None = None,
    ) -> None:
        self.name = name
        self.stream = stream
        self.settles = stream is not None and ack is not AckPolicy.NONE
        """Whether the broker waits to be told, and delivers again what it is not told of."""
        self._cumulative = cumulative
        self._together_max = min(SETTLED_TOGETHER_MAX, max(1, options.in_flight_max // 4))
        self._beats_left_out = 0
        self.policy = options.redelivery
        self._options = options
        self._stats = stats
        self._dead_letters = dead_letters
        self._clock = clock
        self._logger = logger
        self._observe = observe
        self._observe_drop = observe_drop
        self._lines: KeptBack[tuple[str, DeadLetterReason | None]] = KeptBack(clock)
        self.accepted: dict[int, Accepted] = {}
        """What is accepted and not done with, by its identity as an object."""
        self._freed = asyncio.Event()
        # Somebody waits for that, and was not told yet.
        self._untold = False
        # Of messages that failed and are not settled: the attempt that failed last, and the failures so far.
        self._failures: dict[Hashable, tuple[int, int]] = {}

    @property
    def cumulative(self) -> bool:
        """Whether a settlement covers everything before it."""
        return self._cumulative is not None

    @property
    def in_flight(self) -> int:
        """How many are accepted and not settled."""
        return len(self.accepted) + (0 if self._cumulative is None else self._cumulative.done)

    @property
    def room(self) -> int:
        """How many more may be accepted now."""
        books = self._cumulative
        if books is None:
            return self._options.in_flight_max - len(self.accepted)
        room = self._options.in_flight_max - self.in_flight + books.to_come_again
        if books.complete:
            return room
        # What is elsewhere must come, for anything to be settled; until it does, the broker gives that much less.
        return max(1, room if books.coming else room - books.elsewhere)

    async def wait_for_room(self) -> None:
        """Until at least a quarter of the bound is free, so that messages are fetched many at a time."""
        enough = max(1, self._options.in_flight_max // 4)
        books = self._cumulative
        if books is not None:
            await books.look()
        while self.room < enough and (books is None or books.complete):
            self._freed.clear()
            self._untold = True
            await self._freed.wait()

    def accept(self, delivery: Delivery) -> Accepted | None:
        """Take a delivery; None if it is of a message that is here already, and there is nothing to do."""
        self._stats.received += 1
        if delivery.attempt > 1:
            self._stats.redelivered += 1
        item = Accepted(delivery, self._clock.monotonic() if self.settles else 0.0)
        if self._cumulative is not None and not self._cumulative.enter(item):
            return None
        self.accepted[id(item)] = item
        return item

    async def settle(self, item: Accepted, error: BaseException | None) -> None:
        """Acknowledge what was handled; hand back, with the delay of the policy, what failed with `error`."""
        if error is None and self.let_go(item):
            return
        if error is None:
            self._forgive(item)
            await self._end_well(item, item.delivery.ack)
            if self._observe is not None:
                self._observe(item.delivery, None)
        elif not self.settles:
            self._lose(item, error)
        else:
            await self.hand_back(item, self.delay_s(item, error))

    def let_go(self, item: Accepted) -> bool:
        """Settle what was handled if nobody waits to be told of it; whether that was so."""
        if self.settles:
            return False
        if self._observe is not None:
            self._observe(item.delivery, None)
        # `_release`, written out: everything that comes once ends here.
        self.accepted.pop(id(item), None)
        if self._untold:
            self._untold = False
            self._freed.set()
        return True

    def delay_s(self, item: Accepted, error: BaseException, repeats: int = 0) -> float:
        """How long the message that failed with `error` waits before it is tried again."""
        return self.policy.delay_s(max(1, self.failures_with(item, error, repeats)), error)

    def failures_with(self, item: Accepted, error: BaseException, repeats: int = 0) -> int:
        """As `failures`, but a rejection on this side is none of the message: it is not counted, and 0 if the first."""
        if not is_rejection(error):
            return self.failures(item, repeats)
        _, count = self._failures.get(item.identity, (0, 0))
        return count

    def holds(self, item: Accepted) -> bool:
        """Whether it is accepted and not done with."""
        return id(item) in self.accepted

    async def drop(self, item: Accepted, reason: str) -> None:
        """Settle, for good, what need not be handled any more; `reason` goes to the metrics."""
        self._forgive(item)
        if self._observe_drop is not None:
            self._observe_drop(item.delivery, reason)
        if not self.settles:
            self._release(item)
        else:
            await self._end_well(item, item.delivery.ack)

    async def advance(self, *, now: bool = False, anew: bool = False) -> None:
        """With cumulative books: settle what is done with, if that is all there is, or much, or `now`.

        `anew`: also ask once more whether anything is left out. What cannot be settled stays for the next time.
        """
        books = self._cumulative
        if books is None or (not now and self.accepted and books.done < self._together_max):
            return
        last = await books.last(anew=anew)
        self._freed.set()
        if last is None:
            return
        try:
            await last.delivery.ack()
        except MessageBusError as error:
            self._logger.debug("a settlement could not be sent", subscription=self.name, error=error)
            return
        books.settled(last)
        self._freed.set()
        # So that it leaves before more is handled: a handler that never waits would keep the driver from sending it.
        await asyncio.sleep(0)

    def failures(self, item: Accepted, repeats: int = 0) -> int:
        """How often this process failed on the message, this try included, which counts once however often asked.

        A try is a delivery, or a repeat of one in this process. Of the last `FAILURES_KEPT_MAX` failing messages; for
        others it begins anew.
        """
        sequence, attempt = item.delivery.sequence, item.delivery.attempt + repeats
        if sequence is None:
            return 1
        known_attempt, count = self._failures.pop(item.identity, (0, 0))
        if known_attempt != attempt:
            count += 1
        if len(self._failures) >= FAILURES_KEPT_MAX:
            del self._failures[next(iter(self._failures))]
        self._failures[item.identity] = (attempt, count)
        return count

    async def hand_back(self, item: Accepted, delay_s: float) -> None:
        """Let the message come again after `delay_s`, here or elsewhere. Of a settled one nothing happens."""
        if id(item) not in self.accepted:
            return
        if not self.settles:
            self._lose(item, None)
            return
        if self._cumulative is not None:
            # Once it is handed back, nothing can be settled until it has come again.
            await self.advance(now=True)
        await self._nak(item, delay_s)

    async def hand_back_unbegun(self, item: Accepted) -> None:
        """Hand back what was not begun before the end; with cumulative books it waits for those that were."""
        if self._cumulative is None:
            await self.hand_back(item, 0.0)

    async def hand_back_all(self) -> None:
        """Hand back, without delay, everything that is not settled."""
        if self._cumulative is not None:
            await self.advance(now=True, anew=True)
        for item in list(self.accepted.values()):
            await (self._nak(item, 0.0) if self.settles else self.hand_back(item, 0.0))
        if self._cumulative is not None:
            # Done with, but the broker cannot be told: they come again.
            usable = [item for item in self._cumulative.settleable if not self.holds(item)]
            self._stats.unsettled += len(self._cumulative.give_up())
            for item in usable:
                with contextlib.suppress(MessageBusError):
                    await item.delivery.nak(delay_s=0.0)

    async def hand_back_later(self, items: Iterable[Accepted]) -> None:
        """Hand back what is not settled of `items`, with the delay of the policy."""
        for item in items:
            await self.hand_back(item, self.policy.delay_s(self.failures(item)))

    async def put_aside(self, item: Accepted, failure: Failure) -> BaseException | None:
        """Make the message a dead letter, then give it up; the error when it cannot be stored, and no settlement."""
        error = await self.store(item, failure, None, "")
        if error is None:
            self._forgive(item)
            await self._end_well(item, item.delivery.term)
        return error

    async def store(self, item: Accepted, failure: Failure, payload: bytes | None, part: str) -> BaseException | None:
        """Store a dead letter without settling; the error when that failed, so that the message comes again.

        A message of the dead-letter stream itself stays there and gets no dead letter of its own.
        """
        delivery, reason = item.delivery, failure.reason
        if self._dead_letters is None or delivery.subject.startswith(DEAD_LETTER_PREFIX):
            self._stats.lost += 1
            self._log("a message is given up", delivery, failure.error, reason)
            return None
        try:
            await self._dead_letters.store(
                delivery, failure, subscription=self.name, stream=self.stream, payload=payload, part=part
            )
        except MessageBusError as error:
            self._log("a dead letter could not be stored", delivery, error, reason)
            return error
        self._stats.dead_lettered += 1
        self._log("a message is put aside", delivery, failure.error, reason)
        if self._observe is not None:
            self._observe(delivery, reason.value)
        return None

    async def keep_alive(self) -> None:
        """For ever: tell the broker of everything unsettled, well before it would deliver it again."""
        every_s = self._options.ack_wait_s / 3
        while True:
            await self._clock.sleep(every_s / 2)
            self.tell_kept_back()
            await self._beat(self._clock.monotonic(), every_s / 2)
            self._tell_left_out()

    async def _beat(self, now_s: float, silence_s: float) -> None:
        """Tell the broker of what it has not heard of for so long, and settle what could not be settled before."""
        books = self._cumulative
        held = self.accepted.values() if books is None else books.settleable
        try:
            for item in [item for item in held if now_s - item.beat_s >= silence_s]:
                if self.holds(item) if books is None else books.may_settle(item):
                    await item.delivery.in_progress()
                    item.beat_s = now_s
            await self.advance(now=True, anew=True)
        except Exception as error:  # boundary: whatever the driver raises, later heartbeats must go out
            self._logger.debug("a heartbeat could not be sent", subscription=self.name, error=error)

    def _tell_left_out(self) -> None:
        """Log it when what is elsewhere has not come here for long after it should have."""
        if self._cumulative is None or self._cumulative.complete:
            self._beats_left_out = 0
            return
        self._beats_left_out += 1
        if self._beats_left_out % LEFT_OUT_BEATS == 0:
            self._logger.warning(
                "others hold messages of this position; nothing can be settled before they come here",
                subscription=self.name,
                ack=AckPolicy.ALL.value,
            )

    def tell_kept_back(self, *, everything: bool = False) -> None:
        """Log how many lines of a kind were kept back: messages are put aside by the thousand when they are."""
        for (message, reason), count in self._lines.overdue(everything=everything):
            self._logger.warning(message, kept_back=count, subscription=self.name, reason=reason)

    async def _finish(self, item: Accepted, settle: Callable[[], Awaitable[None]]) -> None:
        sent = False
        try:
            await settle()
            sent = True
        except MessageBusError as error:
            self._logger.debug("a settlement could not be sent", subscription=self.name, error=error)
        finally:
            self._stats.unsettled += not sent
            self._release(item)

    async def _end_well(self, item: Accepted, settle: Callable[[], Awaitable[None]]) -> None:
        """The message is done with: settle it, or note it in the cumulative books."""
        if self._cumulative is None:
            await self._finish(item, settle)
        elif self.accepted.pop(id(item), None) is not None:
            self._stats.unsettled += not self._cumulative.finished(item)
            self._freed.set()

    async def _nak(self, item: Accepted, delay_s: float) -> None:
        self._stats.retried += 1
        if self._cumulative is not None and not self._cumulative.handed_back(item):
            self._stats.unsettled += 1
            self._release(item)
            return
        await self._finish(item, lambda: item.delivery.nak(delay_s=delay_s))

    def _forgive(self, item: Accepted) -> None:
        if self._failures and item.delivery.sequence is not None:
            self._failures.pop(item.identity, None)

    def _lose(self, item: Accepted, error: BaseException | None) -> None:
        self._stats.lost += 1
        self._log("a message was delivered once and not handled", item.delivery, error, None)
        self._release(item)

    def _release(self, item: Accepted) -> None:
        self.accepted.pop(id(item), None)
        if self._untold:
            self._untold = False
            self._freed.set()

    def _log(
        self, message: str, delivery: Delivery, error: BaseException | None, reason: DeadLetterReason | None
    ) -> None:
        kept_back = self._lines.admit((message, reason))
        if kept_back is None:
            return
        self._logger.warning(
            message,
            kept_back=kept_back or None,
            subscription=self.name,
            topic=delivery.subject,
            sequence=delivery.sequence,
            attempt=delivery.attempt,
            reason=reason,
            error=error,
        )
