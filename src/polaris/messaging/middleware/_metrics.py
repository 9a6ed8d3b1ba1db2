"""Counts messages and times their handling."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Awaitable
from time import perf_counter
from typing import TYPE_CHECKING, Any, ClassVar

from polaris.messaging._broker import Receipt
from polaris.messaging._chain import BoundMiddleware, NextHandler, Send
from polaris.messaging._context import MessageContext, MessageDirection
from polaris.messaging._subjects import topic_pattern

if TYPE_CHECKING:
    from polaris.observability import MetricsCollector
    from polaris.observability._series import SlotCounter, SlotHistogram

SERIES_KEPT_MAX = 4_096
"""For each direction."""
_PUBLISH = MessageDirection.PUBLISH


class _Series:
    """The bound series of one direction, topic pattern and event type."""

    __slots__ = ("done", "failed", "seconds")

    def __init__(self, collector: MetricsCollector, direction: MessageDirection, topic: str, event_type: str) -> None:
        publishing = direction is MessageDirection.PUBLISH
        self.done: SlotCounter = collector.message_counter(
            topic, "published" if publishing else "processed", event_type
        )
        self.failed: SlotCounter = collector.message_counter(
            topic, "publish_failed" if publishing else "failed", event_type
        )
        self.seconds: SlotHistogram | None = None if publishing else collector.message_timer(topic, event_type)


class MetricsMiddleware(BoundMiddleware):
    """`polaris_messages_total` by topic pattern, status and event type, and the time of handling.

    `status` is published, publish_failed, processed or failed; every event of a batch counts. A collector of its own is
    made when none is given.
    """

    order: ClassVar[int | None] = 30
    order_reason: ClassVar[str] = "it counts what became of the message after everything inside it"

    def __init__(self, collector: MetricsCollector | None = None) -> None:
        if collector is None:
            from polaris.observability import MetricsCollector

            collector = MetricsCollector()
        self.collector = collector
        self._published: dict[tuple[str, str], _Series] = {}
        self._delivered: dict[tuple[str, str], _Series] = {}

    def around(self, next_handler: NextHandler) -> NextHandler:
        published, delivered, bind = self._published, self._delivered, self._bind

        async def run(context: MessageContext) -> Any:
            known = published if context.direction is _PUBLISH else delivered
            series = known.get((topic_pattern(context.topic), context.event_type)) or bind(known, context)
            batch, seconds = context.batch, series.seconds
            count = 1 if batch is None else len(batch)
            began_s = 0.0 if seconds is None else perf_counter()
            try:
                result = await next_handler(context)
            except BaseException:  # boundary: whatever it was, the message failed
                series.failed.inc(count)
                raise
            # As `inc`, which looks whether it is a number at all.
            series.done.value += count
            if seconds is not None and context.trace is None:
                # As `observe`, in the same way.
                spent_s = perf_counter() - began_s
                seconds.counts[bisect_left(seconds.bounds, spent_s)] += 1
                seconds.sum += spent_s
            elif seconds is not None:
                seconds.observe(perf_counter() - began_s, context.trace)
            return result

        return run

    def outward(self, send: Send) -> Send:
        published, bind = self._published, self._bind

        async def finish(series: _Series, rest: Awaitable[Any]) -> Any:
            try:
                result = await rest
            except BaseException:  # boundary: whatever it was, the message failed
                series.failed.inc()
                raise
            series.done.value += 1
            return result

        def run(context: MessageContext) -> Receipt | Awaitable[Any]:
            series = published.get((topic_pattern(context.topic), context.event_type)) or bind(published, context)
            try:
                sent = send(context)
            except BaseException:  # boundary: whatever it was, the message failed
                series.failed.inc()
                raise
            if not isinstance(sent, Receipt):
                return finish(series, sent)
            series.done.value += 1
            return sent

        return run

    def _bind(self, known: dict[tuple[str, str], _Series], context: MessageContext) -> _Series:
        key = topic_pattern(context.topic), context.event_type
        if len(known) >= SERIES_KEPT_MAX:
            known.clear()
        series = known[key] = _Series(self.collector, context.direction, *key)
        return series
