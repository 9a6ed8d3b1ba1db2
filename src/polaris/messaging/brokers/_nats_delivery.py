"""Received messages: pushed ones, and stored ones that are to be settled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import ClassVar, Protocol

import msgspec

from polaris.messaging.brokers._nats_protocol import decode_headers

ACK_PREFIX = "$JS.ACK."
_ACK = b"+ACK"
_NAK = b"-NAK"
_TERM = b"+TERM"
_IN_PROGRESS = b"+WPI"
# $JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<timestamp>.<pending>; since version 2 of the
# format with domain and account hash before the stream (ADR-15).
_TOKENS_V1 = 9


class Settler(Protocol):
    """Sends settlements on the connection that a delivery came by."""

    async def tell(self, subject: str, payload: bytes) -> None:
        """Send, or raise `BusConnectionError`."""
        ...

    async def confirm(self, subject: str, payload: bytes) -> None:
        """Send and wait for the answer, or raise `BusConnectionError`."""
        ...


class CoreDelivery(msgspec.Struct, eq=False):
    """A message of a core subscription, or a reply. Settling does nothing."""

    subject: str
    payload: bytes
    block: bytes | None
    """The headers as they came."""
    reply_to: str | None
    _headers: Mapping[str, str] | None = None

    attempt: ClassVar[int] = 1
    sequence: ClassVar[int | None] = None
    number: ClassVar[int | None] = None
    stored_at: ClassVar[datetime | None] = None

    @property
    def headers(self) -> Mapping[str, str]:
        if self._headers is None:
            self._headers = {} if self.block is None else decode_headers(self.block)
        return self._headers

    async def ack(self, *, confirm: bool = False) -> None:
        pass

    async def nak(self, *, delay_s: float) -> None:
        pass

    async def term(self) -> None:
        pass

    async def in_progress(self) -> None:
        pass


class StoredDelivery:
    """A message of a consumer. The first settlement that could be sent counts; later ones do nothing.

    Of one that is `settled` from the start, as the server does not listen to settlements, none is sent.
    """

    __slots__ = (
        "_ack_subject",
        "_block",
        "_fields",
        "_headers",
        "_settled",
        "_settler",
        "_stored_at",
        "payload",
        "subject",
    )

    reply_to: str | None = None

    def __init__(
        self,
        settler: Settler,
        subject: str,
        ack_subject: str,
        payload: bytes,
        block: bytes | None,
        settled: bool = False,
    ) -> None:
        self.subject = subject
        self.payload = payload
        self._settler = settler
        self._ack_subject = ack_subject
        self._block = block
        self._headers: Mapping[str, str] | None = None
        self._fields: list[str] | None = None
        self._stored_at: datetime | None = None
        self._settled = settled

    @property
    def headers(self) -> Mapping[str, str]:
        if self._headers is None:
            self._headers = decode_headers(self._block)
        return self._headers

    @property
    def ack_subject(self) -> str:
        """Where its settlement goes."""
        return self._ack_subject

    @property
    def attempt(self) -> int:
        return self._number(0)

    @property
    def sequence(self) -> int | None:
        return self._number(1)

    @property
    def number(self) -> int | None:
        return self._number(2)

    @property
    def stored_at(self) -> datetime | None:
        if self._stored_at is None:
            self._stored_at = datetime.fromtimestamp(self._number(3) / 1e9, UTC)
        return self._stored_at

    def _number(self, index: int) -> int:
        if self._fields is None:
            tokens = self._ack_subject.split(".")
            self._fields = tokens[4:] if len(tokens) == _TOKENS_V1 else tokens[6:]
        return int(self._fields[index])

    async def ack(self, *, confirm: bool = False) -> None:
        if self._settled:
            return
        if confirm:
            await self._settler.confirm(self._ack_subject, _ACK)
        else:
            await self._settler.tell(self._ack_subject, _ACK)
        self._settled = True

    async def nak(self, *, delay_s: float) -> None:
        payload = _NAK
        if delay_s > 0:
            payload += b" " + json.dumps({"delay": int(delay_s * 1e9)}).encode()
        await self._settle(payload)

    async def term(self) -> None:
        await self._settle(_TERM)

    async def in_progress(self) -> None:
        if not self._settled:
            await self._settler.tell(self._ack_subject, _IN_PROGRESS)

    async def _settle(self, payload: bytes) -> None:
        if not self._settled:
            await self._settler.tell(self._ack_subject, payload)
            self._settled = True
