"""What a message holds, what its handler makes of it, and the judgement on what the handler raised."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Any, TypeAlias

import msgspec

from polaris.exceptions import MessageBusError, MessageDecodeError, PolarisException
from polaris.messaging._accepted import Accepted
from polaris.messaging._broker import Delivery
from polaris.messaging._cloudevents import Undecodable
from polaris.messaging._context import MessageContext
from polaris.messaging._dead_letter_entry import DeadLetterReason
from polaris.messaging._dead_letters import Failure
from polaris.messaging._event_wire import DecodedEvent
from polaris.messaging._guard import PROBES_MAX, Guard, ProbeFailed
from polaris.messaging._invocation import Invoker
from polaris.messaging._redelivery import is_rejection
from polaris.messaging._sequences import GapDetector
from polaris.messaging._settlement import Settlement
from polaris.messaging._subscription import SubscriptionOptions, SubscriptionStats

PARTIAL_MAX = 1_024

Answer: TypeAlias = Callable[[Delivery, Any, BaseException | None], Awaitable[None]]
"""Replies to a request: with the delivery, what the handler returned, and what it raised."""
Found: TypeAlias = Sequence[DecodedEvent | Undecodable] | Failure
"""What a message holds, or why it will not be handled at all."""
Member: TypeAlias = tuple[int, DecodedEvent]
"""An event of a message and its place in it."""
Failed: TypeAlias = tuple[Accepted, BaseException]
"""A message that must come again, and why."""


class MembersAsTheyCame:
    """The bytes of each member of a batch message, cut out of it when the first of them is asked for."""

    __slots__ = ("_delivery", "_invoker", "_members")

    def __init__(self, invoker: Invoker, delivery: Delivery) -> None:
        self._invoker = invoker
        self._delivery = delivery
        self._members: Sequence[msgspec.Raw] | None = None

    def __getitem__(self, index: int) -> bytes:
        if self._members is None:
            self._members = self._invoker.split(self._delivery)
        return bytes(self._members[index])


class Handling:
    """Takes messages of one subscription to their handler.

    After it returned, a message is done with. If it raised, `RedeliveryPolicy` says whether the message must come again
    or is put aside; it is done with only once the dead letter is stored. Bytes that are no event are put aside at once.
    The members of a batch message end one by one, the message when the last of them has.

    `repeats` tells how often a message was tried again without another delivery; `gaps` is shown the number of every
    event that came.
    """

    def __init__(
        self,
        invoker: Invoker,
        settlement: Settlement,
        options: SubscriptionOptions,
        stats: SubscriptionStats,
        *,
        guard: Guard | None,
        answer: Answer,
        repeats: Callable[[Accepted], int],
        gaps: GapDetector | None = None,
    ) -> None:
        self._name = settlement.name
        self._invoker = invoker
        self._settlement = settlement
        self._options = options
        self._stats = stats
        self._guard = guard
        self._answer = answer
        self._repeats = repeats
        self._gaps = gaps
        self._durable = settlement.settles
        self._looks_closer = self._durable or gaps is not None
        self._partial: dict[Hashable, set[int]] = {}

    def decode(self, item: Accepted) -> Found:
        """The events of the message, or why it is put aside unhandled."""
        try:
            found = self._invoker.decode(item.delivery)
        except MessageDecodeError as error:
            return Failure.of_decoding(error)
        if self._gaps is not None:
            for member in found:
                if isinstance(member, DecodedEvent):
                    self._gaps.observe(item.delivery.subject, member.sequence)
        if self._durable and item.delivery.attempt > self._options.redelivery.deliveries_max:
            attempts = item.delivery.attempt - 1
            message = f"delivered {attempts} times to {self._name} and never settled"
            return Failure(DeadLetterReason.ABANDONED, MessageBusError(message, {"attempts": attempts}))
        return found

    def begin(self, item: Accepted) -> MessageContext | Found:
        """What to run the handler of single events with, for a message of one event that it wants, as nearly all are.

        Of any other message what it holds, which is to be given to `handle`; so it must be where calls are guarded.
        """
        invoker, delivery = self._invoker, item.delivery
        if self._looks_closer:
            found = self.decode(item)
        else:
            # What is left of `decode` then.
            try:
                found = invoker.decode(delivery)
            except MessageDecodeError as error:
                return Failure.of_decoding(error)
        if len(found) == 1:
            member = found[0]
            if type(member) is DecodedEvent and isinstance(member.event, invoker.types):
                return invoker.context(delivery, member, delivery.attempt)
        return found

    async def succeeded(self, item: Accepted, result: Any) -> None:
        """The handler returned: whoever asked is told."""
        if item.delivery.reply_to is not None:
            await self._answer(item.delivery, result, None)

    async def failed(
        self, item: Accepted, error: Exception, index: int | None = None, members: MembersAsTheyCame | None = None
    ) -> BaseException | None:
        """The handler raised: None if the event is put aside, otherwise why it must come again.

        Its place, and the members, are given if there are others in the message: it is put aside without them.
        """
        self._stats.failed += 1
        if item.delivery.reply_to is not None:
            await self._answer(item.delivery, None, error)
        if not self._is_final(item, error):
            return error
        if index is None or members is None:
            return await self._settlement.store(item, self._failure(item, error), item.delivery.payload, "")
        return await self._settlement.store(item, self._failure(item, error), members[index], f"{index}")

    def handle(self, item: Accepted, members: Sequence[DecodedEvent | Undecodable]) -> Awaitable[BaseException | None]:
        """Handle the events of one message. None when all are done with; otherwise why it must come again."""
        if len(members) == 1:
            return self._try_member(item, members[0], None)
        return self._try_members(item, members)

    async def _try_members(self, item: Accepted, members: Sequence[DecodedEvent | Undecodable]) -> BaseException | None:
        """Handle the events of a batch message one by one; what has succeeded is not repeated when it comes again."""
        done = self._done_of(item)
        as_they_came = MembersAsTheyCame(self._invoker, item.delivery)
        worst: BaseException | None = None
        for index, member in enumerate(members):
            if index not in done:
                error = await self._try_member(item, member, index, as_they_came)
                if error is None:
                    done.add(index)
                else:
                    worst = error
                    if self._options.ordered_by is not None or self._settlement.cumulative:
                        break
        if worst is not None:
            self._remember(item, done)
        return worst

    def _done_of(self, item: Accepted) -> set[int]:
        """The places of the members of a message that are done with, from earlier tries; they are forgotten here."""
        return self._partial.pop(item.identity, set())

    def _remember(self, item: Accepted, done: set[int]) -> None:
        if done and self._durable:
            if len(self._partial) >= PARTIAL_MAX:
                del self._partial[next(iter(self._partial))]
            self._partial[item.identity] = done

    async def _try_member(
        self,
        item: Accepted,
        member: DecodedEvent | Undecodable,
        index: int | None,
        members: MembersAsTheyCame | None = None,
    ) -> BaseException | None:
        """Handle one event. None when it is done with, be it as a dead letter; otherwise why it must come again."""
        if isinstance(member, Undecodable):
            return await self._settlement.store(item, Failure.of_decoding(member.error), member.payload, f"{index}")
        invoker, delivery = self._invoker, item.delivery
        if not isinstance(member.event, invoker.types) and not invoker.wants(member):
            return None
        try:
            attempt = delivery.attempt + self._repeats(item)
            if self._guard is None:
                result = await invoker.call(delivery, (member,), attempt=attempt)
            else:
                result = await self._call(delivery, [member], attempt)
        except Exception as error:  # boundary: handlers are foreign code; what they raise decides about the message
            return await self.failed(item, error, index, members)
        await self.succeeded(item, result)
        return None

    async def _call(self, delivery: Delivery, events: Sequence[DecodedEvent], attempt: int) -> Any:
        if self._guard is None:
            return await self._invoker.call(delivery, events, attempt=attempt)
        try:
            return await self._guard.call(lambda: self._invoker.call(delivery, events, attempt=attempt), self._name)
        except ProbeFailed as probe:
            if self._durable:
                raise
            error = probe.error
        # What comes once cannot wait for another try.
        raise error

    def _is_final(self, item: Accepted, error: BaseException) -> bool:
        """Whether the message gets no further chance; to be asked once for each failure, which it counts."""
        if not self._durable:
            return False
        if isinstance(error, ProbeFailed):
            item.probes += 1
            return item.probes >= PROBES_MAX
        repeats = self._repeats(item)
        failures = self._settlement.failures_with(item, error, repeats)
        return self._options.redelivery.gives_up(failures, item.delivery.attempt + repeats, error)

    async def handle_batch(self, batch: Sequence[tuple[Accepted, Found]]) -> list[Failed]:
        """Handle the events of several messages in one call, and settle the messages but those that must come again."""
        ready: list[tuple[Accepted, list[Member]]] = []
        again: list[Failed] = []
        for item, found in batch:
            if isinstance(found, Failure):
                failed = await self._settlement.put_aside(item, found)
                if failed is not None:
                    again.append((item, failed))
                continue
            if not self._partial and self._invoker.wants_all(found):
                # As nearly always; what follows comes to the same.
                ready.append((item, list(enumerate(found))))
                continue
            wanted: list[Member] = []
            failed = None
            stored = self._done_of(item)
            for index, member in enumerate(found):
                if isinstance(member, Undecodable):
                    if index in stored:
                        continue
                    refusal = Failure.of_decoding(member.error)
                    error = await self._settlement.store(item, refusal, member.payload, f"{index}")
                    if error is None:
                        stored.add(index)
                    failed = error or failed
                elif self._invoker.wants(member):
                    wanted.append((index, member))
            # In case the message comes again because of its other members.
            self._remember(item, stored)
            if failed is not None:
                again.append((item, failed))
            elif not wanted:
                await self._settlement.settle(item, None)
            else:
                ready.append((item, wanted))
        if ready:
            again += await self._call_batch(ready)
        return again

    async def _call_batch(self, ready: Sequence[tuple[Accepted, list[Member]]]) -> list[Failed]:
        """One call for all; when it fails, messages with no further chance are tried alone, the rest comes again."""
        events = [found for _, members in ready for _, found in members]
        first = ready[0][0]
        try:
            await self._call(first.delivery, events, first.delivery.attempt + self._repeats(first))
        except Exception as error:  # boundary: as in _try_member
            self._stats.failed += len(events)
            again: list[Failed] = []
            for item, members in ready:
                if not self._is_final(item, error):
                    again.append((item, error))
                elif len(ready) > 1:
                    again += await self._call_batch([(item, members)])
                elif (unstored := await self._last_chance(item, members, error)) is not None:
                    again.append((item, unstored))
            return again
        for item, _ in ready:
            await self._settlement.settle(item, None)
        return []

    async def _last_chance(
        self, item: Accepted, members: Sequence[Member], error: BaseException
    ) -> BaseException | None:
        """The events of a message with no further chance, each alone: a bad one takes no good one with it."""
        if len(members) == 1:
            return await self._settlement.put_aside(item, self._failure(item, error))
        as_they_came = MembersAsTheyCame(self._invoker, item.delivery)
        unsettled: BaseException | None = None
        for index, member in members:
            try:
                await self._call(item.delivery, [member], item.delivery.attempt + self._repeats(item))
            except Exception as alone:  # boundary: as in _try_member
                self._stats.failed += 1
                if self._says_nothing(item, alone):
                    unsettled = alone
                    continue
                unstored = await self._settlement.store(
                    item, self._failure(item, alone), as_they_came[index], f"{index}"
                )
                unsettled = unstored or unsettled
        if unsettled is None:
            await self._settlement.settle(item, None)
        return unsettled

    def _says_nothing(self, item: Accepted, error: Exception) -> bool:
        """Whether a last chance was none, so that there must be another."""
        if isinstance(error, ProbeFailed):
            return not self._is_final(item, error)
        attempt = item.delivery.attempt + self._repeats(item)
        return is_rejection(error) and attempt < self._options.redelivery.deliveries_max

    def _failure(self, item: Accepted, error: BaseException) -> Failure:
        repeats = self._repeats(item) + item.probes
        if isinstance(error, ProbeFailed):
            # It is one of the probes itself.
            error, repeats = error.error, repeats - 1
        refused = isinstance(error, PolarisException) and error.retryable is False
        return Failure(DeadLetterReason.REFUSED if refused else DeadLetterReason.EXHAUSTED, error, repeats)
