"""How dead letters look on a terminal and in JSON."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from polaris.cli._dlq_text import (
    HEADINGS,
    SHOWN_BYTES_MAX,
    facts_of,
    hex_lines,
    lines_of,
    payload_lines,
    printable,
    row_of,
    text_of,
)
from polaris.messaging import DeadLetter, DeadLetterReason, DeadLetterRecord

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def record(payload: bytes = b"\x00\xff", **fields: Any) -> DeadLetterRecord:
    facts: dict[str, Any] = {
        "topic": "polaris.telemetry.web",
        "subscription": "ingest",
        "reason": DeadLetterReason.UNDECODABLE,
        "error_code": "polaris.bus.decode",
        "error_message": "not a CloudEvent",
        "attempts": 3,
        "first_at": NOW - timedelta(minutes=5),
        "failed_at": NOW,
        "payload": payload,
        "payload_bytes": len(payload),
        "stream": "POLARIS_TELEMETRY",
        "sequence": 41,
    }
    entry = DeadLetter(**{**facts, **fields})
    return DeadLetterRecord(17, NOW, entry)


def test_a_line_tells_what_an_operator_looks_for_first() -> None:
    row = row_of(record(b"x" * 2048), NOW + timedelta(minutes=10))
    assert dict(zip(HEADINGS, row, strict=True)) == {
        "SEQUENCE": "17",
        "PUT ASIDE": "10 min ago",
        "TOPIC": "polaris.telemetry.web",
        "SUBSCRIPTION": "ingest",
        "REASON": "undecodable",
        "ERROR": "polaris.bus.decode",
        "ATTEMPTS": "3",
        "SIZE": "2 KiB",
    }


def test_an_entry_in_full_names_everything_that_is_known() -> None:
    shown = list(lines_of(record(headers={"Origin": "boiler", "Trace": "1"})))
    for line in (
        "sequence:     17",
        "topic:        polaris.telemetry.web",
        "reason:       undecodable",
        "error code:   polaris.bus.decode",
        "error:        not a CloudEvent",
        "attempts:     3",
        "first:        2026-03-01T11:55:00.000Z",
        "last:         2026-03-01T12:00:00.000Z",
        "origin:       POLARIS_TELEMETRY #41",
        "headers:      2",
        "  Origin: boiler",
        "payload:      2 bytes",
    ):
        assert line in shown
    assert "origin:       core NATS, stored nowhere" in lines_of(record(stream=None, sequence=None))
    assert "headers:      none" in lines_of(record())


def test_bytes_that_are_text_are_shown_as_they_are() -> None:
    assert list(payload_lines('{"größe": 3}\r\n\tend'.encode())) == ['{"größe": 3}', "\tend"]
    assert list(payload_lines(b"")) == []


@pytest.mark.parametrize(
    "payload",
    [b"\x00\xff", b"\x1b[2J", "a\u202eb".encode(), b"seen\roverwritten", "\ud800".encode(errors="surrogatepass")],
)
def test_bytes_that_could_steer_a_terminal_are_shown_in_hexadecimal(payload: bytes) -> None:
    assert text_of(payload) is None
    (line,) = payload_lines(payload)
    assert line.startswith(f"00000000  {payload[:2].hex(' ')}")
    assert all(char.isprintable() for char in line)


def test_hexadecimal_rows_have_offset_bytes_and_what_is_readable() -> None:
    assert list(hex_lines(bytes(range(0x5A, 0x6B)))) == [
        "00000000  5a 5b 5c 5d 5e 5f 60 61 62 63 64 65 66 67 68 69  Z[\\]^_`abcdefghi",
        "00000010  6a                                               j",
    ]


@pytest.mark.parametrize("unit", [b"x", b"\xff"])
def test_of_many_bytes_the_first_are_shown_and_the_rest_is_counted(unit: bytes) -> None:
    assert list(payload_lines(unit * SHOWN_BYTES_MAX))[-1] != "... and 0 bytes more; --raw gives them all"
    assert list(payload_lines(unit * (SHOWN_BYTES_MAX + 3)))[-1] == "... and 3 bytes more; --raw gives them all"


def test_what_strangers_wrote_stays_on_its_line() -> None:
    assert printable("a\nb\x1b[31m\u2028") == "a\\nb\\x1b[31m\\u2028"
    shown = list(lines_of(record(error_message="one\ntwo", headers={"X": "\x1b]0;title"})))
    assert "error:        one\\ntwo" in shown
    assert "  X: \\x1b]0;title" in shown
    assert row_of(record(topic="a\x1b[2Jb"))[2] == "a\\x1b[2Jb"


def test_json_holds_everything_and_the_bytes_when_they_are_asked_for() -> None:
    facts = facts_of(record(headers={"Origin": "x"}))
    assert "payload_base64" not in facts
    assert facts["origin"] == {"stream": "POLARIS_TELEMETRY", "sequence": 41}
    assert (facts["sequence"], facts["reason"], facts["headers"]) == (17, "undecodable", {"Origin": "x"})
    whole = msgspec.json.decode(msgspec.json.encode(facts_of(record(), with_payload=True)))
    assert base64.b64decode(whole["payload_base64"]) == b"\x00\xff"
    assert whole["payload_text"] is None
    assert facts_of(record(b"hello"), with_payload=True)["payload_text"] == "hello"
    assert facts_of(record(stream=None))["origin"] is None
