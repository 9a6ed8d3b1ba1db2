"""How soon messages go through again after the server was killed and is back: POLARIS beside nats-py's own reconnect.

All clients are connected to the same server and see the same outages. Each publishes a stored event every 10 ms, every
publish in a task of its own, and handles what comes over a core subscription and over a durable consumer. Times count
from the moment when the new server accepts a connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from typing import Any

from _bus_common import SUBJECT, sample
from _harness import NATSServer, median, print_table, read_line, release, say, start

from polaris.domain import TelemetryEvent

EVERY_S = 0.01
ROUNDS = 10
OUTAGES_S = (0.5, 3.0)
SETTLE_S = 0.3
RETURN_S = 1.8
"""About what a round takes beside its outage: the slowest client comes back."""
GIVE_UP_S = 6.0
CLIENTS = {
    "polaris": "POLARIS, as configured by default",
    "nats-py": "nats-py, as configured by default",
    "nats-py-quick": "nats-py, reconnect_time_wait=0.05",
}
KINDS = {"confirmed": "publish confirmed", "core": "core subscription", "stored": "durable consumer"}
RAW = "raw.resume"


class Log:
    """When what happened, by the clock that all processes of the machine share."""

    def __init__(self) -> None:
        self.times: dict[str, list[float]] = {kind: [] for kind in KINDS}

    def note(self, kind: str) -> None:
        self.times[kind].append(time.monotonic())

    def first_after(self, at: float) -> dict[str, float]:
        """Of each kind the first time after `at`, or infinity."""
        return {kind: min((t for t in times if t >= at), default=math.inf) for kind, times in self.times.items()}


async def publish_for_ever(publish: Callable[[], Awaitable[object]], log: Log) -> None:
    """Every 10 ms another one, whatever becomes of the others."""
    tasks: set[asyncio.Task[None]] = set()

    async def one() -> None:
        with contextlib.suppress(Exception):
            await publish()
            log.note("confirmed")

    while True:
        task = asyncio.create_task(one())
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        await asyncio.sleep(EVERY_S)


async def serve(log: Log) -> None:
    """Answer the parent: for each line with the time of a return say what came first after it."""
    say(ready=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        at = float(line)
        until = time.monotonic() + GIVE_UP_S
        while math.inf in log.first_after(at).values() and time.monotonic() < until:
            await asyncio.sleep(0.02)
        say(**{kind: first - at for kind, first in log.first_after(at).items()})


async def polaris_client(url: str) -> None:
    from polaris.messaging import DeliveryClass, NATSConfig, NATSMessageBroker, PolarisMessageBus
    from polaris.observability import LoggingConfig, configure_logging

    configure_logging(LoggingConfig(level="critical", foreign_level="critical"))
    log, state = Log(), sample()
    async with PolarisMessageBus(NATSMessageBroker(NATSConfig(servers=(url,)))) as bus:

        async def over_core(event: TelemetryEvent) -> None:
            log.note("core")

        async def stored(event: TelemetryEvent) -> None:
            log.note("stored")

        await bus.subscribe(SUBJECT, over_core, delivery=DeliveryClass.AT_MOST_ONCE)
        await bus.subscribe(SUBJECT, stored, durable="resume")
        publishing = asyncio.create_task(publish_for_ever(lambda: bus.publish(SUBJECT, TelemetryEvent(state)), log))
        await serve(log)
        publishing.cancel()


async def nats_client(url: str, *, quick: bool) -> None:
    import nats
    from _bus_common import raw_payload
    from nats.js.api import StreamConfig

    log, payload = Log(), raw_payload()
    subject = f"{RAW}.{'quick' if quick else 'default'}"

    async def ignore(error: Exception) -> None:
        pass

    options: dict[str, Any] = {"reconnect_time_wait": 0.05} if quick else {}
    connection = await nats.connect(url, max_reconnect_attempts=-1, error_cb=ignore, **options)
    stream: Any = connection.jetstream()
    with contextlib.suppress(nats.js.errors.BadRequestError):
        await stream.add_stream(StreamConfig(name="RAW_RESUME", subjects=[f"{RAW}.>"]))

    async def over_core(message: Any) -> None:
        log.note("core")

    await connection.subscribe(subject, cb=over_core)
    consumer = await stream.pull_subscribe(subject, f"resume-{quick}")

    async def fetch_for_ever() -> None:
        while True:
            try:
                for message in await consumer.fetch(256, timeout=1):
                    await message.ack()
                    log.note("stored")
            except Exception:  # whatever it is, the next fetch may succeed
                await asyncio.sleep(0.01)

    fetching = asyncio.create_task(fetch_for_ever())
    publishing = asyncio.create_task(publish_for_ever(lambda: stream.publish(subject, payload, timeout=1), log))
    await serve(log)
    for task in (fetching, publishing):
        task.cancel()
    await connection.close()


def be_client(name: str, url: str) -> None:
    if name == "polaris":
        asyncio.run(polaris_client(url))
    else:
        asyncio.run(nats_client(url, quick=name == "nats-py-quick"))


def measure(outage_s: float, within_s: float) -> dict[str, list[dict[str, float]]]:
    """Of each client and round the seconds from the server's return to each first time; at least one round."""
    until = time.monotonic() + within_s
    found: dict[str, list[dict[str, float]]] = {name: [] for name in CLIENTS}
    with tempfile.TemporaryDirectory() as folder:
        server = NATSServer(folder)
        server.start()
        clients = {name: start(__file__, name, server.url) for name in CLIENTS}
        try:
            for client in clients.values():
                read_line(client)
            for number in range(ROUNDS):
                if number and time.monotonic() > until:
                    break
                time.sleep(SETTLE_S)
                server.kill()
                time.sleep(outage_s)
                back = server.start()
                for client in clients.values():
                    release(client, f"{back!r}")
                for name, client in clients.items():
                    found[name].append(read_line(client))
        finally:
            for client in clients.values():
                client.kill()
                client.wait(10)
            server.stop()
    return found


def print_table_of_resuming(*, within_s: float) -> list[str]:
    """Gives what was left out because of the time that it may take."""
    left_out = []
    for outage_s in OUTAGES_S:
        share = (outage_s + RETURN_S) / sum(each + RETURN_S for each in OUTAGES_S)
        found = measure(outage_s, within_s * share)
        count = len(next(iter(found.values())))
        rows = []
        for name, rounds in found.items():
            cells = []
            for kind in KINDS:
                times_ms = sorted(each[kind] * 1e3 for each in rounds)
                cells.append(f"{shown(median(times_ms))} / {shown(times_ms[-1])}")
            rows.append((CLIENTS[name], *cells))
        title = f"From the server's return to the first, ms (p50 / most of {count} outages of {outage_s:g} s)"
        print_table(title, ("client", *KINDS.values()), rows)
        if count < ROUNDS:
            left_out.append(f"{ROUNDS - count} of {ROUNDS} outages of {outage_s:g} s")
    return left_out


def shown(ms: float) -> str:
    return f"> {GIVE_UP_S * 1e3:,.0f}" if math.isinf(ms) else f"{ms:,.0f}"


if __name__ == "__main__":
    be_client(*sys.argv[1:])
