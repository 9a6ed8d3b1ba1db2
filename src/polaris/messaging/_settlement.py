"""The only place that settles deliveries: acknowledged, handed back, or put aside; nothing accepted is forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING

from polaris.clock import Clock
from polaris.exceptions import MessageBusError
from polaris.messaging._broker import Delivery
from polaris.messaging._dead_letter_entry import DeadLetterReason
from polaris.messaging._dead_letters import DeadLetterWriter, Failure
from polaris.messaging._kept_back import KeptBack
from polaris.messaging._redelivery import is_rejection
from polaris.messaging._subjects import DEAD_LETTER_PREFIX
from polaris.messaging._subscription import SubscriptionOptions, SubscriptionStats

if TYPE_CHECKING:
    from polaris.observability import StructuredLogger

FAILURES_KEPT_MAX = 8_192

Observe = Callable[[Delivery, str | None], None]
"""Told of every settled delivery, and of the reason when it became a dead letter."""

ObserveDrop = Callable[[Delivery, str], None]
"""Told of every delivery that was settled without being handled, and of the reason."""


def is_being_cancelled() -> bool:
    """Whether a `CancelledError` seen now is meant for the running task, and not left over from what it awaited."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class Accepted:
    """A delivery that was taken and is not settled; `beat_s` is when the broker last heard of it (unless core)."""

    __slots__ = ("beat_s", "delivery")

    def __init__(self, delivery: Delivery, beat_s: float) -> None:
        self.delivery = delivery
        self.beat_s = beat_s


class Settlement:
    """The books of one subscription: what was accepted, and how each of it ends.

    A settlement that cannot be sent is counted, and the broker delivers the message again. Core deliveries
    (`stream` is None) come once: what fails is counted as lost and logged.
    """

    def __init__(
        self,
        name: str,
        options: SubscriptionOptions,
        stats: SubscriptionStats,
        *,
        stream: str | None,
        dead_letters: DeadLetterWriter | None,
        clock: Clock,
        logger: StructuredLogger,
        observe: Observe | None = None,
        observe_drop: ObserveDrop | None = None,
    ) -> None:
        self.name = name
        self.stream = stream
        self.policy = options.redelivery
        self._options = options
        self._stats = stats
        self._dead_letters = dead_letters
        self._clock = clock
        self._logger = logger
        self._observe = observe
        self._observe_drop = observe_drop
        self._lines: KeptBack[tuple[str, DeadLetterReason | None]] = KeptBack(clock)
        self._accepted: dict[int, Accepted] = {}
        self._freed = asyncio.Event()
        # Of messages that failed and are not settled: the attempt that failed last, and the failures so far.
        self._failures: dict[int, tuple[int, int]] = {}

    @property
    def in_flight(self) -> int:
        """How many are accepted and not settled."""
        return len(self._accepted)

    @property
    def room(self) -> int:
        """How many more may be accepted now."""
        return self._options.in_flight_max - len(self._accepted)

    async def wait_for_room(self) -> None:
        """Until at least a quarter of the bound is free, so that messages are fetched many at a time."""
        enough = max(1, self._options.in_flight_max // 4)
        while self.room < enough:
            self._freed.clear()
            await self._freed.wait()

    def accept(self, delivery: Delivery) -> Accepted:
        item = Accepted(delivery, 0.0 if self.stream is None else self._clock.monotonic())
        self._accepted[id(item)] = item
        self._stats.received += 1
        if delivery.attempt > 1:
            self._stats.redelivered += 1
        return item

    async def settle(self, item: Accepted, error: BaseException | None) -> None:
        """Acknowledge what was handled; hand back, with the delay of the policy, what failed with `error`."""
        if error is None and self.stream is None:
            # A core delivery: nobody waits to be told of it.
            if self._observe is not None:
                self._observe(item.delivery, None)
            self._release(item)
        elif error is None:
            self._forgive(item)
            await self._finish(item, item.delivery.ack)
            if self._observe is not None:
                self._observe(item.delivery, None)
        elif self.stream is None:
            self._lose(item, error)
        else:
            await self.hand_back(item, self.delay_s(item, error))

    def delay_s(self, item: Accepted, error: BaseException, repeats: int = 0) -> float:
        """How long the message that failed with `error` waits before it is tried again."""
        return self.policy.delay_s(max(1, self.failures_with(item, error, repeats)), error)

    def failures_with(self, item: Accepted, error: BaseException, repeats: int = 0) -> int:
        """As `failures`, but a rejection on this side is none of the message: it is not counted, and 0 if the first."""
        if not is_rejection(error):
            return self.failures(item, repeats)
        _, count = self._failures.get(item.delivery.sequence or 0, (0, 0))
        return count

    def holds(self, item: Accepted) -> bool:
        """Whether it is accepted and not settled."""
        return id(item) in self._accepted

    async def drop(self, item: Accepted, reason: str) -> None:
        """Settle, for good, what need not be handled any more; `reason` goes to the metrics."""
        self._forgive(item)
        if self._observe_drop is not None:
            self._observe_drop(item.delivery, reason)
        if self.stream is None:
            self._release(item)
        else:
            await self._finish(item, item.delivery.ack)

    def failures(self, item: Accepted, repeats: int = 0) -> int:
        """How often this process failed on the message, this try included, which counts once however often asked.

        A try is a delivery, or a repeat of one in this process. Of the last `FAILURES_KEPT_MAX` failing messages; for
        others it begins anew.
        """
        sequence, attempt = item.delivery.sequence, item.delivery.attempt + repeats
        if sequence is None:
            return 1
        known_attempt, count = self._failures.pop(sequence, (0, 0))
        if known_attempt != attempt:
            count += 1
        if len(self._failures) >= FAILURES_KEPT_MAX:
            del self._failures[next(iter(self._failures))]
        self._failures[sequence] = (attempt, count)
        return count

    async def hand_back(self, item: Accepted, delay_s: float) -> None:
        """Let the message come again after `delay_s`, here or elsewhere. Of a settled one nothing happens."""
        if id(item) not in self._accepted:
            return
        if self.stream is None:
            self._lose(item, None)
            return
        self._stats.retried += 1
        await self._finish(item, lambda: item.delivery.nak(delay_s=delay_s))

    async def hand_back_all(self) -> None:
        """Hand back, without delay, everything that is not settled."""
        for item in list(self._accepted.values()):
            await self.hand_back(item, 0.0)

    async def hand_back_later(self, items: Iterable[Accepted]) -> None:
        """Hand back what is not settled of `items`, with the delay of the policy."""
        for item in items:
            await self.hand_back(item, self.policy.delay_s(self.failures(item)))

    async def put_aside(self, item: Accepted, failure: Failure) -> None:
        """Make the message a dead letter, then give it up; if it cannot be stored, the message comes again."""
        error = await self.store(item, failure, None, "")
        if error is not None:
            await self.settle(item, error)
        else:
            self._forgive(item)
            await self._finish(item, item.delivery.term)

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
            now_s = self._clock.monotonic()
            for item in [item for item in self._accepted.values() if now_s - item.beat_s >= every_s / 2]:
                if id(item) not in self._accepted:
                    continue
                try:
                    await item.delivery.in_progress()
                    item.beat_s = now_s
                except Exception as error:  # boundary: whatever the driver raises, later heartbeats must go out
                    self._logger.debug("a heartbeat could not be sent", subscription=self.name, error=error)
                    break

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

    def _forgive(self, item: Accepted) -> None:
        if self._failures and item.delivery.sequence is not None:
            self._failures.pop(item.delivery.sequence, None)

    def _lose(self, item: Accepted, error: BaseException | None) -> None:
        self._stats.lost += 1
        self._log("a message was delivered once and not handled", item.delivery, error, None)
        self._release(item)

    def _release(self, item: Accepted) -> None:
        self._accepted.pop(id(item), None)
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
