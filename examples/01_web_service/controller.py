"""A controller of some sixty lines: response time too high, add a worker; low for a while, remove one.

It uses nothing but the bus, so it may run anywhere that reaches it: in the node's process, beside it, far away.

    python examples/01_web_service/controller.py --data-dir polaris-data --system web
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
from lifeline import end_with_parent

from polaris.domain import AdaptationAction, AdaptationEvent, ExecutionResultEvent, SystemState, TelemetryEvent
from polaris.exceptions import BusConnectionError
from polaris.ids import new_id
from polaris.messaging import (
    NATSConfig,
    NATSMessageBroker,
    PolarisMessageBus,
    adaptation_topic,
    execution_topic,
    telemetry_topic,
)
from polaris.observability import LoggingConfig, configure_logging

P95, WORKERS = "service.response_time.p95", "service.workers"


class WorkerRule:
    """Keeps the p95 of one service under `high_s` with as few workers as can, adding and removing one at a time.

    After an action it waits for the result and then for `cooldown_s`, until the window of the p95 holds only requests
    that the new number of workers served. Fewer workers only after `calm_s` below `low_s`. A p95 that is missing is
    not low: without requests nothing is decided. All times are those of the telemetry.
    """

    def __init__(
        self, bus: PolarisMessageBus, system_id: str, *, high_s: float = 0.25, low_s: float = 0.05,
        cooldown_s: float = 4.0, calm_s: float = 8.0,
    ) -> None:  # fmt: skip
        self.bus, self.system_id = bus, system_id
        self.high_s, self.low_s = high_s, low_s
        self.cooldown, self.calm, self.answer = (timedelta(seconds=s) for s in (cooldown_s, calm_s, 60.0))
        self.asked_for = ""
        self.quiet_until: datetime | None = None
        self.low_since: datetime | None = None

    async def start(self) -> None:
        await self.bus.subscribe(execution_topic(self.system_id), self.on_result)
        await self.bus.subscribe(telemetry_topic(self.system_id), self.on_telemetry)

    async def on_telemetry(self, event: TelemetryEvent) -> None:
        state = event.system_state
        wanted = self.decide(state)
        if wanted is not None:
            action = AdaptationAction(new_id(), wanted, self.system_id, timeout_seconds=20.0)
            self.asked_for, self.low_since = action.action_id, None
            self.quiet_until = state.timestamp + self.answer  # should the result never come
            print(f"p95 {state.value(P95):.3f} s with {state.value(WORKERS)} workers: {wanted}", flush=True)
            asked = AdaptationEvent(action=action, source="controller")
            await self.bus.publish(adaptation_topic(self.system_id), asked)

    async def on_result(self, event: ExecutionResultEvent) -> None:
        result = event.result
        if result.action_id == self.asked_for:
            print(f"  {result.status.value} {result.error_message or ''}".rstrip(), flush=True)
            self.quiet_until = (result.completed_at or event.timestamp) + self.cooldown

    def decide(self, state: SystemState) -> str | None:
        p95, workers, now = state.value(P95), state.value(WORKERS), state.timestamp
        if not isinstance(p95, float) or not isinstance(workers, int) or p95 >= self.low_s:
            self.low_since = None
        elif self.low_since is None:
            self.low_since = now
        if not isinstance(p95, float) or not isinstance(workers, int):
            return None
        if self.quiet_until is not None and now < self.quiet_until:
            return None
        if p95 > self.high_s and workers < state.metadata.get("workers.max", workers + 1):
            return "add_worker"
        calm = self.low_since is not None and now - self.low_since >= self.calm
        return "remove_worker" if calm and workers > state.metadata.get("workers.min", 1) else None


async def connected(data_dir: Path) -> PolarisMessageBus:
    """A started bus of the node that owns the folder; waits up to a minute for the node to answer."""
    for _ in range(120):
        with contextlib.suppress(FileNotFoundError, BusConnectionError):
            node = msgspec.json.decode((data_dir / "node.json").read_bytes())
            settings = NATSConfig(servers=(node["bus_url"],), token=node["bus_token"], name="worker-rule")
            bus = PolarisMessageBus(NATSMessageBroker(settings))
            await bus.start()
            return bus
        await asyncio.sleep(0.5)
    raise SystemExit(f"no node answers in {data_dir}")


async def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Scale a web service by its response time.")
    parser.add_argument("--data-dir", type=Path, default=Path("polaris-data"), help="of the running node")
    parser.add_argument("--system", default="web", help="the id of the managed system")
    parser.add_argument("--high", type=float, default=0.25, help="p95 in seconds that calls for a worker more")
    parser.add_argument("--low", type=float, default=0.05, help="p95 in seconds that allows a worker less")
    options = parser.parse_args(arguments)
    configure_logging(LoggingConfig(level="error", foreign_level="critical"))  # a bus that goes away is no news here
    ended = asyncio.ensure_future(asyncio.Event().wait())
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.cancel)
    bus = await connected(options.data_dir)
    try:
        await WorkerRule(bus, options.system, high_s=options.high, low_s=options.low).start()
        await asyncio.wait([ended])
    finally:
        await bus.stop()
    return 0


if __name__ == "__main__":
    end_with_parent(grace_s=15.0)
    sys.exit(asyncio.run(main()))
