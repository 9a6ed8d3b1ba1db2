"""What a tap shows of a message: its events as JSON, redacted and bounded; or why it is none, and its first bytes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from polaris._redaction import redact_fields, redact_text, tells_of_secrets, without_trees
from polaris.api._tap_view import TappedEvent
from polaris.exceptions import MessageDecodeError
from polaris.messaging import EventCodec, unpacked
from polaris.messaging._cloudevents import BATCH_EVENTS_MAX
from polaris.messaging._wire_format import as_json, check_count, is_msgpack, is_msgpack_array

HEX_BYTES_MAX = 256
EVENT_BYTES_MAX = 32_768
"""Of an event as it is shown; of a larger one the data are left out."""
EVENT_READ_BYTES_MAX = 128 << 10
MESSAGE_READ_BYTES_MAX = 1 << 20
"""Of an event, and of a batch, unpacked: reading takes time from everything else. Of more the beginning is shown."""
_BEGINNING_BYTES = 4_096
"""Looked at for secrets, before the first of them are shown."""
PROBLEM_CHARS_MAX = 500
_NOT_TEXT = re.compile(rb"[^\t\n\r\x20-\x7e]")
_JSON_MEMBERS = msgspec.json.Decoder(list[msgspec.Raw])
_PACKED_MEMBERS = msgspec.msgpack.Decoder(list[msgspec.Raw])


class Tapped:
    """Reads messages for people. Nothing that is read here goes anywhere else."""

    def __init__(self) -> None:
        self._codec = EventCodec()

    def events(
        self, topic: str, payload: bytes, headers: Mapping[str, str], received_at: datetime
    ) -> Iterator[TappedEvent]:
        """The events of a message, each read when it is asked for: a batch may hold thousands. Never raises."""
        try:
            plain = unpacked(payload, headers, bytes_max=MESSAGE_READ_BYTES_MAX)
            if len(plain) > MESSAGE_READ_BYTES_MAX:
                yield _unread(topic, plain, received_at)
                return
            members = self._members(plain) if self._codec.is_batch(plain) else (plain,)
        except (MessageDecodeError, msgspec.DecodeError, RecursionError) as error:
            yield _unreadable(topic, payload, received_at, error)
            return
        for member in members:
            # As it stands in its message: what is too large is not even copied.
            view = memoryview(member)
            if len(view) > EVENT_READ_BYTES_MAX:
                yield _unread(topic, bytes(view[:_BEGINNING_BYTES]), received_at, size=len(view))
            else:
                yield self._event(topic, bytes(view), received_at)

    def _members(self, plain: bytes) -> Sequence[msgspec.Raw]:
        check_count(plain, BATCH_EVENTS_MAX)
        return (_PACKED_MEMBERS if is_msgpack(plain) else _JSON_MEMBERS).decode(plain)

    def _event(self, topic: str, payload: bytes, received_at: datetime) -> TappedEvent:
        try:
            document = msgspec.json.decode(as_json(payload) if is_msgpack(payload) else payload, type=dict[str, Any])
        except (MessageDecodeError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return _unreadable(topic, payload, received_at, error)
        shown = redact_fields(document)
        if len(payload) > EVENT_BYTES_MAX // 8 and len(msgspec.json.encode(shown)) > EVENT_BYTES_MAX:
            shown = {name: value for name, value in shown.items() if isinstance(value, str)}
            shown["data"] = f"[{len(payload)} bytes, too large to be shown]"
            if len(msgspec.json.encode(shown)) > EVENT_BYTES_MAX:
                shown = {"data": shown["data"]}
        return TappedEvent(
            topic=redact_text(topic),
            received_at=received_at,
            bytes=len(payload),
            id=_text(shown.get("id")),
            type=_text(shown.get("type")),
            time=_text(shown.get("time")),
            event=shown,
            problem=self._problem(payload),
        )

    def _problem(self, payload: bytes) -> str | None:
        try:
            self._codec.decode(payload)
        except MessageDecodeError as error:
            return redact_text(error.message, chars_max=PROBLEM_CHARS_MAX)
        return None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _unreadable(topic: str, payload: bytes, received_at: datetime, error: Exception) -> TappedEvent:
    reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
    return _no_event(topic, payload, received_at, redact_text(reason, chars_max=PROBLEM_CHARS_MAX), len(payload))


def _unread(topic: str, beginning: bytes, received_at: datetime, *, size: int | None = None) -> TappedEvent:
    size = len(beginning) if size is None else size
    return _no_event(topic, beginning, received_at, f"{size} bytes, too large to be read here", size)


def _no_event(topic: str, payload: bytes, received_at: datetime, problem: str, size: int) -> TappedEvent:
    return TappedEvent(
        topic=redact_text(topic),
        received_at=received_at,
        bytes=size,
        problem=problem,
        hex=_cleaned(payload[:_BEGINNING_BYTES]).hex(),
    )


def _cleaned(beginning: bytes) -> bytes:
    """The first bytes, without secrets; none where keys and values cannot be told apart and one tells of a secret."""
    if (
        is_msgpack_array(beginning)
        or 0x80 <= (beginning[:1] or b"\0")[0] <= 0x8F
        or beginning[:1] in (b"\xde", b"\xdf")
    ):
        return b""
    # Every byte is one character here, so that what reads as a secret is taken out of any bytes.
    text = beginning.decode("latin-1")
    if _NOT_TEXT.search(beginning) and tells_of_secrets(text.replace("\0", "")):
        return b""
    return redact_text(without_trees(text), chars_max=2 * HEX_BYTES_MAX).encode("latin-1", "replace")[:HEX_BYTES_MAX]
