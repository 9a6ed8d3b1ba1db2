"""Messages put aside: how they get into the dead-letter stream, and how an operator gets them out again."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from polaris.clock import SYSTEM_CLOCK, Clock
from polaris.exceptions import (
    MessageBusError,
    MessageDecodeError,
    PayloadTooLargeError,
    PolarisException,
    UnknownEventTypeError,
)
from polaris.messaging._broker import (
    DeliveryClass,
    MessageBroker,
    OutgoingMessage,
    Receipt,
    StoredMessage,
    StreamSpec,
)
from polaris.messaging._cloudevents import EventCodec
from polaris.messaging._content_encoding import CONTENT_ENCODING_HEADER
from polaris.messaging._dead_letter_entry import DeadLetter, DeadLetterFilter, DeadLetterReason
from polaris.messaging._stored_log import PAGE_MESSAGES, StoredLog
from polaris.messaging._streams import DEAD_LETTER_STREAM
from polaris.messaging._subjects import DEAD_LETTER_PREFIX, dead_letter_topic
from polaris.messaging._survey import SurveyedBroker
from polaris.messaging._wire_format import CONTENT_TYPE, CONTENT_TYPE_HEADER, MSGPACK_CONTENT_TYPE, is_msgpack

BODY_TOPIC = DEAD_LETTER_PREFIX + "body"
STORE_TIMEOUT_S = 5.0
_HEADER_CHARS_MAX = 4_096
_ERROR_CHARS_MAX = 1_024
_LONG_NAME_CHARS = 64
_LONG_VALUE_CHARS = 32


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


class Original(Protocol):
    """What is kept of a message; every `Delivery` has it."""

    @property
    def subject(self) -> str: ...

    @property
    def payload(self) -> bytes: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    @property
    def attempt(self) -> int: ...

    @property
    def sequence(self) -> int | None: ...

    @property
    def stored_at(self) -> datetime | None: ...


class DeadLetterWriter:
    """Stores what could not be handled. The caller settles the original only after `store` returned."""

    def __init__(self, broker: MessageBroker, codec: EventCodec, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._broker = broker
        self._codec = codec
        self._clock = clock

    async def store(
        self,
        delivery: Original,
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
        encoded = self._codec.encode(entry)
        try:
            if len(encoded) > self._broker.capabilities.payload_bytes_max - 512:
                return await self._store_apart(entry, topic, message_id)
            return await self._publish(topic, encoded, message_id)
        except PayloadTooLargeError:
            return await self._store_apart(entry, topic, message_id)

    async def _store_apart(self, entry: DeadLetter, topic: str, message_id: str) -> Receipt:
        """The bytes as a message of their own, for what base64 would push over the broker's limit."""
        body, identified = await self._store_body(entry.payload, f"{message_id}.body")
        slim = _replace(entry, payload=b"", payload_sequence=body.sequence)
        try:
            receipt = await self._publish(topic, self._codec.encode(slim), message_id)
        except PayloadTooLargeError:
            # Only headers can be that long.
            short = {name[:_LONG_NAME_CHARS]: value[:_LONG_VALUE_CHARS] for name, value in slim.headers.items()}
            slim = _replace(slim, payload=b"", payload_sequence=body.sequence, headers=short)
            receipt = await self._publish(topic, self._codec.encode(slim), message_id)
        if receipt.duplicate and not identified and body.sequence is not None:
            # The entry was stored before, with bytes of its own: nobody refers to these.
            await self._broker.erase_stored(receipt.stream or "", body.sequence)
        return receipt

    async def _store_body(self, payload: bytes, message_id: str) -> tuple[Receipt, bool]:
        """Store nothing but the bytes; whether with an id, for which the largest of messages leave no room."""
        try:
            return await self._publish(BODY_TOPIC, payload, message_id), True
        except PayloadTooLargeError:
            return await self._publish(BODY_TOPIC, payload, None), False

    async def _publish(self, topic: str, payload: bytes, message_id: str | None) -> Receipt:
        message = OutgoingMessage(topic, payload, message_id)
        return await self._broker.publish(message, delivery=DeliveryClass.AT_LEAST_ONCE, timeout_s=STORE_TIMEOUT_S)

    def _entry(
        self, delivery: Original, failure: Failure, subscription: str, stream: str | None, payload: bytes
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
            headers=_headers(delivery, payload),
            stream=stream,
            sequence=delivery.sequence,
            timestamp=now,
        )

    @staticmethod
    def _identity(delivery: Original, subscription: str, stream: str | None, part: str) -> str | None:
        if stream is None or delivery.sequence is None:
            return None
        stored = delivery.stored_at.isoformat() if delivery.stored_at is not None else ""
        text = f"{stream}\0{delivery.sequence}\0{stored}\0{subscription}\0{part}"
        return f"dead-letter-{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def _headers(delivery: Original, payload: bytes) -> dict[str, str]:
    """What is kept of the headers. Those that describe bytes fit the bytes that are kept, be it one member's."""
    kept = {name: value[:_HEADER_CHARS_MAX] for name, value in list(delivery.headers.items())[:64]}
    if payload == delivery.payload:
        return kept
    named = False
    for name in list(kept):
        if name.lower() in (CONTENT_TYPE_HEADER, CONTENT_ENCODING_HEADER):
            named = named or name.lower() == CONTENT_TYPE_HEADER
            del kept[name]
    if is_msgpack(payload):
        kept[CONTENT_TYPE_HEADER] = MSGPACK_CONTENT_TYPE
    elif named:
        kept[CONTENT_TYPE_HEADER] = CONTENT_TYPE
    return kept


def _replace(entry: DeadLetter, **changes: Any) -> DeadLetter:
    fields = {name: getattr(entry, name) for name in entry.__struct_fields__}
    return DeadLetter(**{**fields, **changes})


class DeadLetterRecord(NamedTuple):
    """An entry and its place in the dead-letter stream, by which it is shown, replayed and dropped."""

    sequence: int
    stored_at: datetime
    entry: DeadLetter


class DeadLetterPage(NamedTuple):
    """Some entries, and where the next page begins: `after` for `find`, None when there are no more."""

    records: list[DeadLetterRecord]
    after: int | None


EVERYTHING = DeadLetterFilter()
OnLook = Callable[[int], None]


class DeadLetters:
    """The dead letters of a broker: list, find, show, replay, drop.

    Entries are named by their sequence in the dead-letter stream. Needs a connected broker and leaves it connected.
    """

    def __init__(
        self, broker: MessageBroker, *, codec: EventCodec | None = None, stream: StreamSpec = DEAD_LETTER_STREAM
    ) -> None:
        self._broker = broker
        self._codec = codec or EventCodec()
        self._stream = stream.name
        self._log = StoredLog(broker, stream.name)

    async def list(self, *, from_sequence: int = 1, count_max: int = PAGE_MESSAGES) -> list[DeadLetterRecord]:
        """At most `count_max` entries in the order of failing, from `from_sequence` on; bytes kept apart stay apart."""
        found: list[DeadLetterRecord] = []
        if count_max < 1:
            return found
        async with aclosing(self._records(from_sequence)) as records:
            async for record in records:
                found.append(record)
                if len(found) >= count_max:
                    break
        return found

    async def find(
        self,
        wanted: DeadLetterFilter = EVERYTHING,
        *,
        newest_first: bool = True,
        after: int | None = None,
        count_max: int = PAGE_MESSAGES,
        on_look: OnLook | None = None,
    ) -> DeadLetterPage:
        """At most `count_max` entries that fit `wanted`, beyond the place `after` where the page before ended."""
        found: list[DeadLetterRecord] = []
        async with aclosing(self.scan(wanted, newest_first=newest_first, after=after, on_look=on_look)) as records:
            async for record in records:
                if len(found) >= count_max:
                    return DeadLetterPage(found, found[-1].sequence if found else after)
                found.append(record)
        return DeadLetterPage(found, None)

    async def scan(
        self,
        wanted: DeadLetterFilter = EVERYTHING,
        *,
        newest_first: bool = True,
        after: int | None = None,
        on_look: OnLook | None = None,
    ) -> AsyncGenerator[DeadLetterRecord, None]:
        """Every entry that fits `wanted`, one by one; read in pages, so that any number of them may be there.

        Who stops before the end closes it (`contextlib.aclosing`). `on_look` is told of the place of every message that
        was looked at, fitting or not.

        What is put aside meanwhile is seen oldest first, and not seen newest first.
        """
        if newest_first:
            messages = self._log.backwards(after)
        else:
            begin = 1 if after is None else after + 1
            if wanted.since is not None:
                begin = max(begin, await self._log.begin(wanted.since))
            messages = self._log.forwards(begin)
        async with aclosing(messages):
            async for stored in messages:
                if on_look is not None:
                    on_look(stored.sequence)
                if wanted.since is not None and stored.stored_at < wanted.since:
                    if newest_first:
                        return
                    continue
                record = self._record(stored)
                if record is not None and wanted.fits(record.entry):
                    yield record

    async def get(self, sequence: int) -> DeadLetterRecord | None:
        """One entry, bytes kept apart stay apart; None when there is none at `sequence`."""
        stored = await self._log.read(sequence)
        return None if stored is None else self._record(stored)

    async def show(self, sequence: int) -> DeadLetterRecord:
        """One entry with its original bytes. Raises `MessageBusError` when there is none at `sequence`."""
        record = await self.get(sequence)
        if record is None:
            raise MessageBusError(f"there is no dead letter at {sequence}", {"sequence": sequence})
        apart = record.entry.payload_sequence
        if apart is None:
            return record
        body = await self._log.read(apart)
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
        try:
            receipt = await self._broker.publish(message, delivery=delivery, timeout_s=STORE_TIMEOUT_S)
        except PayloadTooLargeError:
            # The largest of messages leave no room for an id.
            message = OutgoingMessage(entry.topic, entry.payload, None, headers or None)
            receipt = await self._broker.publish(message, delivery=delivery, timeout_s=STORE_TIMEOUT_S)
        if not keep:
            await self.drop(sequence)
        return receipt

    async def drop(self, sequence: int) -> bool:
        """Erase one entry and the bytes kept apart for it; False when there was none."""
        record = await self.get(sequence)
        if record is None:
            return False
        if record.entry.payload_sequence is not None:
            await self._broker.erase_stored(self._stream, record.entry.payload_sequence)
        return await self._broker.erase_stored(self._stream, sequence)

    async def waiting(self) -> int:
        """How many entries there are by the broker's own count, which reads none of them.

        What somebody else put into the stream counts too. Raises `MessageBusError` when the broker cannot tell.
        """
        if not isinstance(self._broker, SurveyedBroker):
            raise MessageBusError("this broker cannot count what it stores")
        everything = await self._broker.count_stored(self._stream)
        return max(0, everything - await self._broker.count_stored(self._stream, BODY_TOPIC)) if everything else 0

    async def count(self) -> int:
        """How many entries there are; reads them all."""
        return sum([1 async for _ in self._records(1)])

    async def _records(self, from_sequence: int) -> AsyncGenerator[DeadLetterRecord, None]:
        async with aclosing(self._log.forwards(from_sequence)) as messages:
            async for stored in messages:
                record = self._record(stored)
                if record is not None:
                    yield record

    def _record(self, stored: StoredMessage) -> DeadLetterRecord | None:
        """The entry of a stored message; None for bytes kept apart and for what somebody else put there."""
        if stored.subject == BODY_TOPIC:
            return None
        try:
            event = self._codec.decode(stored.payload).event
        except MessageDecodeError:
            return None
        return DeadLetterRecord(stored.sequence, stored.stored_at, event) if isinstance(event, DeadLetter) else None
