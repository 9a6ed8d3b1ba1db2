"""What the fault tests of the bus run in processes of their own: `bus_child.py consume|settle|slow|flood URL ...`.

The token of the server is the first line on standard input.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from pathlib import Path
from typing import Any, BinaryIO

import psutil

from polaris.clock import utc_now
from polaris.domain import AdaptationAction, AdaptationEvent, MetricValue, SystemState, TelemetryEvent
from polaris.messaging import (
    AckPolicy,
    DeduplicationMiddleware,
    LanedMessageBroker,
    NATSConfig,
    NATSMessageBroker,
    PolarisMessageBus,
    Subscription,
    adaptation_topic,
    topic_of,
)
from polaris.runtime._seen_ids import StoredSeenIds
from polaris.storage import PolarisDataStore

ACK_WAIT_S = 1.0
"""Until what a killed consumer had in hand comes again."""
HANDLER_S = 0.0005
PUBLISHERS = 256
SYSTEMS = 50
CONTROL_EVERY_S = 1.0
WATCH_EVERY_S = 0.05


def say(**fields: Any) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


class Memory:
    """The most memory that this process was seen to have. (What the system keeps of that counts the parent's too.)"""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self.bytes_max = self.now()

    def now(self) -> int:
        return int(self._process.memory_info().rss)

    async def watch(self) -> None:
        while True:
            self.bytes_max = max(self.bytes_max, self.now())
            await asyncio.sleep(WATCH_EVERY_S)


def broker(url: str, token: str) -> NATSMessageBroker:
    return NATSMessageBroker(NATSConfig(servers=(url,), token=token))


async def handle_until_killed(handled: BinaryIO, hold_bytes: int, event: TelemetryEvent) -> None:
    """Note the event. At so many bytes go no further: a tester that comes late finds something in hand all the same."""
    handled.write(event.event_id.encode() + b"\n")
    if handled.tell() >= hold_bytes:
        await asyncio.Event().wait()


async def consume(url: str, token: str, folder: Path, hold_bytes: int) -> None:
    """Handle telemetry until killed: a line with the id of each event goes to the file "handled"."""
    with (folder / "handled").open("ab", buffering=0) as handled:

        async def handle(event: TelemetryEvent) -> None:
            await handle_until_killed(handled, hold_bytes, event)

        async with PolarisDataStore.sqlite(str(folder / "seen.db")) as store:
            deduplication = DeduplicationMiddleware(seen=StoredSeenIds(store.documents))
            async with PolarisMessageBus(broker(url, token), [deduplication]) as bus:
                await bus.subscribe("polaris.telemetry.*", handle, durable="worker", ack_wait_s=ACK_WAIT_S)
                say(ready=True)
                await asyncio.Event().wait()


async def settle(url: str, token: str, folder: Path, hold_bytes: int) -> None:
    """As `consume`, without a memory of what was handled, and with one acknowledgement for many messages."""
    with (folder / "handled").open("ab", buffering=0) as handled:

        async def handle(event: TelemetryEvent) -> None:
            await handle_until_killed(handled, hold_bytes, event)

        async with PolarisMessageBus(broker(url, token)) as bus:
            await bus.subscribe(
                "polaris.telemetry.*", handle, durable="worker", ack=AckPolicy.ALL, ack_wait_s=ACK_WAIT_S
            )
            say(ready=True)
            await asyncio.Event().wait()


async def slow(url: str, token: str, count: int) -> None:
    """Handle so many events of telemetry, slowly, and how ever many of control, and tell how it went."""
    late_s: list[float] = []
    # A byte for each, so that the account itself does not grow.
    handled = bytearray(count)
    in_flight_max = distinct = 0
    began_s: float | None = None
    telemetry: Subscription | None = None
    done = asyncio.Event()

    async def obey(event: AdaptationEvent) -> None:
        late_s.append(time.monotonic() - float(event.action.parameters["at"]))

    async def handle(event: TelemetryEvent) -> None:
        nonlocal began_s, distinct, in_flight_max
        began_s = time.monotonic() if began_s is None else began_s
        time.sleep(HANDLER_S)
        number = int(str(event.system_state.metadata["number"]))
        distinct += not handled[number]
        handled[number] += 1
        if telemetry is not None:
            in_flight_max = max(in_flight_max, telemetry.in_flight)
        if distinct == count:
            done.set()

    async with PolarisMessageBus(LanedMessageBroker(broker(url, token), broker(url, token))) as bus:
        await bus.subscribe("polaris.adaptations.*", obey, durable="control")
        telemetry = await bus.subscribe("polaris.telemetry.*", handle, durable="telemetry")
        memory = Memory()
        before, watching = memory.bytes_max, asyncio.create_task(memory.watch())
        say(ready=True)
        await done.wait()
        assert began_s is not None
        watching.cancel()
        say(
            calls=sum(handled),
            distinct=distinct,
            controls=len(late_s),
            late_s_max=max(late_s),
            in_flight_max=in_flight_max,
            memory_bytes=memory.bytes_max,
            grown_bytes=memory.bytes_max - before,
            took_s=time.monotonic() - began_s,
        )


async def flood(url: str, token: str, count: int) -> None:
    """Publish so much telemetry as fast as possible, and an order each second until standard input ends."""
    left = iter(range(count))
    acknowledged = 0
    over = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, over.set)

    async def publish(bus: PolarisMessageBus) -> None:
        nonlocal acknowledged
        for number in left:
            metrics = {f"metric-{n}": MetricValue(f"metric-{n}", number + n / 10, "1") for n in range(10)}
            state = SystemState(f"system-{number % SYSTEMS}", utc_now(), metrics, metadata={"number": number})
            event = TelemetryEvent(state)
            await bus.publish(topic_of(event), event, timeout_s=30.0)
            acknowledged += 1

    async def control(bus: PolarisMessageBus) -> None:
        memory = Memory()
        watching = asyncio.create_task(memory.watch())
        sent, slowest_s, due_s = 0, 0.0, time.monotonic()
        while not over.is_set():
            began_s = time.monotonic()
            action = AdaptationAction(f"action-{sent}", "scale", "web", {"at": began_s})
            await bus.publish(adaptation_topic("web"), AdaptationEvent(action))
            sent, slowest_s = sent + 1, max(slowest_s, time.monotonic() - began_s)
            due_s += CONTROL_EVERY_S
            await asyncio.sleep(due_s - time.monotonic())
        watching.cancel()
        say(controls=sent, slowest_s=slowest_s, memory_bytes=memory.bytes_max)

    async with (
        PolarisMessageBus(LanedMessageBroker(broker(url, token), broker(url, token))) as bus,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(control(bus))
        began_s = time.monotonic()
        async with asyncio.TaskGroup() as publishers:
            for _ in range(PUBLISHERS):
                publishers.create_task(publish(bus))
        say(acknowledged=acknowledged, took_s=time.monotonic() - began_s)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    command, address, *rest = sys.argv[1:]
    token = sys.stdin.readline().strip()
    if command in {"consume", "settle"}:
        asyncio.run({"consume": consume, "settle": settle}[command](address, token, Path(rest[0]), int(rest[1])))
    else:
        asyncio.run({"slow": slow, "flood": flood}[command](address, token, int(rest[0])))
