"""Messages put aside: how they get into the dead-letter stream, and how an operator gets them out again."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from datetime import datetime
from typing import NamedTuple

from polaris.clock import SYSTEM_CLOCK, Clock
from polaris.exceptions import (
    MessageBusError,
    MessageDecodeError,
    PayloadTooLargeError,
    PolarisException,
    UnknownEventTypeError,
)
from polaris.messaging._broker import (
    Delivery,
    DeliveryClass,
    MessageBroker,
    OutgoingMessage,
    Receipt,
    StoredMessage,
    StreamSpec,
)
from polaris.messaging._cloudevents import EventCodec
from polaris.messaging._dead_letter_entry import DeadLetter, DeadLetterReason
from polaris.messaging._streams import DEAD_LETTER_STREAM
from polaris.messaging._subjects import DEAD_LETTER_PREFIX, dead_letter_topic

BODY_TOPIC = DEAD_LETTER_PREFIX + "body"
STORE_TIMEOUT_S = 5.0
PAGE_MESSAGES = 100
_HEADER_CHARS_MAX = 4_096
_ERROR_CHARS_MAX = 1_024


class Failure(NamedTuple):
    """Why a delivery is put aside."""

    reason: DeadLetterReason
    error: BaseException
    repeats: int = 0
    """How often it was tried again without another delivery."""

    @classmethod
    def of_decoding(cls, error: MessageDecodeError) -> Failure:
        unknown = isinstance(error, UnknownEventTypeError)
        return cls(DeadLetterReason.UNKNOWN_TYPE if unknown else DeadLetterReason.UNDECODABLE, error)


class DeadLetterWriter:
    """Stores what could not be handled. The caller settles the original only after `store` returned."""

    def __init__(self, broker: MessageBroker, codec: EventCodec, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._broker = broker
        self._codec = codec
        self._clock = clock

    async def store(
        self,
        delivery: Delivery,
        failure: Failure,
        *,
        subscription: str,
        stream: str | None = None,
        payload: bytes | None = None,
        part: str = "",
    ) -> Receipt:
        """Put one delivery aside, or with `payload` one member of it, told apart by `part`.

        The id of the entry follows from stream, sequence and subscription, so storing it again after a crash stores
        nothing twice. Raises the errors of `MessageBroker.publish`.
        """
        entry = self._entry(delivery, failure, subscription, stream, delivery.payload if payload is None else payload)
        message_id = self._identity(delivery, subscription, stream, part) or entry.event_id
        topic = dead_letter_topic(delivery.subject)
        message = OutgoingMessage(topic, self._codec.encode(entry), message_id)
        try:
            if len(message.payload) > self._broker.capabilities.payload_bytes_max - 512:
                return await self._store_apart(entry, topic, message_id)
            return await self._broker.publish(message, delivery=DeliveryClass.AT_LEAST_ONCE, timeout_s=STORE_TIMEOUT_S)
        except PayloadTooLargeError:
            return await self._store_apart(entry, topic, message_id)

    async def _store_apart(self, entry: DeadLetter, topic: str, message_id: str) -> Receipt:
        """The bytes as a message of their own, for what base64 would push over the broker's limit."""
        body = await self._broker.publish(
            OutgoingMessage(BODY_TOPIC, entry.payload, f"{message_id}.body"),
            delivery=DeliveryClass.AT_LEAST_ONCE,
            timeout_s=STORE_TIMEOUT_S,
        )
        slim = _replace(entry, payload=b"", payload_sequence=body.sequence)
        message = OutgoingMessage(topic, self._codec.encode(slim), message_id)
        return await self._broker.publish(message, delivery=DeliveryClass.AT_LEAST_ONCE, timeout_s=STORE_TIMEOUT_S)

    def _entry(
        self, delivery: Delivery, failure: Failure, subscription: str, stream: str | None, payload: bytes
    ) -> DeadLetter:
        now = self._clock.now()
        error = failure.error
        code = error.code if isinstance(error, PolarisException) else type(error).__name__
        text = error if isinstance(error, PolarisException) else PolarisException(f"{type(error).__name__}: {error}")
        return DeadLetter(
            topic=delivery.subject,
            subscription=subscription,
            reason=failure.reason,
            error_code=code,
            error_message=str(text)[:_ERROR_CHARS_MAX],
            attempts=delivery.attempt + failure.repeats,
            first_at=delivery.stored_at or now,
            failed_at=now,
            payload=payload,
            payload_bytes=len(payload),
            headers={name: value[:_HEADER_CHARS_MAX] for name, value in list(delivery.headers.items())[:64]},
            stream=stream,
            sequence=delivery.sequence,
            timestamp=now,
        )

    @staticmethod
    def _identity(delivery: Delivery, subscription: str, stream: str | None, part: str) -> str | None:
        if stream is None or delivery.sequence is None:
            return None
        stored = delivery.stored_at.isoformat() if delivery.stored_at is not None else ""
        text = f"{stream}\0{delivery.sequence}\0{stored}\0{subscription}\0{part}"
        return f"dead-letter-{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def _replace(entry: DeadLetter, *, payload: bytes, payload_sequence: int | None) -> DeadLetter:
    fields = {name: getattr(entry, name) for name in entry.__struct_fields__}
    return DeadLetter(**{**fields, "payload": payload, "payload_sequence": payload_sequence})


class DeadLetterRecord(NamedTuple):
    """An entry and its place in the dead-letter stream, by which it is shown, replayed and dropped."""

    sequence: int
    stored_at: datetime
    entry: DeadLetter


class DeadLetters:
    """The dead letters of a broker: list, show, replay, drop.

    Entries are named by their sequence in the dead-letter stream. Needs a connected broker and leaves it connected.
    """

    def __init__(
        self, broker: MessageBroker, *, codec: EventCodec | None = None, stream: StreamSpec = DEAD_LETTER_STREAM
    ) -> None:
        self._broker = broker
        self._codec = codec or EventCodec()
        self._stream = stream.name

    async def list(self, *, from_sequence: int = 1, count_max: int = PAGE_MESSAGES) -> list[DeadLetterRecord]:
        """At most `count_max` entries in the order of failing, from `from_sequence` on; bytes kept apart stay apart."""
        found: list[DeadLetterRecord] = []
        if count_max < 1:
            return found
        async for record in self._records(from_sequence):
            found.append(record)
            if len(found) >= count_max:
                break
        return found

    async def show(self, sequence: int) -> DeadLetterRecord:
        """One entry with its original bytes. Raises `MessageBusError` when there is none at `sequence`."""
        stored = await self._read(sequence)
        record = None if stored is None else self._record(stored)
        if record is None:
            raise MessageBusError(f"there is no dead letter at {sequence}", {"sequence": sequence})
        apart = record.entry.payload_sequence
        if apart is None:
            return record
        body = await self._read(apart)
        if body is None:
            raise MessageBusError(
                f"the bytes of dead letter {sequence} are gone from the stream", {"sequence": sequence, "body": apart}
            )
        entry = _replace(record.entry, payload=body.payload, payload_sequence=apart)
        return record._replace(entry=entry)

    async def replay(self, sequence: int, *, keep: bool = False) -> Receipt:
        """Publish the original bytes and headers on the original topic once more, then drop the entry unless `keep`.

        All subscribers of the topic see it again; those who handled it know it by its event id. Replaying the same
        entry twice within the deduplication window stores it once. Raises as `publish` does; the entry then stays.
        """
        record = await self.show(sequence)
        entry = record.entry
        headers = {name: value for name, value in entry.headers.items() if not name.lower().startswith("nats-")}
        message = OutgoingMessage(entry.topic, entry.payload, f"replay-{entry.event_id}", headers or None)
        delivery = DeliveryClass.AT_MOST_ONCE if entry.stream is None else DeliveryClass.AT_LEAST_ONCE
        receipt = await self._broker.publish(message, delivery=delivery, timeout_s=STORE_TIMEOUT_S)
        if not keep:
            await self.drop(sequence)
        return receipt

    async def drop(self, sequence: int) -> bool:
        """Erase one entry and the bytes kept apart for it; False when there was none."""
        stored = await self._read(sequence)
        record = None if stored is None else self._record(stored)
        if record is None:
            return False
        if record.entry.payload_sequence is not None:
            await self._broker.erase_stored(self._stream, record.entry.payload_sequence)
        return await self._broker.erase_stored(self._stream, sequence)

    async def count(self) -> int:
        """How many entries there are; reads them all."""
        return sum([1 async for _ in self._records(1)])

    async def _records(self, from_sequence: int) -> AsyncIterator[DeadLetterRecord]:
        while True:
            page = await self._broker.read_stored(self._stream, from_sequence=from_sequence, count_max=PAGE_MESSAGES)
            for stored in page:
                record = self._record(stored)
                if record is not None:
                    yield record
            if not page:
                return
            from_sequence = page[-1].sequence + 1

    async def _read(self, sequence: int) -> StoredMessage | None:
        page = await self._broker.read_stored(self._stream, from_sequence=sequence, count_max=1)
        return page[0] if page and page[0].sequence == sequence else None

    def _record(self, stored: StoredMessage) -> DeadLetterRecord | None:
        """The entry of a stored message; None for bytes kept apart and for what somebody else put there."""
        if stored.subject == BODY_TOPIC:
            return None
        try:
            event = self._codec.decode(stored.payload).event
        except MessageDecodeError:
            return None
        return DeadLetterRecord(stored.sequence, stored.stored_at, event) if isinstance(event, DeadLetter) else None
