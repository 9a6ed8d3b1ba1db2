"""The bytes of the NATS client protocol: frames in, headers both ways. No message ends the connection's reader.

nats-py 2.16 finds frames with regular expressions whose notion of white space is wider than the server's, and decodes
subjects and headers strictly: one message on the subject `a<VT>b`, on a subject that is not UTF-8, or with a damaged
header block kills its reader, and a stored one does so again at every redelivery. What stands here follows the server's
own rules: fields are separated by spaces and tabs, everything else is data.

Source: NATS client protocol (https://docs.nats.io/reference/reference-protocols/nats-protocol), ADR-4 (headers).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from nats.errors import ProtocolError
from nats.protocol.parser import Parser

from polaris.messaging._broker import MESSAGE_ID_HEADER
from polaris.messaging.brokers._wire_rules import check_headers

STATUS = "Status"
"""The key under which the status of a control message ("404", "503") stands beside its headers."""
DESCRIPTION = "Description"
NO_RESPONDERS = "503"

CONTROL_LINE_BYTES_MAX = 64 * 1024
HEADER_FIRST_LINE = b"NATS/1.0\r\n"
_CRLF = b"\r\n"


def encode_headers(headers: Mapping[str, str]) -> bytes:
    """The header block of a frame. Values are UTF-8 and arrive as they are.

    Raises `InvalidValueError` for a name that is not an HTTP token, and for a value that would not arrive unchanged:
    one with control characters, with white space at its ends, or that is no text.
    """
    check_headers(headers)
    lines = ["NATS/1.0", *(f"{name}: {value}" for name, value in headers.items())]
    lines.append("\r\n")
    return "\r\n".join(lines).encode()


def encode_id(message_id: str) -> bytes:
    """As `encode_headers` of the message id alone, which nearly every stored message has."""
    if (
        type(message_id) is str
        and message_id
        and message_id.isascii()
        and message_id.isprintable()
        and " " not in message_id
    ):
        return f"NATS/1.0\r\n{MESSAGE_ID_HEADER}: {message_id}\r\n\r\n".encode()
    return encode_headers({MESSAGE_ID_HEADER: message_id})


def decode_headers(block: bytes | None) -> dict[str, str]:
    """Headers and inline status of a frame; of a damaged block what can be read. Never raises.

    Bytes that are not UTF-8 come out as backslash escapes. Of a name that comes twice the last value counts.
    """
    if not block:
        return {}
    headers: dict[str, str] = {}
    first, *lines = block.split(_CRLF)
    if len(first) > 8:
        status, _, description = first[8:].strip().partition(b" ")
        if status.isdigit():
            headers[STATUS] = status.decode()
            if description:
                headers[DESCRIPTION] = description.decode("utf-8", "backslashreplace")
    for line in lines:
        name, colon, value = line.partition(b":")
        if colon:
            headers[name.strip().decode("utf-8", "backslashreplace")] = value.strip().decode(
                "utf-8", "backslashreplace"
            )
    return headers


class FrameParser(Parser):
    """Cuts the byte stream into frames and hands them to the client, in order."""

    nc: Any
    buf: bytearray
    _wanted = 0

    async def parse(self, data: bytes = b"") -> None:
        """Handle all complete frames of what has arrived so far; the beginning of the next one is kept.

        It waits only where a handler of the client does. Raises `ProtocolError` for bytes that no NATS server sends;
        the client then reconnects.
        """
        kept = self.buf
        if kept:
            kept += data
            if len(kept) < self._wanted:
                # The rest of a large message: looked at once, when it is whole.
                return
            data = bytes(kept)
            kept.clear()
        self._wanted = 0
        size = len(data)
        at = 0
        try:
            while at < size:
                end = data.find(_CRLF, at)
                if end < 0:
                    if size - at > CONTROL_LINE_BYTES_MAX:
                        raise ProtocolError
                    break
                first = data[at]
                if first == 77 or first == 72:  # M, H
                    after = self._message(data, at, end, size)
                    if after < 0:
                        break
                    at = after
                else:
                    await self._control(data[at:end])
                    at = end + 2
                if self.buf is not kept:
                    # The connection was given up meanwhile; what is left belongs to it.
                    return
        finally:
            if self.buf is kept and at < size:
                kept += data[at:]

    def _message(self, buffer: bytes, at: int, end: int, size: int) -> int:
        """Handle the message that begins at `at`; its end, or -1 when it is not complete yet."""
        fields = buffer[at:end].replace(b"\t", b" ").split(b" ")
        operation = fields[0]
        try:
            length = int(fields[-1])
            if length < 0:
                raise ProtocolError
            body = end + 2
            after = body + length + 2
            if after > size:
                self._wanted = after - at
                return -1
            headers: bytes | None = None
            if operation == b"HMSG":
                header_length = int(fields[-2])
                if not 0 <= header_length <= length:
                    raise ProtocolError
                headers = buffer[body : body + header_length]
                body += header_length
                fields.pop()
            elif operation != b"MSG":
                raise ProtocolError
            reply = fields[3] if len(fields) == 5 else b""
            subject, sid = fields[1], int(fields[2])
        except (ValueError, IndexError) as error:
            raise ProtocolError from error
        self.nc.dispatch(sid, subject, reply, buffer[body : after - 2], headers)
        return after

    async def _control(self, line: bytes) -> None:
        operation, _, rest = line.partition(b" ")
        operation = operation.upper()
        if operation == b"PING":
            await self.nc._process_ping()  # noqa: SLF001
        elif operation == b"PONG":
            await self.nc._process_pong()  # noqa: SLF001
        elif operation == b"-ERR":
            await self.nc._process_err(rest.decode("utf-8", "backslashreplace").lower())  # noqa: SLF001
        elif operation == b"INFO":
            try:
                info = json.loads(rest)
            except ValueError as error:
                raise ProtocolError from error
            await self.nc._process_info(info)  # noqa: SLF001
        elif operation != b"+OK":
            raise ProtocolError
