"""nats-py on JetStream as a contender: publishes with futures pipelined, and pulls acknowledged one by one."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from _bus_common import SUBJECT, Meter, Role, Sender, raw_payload
from _harness import await_release, say

PULL = 1_024
RAW_SUBJECT = "raw.telemetry.bench"
RAW_STREAM = "RAW_TELEMETRY"


async def make_stream(url: str) -> None:
    """The stream for those who publish raw bytes, as POLARIS keeps its own."""
    import nats
    from nats.js.api import StreamConfig

    connection = await nats.connect(url)
    config = StreamConfig(name=RAW_STREAM, subjects=["raw.>"], max_bytes=1 << 30, duplicate_window=120)
    await connection.jetstream().add_stream(config)
    await connection.close()


async def store(url: str, events: int, *, in_flight: int) -> None:
    """As many publishes wait for their confirmation as there may be."""
    import nats

    payload = raw_payload()
    connection = await nats.connect(url)
    stream: Any = connection.jetstream(publish_async_max_pending=in_flight)
    async with Sender(events):
        for _ in range(events):
            await stream.publish_async(RAW_SUBJECT, payload)
        await stream.publish_async_completed()
    await connection.close()


async def pull(url: str, events: int) -> None:
    """Fetch many, acknowledge each."""
    import nats
    from nats.js.api import ConsumerConfig

    meter = Meter(events)
    connection = await nats.connect(url)
    stream = connection.jetstream()
    say(ready=True)
    await asyncio.to_thread(await_release)
    meter.begin()
    config = ConsumerConfig(max_ack_pending=8 * PULL)
    consumer = await stream.pull_subscribe(SUBJECT, "nats-py", stream="POLARIS_TELEMETRY", config=config)
    while meter.count < events:
        for message in await consumer.fetch(PULL, timeout=5):
            await message.ack()
            meter.add()
    await connection.flush()
    await meter.report()
    await connection.close()


RECEIVERS: dict[str, Role] = {"nats-py-pull": pull}
SENDERS: dict[str, Role] = {
    "nats-py-256": partial(store, in_flight=256),
    "nats-py-4096": partial(store, in_flight=4_096),
}
