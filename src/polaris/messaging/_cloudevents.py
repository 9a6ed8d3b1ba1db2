"""Events to bytes and back: CloudEvents 1.0.2 in structured JSON mode, single or as the JSON batch format.

A message says by its first byte what it is: `{` one event (application/cloudevents+json), `[` many
(application/cloudevents-batch+json), so no header is needed and any NATS client with a JSON library can take part.
MessagePack (`_wire_format`) begins with bytes that JSON cannot begin with.
`type` is the registered name without a version, `dataschema` carries the version; `correlationid`, `traceparent`,
`tracestate` and `sequence` are the extensions in use. `data` holds the event's own fields. Data of older versions are
upcast before they are decoded (`EventRegistry.upcast`). Unknown attributes and fields are read over.

One struct per event type describes the whole envelope with typed `data`, so that one pass of msgspec does all the work;
the types are joined in one union that msgspec tells apart by `type`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, Union

import msgspec

from polaris.clock import utc_now
from polaris.domain import (
    EVENTS,
    EventRegistry,
    EventType,
    PolarisEvent,
)
from polaris.exceptions import ConfigurationError, InvalidValueError, MessageDecodeError, UnknownEventTypeError
from polaris.messaging._event_wire import DecodedEvent, EventWire
from polaris.messaging._upcasting import OfOtherVersion, current_payload, newer_note
from polaris.messaging._wire_format import (
    WireFormat,
    array_head,
    as_json,
    check_count,
    is_finite,
    is_msgpack,
    is_msgpack_array,
    may_be_infinite,
    may_be_null,
)

BATCH_EVENTS_MAX = 10_000

_ERROR_CHARS_MAX = 256
_BATCH = re.compile(rb"[ \t\r\n]*\[")
_CANNOT_TRAVEL = (TypeError, ValueError, OverflowError, RecursionError, AttributeError, msgspec.MsgspecError)
"""What an event with values of other types than it declares may fail with on its way out."""


class Undecodable(NamedTuple):
    """One member of a batch that is no valid event; the others are not harmed by it."""

    payload: bytes
    error: MessageDecodeError


class _Head(msgspec.Struct):
    """What is asked of a message that could not be decoded, to say what is wrong with it."""

    type: str
    specversion: str
    dataschema: str | None = None


class EventCodec:
    """Encodes and decodes the event types of a registry; types registered later are taken up when they first appear.

    It writes `wire_format` and reads both. Safe to share between tasks and threads.
    """

    def __init__(self, registry: EventRegistry = EVENTS, *, wire_format: WireFormat = WireFormat.JSON) -> None:
        self.wire_format = WireFormat(wire_format)
        self._registry = registry
        packs = self.wire_format is WireFormat.MSGPACK
        self._encode = msgspec.msgpack.Encoder().encode if packs else msgspec.json.Encoder().encode
        self._may_hide = may_be_infinite if packs else may_be_null
        self._by_class: dict[type[PolarisEvent], EventWire] = {}
        self._by_envelope: dict[type[Any], EventWire] = {}
        self._decode_one: Callable[[bytes], Any] = self._build_and_decode
        self._many: msgspec.json.Decoder[Any] | None = None
        self._of_msgpack: tuple[msgspec.msgpack.Decoder[Any], msgspec.msgpack.Decoder[Any]] | None = None
        self._raw = msgspec.json.Decoder(list[msgspec.Raw])
        self._raw_packed = msgspec.msgpack.Decoder(list[msgspec.Raw])
        self._head = msgspec.json.Decoder(_Head)
        self._head_packed = msgspec.msgpack.Decoder(_Head)

    def require(self, event_class: type[PolarisEvent]) -> EventType:
        """The registered name of the class, with the proof that it can travel.

        Raises `UnknownEventTypeError` when it is not registered, `ConfigurationError` when JSON cannot carry it.
        """
        return self._wire(event_class).entry

    def encode(
        self,
        event: PolarisEvent,
        correlation_id: str | None = None,
        traceparent: str | None = None,
        tracestate: str | None = None,
        sequence: str | None = None,
    ) -> bytes:
        """One event in structured mode. `correlation_id` goes before the event's own.

        Raises `UnknownEventTypeError` for an unregistered type and `InvalidValueError` when JSON cannot carry a value,
        such as NaN.
        """
        wire = self._by_class.get(type(event)) or self._wire(type(event))
        try:
            encoded = self._encode(
                wire.envelope(event, correlation_id or event.correlation_id, traceparent, tracestate, sequence)
            )
            if not wire.holds_floats or not self._may_hide(encoded) or is_finite(event):
                return encoded
        except _CANNOT_TRAVEL as error:
            raise InvalidValueError("event", f"a {wire.entry.name} that JSON can carry", event, cause=error) from error
        raise InvalidValueError("event", f"a {wire.entry.name} of finite numbers, which JSON can carry", event)

    def encode_each(
        self,
        events: Sequence[PolarisEvent],
        sequences: Sequence[str | None],
        *,
        correlation_id: str,
        traceparent: str | None = None,
        tracestate: str | None = None,
    ) -> list[bytes]:
        """As `encode`, for many events with a number for each; here their own correlation ids go first."""
        encode, encoded = self._encode, []
        kind: type[PolarisEvent] | None = None
        try:
            for event, sequence in zip(events, sequences, strict=True):
                if type(event) is not kind:
                    kind = type(event)
                    wire = self._by_class.get(kind) or self._wire(kind)
                    envelope, holds_floats = wire.envelope, wire.holds_floats
                made = encode(
                    envelope(event, event.correlation_id or correlation_id, traceparent, tracestate, sequence)
                )
                if holds_floats and self._may_hide(made) and not is_finite(event):
                    break
                encoded.append(made)
            else:
                return encoded
        except _CANNOT_TRAVEL:
            pass
        # The one that did not go is told apart from the others by `encode`, which says what is wrong with it.
        rest = zip(events[len(encoded) :], sequences[len(encoded) :], strict=True)
        return encoded + [
            self.encode(
                event,
                correlation_id=event.correlation_id or correlation_id,
                traceparent=traceparent,
                tracestate=tracestate,
                sequence=sequence,
            )
            for event, sequence in rest
        ]

    def join(self, encoded: Sequence[bytes]) -> bytes:
        """Events encoded singly as one message in the batch format."""
        if self.wire_format is WireFormat.MSGPACK:
            return array_head(len(encoded)) + b"".join(encoded)
        return b"[" + b",".join(encoded) + b"]"

    @staticmethod
    def is_batch(payload: bytes) -> bool:
        """Whether the message is in a batch format, judged by its first byte that is no space."""
        if is_msgpack(payload):
            return is_msgpack_array(payload)
        return payload[:1] == b"[" or (payload[:1] != b"{" and _BATCH.match(payload) is not None)

    def decode(self, payload: bytes, *, received_at: datetime | None = None) -> DecodedEvent:
        """The event in a message of one. `received_at` stands in for a missing `time`; None means now.

        Raises `UnknownEventTypeError` when nobody registered its type, and `MessageDecodeError` for everything else
        that is wrong with the bytes; never anything else.
        """
        try:
            if payload[:1] == b"{" or not is_msgpack(payload):
                found = self._decode_one(payload)
                return self._by_envelope[type(found)].event(found, received_at)
            found = self._packed()[0].decode(payload)
            wire = self._by_envelope[type(found)]
            decoded = wire.event(found, received_at)
            if wire.holds_floats and may_be_infinite(payload):
                _check_finite(decoded.event)
        except Exception as error:  # boundary: foreign bytes, read with the validation code of foreign event types
            failure = self._explain(payload, error)
        else:
            return decoded
        if isinstance(failure, bytes):
            return self.decode(failure, received_at=received_at)
        raise failure

    def decode_batch(
        self, payload: bytes, *, received_at: datetime | None = None
    ) -> Sequence[DecodedEvent | Undecodable]:
        """The members of a batch, in order; one that is no valid event comes as `Undecodable` in its place.

        Raises `MessageDecodeError` when the message is no array, or holds more than 10 000 members.
        """
        stamp = received_at or utc_now()
        packed = is_msgpack(payload)
        check_count(payload, BATCH_EVENTS_MAX)
        try:
            if self._many is None:
                self._build()
            decoder = self._packed()[1] if packed else self._many
            found = decoder.decode(payload)  # type: ignore[union-attr] # built above
            if len(found) <= BATCH_EVENTS_MAX:
                wires = self._by_envelope
                decoded = [wires[type(one)].event(one, stamp) for one in found]
                held = packed and any(wires[kind].holds_floats for kind in set(map(type, found)))
                if held and may_be_infinite(payload):
                    for member in decoded:
                        if self._by_class[type(member.event)].holds_floats:
                            _check_finite(member.event)
                return decoded
        except Exception:  # noqa: S110 # boundary: foreign bytes; taken apart below to tell the good from the bad
            pass
        return [self._decode_member(bytes(member), stamp) for member in self.split(payload)]

    def split(self, payload: bytes) -> list[msgspec.Raw]:
        """The members of a batch as they came, byte for byte, in order; views of the payload, which they keep.

        Raises as `decode_batch`. Of a long message the count must have been found good before.
        """
        try:
            members = (self._raw_packed if is_msgpack(payload) else self._raw).decode(payload)
        except Exception as error:  # boundary: foreign bytes
            raise _refusal(error) from error
        if len(members) > BATCH_EVENTS_MAX:
            raise MessageDecodeError(f"a batch of {len(members)} events, the limit is {BATCH_EVENTS_MAX}")
        return members

    def _decode_member(self, payload: bytes, received_at: datetime) -> DecodedEvent | Undecodable:
        try:
            return self.decode(payload, received_at=received_at)
        except MessageDecodeError as error:
            return Undecodable(payload, error)

    def _explain(self, payload: bytes, error: Exception) -> MessageDecodeError | bytes:
        """The typed error for a failed decoding; or what to decode instead.

        That is the payload itself when the type has been registered meanwhile, and the upcast one when it is older.
        """
        if isinstance(error, (msgspec.ValidationError, InvalidValueError, OfOtherVersion)):
            try:
                head = (self._head_packed if is_msgpack(payload) else self._head).decode(payload)
            except Exception:  # boundary: foreign bytes
                return _refusal(error)
            if head.specversion == "1.0":
                return self._explain_type(head, payload, error)
        return _refusal(error)

    def _explain_type(self, head: _Head, payload: bytes, error: Exception) -> MessageDecodeError | bytes:
        name = head.type
        entry = self._registry.find(name)
        if entry is None:
            unknown = UnknownEventTypeError(f"unknown event type {name[:128]!r}", {"type": name[:128]})
            unknown.__cause__ = error
            return unknown
        if not any(wire.entry == entry for wire in self._by_envelope.values()):
            try:
                self._wire(entry.event_class)
            except (ConfigurationError, UnknownEventTypeError) as cannot:
                return _refusal(cannot)
            return payload
        try:
            plain = as_json(payload) if is_msgpack(payload) else payload
            upcast = current_payload(self._registry, entry, head.dataschema, plain)
            return upcast or _refusal(error, {"type": name}, newer_note(entry, head.dataschema))
        except MessageDecodeError as cannot:
            return cannot

    def _wire(self, event_class: type[PolarisEvent]) -> EventWire:
        known = self._by_class.get(event_class)
        if known is not None:
            return known
        entry = self._registry.require(event_class)
        try:
            wire = EventWire(entry)
            msgspec.json.Decoder(wire.incoming)
        except (TypeError, ValueError, NameError, AttributeError) as error:
            message = f"events of type {entry.name!r} cannot travel as JSON: {error}"
            raise ConfigurationError(message, {"class": event_class.__qualname__}) from error
        self._by_class[event_class] = wire
        self._by_envelope[wire.incoming] = wire
        self._decode_one, self._many = self._build_and_decode, None
        self._of_msgpack = None
        return wire

    def _packed(self) -> tuple[msgspec.msgpack.Decoder[Any], msgspec.msgpack.Decoder[Any]]:
        """The decoders of one event and of a batch, for those who get MessagePack."""
        if self._of_msgpack is None:
            if self._many is None:
                self._build()
            union = Union[tuple(self._by_envelope)]  # type: ignore[valid-type] # noqa: UP007 # built at run time
            many: Any = list[union]  # type: ignore[valid-type] # built at run time
            self._of_msgpack = msgspec.msgpack.Decoder(union), msgspec.msgpack.Decoder(many)
        return self._of_msgpack

    def _build(self) -> None:
        for entry in self._registry:
            try:
                self._wire(entry.event_class)
            except ConfigurationError:
                # One type that cannot travel must not harm the others; who uses it is told then.
                continue
        union = Union[tuple(self._by_envelope)]  # type: ignore[valid-type] # noqa: UP007 # built at run time
        self._many = msgspec.json.Decoder(list[union])  # type: ignore[valid-type]
        self._decode_one = msgspec.json.Decoder(union).decode

    def _build_and_decode(self, payload: bytes) -> Any:
        """What decodes one event as long as no decoder is built for all types, or one of them is new."""
        self._build()
        return self._decode_one(payload)


def _check_finite(event: PolarisEvent) -> None:
    if not is_finite(event):
        raise InvalidValueError("data", "finite numbers, which JSON can carry", event)


def _refusal(error: Exception, context: Mapping[str, object] | None = None, note: str = "") -> MessageDecodeError:
    """The error to report for undecodable bytes: its text is bounded, whatever the bytes were."""
    reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)[:_ERROR_CHARS_MAX]
    failure = MessageDecodeError(f"not a valid event: {note}{reason}", context)
    # The text says it all; keeping the cause would keep the frames that hold the bytes.
    failure.__cause__ = None if isinstance(error, RecursionError) else error.with_traceback(None)
    return failure
