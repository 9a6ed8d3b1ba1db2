"""Questions in flight: one inbox for all replies, confirmations and acknowledgements of a connection."""

from __future__ import annotations

import asyncio
import enum
from typing import NamedTuple

from polaris.messaging.brokers._nats_client import HardenedClient

_NO_RESPONDERS = b"NATS/1.0 503"


class NoReply(enum.Enum):
    """Why a question has no answer."""

    TIMEOUT = "timeout"
    LOST = "the connection was lost"
    FORBIDDEN = "the server forbids it"
    """Nothing was sent on by the server."""


class Reply(NamedTuple):
    """An answer as it came."""

    subject: str
    payload: bytes
    headers: bytes | None

    @property
    def nobody_listens(self) -> bool:
        """The server answers in place of the responder that does not exist."""
        return self.headers is not None and not self.payload and self.headers.startswith(_NO_RESPONDERS)


class ReplyInbox:
    """Sends questions and matches the answers by a token in the subject.

    Cheaper than nats-py's requests: no task, queue or nested timeout per question; so thousands may wait at once. Each
    ends by its answer, its timeout, or `give_up`, whichever is first; cancelling one forgets it.
    """

    def __init__(self, client: HardenedClient) -> None:
        self._client = client
        self._prefix = f"{client.new_inbox()}."
        self._count = 0
        self._waiting: dict[str, tuple[str, asyncio.Future[Reply | NoReply]]] = {}

    @property
    def waiting(self) -> int:
        """How many questions have no answer yet."""
        return len(self._waiting)

    async def open(self) -> None:
        """Listen for answers; of effect after the next flush of the client."""
        await self._client.listen(f"{self._prefix}*", self._receive)

    async def ask(
        self, subject: str, payload: bytes, *, headers: bytes | None = None, timeout_s: float
    ) -> Reply | NoReply:
        """Send at once and wait for one answer."""
        loop = asyncio.get_running_loop()
        self._count += 1
        token = f"{self._count:x}"
        answer: asyncio.Future[Reply | NoReply] = loop.create_future()
        self._waiting[token] = (subject, answer)
        timer = loop.call_later(timeout_s, _end, answer, NoReply.TIMEOUT)
        try:
            self._client.send(subject, self._prefix + token, headers, payload)
            return await answer
        finally:
            timer.cancel()
            self._waiting.pop(token, None)

    def give_up(self, why: NoReply, *, subject: str | None = None) -> None:
        """End all questions without an answer, or those on one subject (compared without case)."""
        for asked, answer in list(self._waiting.values()):
            if subject is None or asked.lower() == subject:
                _end(answer, why)

    def _receive(self, subject: str, _reply: str, payload: bytes, headers: bytes | None) -> None:
        waiting = self._waiting.get(subject[len(self._prefix) :])
        if waiting is not None:
            _end(waiting[1], Reply(subject, payload, headers))


def _end(answer: asyncio.Future[Reply | NoReply], result: Reply | NoReply) -> None:
    if not answer.done():
        answer.set_result(result)
