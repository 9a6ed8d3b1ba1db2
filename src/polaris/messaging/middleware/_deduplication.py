"""Handles each event once, however often it is delivered."""

from __future__ import annotations

import asyncio
from typing import Any

from polaris.exceptions import InvalidValueError
from polaris.messaging._chain import MessageMiddleware, NextHandler
from polaris.messaging._context import MessageContext, MessageDirection

IDS_MAX = 100_000


class DeduplicationMiddleware(MessageMiddleware):
    """Passes over events that a subscription has handled already, known by their event id.

    It remembers the last `ids_max` events over all subscriptions, in this process only: a repetition further back, or
    after a restart, is handled again, so handlers that must not repeat need a store. An id counts once its handler has
    returned; a second delivery meanwhile waits for the outcome of the first. `skipped` counts what was passed over.
    """

    def __init__(self, *, ids_max: int = IDS_MAX) -> None:
        if ids_max < 1:
            raise InvalidValueError("ids_max", "an integer of at least 1", ids_max)
        self.skipped = 0
        self._ids_max = ids_max
        self._handled: dict[tuple[str | None, str], None] = {}
        self._running: dict[tuple[str | None, str], asyncio.Future[None]] = {}

    async def process(self, context: MessageContext, next_handler: NextHandler) -> Any:
        if context.direction is MessageDirection.PUBLISH:
            return await next_handler(context)
        keys = await self._claim(context)
        if not keys:
            return None
        try:
            result = await next_handler(context)
            for key in keys:
                self._remember(key)
            return result
        finally:
            for key in keys:
                self._running.pop(key).set_result(None)

    async def _claim(self, context: MessageContext) -> list[tuple[str | None, str]]:
        """Keep only the events that are new, and take them as ours until they are handled or have failed."""
        while True:
            mine = dict.fromkeys((context.subscription, event.event_id) for event in context.events)
            busy = [self._running[key] for key in mine if key in self._running]
            if not busy:
                break
            await asyncio.wait(busy)
        new = [key for key in mine if key not in self._handled]
        self.skipped += len(context.events) - len(new)
        if context.batch is not None and len(new) < len(context.batch) and new:
            first = {event.event_id: event for event in reversed(context.batch)}
            context.batch = tuple(first[event_id] for _, event_id in new)
            context.event = context.batch[0]
        loop = asyncio.get_running_loop()
        for key in new:
            self._running[key] = loop.create_future()
        return new

    def _remember(self, key: tuple[str | None, str]) -> None:
        self._handled.pop(key, None)
        self._handled[key] = None
        while len(self._handled) > self._ids_max:
            del self._handled[next(iter(self._handled))]
