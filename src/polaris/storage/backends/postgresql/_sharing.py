"""A long reading shared out among processes of the server: several connections that see one snapshot.

The server gives a statement that looks its ranges up one by one to a single process. Source: "Snapshot Synchronization
Functions" in PostgreSQL's documentation.
"""

from __future__ import annotations

import asyncio
import math
from bisect import bisect_left
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import accumulate
from typing import Any, TypeVar

from polaris.exceptions import DataStoreError
from polaris.storage.backends.postgresql._driver import asyncpg, driver_errors
from polaris.storage.backends.postgresql._errors import RepeatError, is_of_no_use
from polaris.storage.backends.postgresql._link import SNAPSHOT, Link, Others

T = TypeVar("T")
P = TypeVar("P")

SHARES_MAX = 4
LOCK_WAIT_MS = 1_000
"""How long an invited connection waits for a lock: who wants all of a table for himself, and waits for the first one's
transaction to end, holds up those who come after him, and the first one waits for them."""
_EXPORT = "SELECT pg_export_snapshot(), pg_postmaster_start_time()"
_CUSTOM_PLANS = "SET LOCAL plan_cache_mode = force_custom_plan"


@asynccontextmanager
async def sharing(link: Link, count_max: int) -> AsyncIterator[list[Link]]:
    """`link`, and at most `count_max - 1` others that see what it sees: as many as are unused now.

    It is alone outside a snapshot, in a transaction whose answers must be the same to the last digit when it is done
    anew, where the server does not let its snapshot be shared, and where connections lead to different servers.
    Raises `RepeatError` where it will be alone the next time.
    """
    others = link.others
    if count_max < 2 or not link.is_snapshot or others is None or not others.has_spare:
        yield [link]
        return
    async with AsyncExitStack() as stack:
        taken = [link]
        try:
            yield await _invited(stack, taken, others, min(count_max, SHARES_MAX))
        except driver_errors.LockNotAvailableError as error:
            if len(taken) == 1:
                raise
            others.refuse()
            raise RepeatError from error
        except BaseException as error:  # boundary: undone, then raised again
            if not is_of_no_use(error):
                await _undo_all(taken)
            raise


async def _invited(stack: AsyncExitStack, taken: list[Link], others: Others, count_max: int) -> list[Link]:
    """The first one taken, and others that see what it sees; `taken` grows by all that the stack will give back."""
    # Who is done with his part is idle until the slowest one is.
    patience = f"SET LOCAL idle_in_transaction_session_timeout = {math.ceil(others.wait_s_max * 1000)}"
    await taken[0].run(patience)
    if not await _take_spare(stack, taken, others):
        return taken
    try:
        row = await taken[0].row(_EXPORT)
    except asyncpg.PostgresError as error:
        # Its transaction is of no use any more.
        others.refuse()
        raise RepeatError from error
    assert row is not None  # noqa: S101 # it asks for no table
    snapshot, server = row
    while await _sees(taken[-1], snapshot, server, patience):
        if len(taken) == count_max or not await _take_spare(stack, taken, others):
            return taken
    return taken[:-1]


async def _take_spare(stack: AsyncExitStack, taken: list[Link], others: Others) -> bool:
    try:
        other = await stack.enter_async_context(others.spare())
    except DataStoreError:
        return False
    if other is not None:
        taken.append(other)
    return other is not None


async def _sees(link: Link, snapshot: str, server: Any, patience: str) -> bool:
    """Let it see the snapshot; False if it cannot, and then it is of no use."""
    if not snapshot.replace("-", "").isalnum():
        return False
    settings = f"{_CUSTOM_PLANS}; {patience}; SET LOCAL lock_timeout = {LOCK_WAIT_MS}"
    try:
        await link.begin(f"{SNAPSHOT}; SET TRANSACTION SNAPSHOT '{snapshot}'; {settings}")
        return bool(await link.value("SELECT pg_postmaster_start_time()") == server)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        return False


async def _undo_all(links: Sequence[Link]) -> None:
    """Undo what was begun on each, all at once: a server that hangs lets each of them wait. As `Link.undo`."""
    endings = [asyncio.ensure_future(link.undo()) for link in links]
    cancelled: asyncio.CancelledError | None = None
    while not all(ending.done() for ending in endings):
        try:
            await asyncio.wait(endings)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled


async def shared_out(
    links: Sequence[Link],
    work: Sequence[P],
    weights: Sequence[int],
    read: Callable[[Link, Sequence[P]], Awaitable[list[T]]],
) -> list[T]:
    """What `read` gives for all of the work, in order, each link having a run of it of about the same weight."""
    if len(links) == 1:
        return await read(links[0], work)
    tasks = [
        asyncio.ensure_future(read(link, work[start:end]))
        for link, (start, end) in zip(links, runs(weights, len(links)), strict=False)
    ]
    try:
        return [one for found in await asyncio.gather(*tasks) for one in found]
    finally:
        # When one fails the others must not go on with connections that are given back.
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def runs(weights: Sequence[int], count: int) -> list[tuple[int, int]]:
    """At most `count` runs of what has these weights, none of them empty, together all of it."""
    # There may be a million of them: they are added up and searched by functions of the interpreter.
    passed, start = list(accumulate(weights)), 0
    found: list[tuple[int, int]] = []
    while start < len(passed):
        part = -(-passed[-1] * (len(found) + 1) // count)  # rounded up
        end = max(start + 1, bisect_left(passed, part) + 1) if len(found) < count - 1 else len(passed)
        found.append((start, end))
        start = end
    return found
