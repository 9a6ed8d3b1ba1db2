"""Handles each event once, however often it is delivered."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, ClassVar

from polaris.exceptions import InvalidValueError
from polaris.messaging._broker import DeliveryClass
from polaris.messaging._chain import MessageMiddleware, NextHandler
from polaris.messaging._context import MessageContext, MessageDirection
from polaris.messaging.middleware._seen_ids import SeenIds

IDS_MAX = 100_000

Key = tuple[str, str]
"""A receiver and the id of an event."""


class DeduplicationMiddleware(MessageMiddleware):
    """Passes over events that a subscription has handled already, known by their event id.

    It remembers the last `ids_max` events over all subscriptions, in this process: without `seen`, a repetition further
    back, or after a restart, is handled again. With `seen`, the events of named positions in streams are remembered
    there too, before the message is acknowledged: if that fails, the message comes again and only the remembering is
    repeated. Only a process that dies between the two handles an event again, so what must not happen twice at all
    belongs in one transaction with what remembers it.

    An id counts once its handler has returned; a second delivery meanwhile waits for the outcome of the first.
    `skipped` counts what was passed over.
    """

    order: ClassVar[int | None] = 50
    order_reason: ClassVar[str] = "an event is taken once, round all attempts to handle it"

    def __init__(self, *, ids_max: int = IDS_MAX, seen: SeenIds | None = None) -> None:
        if type(ids_max) is not int or ids_max < 1:
            raise InvalidValueError("ids_max", "an integer of at least 1", ids_max)
        self.skipped = 0
        self._ids_max = ids_max
        self._seen = seen
        # Whether each is remembered for good.
        self._handled: dict[Key, bool] = {}
        self._running: dict[Key, asyncio.Future[None]] = {}

    async def process(self, context: MessageContext, next_handler: NextHandler) -> Any:
        if context.direction is MessageDirection.PUBLISH:
            return await next_handler(context)
        taken = await self._take(context)
        try:
            seen = self._seen if context.delivery is DeliveryClass.AT_LEAST_ONCE else None
            unsaved = [key for key in taken if key in self._handled]
            new = [key for key in taken if key not in self._handled]
            if seen is not None and new:
                new = await self._unseen(seen, new)
            self.skipped += len(context.events) - len(new)
            result = None
            if new:
                _narrow(context, new)
                result = await next_handler(context)
                self._note(new, saved=seen is None)
            unsaved += new
            if seen is not None and unsaved:
                await seen.remember(unsaved[0][0], [event_id for _, event_id in unsaved])
                self._note(unsaved, saved=True)
            return result
        finally:
            for key in taken:
                self._running.pop(key).set_result(None)

    async def _take(self, context: MessageContext) -> list[Key]:
        """Wait until nobody has any of the events, then take those that are not done with, until they are."""
        receiver = context.receiver or context.subscription or ""
        keys = dict.fromkeys((receiver, event.event_id) for event in context.events)
        while busy := [self._running[key] for key in keys if key in self._running]:
            await asyncio.wait(busy)
        taken = [key for key in keys if self._handled.get(key) is not True]
        loop = asyncio.get_running_loop()
        for key in taken:
            self._running[key] = loop.create_future()
        return taken

    async def _unseen(self, seen: SeenIds, keys: Sequence[Key]) -> list[Key]:
        known = set(await seen.seen(keys[0][0], [event_id for _, event_id in keys]))
        self._note([key for key in keys if key[1] in known], saved=True)
        return [key for key in keys if key[1] not in known]

    def _note(self, keys: Sequence[Key], *, saved: bool) -> None:
        handled = self._handled
        for key in keys:
            handled.pop(key, None)
            handled[key] = saved
        while len(handled) > self._ids_max:
            del handled[next(iter(handled))]


def _narrow(context: MessageContext, keys: Sequence[Key]) -> None:
    """Leave only these events in a batch, each once."""
    if context.batch is not None and len(keys) < len(context.batch):
        first = {event.event_id: event for event in reversed(context.batch)}
        context.batch = tuple(first[event_id] for _, event_id in keys)
        context.event = context.batch[0]
