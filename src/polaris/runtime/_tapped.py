"""What a tap shows of a message: its events as JSON, redacted and bounded; or why it is none, and its first bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from polaris._redaction import redact_fields, redact_text
from polaris.api._tap_view import TappedEvent
from polaris.exceptions import MessageDecodeError
from polaris.messaging import EventCodec, unpacked
from polaris.messaging._wire_format import as_json, is_msgpack

HEX_BYTES_MAX = 256
EVENT_BYTES_MAX = 32_768
"""Of an event as it is shown; of a larger one the data are left out."""
PROBLEM_CHARS_MAX = 500
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
            plain = unpacked(payload, headers)
            members = self._members(plain) if self._codec.is_batch(plain) else (plain,)
        except (MessageDecodeError, msgspec.DecodeError, RecursionError) as error:
            yield _unreadable(topic, payload, received_at, error)
            return
        for member in members:
            yield self._event(topic, bytes(member), received_at)

    def _members(self, plain: bytes) -> Sequence[msgspec.Raw]:
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
    # Every byte is one character here, so that what reads as a secret is taken out of any bytes.
    cleaned = redact_text(payload.decode("latin-1"), chars_max=2 * HEX_BYTES_MAX).encode("latin-1", "replace")
    return TappedEvent(
        topic=redact_text(topic),
        received_at=received_at,
        bytes=len(payload),
        problem=redact_text(reason, chars_max=PROBLEM_CHARS_MAX),
        hex=cleaned[:HEX_BYTES_MAX].hex(),
    )
