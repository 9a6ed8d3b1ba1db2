"""nats-py and what engineers write round it: raw bytes, typed by hand, and the full chain of POLARIS by hand.

The full chain by hand does what POLARIS' does, each part in the cheapest way that is right: a correlation id that is
current in the handler and goes with what the handler publishes, a trace of 1 % of the events with spans on both sides,
counters by topic, type and outcome, the times of handling, log lines at debug behind `isEnabledFor`. It comes in two
forms: the ids in headers beside the plain event, and everything in a CloudEvents envelope as POLARIS has it.
"""

from __future__ import annotations

import bisect
import logging
import random
import struct
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import partial
from typing import Any

import msgspec
from _bus_common import (
    FLUSH_EVERY,
    PACE,
    SAMPLED,
    SUBJECT,
    Meter,
    Role,
    Sender,
    at_pace,
    raw_payload,
    sample,
    tracer,
)
from _harness import say
from msgspec import UNSET, UnsetType

from polaris.domain import SystemState, TelemetryEvent

_log = logging.getLogger("bench.hand")
_correlation: ContextVar[str | None] = ContextVar("correlation", default=None)
_STAMP = struct.Struct("d")


async def connect(url: str) -> Any:
    import nats

    return await nats.connect(url)


async def subscribe(url: str, events: int, handle: Callable[[Any, Meter], Awaitable[None]]) -> None:
    """Hand every message to `handle` until all have come."""
    meter = Meter(events)
    connection = await connect(url)

    async def on_message(message: Any) -> None:
        await handle(message, meter)

    await connection.subscribe(SUBJECT, cb=on_message, pending_msgs_limit=-1, pending_bytes_limit=-1)
    await connection.flush()
    say(ready=True)
    await meter.report()
    await connection.close()


async def publish(url: str, events: int, send: Callable[[Any], Awaitable[None]], *, paced: bool = False) -> None:
    """Send one event after the other with `send`, as fast as it goes or at the even pace."""
    connection = await connect(url)
    async with Sender(events):
        if paced:
            async for _ in at_pace(events, PACE):
                await send(connection)
        else:
            for number in range(events):
                await send(connection)
                if number % FLUSH_EVERY == 0:
                    await connection.flush()
        await connection.flush()
    await connection.close()


# --- Raw and typed ---


async def raw_sub(url: str, events: int, *, timed: bool = False) -> None:
    async def handle(message: Any, meter: Meter) -> None:
        if timed:
            meter.time(_STAMP.unpack_from(message.data)[0])
        else:
            meter.add()

    await subscribe(url, events, handle)


async def raw_pub(url: str, events: int, *, paced: bool = False) -> None:
    payload = raw_payload()
    rest = payload[_STAMP.size :]

    async def send(connection: Any) -> None:
        await connection.publish(SUBJECT, _STAMP.pack(time.time()) + rest if paced else payload)

    await publish(url, events, send, paced=paced)


async def typed_sub(url: str, events: int) -> None:
    decode = msgspec.json.Decoder(TelemetryEvent).decode

    async def handle(message: Any, meter: Meter) -> None:
        decode(message.data)
        meter.add()

    await subscribe(url, events, handle)


async def typed_pub(url: str, events: int) -> None:
    encode, state = msgspec.json.Encoder().encode, sample()

    async def send(connection: Any) -> None:
        await connection.publish(SUBJECT, encode(TelemetryEvent(state)))

    await publish(url, events, send)


# --- The full chain ---


class Telemetry(msgspec.Struct, frozen=True):
    """The data of an event."""

    system_state: SystemState


class Envelope(msgspec.Struct, frozen=True, tag_field="type", tag="polaris.telemetry"):
    """A CloudEvent of telemetry."""

    id: str
    source: str
    time: datetime
    data: Telemetry
    subject: str | UnsetType = UNSET
    correlationid: str | UnsetType = UNSET
    traceparent: str | UnsetType = UNSET
    specversion: str = "1.0"
    dataschema: str = "urn:polaris:schema:polaris.telemetry:1"
    datacontenttype: str = "application/json"


class HandChain:
    """What goes round every publish and every delivery."""

    BOUNDS = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0)

    def __init__(self) -> None:
        self.counts: dict[tuple[str, str, str], int] = defaultdict(int)
        self.buckets = [0] * (len(self.BOUNDS) + 1)
        self.seconds = 0.0
        self.tracer = tracer()
        self.encode = msgspec.json.Encoder().encode
        self.decode = msgspec.json.Decoder(Envelope).decode
        self.decoders = {"polaris.telemetry": msgspec.json.Decoder(TelemetryEvent).decode}

    async def publish_enveloped(self, connection: Any, state: SystemState) -> None:
        """The event with everything in its envelope."""
        correlation_id = _correlation.get() or f"{random.getrandbits(128):032x}"
        made = f"{random.getrandbits(128):032x}"
        envelope = Envelope(made, "polaris", datetime.now(UTC), Telemetry(state), state.system_id, correlation_id)

        async def send(traceparent: str | None) -> None:
            whole = envelope if traceparent is None else msgspec.structs.replace(envelope, traceparent=traceparent)
            await connection.publish(SUBJECT, self.encode(whole))

        await self._publish(send, made)

    async def publish_with_headers(self, connection: Any, state: SystemState) -> None:
        """The plain event with type and ids in headers."""
        correlation_id = _correlation.get() or f"{random.getrandbits(128):032x}"
        event = TelemetryEvent(state)

        async def send(traceparent: str | None) -> None:
            headers = {"type": "polaris.telemetry", "id": event.event_id, "correlation-id": correlation_id}
            if traceparent is not None:
                headers["traceparent"] = traceparent
            await connection.publish(SUBJECT, self.encode(event), headers=headers)

        await self._publish(send, event.event_id)

    async def _publish(self, send: Callable[[str | None], Awaitable[None]], event_id: str) -> None:
        began = time.perf_counter()
        try:
            if random.random() < SAMPLED:
                await self._publish_traced(send)
            else:
                await send(None)
        except Exception:
            self.counts["polaris.telemetry.*", "polaris.telemetry", "publish_failed"] += 1
            _log.warning("not published", extra={"event_id": event_id}, exc_info=True)
            raise
        self.counts["polaris.telemetry.*", "polaris.telemetry", "published"] += 1
        if _log.isEnabledFor(logging.DEBUG):
            _log.debug("published", extra={"event_id": event_id, "seconds": time.perf_counter() - began})

    async def _publish_traced(self, send: Callable[[str | None], Awaitable[None]]) -> None:
        from opentelemetry.trace import SpanKind

        with self.tracer.start_as_current_span("publish polaris.telemetry.*", kind=SpanKind.PRODUCER) as span:
            context = span.get_span_context()
            await send(f"00-{context.trace_id:032x}-{context.span_id:016x}-01")

    async def deliver_enveloped(self, message: Any, handler: Callable[[Any], Awaitable[None]]) -> None:
        try:
            event = self.decode(message.data)
        except msgspec.MsgspecError:
            self.counts["polaris.telemetry.*", "", "undecodable"] += 1
            _log.warning("not a valid event", extra={"subject": message.subject}, exc_info=True)
            return
        await self._deliver(event, event.id, event.correlationid or None, event.traceparent or None, handler)

    async def deliver_with_headers(self, message: Any, handler: Callable[[Any], Awaitable[None]]) -> None:
        headers = message.headers or {}
        try:
            event = self.decoders[headers["type"]](message.data)
        except (msgspec.MsgspecError, KeyError):
            self.counts["polaris.telemetry.*", "", "undecodable"] += 1
            _log.warning("not a valid event", extra={"subject": message.subject}, exc_info=True)
            return
        await self._deliver(
            event, headers.get("id"), headers.get("correlation-id"), headers.get("traceparent"), handler
        )

    async def _deliver(
        self,
        event: Any,
        event_id: str | None,
        correlation_id: str | None,
        traceparent: str | None,
        handler: Callable[[Any], Awaitable[None]],
    ) -> None:
        token = _correlation.set(correlation_id or f"{random.getrandbits(128):032x}")
        began = time.perf_counter()
        try:
            if traceparent is None:
                await handler(event)
            else:
                await self._handle_traced(traceparent, event, handler)
        except Exception:
            self.counts["polaris.telemetry.*", "polaris.telemetry", "failed"] += 1
            _log.warning("not handled", extra={"event_id": event_id}, exc_info=True)
            return
        else:
            spent = time.perf_counter() - began
            self.counts["polaris.telemetry.*", "polaris.telemetry", "processed"] += 1
            self.buckets[bisect.bisect_left(self.BOUNDS, spent)] += 1
            self.seconds += spent
            if _log.isEnabledFor(logging.DEBUG):
                _log.debug("handled", extra={"event_id": event_id, "seconds": spent})
        finally:
            _correlation.reset(token)

    async def _handle_traced(self, traceparent: str, event: Any, handler: Callable[[Any], Awaitable[None]]) -> None:
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        parent = TraceContextTextMapPropagator().extract({"traceparent": traceparent})
        with self.tracer.start_as_current_span("process polaris.telemetry.*", parent, kind=SpanKind.CONSUMER):
            await handler(event)


async def chain_sub(url: str, events: int, *, headers: bool = False, timed: bool = False) -> None:
    chain = HandChain()
    deliver = chain.deliver_with_headers if headers else chain.deliver_enveloped
    meter = Meter(events)

    async def count(event: Any) -> None:
        meter.add()

    async def note_age(event: Any) -> None:
        meter.time(event.time.timestamp())

    handler = note_age if timed else count
    connection = await connect(url)

    async def on_message(message: Any) -> None:
        await deliver(message, handler)

    await connection.subscribe(SUBJECT, cb=on_message, pending_msgs_limit=-1, pending_bytes_limit=-1)
    await connection.flush()
    say(ready=True)
    await meter.report()
    await connection.close()


async def chain_pub(url: str, events: int, *, headers: bool = False, paced: bool = False) -> None:
    chain, state = HandChain(), sample()
    send_one = chain.publish_with_headers if headers else chain.publish_enveloped

    async def send(connection: Any) -> None:
        await send_one(connection, state)

    await publish(url, events, send, paced=paced)


RECEIVERS: dict[str, Role] = {
    "raw": raw_sub,
    "hand": typed_sub,
    "hand-headers": partial(chain_sub, headers=True),
    "hand-chain": chain_sub,
    "raw-paced": partial(raw_sub, timed=True),
    "hand-paced": partial(chain_sub, timed=True),
}
SENDERS: dict[str, Role] = {
    "raw": raw_pub,
    "hand": typed_pub,
    "hand-headers": partial(chain_pub, headers=True),
    "hand-chain": chain_pub,
    "raw-paced": partial(raw_pub, paced=True),
    "hand-paced": partial(chain_pub, paced=True),
}
