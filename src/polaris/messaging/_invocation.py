"""From the bytes of a delivery to the call of its handler, through the chain. Nothing is settled here."""

from __future__ import annotations

import asyncio
import inspect
import itertools
from collections.abc import Sequence
from contextvars import ContextVar
from types import CoroutineType
from typing import Any, TypeGuard

import msgspec

from polaris.exceptions import DeadlineExceededError, MessageBusError
from polaris.messaging._broker import Delivery, DeliveryClass
from polaris.messaging._call_deadline import CallDeadline
from polaris.messaging._chain import MiddlewareChain, NextHandler
from polaris.messaging._cloudevents import EventCodec, Undecodable
from polaris.messaging._content_encoding import DECOMPRESSED_BYTES_MAX, unpacked
from polaris.messaging._context import MessageContext, MessageDirection
from polaris.messaging._event_wire import DecodedEvent
from polaris.messaging._handlers import BoundHandler
from polaris.messaging._settlement import is_being_cancelled
from polaris.messaging._subscription import SubscriptionStats
from polaris.messaging.middleware._compression import CompressionMiddleware
from polaris.messaging.middleware._tracing import TracingMiddleware
from polaris.observability import TraceContext, parse_traceparent

_DELIVER = MessageDirection.DELIVER
_numbers = itertools.count(1)
# That of the running worker: each sets its own when it begins.
_deadline: ContextVar[CallDeadline | None] = ContextVar("polaris_call_deadline", default=None)


class Invoker:
    """Calls one handler, and knows which events it wants."""

    def __init__(
        self,
        handler: BoundHandler,
        chain: MiddlewareChain,
        codec: EventCodec,
        *,
        subscription: str,
        delivery: DeliveryClass,
        timeout_s: float | None,
        stats: SubscriptionStats,
        shared: bool = True,
    ) -> None:
        self.takes_batch = handler.takes_batch
        self._handler = handler
        self.types = handler.types
        self._codec = codec
        self._decode_one = codec.decode
        self._subscription = subscription
        self._delivery = delivery
        self._timeout_s = timeout_s
        self._stats = stats
        # What is stored is handled once by all who share the position; what is pushed, once by each who listens.
        self._receiver = subscription if shared else f"{subscription} {next(_numbers)}"
        self._bytes_max = DECOMPRESSED_BYTES_MAX
        self._traces = False
        for middleware in chain.middlewares:
            if isinstance(middleware, CompressionMiddleware):
                self._bytes_max = middleware.decompressed_bytes_max
            elif isinstance(middleware, TracingMiddleware):
                self._traces = True
        final = self._call_with_batch if handler.takes_batch else _with_event(handler, stats)
        self.run: NextHandler = chain.bind(final)
        """The chain and the handler, for the running task to await; what came of it stands in the context."""

    def decode(self, delivery: Delivery) -> Sequence[DecodedEvent | Undecodable]:
        """The events of a message. Raises `MessageDecodeError` when it is none at all."""
        payload = delivery.payload
        if payload[:1] != b"{":  # not one event as it is
            payload = unpacked(payload, delivery.headers, bytes_max=self._bytes_max)
            if self._codec.is_batch(payload):
                return self._codec.decode_batch(payload, received_at=delivery.stored_at)
        return (self._decode_one(payload, received_at=delivery.stored_at),)

    def split(self, delivery: Delivery) -> Sequence[msgspec.Raw]:
        """The members of a message in the batch format that was decoded, as they came. Raises as `decode`."""
        return self._codec.split(unpacked(delivery.payload, delivery.headers, bytes_max=self._bytes_max))

    def wants_all(self, members: Sequence[DecodedEvent | Undecodable]) -> TypeGuard[Sequence[DecodedEvent]]:
        """Whether there are any, and all of them events of the handler's types. Nothing is counted."""
        types = self.types
        wanted = [isinstance(found, DecodedEvent) and isinstance(found.event, types) for found in members]
        return bool(wanted) and all(wanted)

    def wants(self, found: DecodedEvent) -> bool:
        """Whether the event is of the handler's types; one that is not counts as skipped."""
        if isinstance(found.event, self.types):
            return True
        self._stats.skipped += 1
        return False

    async def call(self, delivery: Delivery, events: Sequence[DecodedEvent], *, attempt: int | None = None) -> Any:
        """Run the chain and the handler with these events, which are one unless it is a batch handler.

        `attempt` is shown to them in place of the delivery's own.

        Returns what the handler returned. Raises what it or a middleware raised, `DeadlineExceededError` when it took
        too long (it has been cancelled then), and `MessageBusError` for a cancellation that was not the caller's.
        """
        context = self.context(delivery, events[0], delivery.attempt if attempt is None else attempt)
        if self.takes_batch:
            context.batch = tuple([found.event for found in events])
            context.links = _links(events)
        deadline = _deadline.get()
        if deadline is not None:
            deadline.begin()
        try:
            await self.run(context)
        except asyncio.CancelledError as error:
            raise self.failure_of(error, deadline) from error
        finally:
            if deadline is not None:
                deadline.end()
        return context.result

    def context(self, delivery: Delivery, found: DecodedEvent, attempt: int) -> MessageContext:
        """What the chain gets with one event."""
        event, headers = found.event, delivery.headers
        return MessageContext(
            delivery.subject,
            event,
            _DELIVER,
            dict(headers) if headers else {},
            event.correlation_id,
            found.event_type,
            None,
            self._subscription,
            attempt,
            delivery.stored_at,
            self._delivery,
            None if found.traceparent is None else parse_traceparent(found.traceparent, found.tracestate),
            receiver=self._receiver,
        )

    def failure_of(self, error: asyncio.CancelledError, deadline: CallDeadline | None) -> Exception:
        """What a call is said to have failed with that ended as cancelled. Raises `error` if the task is meant."""
        if deadline is not None and deadline.end():
            return DeadlineExceededError(self._handler.name, timeout_s=self._timeout_s, cause=error)
        if is_being_cancelled():
            raise error
        # Not ours: something that the handler awaited was cancelled.
        message = "the handler let a cancellation of its own escape"
        return MessageBusError(message, {"subscription": self._subscription}, cause=error)

    def enter(self, *, for_good: bool = False) -> CallDeadline | None:
        """The running task will make calls; returns the deadline for those that it makes by `run`.

        `for_good`: it is a worker, which never does anything else.
        """
        task = asyncio.current_task()
        deadline = None
        if self._timeout_s is not None and task is not None:
            deadline = CallDeadline(task, self._timeout_s)
        _deadline.set(deadline)
        if self._traces and for_good:
            TracingMiddleware.follow()
        return deadline

    def leave(self) -> None:
        """The running task will make no further calls."""
        deadline = _deadline.get()
        if deadline is not None:
            deadline.close()

    async def _call_with_batch(self, context: MessageContext) -> Any:
        handler = self._handler
        events = list(context.events)
        if handler.can_handle is not None:
            events = [event for event in events if handler.can_handle(event)]
            self._stats.skipped += len(context.events) - len(events)
        if not events:
            return None
        result = handler.call(events, context) if handler.takes_context else handler.call(events)
        if inspect.isawaitable(result):
            result = await result
        self._stats.handled += len(events)
        context.result = result
        return result


def _with_event(handler: BoundHandler, stats: SubscriptionStats) -> NextHandler:
    """Calls a handler of single events."""
    call, can_handle, takes_context = handler.call, handler.can_handle, handler.takes_context

    async def run(context: MessageContext) -> Any:
        if can_handle is not None and not can_handle(context.event):
            stats.skipped += 1
            return None
        result = call(context.event, context) if takes_context else call(context.event)
        if type(result) is CoroutineType or inspect.isawaitable(result):
            result = await result
        stats.handled += 1
        context.result = result
        return result

    return run


def _links(events: Sequence[DecodedEvent]) -> tuple[TraceContext, ...]:
    """The recorded traces that the events belong to, each once."""
    headers = {found.traceparent: found.tracestate for found in events if found.traceparent is not None}
    if not headers:
        return ()
    traces = (parse_traceparent(traceparent, tracestate) for traceparent, tracestate in headers.items())
    return tuple(trace for trace in traces if trace is not None and trace.sampled)
