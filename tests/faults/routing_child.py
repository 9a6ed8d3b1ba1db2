"""Runs in a process of its own: writes systems of three stores and moves them about until it is killed."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

from polaris.domain import AdaptationAction, MetricValue, SystemState
from polaris.storage import PolarisDataStore
from polaris.storage._routing import RoutedDataStore
from polaris.storage._routing_work import RoutedUnitOfWork

T0 = datetime(2030, 1, 1, tzinfo=UTC)
SYSTEMS = [f"s{number}" for number in range(4)]
NAMES = "abc"


def routed_at(folder: Path) -> RoutedDataStore:
    """The three stores in a folder."""
    return RoutedDataStore({name: PolarisDataStore.sqlite(folder / f"{name}.db") for name in NAMES})


def reading(system_id: str, number: int) -> SystemState:
    """The state of a number; some are late."""
    second = number - (100_000 if number % 5 == 0 else 0)
    return SystemState(system_id, T0 + timedelta(seconds=second), {"n": MetricValue("n", number, unit="1")})


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


async def write(folder: Path, first: int) -> None:
    """Say the number of every batch and unit of work that was acknowledged, and every move that was finished."""
    numbers = iter(range(first, 10**9))
    random = Random(first)
    async with routed_at(folder) as routed:
        await routed.resume_moves()
        say("ready")

        async def batches() -> None:
            for number in numbers:
                await routed.save_many([reading(system_id, number) for system_id in SYSTEMS])
                say(f"batch {number}")

        async def works() -> None:
            for number in numbers:
                system_id = random.choice(SYSTEMS)

                async def act(work: RoutedUnitOfWork, one: str = system_id, number: int = number) -> None:
                    await work.states.save(reading(one, number))
                    await work.actions.save(AdaptationAction(f"a-{number}", "scale", one, created_at=T0))

                await routed.in_unit_of_work(system_id, act, attempts_max=100)
                say(f"work {number} {system_id}")

        async def moves() -> None:
            while True:
                await routed.move_system(random.choice(SYSTEMS), random.choice(NAMES))
                say("moved")

        await asyncio.gather(batches(), works(), moves())


if __name__ == "__main__":
    asyncio.run(write(Path(sys.argv[1]), int(sys.argv[2])))
