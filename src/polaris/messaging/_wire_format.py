"""The forms in which events travel: JSON, which everybody reads, and MessagePack for those who ask for it.

The attributes and data are the same in both. Source of the format: the MessagePack specification; times are of its
extension type -1. CloudEvents defines no MessagePack format, so the content types are our own.
"""

from __future__ import annotations

import enum

import msgspec

from polaris.exceptions import MessageDecodeError

CONTENT_TYPE = "application/cloudevents+json"
BATCH_CONTENT_TYPE = "application/cloudevents-batch+json"
MSGPACK_CONTENT_TYPE = "application/cloudevents+msgpack"
MSGPACK_BATCH_CONTENT_TYPE = "application/cloudevents-batch+msgpack"
CONTENT_TYPE_HEADER = "content-type"


class WireFormat(enum.StrEnum):
    """How a bus writes what it publishes. Every bus reads both."""

    JSON = "json"
    """CloudEvents' own: no header, readable by any client with a JSON library."""
    MSGPACK = "msgpack"
    """About a quarter smaller, for peers that agreed on it; the header `content-type` says so."""

    def content_type(self, *, batch: bool) -> str | None:
        """What the header says of a message; None when there is none."""
        if self is WireFormat.JSON:
            return None
        return MSGPACK_BATCH_CONTENT_TYPE if batch else MSGPACK_CONTENT_TYPE


def is_msgpack(payload: bytes) -> bool:
    """Whether the message is a map or an array of MessagePack, by its first byte: no JSON text begins with such."""
    return payload[:1] >= b"\x80"


def is_msgpack_array(payload: bytes) -> bool:
    """Whether it is an array of MessagePack: a batch."""
    first = payload[0] if payload else 0
    return 0x90 <= first <= 0x9F or first in (0xDC, 0xDD)


def array_head(count: int) -> bytes:
    """What stands before the members of an array."""
    if count < 16:
        return bytes((0x90 | count,))
    return b"\xdc" + count.to_bytes(2, "big") if count < 1 << 16 else b"\xdd" + count.to_bytes(4, "big")


def as_json(payload: bytes) -> bytes:
    """The same value as JSON. Raises `MessageDecodeError` for what is no MessagePack, or that JSON cannot carry."""
    try:
        return msgspec.json.encode(msgspec.msgpack.decode(payload))
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise MessageDecodeError(f"not a valid event: no MessagePack, or not what JSON can say: {error}") from error
