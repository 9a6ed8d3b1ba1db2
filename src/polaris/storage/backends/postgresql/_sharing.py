"""A long reading shared out among processes of the server: several connections that see one snapshot.

The server gives a statement that looks its ranges up one by one to a single process. Source: "Snapshot Synchronization
Functions" in PostgreSQL's documentation.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar

from polaris.exceptions import StoreConnectionError
from polaris.storage.backends.postgresql._driver import asyncpg
from polaris.storage.backends.postgresql._errors import RepeatError
from polaris.storage.backends.postgresql._link import SNAPSHOT, Link, Others

T = TypeVar("T")
P = TypeVar("P")

SHARES_MAX = 4
_EXPORT = "SELECT pg_export_snapshot(), pg_postmaster_start_time()"
_CUSTOM_PLANS = "SET LOCAL plan_cache_mode = force_custom_plan"


@asynccontextmanager
async def sharing(link: Link, count_max: int) -> AsyncIterator[list[Link]]:
    """`link`, and at most `count_max - 1` others that see what it sees: as many as are unused now.

    It is alone outside a snapshot, in a transaction whose answers must be the same to the last digit when it is done
    anew, where the server does not let its snapshot be shared, and where connections lead to different servers.
    """
    async with AsyncExitStack() as stack:
        links = [link]
        if count_max > 1 and link.is_snapshot and link.others is not None:
            await _invite(stack, links, link.others, min(count_max, SHARES_MAX))
        yield links


async def _invite(stack: AsyncExitStack, links: list[Link], others: Others, count_max: int) -> None:
    other = await _spare(stack, others)
    if other is None:
        return
    try:
        row = await links[0].row(_EXPORT)
    except asyncpg.PostgresError as error:
        # Its transaction is of no use any more.
        others.refuse()
        raise RepeatError from error
    assert row is not None  # noqa: S101 # it asks for no table
    while other is not None and await _sees(other, *row):
        links.append(other)
        other = await _spare(stack, others) if len(links) < count_max else None


async def _spare(stack: AsyncExitStack, others: Others) -> Link | None:
    try:
        return await stack.enter_async_context(others.spare())
    except StoreConnectionError:
        return None


async def _sees(link: Link, snapshot: str, server: Any) -> bool:
    """Let it see the snapshot; False if it cannot, and then it is of no use."""
    if not snapshot.replace("-", "").isalnum():
        return False
    try:
        await link.begin(f"{SNAPSHOT}; SET TRANSACTION SNAPSHOT '{snapshot}'; {_CUSTOM_PLANS}")
        return bool(await link.value("SELECT pg_postmaster_start_time()") == server)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        return False


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
    total, start, passed = sum(weights), 0, 0
    found: list[tuple[int, int]] = []
    for place, weight in enumerate(weights, 1):
        passed += weight
        has_its_part = len(found) < count - 1 and passed * count >= total * (len(found) + 1)
        if has_its_part or place == len(weights):
            found.append((start, place))
            start = place
    return found
