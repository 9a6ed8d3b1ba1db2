"""How dead letters look: as a line of a table, in full, and as JSON; their bytes as text where they are one."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from polaris.cli._output import ago, moment_text, value_text

if TYPE_CHECKING:
    from datetime import datetime

    from polaris.messaging import DeadLetterRecord

SHOWN_BYTES_MAX = 16_384
HEX_ROW_BYTES = 16
HEADINGS = ("SEQUENCE", "PUT ASIDE", "TOPIC", "SUBSCRIPTION", "REASON", "ERROR", "ATTEMPTS", "SIZE")
SPARE_HEADINGS = ("ERROR", "ATTEMPTS", "SIZE")
"""What a narrow terminal can do without; `polaris dlq show` tells it."""


def row_of(record: DeadLetterRecord, now: datetime | None = None) -> tuple[str, ...]:
    """One line of the table, in the order of `HEADINGS`."""
    entry = record.entry
    return (
        str(record.sequence),
        ago(record.stored_at, now),
        printable(entry.topic),
        entry.subscription,
        entry.reason.value,
        entry.error_code,
        str(entry.attempts),
        value_text(entry.payload_bytes, "By"),
    )


def facts_of(record: DeadLetterRecord, *, with_payload: bool = False) -> dict[str, Any]:
    """Everything about an entry for programs; its bytes, when asked for, as base64 and as text if they are one."""
    entry = record.entry
    facts: dict[str, Any] = {
        "sequence": record.sequence,
        "put_aside_at": record.stored_at,
        "topic": entry.topic,
        "subscription": entry.subscription,
        "reason": entry.reason,
        "error_code": entry.error_code,
        "error_message": entry.error_message,
        "attempts": entry.attempts,
        "first_at": entry.first_at,
        "failed_at": entry.failed_at,
        "origin": None if entry.stream is None else {"stream": entry.stream, "sequence": entry.sequence},
        "headers": entry.headers,
        "payload_bytes": entry.payload_bytes,
    }
    if with_payload:
        facts["payload_base64"] = base64.b64encode(entry.payload).decode()
        facts["payload_text"] = text_of(entry.payload)
    return facts


def lines_of(record: DeadLetterRecord) -> Iterator[str]:
    """An entry in full, line by line."""
    entry = record.entry
    origin = "core NATS, stored nowhere" if entry.stream is None else f"{entry.stream} #{entry.sequence}"
    shown = {
        "sequence": str(record.sequence),
        "put aside": f"{moment_text(record.stored_at)} ({ago(record.stored_at)})",
        "topic": printable(entry.topic),
        "subscription": entry.subscription,
        "reason": entry.reason.value,
        "error code": entry.error_code,
        "error": printable(entry.error_message),
        "attempts": str(entry.attempts),
        "first": moment_text(entry.first_at),
        "last": moment_text(entry.failed_at),
        "origin": origin,
    }
    for name, value in shown.items():
        yield f"{name + ':':13} {value}"
    yield f"headers:      {len(entry.headers) or 'none'}"
    for name, value in entry.headers.items():
        yield f"  {printable(name)}: {printable(value)}"
    yield f"payload:      {entry.payload_bytes} bytes"
    yield from payload_lines(entry.payload)


def payload_lines(payload: bytes) -> Iterator[str]:
    """The bytes as they are when they are text that a terminal can be given, else in hexadecimal; the first of many."""
    head = payload[:SHOWN_BYTES_MAX]
    text = text_of(payload)
    if text is not None:
        yield from head.decode(errors="ignore").splitlines()
    else:
        yield from hex_lines(head)
    if len(payload) > len(head):
        yield f"... and {len(payload) - len(head)} bytes more; --raw gives them all"


def text_of(payload: bytes) -> str | None:
    """The bytes as text; None when they are not UTF-8, or hold what would steer a terminal."""
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        return None
    return text if _harmless(text) else None


def hex_lines(payload: bytes) -> Iterator[str]:
    """Offset, sixteen bytes in hexadecimal, and what of them is printable ASCII."""
    for offset in range(0, len(payload), HEX_ROW_BYTES):
        row = payload[offset : offset + HEX_ROW_BYTES]
        plain = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in row)
        yield f"{offset:08x}  {row.hex(' '):47}  {plain}"


def printable(text: str) -> str:
    """`text` on one line, with escapes for what would steer a terminal."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _harmless(text: str) -> bool:
    return all(char.isprintable() or char in "\n\r\t" for char in text) and "\r" not in text.replace("\r\n", "")
