"""Order per key: a message begins only when those before it with a key of its own have ended; others do not wait."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class _Place(Generic[T]):
    """An item in the rows of its keys; `ahead` counts the rows in which others stand before it."""

    __slots__ = ("ahead", "item", "keys", "repeats", "timer")

    def __init__(self, item: T, keys: Collection[Hashable]) -> None:
        self.item = item
        self.keys = keys
        self.ahead = 0
        self.repeats = 0
        self.timer: asyncio.TimerHandle | None = None


class KeyOrder(Generic[T]):
    """A row for each key. An item stands in the rows of all its keys and is ready when it is the first in each.

    Items enter all their rows at once, so no two can wait for each other. What has no key is ready at once. The rows
    hold what was accepted and not settled, which the subscription bounds.
    """

    def __init__(self, ready: Callable[[T], None]) -> None:
        self._ready = ready
        self._rows: dict[Hashable, deque[_Place[T]]] = {}
        self._places: dict[int, _Place[T]] = {}
        self._empty = asyncio.Event()
        self._empty.set()

    def enter(self, item: T, keys: Collection[Hashable]) -> None:
        """Line up; `ready` is called now or when the last one before it has left."""
        place = self._places[id(item)] = _Place(item, keys)
        self._empty.clear()
        for key in keys:
            row = self._rows.get(key)
            if row is None:
                row = self._rows[key] = deque()
            else:
                place.ahead += 1
            row.append(place)
        if not place.ahead:
            self._ready(item)

    def repeats(self, item: T) -> int:
        """How often the item was tried again so far."""
        return self._places[id(item)].repeats

    def repeat_later(self, item: T, delay_s: float, *, counts: bool = True) -> None:
        """Make the item, which was tried, ready once more after `delay_s` seconds; those behind it go on waiting.

        `counts`: whether the try is one of its repeats.
        """
        place = self._places[id(item)]
        place.repeats += counts
        place.timer = asyncio.get_running_loop().call_later(delay_s, self._repeat, place)

    def _repeat(self, place: _Place[T]) -> None:
        place.timer = None
        self._ready(place.item)

    def leave(self, item: T) -> None:
        """The item has ended: the next one of each of its keys moves up."""
        place = self._places.pop(id(item))
        for key in place.keys:
            row = self._rows[key]
            row.popleft()
            if not row:
                del self._rows[key]
                continue
            row[0].ahead -= 1
            if not row[0].ahead:
                self._ready(row[0].item)
        if not self._places:
            self._empty.set()

    def cancel_repeats(self) -> bool:
        """Let nothing be tried again any more; whether anything was to be."""
        waiting = [place for place in self._places.values() if place.timer is not None]
        for place in waiting:
            if place.timer is not None:
                place.timer.cancel()
        return bool(waiting)

    async def emptied(self) -> None:
        """Until everything that entered has left."""
        await self._empty.wait()
