"""Places in the queue of the writer: as many as there are, in the order in which they were asked for."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from polaris.storage.backends.sqlite._places import Places


async def waiting(places: Places, order: list[str], name: str) -> asyncio.Task[None]:
    async def wait() -> None:
        await places.wait()
        order.append(name)

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    return task


async def test_there_are_as_many_places_as_were_made() -> None:
    places = Places(2)
    assert [places.take() for _ in range(3)] == [True, True, False]
    places.give_back(2)
    assert places.free == 2


async def test_a_place_that_is_given_back_goes_to_who_waits_longest() -> None:
    places, order = Places(1), list[str]()
    assert places.take()
    tasks = [await waiting(places, order, name) for name in "abc"]
    places.give_back(1)
    assert not places.take()  # it is not free, though nobody has come to take it yet
    await tasks[0]
    places.give_back(3)
    await asyncio.gather(*tasks)
    assert (order, places.free) == (["a", "b", "c"], 1)


async def test_who_is_cancelled_while_it_waits_takes_no_place() -> None:
    places, order = Places(1), list[str]()
    assert places.take()
    first, second, third = [await waiting(places, order, name) for name in "abc"]
    first.cancel()
    places.give_back(1)  # before the first one knows that it is cancelled
    await second
    third.cancel()
    with suppress(asyncio.CancelledError):
        await third
    places.give_back(1)
    assert (order, places.free) == (["b"], 1)


async def test_who_is_cancelled_just_when_it_gets_a_place_hands_it_on() -> None:
    places, order = Places(1), list[str]()
    assert places.take()
    first, second = [await waiting(places, order, name) for name in "ab"]
    places.give_back(1)
    first.cancel()
    await second
    assert (order, places.free) == (["b"], 0)
    places.give_back(1)
    assert places.free == 1
