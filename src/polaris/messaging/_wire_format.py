"""The forms in which events travel: JSON, which everybody reads, and MessagePack for those who ask for it.

The attributes and data are the same in both. Source of the format: the MessagePack specification; times are of its
extension type -1. CloudEvents defines no MessagePack format, so the content types are our own.
"""

from __future__ import annotations

import enum
import math
from functools import cache
from typing import Any

import msgspec

from polaris.exceptions import MessageDecodeError

CONTENT_TYPE = "application/cloudevents+json"
BATCH_CONTENT_TYPE = "application/cloudevents-batch+json"
MSGPACK_CONTENT_TYPE = "application/cloudevents+msgpack"
MSGPACK_BATCH_CONTENT_TYPE = "application/cloudevents-batch+msgpack"
CONTENT_TYPE_HEADER = "content-type"
# A longer batch of JSON is counted before room is made for its members; those that a bus writes are shorter.
COUNTED_BYTES = 512 * 1024


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
        value = msgspec.msgpack.decode(payload)
        if not (may_be_infinite(payload) and not is_finite(value)):
            return msgspec.json.encode(value)
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise MessageDecodeError(f"not a valid event: no MessagePack, or not what JSON can say: {error}") from error
    raise MessageDecodeError("not a valid event: a number that is not finite, which JSON cannot say")


def array_count(payload: bytes) -> int:
    """How many members an array of MessagePack has, as its head says: they need not be there."""
    first = payload[0]
    if first in (0xDC, 0xDD):
        return int.from_bytes(payload[1 : 3 if first == 0xDC else 5], "big")
    return first & 0x0F


def check_count(payload: bytes, count_max: int) -> None:
    """Refuse a batch of more than `count_max` members before room is made for them, unless it is a short one."""
    if is_msgpack(payload):
        if not is_msgpack_array(payload) or array_count(payload) <= count_max:
            return
    elif len(payload) <= COUNTED_BYTES or not has_more_members(payload, count_max):
        return
    raise MessageDecodeError(f"a batch of more than {count_max} events")


def has_more_members(payload: bytes, count: int) -> bool:
    """Whether a JSON array has more than `count` members; makes no room for what it has beyond them."""
    try:
        return _counter(count + 1).decode(payload).last is not None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        # No array. What is wrong with it is told by those who want its members.
        return False


@cache
def _counter(count: int) -> msgspec.json.Decoder[Any]:
    """Reads an array as a struct of `count` fields. What the array has beyond them is passed over by msgspec."""
    names = [*(f"member_{index}" for index in range(1, count)), "last"]
    fields: list[Any] = [(name, msgspec.Raw, msgspec.field(default=None)) for name in names]
    return msgspec.json.Decoder(msgspec.defstruct("Members", fields, array_like=True))


def is_finite(value: Any) -> bool:
    """Whether no NaN and no infinity is anywhere in it, which msgspec can encode."""
    # What is no built-in type, such as bytes that are JSON already, holds no float.
    stack = [msgspec.to_builtins(value, enc_hook=lambda _: None)]
    while stack:
        node = stack.pop()
        if isinstance(node, float):
            if not math.isfinite(node):
                return False
        elif isinstance(node, dict):
            stack += node.values()
            stack += node.keys()
        elif isinstance(node, (list, tuple)):
            stack += node
    return True


def may_be_infinite(payload: bytes) -> bool:
    """Whether the bytes of a float of MessagePack that is not finite are in it, be it by chance."""
    return b"\xcb\x7f" in payload or b"\xcb\xff" in payload or b"\xca\x7f" in payload or b"\xca\xff" in payload


def may_be_null(payload: bytes) -> bool:
    """The same for JSON as msgspec writes it: null stands for what is not finite, and a key is its name."""
    return b"null" in payload or b'nan":' in payload or b'inf":' in payload
