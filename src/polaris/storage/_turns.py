"""Working through many items in the event loop without keeping everybody else waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import TypeVar

T = TypeVar("T")

TURN_ITEMS = 200
"""Items between two turns of the others: a few milliseconds of decoding or checking."""


async def in_turns(items: Iterable[T]) -> AsyncIterator[T]:
    """The items in order; after every 200 of them other tasks get their turn."""
    for count, item in enumerate(items, 1):
        yield item
        if count % TURN_ITEMS == 0:
            await asyncio.sleep(0)
