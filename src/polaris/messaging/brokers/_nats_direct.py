"""Stored messages, read many at a time: direct gets in batches where a stream allows them, else one by one.

Source: ADR-31 (JetStream direct get), batches since nats-server 2.11.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

import msgspec

from polaris.exceptions import BusConnectionError
from polaris.messaging._broker import StoredMessage
from polaris.messaging.brokers._jetstream_api import PREFIX, JetStreamAPI
from polaris.messaging.brokers._nats_protocol import STATUS, decode_headers
from polaris.messaging.brokers._nats_replies import NoReply, Reply, Take

BATCH_MESSAGES = 256
BATCH_BYTES = 4 << 20
"""After which the server ends a batch; one message it gives in any case."""
SILENCE_S = 2.0
_OWN = b"\r\nNats-Stream: "
"""The server's own headers begin so, behind those of the message; a batch also says what is pending."""
_PENDING = b"\r\nNats-Num-Pending: "
_END_OF_BATCH, _NO_MESSAGE = "204", "404"


class Gatherer(Protocol):
    """What the reader needs of its connection."""

    async def gather(self, subject: str, payload: bytes, take: Take, *, silence_s: float) -> NoReply | None: ...


class _Batch(NamedTuple):
    """What an answer brought; `done` if the one who answered has no more, None if it is not to be had that way."""

    messages: list[StoredMessage]
    done: bool | None


class StoredReader:
    """Reads a stream from a sequence on.

    A direct get is answered by any replica, which may lag behind the leader by a moment. So wherever a replica says
    that there is no more, the leader is asked for one more message: what was stored before the call is always found.
    What was erased a moment ago may still be among the messages; a single message is asked of the leader, and exact.

    Where batches are not to be had (a stream that does not allow them, a server before 2.11, a user who may not ask, a
    replica that does not answer), every message is asked of the leader.
    """

    def __init__(self, connection: Gatherer, api: JetStreamAPI) -> None:
        self._connection = connection
        self._api = api
        self._forbidden = False

    async def read(self, stream: str, from_sequence: int, count_max: int) -> Sequence[StoredMessage]:
        """At most `count_max` messages, in order. Raises as `MessageBroker.read_stored` does."""
        found: list[StoredMessage] = []
        sequence = max(1, from_sequence)
        direct = count_max > 1 and not self._forbidden
        while len(found) < count_max:
            if direct:
                messages, done = await self._batch(stream, sequence, count_max - len(found))
                found += messages
                sequence = found[-1].sequence + 1 if found else sequence
                direct = done is not None
                if len(found) >= count_max or done is False:
                    continue
            message = await self._of_leader(stream, sequence)
            if message is None:
                break
            found.append(message)
            sequence = message.sequence + 1
        return found

    async def _of_leader(self, stream: str, sequence: int) -> StoredMessage | None:
        raw = await self._api.next_message(stream, sequence)
        if raw is None:
            return None
        return StoredMessage(
            sequence=raw["seq"],
            subject=raw["subject"],
            payload=base64.b64decode(raw.get("data", "")),
            headers=decode_headers(base64.b64decode(raw.get("hdrs", ""))),
            stored_at=_utc(raw["time"]),
        )

    async def _batch(self, stream: str, sequence: int, count_max: int) -> _Batch:
        # A server that knows no batches answers with the next message by subject, as it would with a single get.
        question = {
            "seq": sequence,
            "next_by_subj": ">",
            "batch": min(count_max, BATCH_MESSAGES),
            "max_bytes": BATCH_BYTES,
        }
        replies: list[Reply] = []

        def take(reply: Reply) -> bool:
            replies.append(reply)
            own = -1 if reply.headers is None else reply.headers.rfind(_OWN)
            return own < 0 or reply.headers is None or reply.headers.find(_PENDING, own) < 0

        subject = f"{PREFIX}.DIRECT.GET.{stream}"
        failure = await self._connection.gather(subject, msgspec.json.encode(question), take, silence_s=SILENCE_S)
        if failure is NoReply.LOST:
            raise BusConnectionError(f"no answer to {subject}: {failure.value}", {"stream": stream})
        self._forbidden = self._forbidden or failure is NoReply.FORBIDDEN
        messages: list[StoredMessage] = []
        for reply in replies:
            message = _message(reply)
            if message is None:
                break
            if message.sequence < sequence:
                return _Batch(messages, None)
            messages.append(message)
            sequence = message.sequence + 1
        if failure is not None:
            return _Batch(messages, None)
        last = decode_headers(replies[-1].headers)
        if len(messages) == len(replies):
            return _Batch(messages, False)
        if last.get(STATUS) == _END_OF_BATCH:
            return _Batch(messages, last.get("Nats-Num-Pending", "0") == "0" or not messages)
        return _Batch(messages, True if last.get(STATUS) == _NO_MESSAGE else None)


def _message(reply: Reply) -> StoredMessage | None:
    """The message in an answer; None when it is not one, or was stored with headers that hide those of the server."""
    block = reply.headers or b""
    own = block.rfind(_OWN)
    if own < 0:
        return None
    facts = decode_headers(b"NATS/1.0" + block[own:])
    try:
        return StoredMessage(
            sequence=int(facts["Nats-Sequence"]),
            subject=facts["Nats-Subject"],
            payload=reply.payload,
            headers=decode_headers(block[:own]),
            stored_at=_utc(facts["Nats-Time-Stamp"]),
        )
    except (KeyError, ValueError):
        return None


def _utc(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)
