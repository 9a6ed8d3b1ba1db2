"""What a stream has stored, handed to a handler once more: a window of the past, in order, to its end."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import datetime

import msgspec

from polaris.clock import Clock
from polaris.exceptions import BusConnectionError, InvalidValueError, MessageDecodeError
from polaris.ids import new_id
from polaris.messaging._broker import ConsumerSpec, Delivery, MessageBroker, PullConsumer, Start
from polaris.messaging._event_wire import DecodedEvent
from polaris.messaging._invocation import Invoker
from polaris.resilience import Backoff

FETCH_MAX = 256
FETCH_WAIT_S = 5.0
ACK_WAIT_S = 60.0
INACTIVE_S = 60.0
AWAY = Backoff(0.05, 5.0, jitter="equal")
NAME_CHARS_MAX, ID_CHARS = 200, 40
AWAY_MAX = 10
"""How often in a row the broker may be away before the replay gives up."""


class ReplayReport(msgspec.Struct):
    """What a replay did. `messages` were read, `events` of them handled, others `skipped` or `undecodable`."""

    messages: int = 0
    events: int = 0
    skipped: int = 0
    undecodable: int = 0
    last_sequence: int | None = None
    """Of the last message that is done with: where another replay would go on, plus one."""


class Replay:
    """One run over a window of a stream, with a temporary position of its own that is forgotten afterwards."""

    def __init__(self, broker: MessageBroker, invoker: Invoker, *, batch_max: int, clock: Clock) -> None:
        if type(batch_max) is not int or batch_max < 1:
            raise InvalidValueError("batch_max", "an integer of at least 1", batch_max)
        self._broker = broker
        self._invoker = invoker
        self._batch_max = batch_max
        self._clock = clock
        self.report = ReplayReport()

    async def run(self, spec: ConsumerSpec, until: datetime | None) -> ReplayReport:
        """Hand everything up to the end of the window to the handler; see `PolarisMessageBus.replay`."""
        if until is not None and until.tzinfo is None:
            raise InvalidValueError("until", "a timezone-aware datetime", until)
        report = self.report
        self._invoker.enter()
        try:
            async with aclosing(self._window(spec, until)) as window:
                await self._hand_over(window)
        except Exception as error:  # boundary: the handler is foreign code; its error says how far it came
            error.add_note(f"replayed {report.events} events, the last whole message was number {report.last_sequence}")
            raise
        finally:
            self._invoker.leave()
        return report

    async def _hand_over(self, window: AsyncIterator[Delivery]) -> None:
        """Call the handler: with each event, or with `batch_max` at a time and the rest at the end."""
        report = self.report
        size = self._batch_max if self._invoker.takes_batch else 1
        batch: list[DecodedEvent] = []
        last: Delivery | None = None
        async for delivery in window:
            last = delivery
            report.messages += 1
            batch += self._decode(delivery)
            while len(batch) >= size:
                await self._call(delivery, batch[:size])
                del batch[:size]
            if not batch:
                report.last_sequence = delivery.sequence
        if batch and last is not None:
            await self._call(last, batch)
            report.last_sequence = last.sequence

    async def _call(self, delivery: Delivery, events: Sequence[DecodedEvent]) -> None:
        await self._invoker.call(delivery, events)
        self.report.events += len(events)

    def _decode(self, delivery: Delivery) -> list[DecodedEvent]:
        try:
            found = self._invoker.decode(delivery)
        except MessageDecodeError:
            self.report.undecodable += 1
            return []
        events = [member for member in found if isinstance(member, DecodedEvent)]
        self.report.undecodable += len(found) - len(events)
        wanted = [member for member in events if self._invoker.wants(member)]
        self.report.skipped += len(events) - len(wanted)
        return wanted

    async def _window(self, spec: ConsumerSpec, until: datetime | None) -> AsyncGenerator[Delivery, None]:
        """The deliveries of the window, each once and in order.

        When the connection is lost, or a message does not come in order, a new position is made behind the last one
        that did: waiting for redelivery would break the order.
        """
        seen, failures = 0, 0
        left: int | None = None
        while left is None or left > 0:
            try:
                async with self._position(spec, seen) as consumer:
                    pending = (await consumer.info()).pending
                    left = pending if left is None else min(left, pending)
                    while left > 0 and (deliveries := await _take(consumer, min(FETCH_MAX, left))):
                        failures = 0
                        for delivery in deliveries:
                            if (delivery.sequence or 0) <= seen:
                                break
                            if until is not None and delivery.stored_at is not None and delivery.stored_at >= until:
                                return
                            seen = delivery.sequence or 0
                            left -= 1
                            yield delivery
            except BusConnectionError:
                failures += 1
                if failures > AWAY_MAX:
                    raise
                await self._clock.sleep(AWAY.delay_s(failures))

    @asynccontextmanager
    async def _position(self, spec: ConsumerSpec, seen: int) -> AsyncIterator[PullConsumer]:
        if seen:
            apart = spec.durable[: NAME_CHARS_MAX - ID_CHARS]
            spec = msgspec.structs.replace(spec, durable=f"{apart}{new_id()}", start=Start.at_sequence(seen + 1))
        consumer = await self._broker.consumer(spec)
        try:
            yield consumer
        finally:
            await consumer.close()


async def _take(consumer: PullConsumer, count_max: int) -> Sequence[Delivery]:
    """Fetched, in order, and settled: the position is forgotten anyway. Empty when a redelivery is among them."""
    deliveries = await consumer.fetch(count_max, wait_s=FETCH_WAIT_S)
    for delivery in deliveries:
        await delivery.ack()
    if any(delivery.attempt > 1 for delivery in deliveries):
        return ()
    return deliveries
