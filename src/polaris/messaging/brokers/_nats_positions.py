"""Consumers as the server has them: made, and made again when it has lost them."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime

from polaris.exceptions import BusConnectionError, MessageBusError, SubscriptionError
from polaris.messaging._broker import ConsumerSpec, Start, StreamSpec
from polaris.messaging.brokers._jetstream_api import JetStreamAPI, Json
from polaris.messaging.brokers._nats_progress import Progress

_log = logging.getLogger(__name__)

DETACHED_MAX = 1_024
"""So many positions that nobody is attached to are remembered, until the server forgets them too."""

_Key = tuple[str, str]


class Positions:
    """The positions that one client has attached to.

    A named one that the server has lost is made again as it was asked for; one that was to begin with what is new
    begins at the time of attaching. One with `inactive_s`, which the server also loses when nobody asks for messages
    for so long, goes on where it was left as long as its stream stands; in another stream of the name it begins as a
    named one does.
    """

    def __init__(self, api: JetStreamAPI) -> None:
        self._api = api
        self._streams: dict[str, StreamSpec] = {}
        self._attached_at: dict[_Key, datetime] = {}
        self._progress: dict[_Key, Progress] = {}
        # When those were left that nobody is attached to, in monotonic seconds.
        self._left_s: dict[_Key, float] = {}

    async def ensure_stream(self, spec: StreamSpec) -> None:
        """Create the stream or bring it up to `spec`, and make it again when it is lost."""
        await self._api.ensure_stream(spec)
        self._streams[spec.name] = spec

    async def attach(self, spec: ConsumerSpec) -> Progress | None:
        """Make the consumer, or take up the one there is. Raises `SubscriptionError` when it cannot be had."""
        key = _key(spec)
        left_s = self._left_s.pop(key, None)
        known = self._progress.get(key)
        try:
            if known is not None and known.ack is spec.ack and not _is_over(spec, left_s):
                return await self._resume(spec, known)
            await self._api.ensure_consumer(spec)
            if known is not None:
                self._forget(key)
            self._attached_at.setdefault(key, datetime.now(UTC))
            return await self._begin(spec)
        except BusConnectionError:
            raise
        except MessageBusError as error:
            raise SubscriptionError(f"no consumer {spec.durable!r}: {error.message}", _context(spec)) from error

    async def restore(self, spec: ConsumerSpec) -> Progress | None:
        """Make again what the server has lost. Raises `SubscriptionError` when that cannot be done."""
        stream = self._streams.get(spec.stream)
        try:
            if stream is not None and not await self._api.has_stream(spec.stream):
                await self._api.ensure_stream(stream)
            known = self._progress.get(_key(spec))
            if known is not None:
                return await self._resume(spec, known)
            await self._api.ensure_consumer(spec, begin=self._first(spec))
        except BusConnectionError:
            raise
        except MessageBusError as error:
            raise SubscriptionError(
                f"consumer {spec.durable!r} is gone and cannot be made again: {error.message}", _context(spec)
            ) from error
        return None

    def leave(self, spec: ConsumerSpec) -> None:
        """Nobody here is attached any more."""
        key = _key(spec)
        if key in self._progress:
            self._left_s[key] = time.monotonic()
            if len(self._left_s) > DETACHED_MAX:
                self._forget(next(iter(self._left_s)))

    def _forget(self, key: _Key) -> None:
        self._left_s.pop(key, None)
        self._progress.pop(key, None)
        self._attached_at.pop(key, None)

    async def _resume(self, spec: ConsumerSpec, known: Progress) -> Progress | None:
        stream = await self._stream(spec)
        if stream["created"] != known.stream_created:
            await self._api.ensure_consumer(spec, begin=self._first(spec))
            return await self._begin(spec)
        sequence = known.resume(stream["state"]["last_seq"])
        if await self._api.ensure_consumer(spec, begin=Start.at_sequence(sequence)):
            known.resumed()
            _log.warning(
                "the server has forgotten consumer %s of %s, as nothing was fetched for %g s or more; it goes on at %d",
                spec.durable,
                spec.stream,
                spec.inactive_s,
                sequence,
            )
        return known

    async def _begin(self, spec: ConsumerSpec) -> Progress | None:
        """The books of a position as it stands now; None for one that the server keeps."""
        if spec.inactive_s is None:
            return None
        stream, consumer = await self._stream(spec), await self._api.consumer_info(spec) or {}
        floor = consumer.get("ack_floor", {})
        progress = self._progress[_key(spec)] = Progress(
            spec.ack,
            stream_created=stream["created"],
            floor=floor.get("stream_seq", 0),
            number=floor.get("consumer_seq", 0),
        )
        return progress

    async def _stream(self, spec: ConsumerSpec) -> Json:
        found = await self._api.stream_info(spec.stream)
        if found is None:
            raise MessageBusError(f"there is no stream {spec.stream!r}", {"stream": spec.stream})
        return found

    def _first(self, spec: ConsumerSpec) -> Start | None:
        attached_at = self._attached_at.get(_key(spec)) if spec.start.new else None
        return None if attached_at is None else Start.at_time(attached_at)


def _key(spec: ConsumerSpec) -> _Key:
    return spec.stream, spec.durable


def _is_over(spec: ConsumerSpec, left_s: float | None) -> bool:
    """Whether the position was left so long ago that nobody may expect it to be there."""
    return left_s is not None and time.monotonic() - left_s > (spec.inactive_s or 0.0)


def _context(spec: ConsumerSpec) -> dict[str, object]:
    return {"stream": spec.stream, "durable": spec.durable}
