"""The same load twice, with one worker and with workers that follow the response time: what does adapting bring?

    python examples/01_web_service/compare.py --duration 90 --output comparison.svg

Both runs have a whole POLARIS node beside the service; only the controller is left out of the first.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from controller import WORKERS, WorkerRule
from load import TRACE, Outcome, Tally
from run import UTILIZATION, WebService, child, load_command, rounds_per_token

from polaris.domain import TelemetryEvent
from polaris.messaging import NATSConfig, NATSMessageBroker, PolarisMessageBus, telemetry_topic
from polaris.observability import LoggingConfig, configure_logging
from polaris.runtime import Node, Settings

SYSTEM = "web"
BUCKET_S = 2.0
WORKERS_MAX = 4


@dataclass
class Run:
    """What one run showed: answers by their scheduled time, and the workers over time."""

    name: str
    outcomes: list[Outcome] = field(default_factory=list)
    workers: list[tuple[float, int]] = field(default_factory=list)

    def summary(self, target_s: float) -> dict[str, Any]:
        tally = Tally(sent=len(self.outcomes))
        tally.outcomes.extend(self.outcomes)
        in_time = sum(outcome.status == 200 and outcome.response_s <= target_s for outcome in self.outcomes)
        spans = zip(self.workers, self.workers[1:], strict=False)
        seconds = self.workers[-1][0] - self.workers[0][0] if len(self.workers) > 1 else 0.0
        busy = sum((later[0] - earlier[0]) * earlier[1] for earlier, later in spans)
        return {
            **{key: value for key, value in tally.summary().items() if key not in ("late", "refused")},
            "in_time": in_time / len(self.outcomes) if self.outcomes else None,
            "workers_mean": busy / seconds if seconds else None,
            "workers_max": max((count for _, count in self.workers), default=None),
        }

    def p95_over_time(self) -> list[tuple[float, float]]:
        """The p95 of the requests that were due within each two seconds."""
        buckets: dict[int, list[float]] = {}
        for outcome in self.outcomes:
            buckets.setdefault(int(outcome.at_s // BUCKET_S), []).append(outcome.response_s)
        return [
            ((number + 0.5) * BUCKET_S, sorted(values)[max(0, -(-len(values) * 95 // 100) - 1)])
            for number, values in sorted(buckets.items())
        ]


def free_udp_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.asynccontextmanager
async def polaris_node(folder: Path, pidfile: Path, statsd_port: int) -> AsyncIterator[PolarisMessageBus]:
    """A whole node that manages the service, and a bus of our own that is connected to it."""
    options = {"pidfile": str(pidfile), "statsd_port": statsd_port, "workers_max": WORKERS_MAX, "window_s": 4.0}
    settings = msgspec.convert(
        {
            "node": {"data_dir": str(folder / "node")},
            "http": {"enabled": False},
            "systems": {SYSTEM: {"connector": "gunicorn", "interval_s": 0.5, "options": options}},
        },
        Settings,
    )
    async with Node(settings) as node:
        if node.bus_url is None:
            raise RuntimeError("the node has no bus")
        broker = NATSMessageBroker(NATSConfig(servers=(node.bus_url,), token=node.bus_token, name="compare"))
        async with PolarisMessageBus(broker) as bus:
            yield bus


async def measure(name: str, *, adaptive: bool, rounds: int, options: argparse.Namespace) -> Run:
    """One run of the load over a fresh service and a fresh node."""
    run = Run(name)
    with tempfile.TemporaryDirectory(prefix="polaris-example-") as temporary:
        folder = Path(temporary)
        pidfile, results = folder / "web.pid", folder / "results.jsonl"
        with WebService(pidfile=pidfile, statsd_port=options.statsd_port, rounds=rounds) as service:
            async with polaris_node(folder, pidfile, options.statsd_port) as bus:
                start_s = time.time()

                async def note(event: TelemetryEvent) -> None:
                    workers = event.system_state.value(WORKERS)
                    if isinstance(workers, int):
                        run.workers.append((event.system_state.timestamp.timestamp() - start_s, workers))

                await bus.subscribe(telemetry_topic(SYSTEM), note)
                if adaptive:
                    await WorkerRule(bus, SYSTEM, high_s=options.target).start()
                command = load_command(
                    service.url, trace=options.trace, speed=options.speed, loop=True, duration_s=options.duration,
                    results=results,
                )  # fmt: skip
                with child(command) as load:
                    while load.poll() is None:
                        await asyncio.sleep(0.2)
        run.outcomes = [Outcome(**json.loads(line)) for line in results.read_text().splitlines()]
    return run


def table(runs: list[Run], target_s: float) -> str:
    """The comparison as text."""
    rows = [("", *(run.name for run in runs))]
    summaries = [run.summary(target_s) for run in runs]

    def row(title: str, key: str, form: str) -> None:
        rows.append((title, *("-" if s[key] is None else format(s[key], form) for s in summaries)))

    row("requests", "sent", "d")
    row("not answered", "failed", "d")
    row("p50, seconds", "p50_s", ".3f")
    row("p95, seconds", "p95_s", ".3f")
    row("p99, seconds", "p99_s", ".3f")
    row(f"answered within {target_s:g} s", "in_time", ".1%")
    row("workers, mean", "workers_mean", ".2f")
    row("workers, most", "workers_max", "d")
    return "\n".join(f"{cells[0]:<24}" + "".join(f"{cell:>14}" for cell in cells[1:]) for cells in rows)


def plot(runs: list[Run], target_s: float, path: Path) -> None:
    """p95 and workers over time, one colour a run."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, (above, below) = plt.subplots(
        2, 1, sharex=True, figsize=(9, 5.5), height_ratios=[3, 1], layout="constrained"
    )
    for run, colour in zip(runs, ("#b4552d", "#1f6f8b"), strict=False):
        above.plot(*zip(*run.p95_over_time(), strict=True), color=colour, label=run.name)
        if run.workers:
            below.step(*zip(*run.workers, strict=True), color=colour, where="post")
    above.axhline(target_s, color="#888888", linewidth=1, linestyle="--", label=f"target {target_s:g} s")
    above.set_yscale("log")
    above.set_ylabel("p95 response time, s")
    above.legend(frameon=False)
    below.set_ylabel("workers")
    below.set_xlabel("seconds of the replay")
    below.set_ylim(0, WORKERS_MAX + 0.5)
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)
    plt.close(figure)


async def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Compare one worker with workers that follow the response time.")
    parser.add_argument("--duration", type=float, default=90.0, help="seconds a run")
    parser.add_argument("--speed", type=float, default=4.0)
    parser.add_argument("--target", type=float, default=0.25, help="p95 in seconds")
    parser.add_argument("--utilization", type=float, default=UTILIZATION, help="of one worker, on average")
    parser.add_argument("--trace", type=Path, default=TRACE)
    parser.add_argument("--statsd-port", type=int, default=0, help="default: a free one")
    parser.add_argument("--output", type=Path, default=Path("comparison.svg"), help="SVG or PNG")
    options = parser.parse_args(arguments)
    options.trace = options.trace.absolute()
    options.statsd_port = options.statsd_port or free_udp_port()
    configure_logging(LoggingConfig(level="warning"))
    rounds = rounds_per_token(options.trace, options.speed, options.utilization)
    runs = []
    for name, adaptive in (("one worker", False), ("adaptive", True)):
        print(f"{name}: {options.duration:g} s ...", flush=True)
        runs.append(await measure(name, adaptive=adaptive, rounds=rounds, options=options))
    print(table(runs, options.target))
    plot(runs, options.target, options.output)
    print(f"plot: {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
