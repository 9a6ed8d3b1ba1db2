"""The plans by which a PostgreSQL server answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from polaris.storage import PolarisDataStore
from polaris.storage.backends.postgresql import PostgresEngine
from polaris.storage.backends.postgresql._link import Link


async def analyze(store: PolarisDataStore) -> None:
    """Let the server know what its tables hold, as its autovacuum does."""
    engine = store.engines[0]
    assert isinstance(engine, PostgresEngine)
    async with engine._pool.link() as link:
        await link.run("ANALYZE")


async def plans(store: PolarisDataStore, ask: Callable[[], Awaitable[object]]) -> list[str]:
    """What the server does for each statement of the question, which is carried out to be told."""
    told: list[str] = []
    rows, value, run = Link.rows, Link.value, Link.run

    async def explain(link: Link, sql: str, values: tuple[Any, ...]) -> None:
        lines = await rows(link, f"EXPLAIN (ANALYZE, TIMING OFF) {sql}", *values)
        told.append("\n".join(line[0] for line in lines))

    async def explained_rows(link: Link, sql: str, *values: Any) -> list[Any]:
        await explain(link, sql, values)
        return await rows(link, sql, *values)

    async def explained_value(link: Link, sql: str, *values: Any) -> Any:
        await explain(link, sql, values)
        return await value(link, sql, *values)

    async def explained_run(link: Link, sql: str, *values: Any) -> int:
        if not sql.startswith(("DELETE", "UPDATE")):
            return await run(link, sql, *values)
        lines = await rows(link, f"EXPLAIN {sql}", *values)
        told.append("\n".join(line[0] for line in lines))
        return await run(link, sql, *values)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Link, "rows", explained_rows)
        patch.setattr(Link, "value", explained_value)
        patch.setattr(Link, "run", explained_run)
        await ask()
    return told
