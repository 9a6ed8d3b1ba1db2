"""The prototype of a data path of our own as a contender: raw bytes."""

from __future__ import annotations

from _bus_common import FLUSH_EVERY, SUBJECT, Meter, Role, Sender, raw_payload
from _harness import say
from _protocol_prototype import PrototypeConnection


async def sub(url: str, events: int) -> None:
    meter = Meter(events)
    connection = await PrototypeConnection.open(url)
    connection.subscribe(SUBJECT, lambda subject, reply, payload: meter.add())
    await connection.flush()
    say(ready=True)
    await meter.report()
    await connection.close()


async def pub(url: str, events: int) -> None:
    connection, payload = await PrototypeConnection.open(url), raw_payload()
    async with Sender(events):
        for number in range(events):
            await connection.publish(SUBJECT, payload)
            if number % FLUSH_EVERY == 0:
                await connection.flush()
        await connection.flush()
    await connection.close()


RECEIVERS: dict[str, Role] = {"prototype": sub}
SENDERS: dict[str, Role] = {"prototype": pub}
