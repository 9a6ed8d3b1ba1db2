"""Durable pull consumers on NATS: they notice when the server has forgotten them, and come back by themselves."""

from __future__ import annotations

import asyncio
import enum
import json
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Protocol

from nats.aio.subscription import Subscription

from polaris.exceptions import BusConnectionError, InvalidValueError, SubscriptionError
from polaris.messaging._broker import AckPolicy, ConsumerInfo, ConsumerSpec, Delivery
from polaris.messaging.brokers._jetstream_api import PREFIX, JetStreamAPI
from polaris.messaging.brokers._nats_client import HardenedClient
from polaris.messaging.brokers._nats_delivery import ACK_PREFIX, Settler, StoredDelivery
from polaris.messaging.brokers._nats_progress import Progress, TrackedDelivery

_log = logging.getLogger(__name__)

HEARTBEAT_S = 2.0
"""While a fetch waits, the server shows this often that it knows of it; 2.5 times as long a silence: it is lost."""
ANSWER_GRACE_S = 2.0
"""How long after its end a fetch too short for heartbeats waits for the server's last word."""
REPEAT_WAIT_S = 0.05
"""Before a pull that the server could not take is repeated; jittered."""


class _Outcome(enum.Enum):
    """How a pull ended."""

    DONE = "the server has sent what there is"
    CONTENDED = "others wait for the same messages"
    REFUSED = "the server does not take the pull now"
    MISSING = "the server knows nothing of the consumer"
    SILENT = "the server has stopped answering"
    LOST = "the connection is gone"


class _Pull:
    """One request for messages, and what has come of it."""

    __slots__ = ("count", "detail", "ended", "heard_s", "messages", "received", "reply")

    def __init__(self, reply: str, count: int, now_s: float) -> None:
        self.reply = reply
        self.count = count
        self.heard_s = now_s
        self.received = 0
        self.messages: list[StoredDelivery] = []
        self.ended: asyncio.Future[_Outcome] = asyncio.get_running_loop().create_future()
        self.detail = ""

    def end(self, outcome: _Outcome, detail: str = "") -> None:
        if not self.ended.done():
            self.detail = detail
            self.ended.set_result(outcome)


class ConsumerLink(Settler, Protocol):
    """What a consumer needs of its broker."""

    def require_client(self) -> HardenedClient:
        """The connected client, or `BusConnectionError`."""
        ...


class NATSPullConsumer:
    """A durable consumer attached by this process.

    One fetch runs at a time; further ones wait for it within their own `wait_s`. A pull is "one-shot" (`no_wait`
    together with `expires`): the server answers as soon as there is a message, with all there are up to the count, and
    keeps nothing open; so no message sits here unseen while its `ack_wait_s` runs.

    Lost by the server (deleted, forgotten as nothing was fetched for `inactive_s`, or a restart on an empty store), the
    consumer is made again by `restore`. With `progress` it goes on where it was left; see `Positions`.
    """

    def __init__(
        self,
        link: ConsumerLink,
        api: JetStreamAPI,
        spec: ConsumerSpec,
        progress: Progress | None,
        *,
        restore: Callable[[ConsumerSpec], Awaitable[Progress | None]],
        on_close: Callable[[NATSPullConsumer], None],
    ) -> None:
        self.spec = spec
        self._settled = spec.ack is AckPolicy.NONE
        self._link = link
        self._api = api
        self._progress = progress
        self._restore = restore
        self._on_close = on_close
        self._client = link.require_client()
        self._subject = f"{PREFIX}.CONSUMER.MSG.NEXT.{spec.stream}.{spec.durable}"
        self._prefix = f"{self._client.new_inbox()}."
        self._subscription: Subscription | None = None
        self._turn = asyncio.Lock()
        self._pulls = 0
        self._pull: _Pull | None = None
        # What came for a fetch that was cancelled, with the time of arrival: the next fetch takes it first.
        self._left: deque[tuple[float, StoredDelivery]] = deque()
        self._closed = False

    @property
    def resumptions(self) -> int:
        """How often the server had forgotten the position and it was made anew where it was left."""
        return 0 if self._progress is None else self._progress.resumptions

    async def open(self) -> None:
        """Listen for messages; of effect after the next flush."""
        self._subscription = await self._client.listen(f"{self._prefix}*", self._receive)

    async def fetch(self, count_max: int, *, wait_s: float) -> Sequence[Delivery]:
        """See `PullConsumer.fetch`. Raises `SubscriptionError` when closed, or when it cannot be had again."""
        if count_max < 1:
            raise InvalidValueError("count_max", "a number from 1", count_max)
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + wait_s
        try:
            async with asyncio.timeout_at(deadline_s if self._turn.locked() else None):
                await self._turn.acquire()
        except TimeoutError:
            return []
        try:
            return await self._fetch(count_max, deadline_s)
        finally:
            self._turn.release()

    async def info(self) -> ConsumerInfo:
        self._require_open()
        found = await self._api.consumer_info(self.spec)
        if found is None and self._progress is not None:
            self._progress = await self._restore(self.spec)
            found = await self._api.consumer_info(self.spec)
        if found is None:
            raise SubscriptionError(f"consumer {self.spec.durable!r} is not there", {"stream": self.spec.stream})
        ack_floor = found.get("ack_floor", {}).get("stream_seq", 0)
        if self._progress is not None:
            self._progress.note_floor(ack_floor)
        return ConsumerInfo(
            pending=found.get("num_pending", 0),
            ack_pending=found.get("num_ack_pending", 0),
            redelivered=found.get("num_redelivered", 0),
            ack_floor=ack_floor,
            delivered=found.get("delivered", {}).get("stream_seq", 0),
        )

    async def close(self) -> None:
        """Detach; a waiting fetch ends with `SubscriptionError`. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._on_close(self)
        self.connection_lost()
        if self._subscription is not None:
            self._client.mute(self._subscription)
            self._client.forget(self._subscription)
        # After the server was told that nobody listens here: it might send them here again otherwise.
        left, self._left = self._left, deque()
        if left and self._settled:
            _log.warning("consumer %s of %s: %d messages are lost", self.spec.durable, self.spec.stream, len(left))
        for _, delivery in left:
            with suppress(BusConnectionError):
                await delivery.nak(delay_s=0.0)

    def connection_lost(self) -> None:
        """End the fetch that waits: the server has forgotten it."""
        if self._pull is not None:
            self._pull.end(_Outcome.LOST)

    async def _fetch(self, count_max: int, deadline_s: float) -> Sequence[Delivery]:
        self._require_open()
        if self._link.require_client() is not self._client:
            raise SubscriptionError("the consumer is of a former connection", {"durable": self.spec.durable})
        left = self._take_left(count_max)
        if left:
            return left
        loop = asyncio.get_running_loop()
        contended = False
        while (remaining_s := deadline_s - loop.time()) > 0:
            # A plain pull for one message waits its turn behind those of others.
            pull, outcome = await self._ask(1 if contended else count_max, remaining_s, one_shot=not contended)
            await self._settle_repeated()
            if pull.messages:
                return pull.messages
            contended = outcome is _Outcome.CONTENDED
            await self._recover(outcome, pull.detail)
        return []

    async def _recover(self, outcome: _Outcome, detail: str) -> None:
        """Do what a pull without messages calls for before the next one."""
        self._require_open()
        if outcome is _Outcome.LOST:
            raise BusConnectionError("the connection was lost while waiting for messages", {"stream": self.spec.stream})
        if outcome in (_Outcome.MISSING, _Outcome.SILENT):
            _log.debug("consumer %s of %s: %s", self.spec.durable, self.spec.stream, outcome.value)
            self._progress = await self._restore(self.spec)
        if outcome is _Outcome.REFUSED:
            _log.debug("consumer %s of %s: the pull was refused: %s", self.spec.durable, self.spec.stream, detail)
        if outcome in (_Outcome.MISSING, _Outcome.REFUSED):
            await asyncio.sleep(REPEAT_WAIT_S * random.uniform(0.5, 1.5))  # noqa: S311

    async def _settle_repeated(self) -> None:
        """Settle what has come once more although it was settled: a position that was made anew does not know it."""
        while self._progress is not None and self._progress.repeated:
            try:
                await self._progress.repeated[-1].ack()
            except BusConnectionError:
                return
            self._progress.repeated.pop()

    async def _ask(self, count: int, wait_s: float, *, one_shot: bool) -> tuple[_Pull, _Outcome]:
        loop = asyncio.get_running_loop()
        client = self._link.require_client()
        self._pulls += 1
        pull = _Pull(f"{self._prefix}{self._pulls:x}", count, loop.time())
        request: dict[str, object] = {"batch": count, "expires": max(1_000_000, int(wait_s * 1e9))}
        if one_shot:
            request["no_wait"] = True
        silence_s = wait_s + ANSWER_GRACE_S
        if wait_s >= 2 * HEARTBEAT_S:
            request["idle_heartbeat"] = int(HEARTBEAT_S * 1e9)
            silence_s = 2.5 * HEARTBEAT_S
        self._pull = pull
        watch = loop.call_later(silence_s, self._watch, pull, silence_s)
        try:
            client.send(self._subject, pull.reply, None, json.dumps(request).encode())
            return pull, await pull.ended
        except asyncio.CancelledError:
            self._left.extend((loop.time(), delivery) for delivery in pull.messages)
            raise
        finally:
            watch.cancel()
            pull.end(_Outcome.DONE)
            self._pull = None

    def _watch(self, pull: _Pull, silence_s: float, *, again: bool = False) -> None:
        """Called when the server should have been heard of; once more when this process may have been the slow one."""
        loop = asyncio.get_running_loop()
        quiet_s = loop.time() - pull.heard_s
        if pull.ended.done():
            return
        if quiet_s < silence_s:
            loop.call_later(silence_s - quiet_s, self._watch, pull, silence_s)
        elif not again:
            # What waits in the socket is read before this comes round again.
            loop.call_later(0.1, lambda: self._watch(pull, silence_s, again=True))
        else:
            pull.end(_Outcome.SILENT)

    def _receive(self, subject: str, reply: str, payload: bytes, headers: bytes | None) -> None:
        pull = self._pull
        now_s = asyncio.get_running_loop().time()
        if reply.startswith(ACK_PREFIX):
            delivery = self._delivery(subject, reply, payload, headers)
            if pull is None or pull.ended.done():
                if delivery is not None:
                    self._left.append((now_s, delivery))
                return
            pull.heard_s = now_s
            pull.received += 1
            if delivery is not None:
                pull.messages.append(delivery)
            if pull.received >= pull.count:
                pull.end(_Outcome.DONE)
        elif pull is not None and subject == pull.reply and headers is not None:
            pull.heard_s = now_s
            outcome, detail = _outcome_of(headers)
            if outcome is not None:
                pull.end(outcome, detail)
            elif pull.received:
                # It has no more for now, and could not say so: others have as many in hand as may be.
                pull.end(_Outcome.DONE)

    def _delivery(self, subject: str, reply: str, payload: bytes, headers: bytes | None) -> StoredDelivery | None:
        """What has come, unless it is here already or was settled."""
        progress = self._progress
        if progress is None:
            return StoredDelivery(self._link, subject, reply, payload, headers, self._settled)
        delivery = TrackedDelivery(self._link, subject, reply, payload, headers, self._settled)
        delivery.progress = progress
        return delivery if progress.enter(delivery) else None

    def _take_left(self, count_max: int) -> list[StoredDelivery]:
        """What came too late for its fetch and is still ours: later the server gives it to somebody anyway.

        With `AckPolicy.NONE` it does not, and everything stays ours.
        """
        fresh_s = asyncio.get_running_loop().time() - self.spec.ack_wait_s / 2
        taken: list[StoredDelivery] = []
        while self._left and len(taken) < count_max:
            arrived_s, delivery = self._left.popleft()
            if self._settled or arrived_s >= fresh_s:
                taken.append(delivery)
            elif isinstance(delivery, TrackedDelivery):
                delivery.progress.let_go(delivery)
        return taken

    def _require_open(self) -> None:
        if self._closed:
            raise SubscriptionError("the consumer is closed", {"durable": self.spec.durable})


def _outcome_of(headers: bytes) -> tuple[_Outcome | None, str]:
    """What a status message says of the pull: None when it only shows that the server is there (ADR-13, ADR-37)."""
    status, _, description = headers.partition(b"\r\n")[0][8:].strip().partition(b" ")
    detail = description.decode("utf-8", "backslashreplace")
    match status:
        case b"100":
            return None, detail
        case b"404":
            return _Outcome.DONE, detail
        case b"408":
            return (_Outcome.CONTENDED if "Requests Pending" in detail else _Outcome.DONE), detail
        case b"503":
            return _Outcome.MISSING, detail
        case b"409" if "Deleted" in detail:
            return _Outcome.MISSING, detail
        case _:
            return _Outcome.REFUSED, detail
