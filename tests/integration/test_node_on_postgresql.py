"""A node whose store is a PostgreSQL database: the same node, the same commands, and nothing lost over its restart."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.nodes import NodeUnderTest, a_node, eventually_true
from tests.postgres_servers import PostgresServer
from tests.unit.runtime.test_health_history import Kept

from polaris.api import PeriodFilter
from polaris.domain import AdaptationAction, AdaptationEvent, HealthStatus, MetricValue, SystemState, TelemetryEvent
from polaris.messaging import adaptation_topic
from polaris.storage import PolarisDataStore, TimeRange

T0 = datetime.now(UTC) - timedelta(hours=1)


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer(15) as running:
        yield running


def settings(server: PostgresServer, schema: str) -> dict[str, Any]:
    return {
        "store": {"engine": "postgresql", "dsn": server.dsn, "schema": schema},
        "systems": {"machine": {"connector": "host", "interval_s": 0.2}},
    }


def store_of(server: PostgresServer, schema: str) -> PolarisDataStore:
    return PolarisDataStore.postgresql(server.dsn, schema=schema, read_only=True)


async def command(node: NodeUnderTest, *arguments: str) -> tuple[int, Any, str]:
    """Run a command of the CLI beside the node: exit code, JSON output, standard error."""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "polaris", *arguments, "--config", str(node.config), "--json"],
        capture_output=True,
        text=True,
        check=False,
        cwd=node.folder,
        env={key: value for key, value in os.environ.items() if not key.startswith("POLARIS_")},
    )
    return done.returncode, json.loads(done.stdout) if done.stdout else None, done.stderr


def state(second: int) -> SystemState:
    return SystemState("web", T0 + timedelta(seconds=second), {"load": MetricValue("load", second / 10, "1")})


async def stored(store: PolarisDataStore) -> list[SystemState]:
    return await store.states.get_state_history("web", TimeRange.all())


async def test_telemetry_and_actions_are_kept_in_the_database(tmp_path: Path, server: PostgresServer) -> None:
    states = [state(second) for second in range(300)]
    async with a_node(tmp_path, settings(server, "kept")) as node, store_of(server, "kept") as store:
        async with node.bus() as bus:
            await bus.publish_many([TelemetryEvent(one) for one in states])
            unknown = AdaptationAction("a-1", "scale", "nowhere")
            await bus.publish(adaptation_topic("nowhere"), AdaptationEvent(unknown))

        async def all_there() -> bool:
            return len(await stored(store)) == len(states) and await store.results.find_by_action("a-1") is not None

        await eventually_true(all_there, "everything is in the database")
        assert await stored(store) == states
        code, systems, complaint = await command(node, "systems")
        assert (code, complaint) == (0, "")
        assert {one["system_id"] for one in systems["systems"]} >= {"web", "machine"}
        assert not (node.data.path / "polaris.db").exists()
        assert await node.is_ready()
        assert "hidden" not in node.stderr()
        assert node.untidy_lines() == []


async def test_what_was_confirmed_while_the_database_was_away_is_stored_once_it_is_back(
    tmp_path: Path, server: PostgresServer
) -> None:
    states = [state(second) for second in range(200)]
    async with a_node(tmp_path, settings(server, "away")) as node:
        async with node.bus() as bus:
            await bus.publish_many([TelemetryEvent(one) for one in states[:100]])
            server.kill()
            await bus.publish_many([TelemetryEvent(one) for one in states[100:]])

            async def unready() -> bool:
                return not await node.is_ready()

            await eventually_true(unready, "readiness says that the store is away")
            server.start()
        async with store_of(server, "away") as store:

            async def all_there() -> bool:
                return len(await stored(store)) == len(states)

            await eventually_true(all_there, "everything is in the database", timeout_s=60)
            assert await stored(store) == states
        await eventually_true(node.is_ready, "the node is ready again", timeout_s=60)


async def test_what_was_not_well_is_kept_found_and_thinned_out_in_a_database_too(server: PostgresServer) -> None:
    store = PolarisDataStore.postgresql(server.dsn, schema="history")
    kept = await Kept(store, kept_max=2).start()
    try:
        kept.board.report("bus", HealthStatus.UNHEALTHY, "not connected")
        for _ in range(3):
            kept.state(HealthStatus.WARNING)
            kept.clock.advance(60)
            kept.state(HealthStatus.HEALTHY)
            kept.clock.advance(60)
        assert [period.component or period.system_id for period in await kept.periods()] == ["web", "web", "web", "bus"]
        assert [period.component for period in await kept.periods(lasting_only=True)] == ["bus"]
        since = kept.clock.now() - timedelta(seconds=180)
        assert [period.system_id for period in await kept.periods(start=since, system_id="web")] == ["web"]
        first = await kept.history.periods(PeriodFilter(), limit=2, before=None)
        rest = await kept.history.periods(PeriodFilter(), limit=2, before=first[-1][0])
        assert len({key.period_id for key, _ in (*first, *rest)}) == 4
        await kept.history.prune()
        assert [period.component or period.system_id for period in await kept.periods()] == ["web", "web", "bus"]

        kept.clock.advance(60)
        again = await Kept(store, kept.clock).start()
        (bus,) = await again.periods(component="bus")
        assert (bus.until, bus.cut_off) == (again.clock.now(), True)
    finally:
        await store.disconnect()
