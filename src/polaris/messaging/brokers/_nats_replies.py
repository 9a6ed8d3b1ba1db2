"""Questions in flight: one inbox for all replies, confirmations and acknowledgements of a connection."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable
from typing import NamedTuple

from polaris.messaging.brokers._deadlines import SHARED_S_MAX, Deadlines
from polaris.messaging.brokers._nats_client import HardenedClient

PATIENT_S = 1.0
"""Who waits at least so long is told that the time is up a sixteenth of a second too early rather than by a timer of
its own."""
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


Take = Callable[[Reply], bool]
"""Takes one of several answers, at once and without raising; True when it was the last."""


class ReplyInbox:
    """Sends questions and matches the answers by a token in the subject.

    Cheaper than nats-py's requests: no task, queue or nested timeout per question; so thousands may wait at once. Each
    ends by its answer, its timeout, or `give_up`, whichever is first; cancelling one forgets it.
    """

    def __init__(self, client: HardenedClient) -> None:
        self._client = client
        self._prefix = f"{client.new_inbox()}."
        self._count = 0
        self._waiting: dict[str, tuple[str, asyncio.Future[Reply | NoReply], Take | None]] = {}
        self._deadlines: Deadlines[Reply | NoReply] = Deadlines(_time_is_up)

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
        self._waiting[token] = (subject, answer, None)
        if PATIENT_S <= timeout_s <= SHARED_S_MAX:
            group = self._deadlines.join(answer, timeout_s)
            try:
                self._client.send(subject, self._prefix + token, headers, payload)
                return await answer
            finally:
                group.pop(answer, None)
                self._waiting.pop(token, None)
        timer = loop.call_later(timeout_s, _time_is_up, answer)
        try:
            self._client.send(subject, self._prefix + token, headers, payload)
            return await answer
        finally:
            timer.cancel()
            self._waiting.pop(token, None)

    async def gather(self, subject: str, payload: bytes, take: Take, *, silence_s: float) -> NoReply | None:
        """Send at once and hand every answer to `take` until the last; None when that has come.

        Ends without it when nothing comes for `silence_s`; what was taken until then stands.
        """
        loop = asyncio.get_running_loop()
        heard_s = loop.time()
        timer: asyncio.TimerHandle

        def hear(reply: Reply) -> bool:
            nonlocal heard_s
            heard_s = loop.time()
            return take(reply)

        def watch() -> None:
            nonlocal timer
            quiet_s = loop.time() - heard_s
            if quiet_s >= silence_s:
                _end(last, NoReply.TIMEOUT)
            else:
                timer = loop.call_later(silence_s - quiet_s, watch)

        self._count += 1
        token = f"{self._count:x}"
        last: asyncio.Future[Reply | NoReply] = loop.create_future()
        self._waiting[token] = (subject, last, hear)
        timer = loop.call_later(silence_s, watch)
        try:
            self._client.send(subject, self._prefix + token, None, payload)
            answer = await last
            return answer if isinstance(answer, NoReply) else None
        finally:
            timer.cancel()
            self._waiting.pop(token, None)

    def give_up(self, why: NoReply, *, subject: str | None = None) -> None:
        """End all questions without an answer, or those on one subject (compared without case)."""
        for asked, answer, _ in list(self._waiting.values()):
            if subject is None or asked.lower() == subject:
                _end(answer, why)

    def _receive(self, subject: str, _reply: str, payload: bytes, headers: bytes | None) -> None:
        waiting = self._waiting.get(subject[len(self._prefix) :])
        if waiting is not None:
            _, answer, take = waiting
            reply = Reply(subject, payload, headers)
            if take is None or (not answer.done() and take(reply)):
                _end(answer, reply)


def _end(answer: asyncio.Future[Reply | NoReply], result: Reply | NoReply) -> None:
    if not answer.done():
        answer.set_result(result)


def _time_is_up(answer: asyncio.Future[Reply | NoReply]) -> None:
    _end(answer, NoReply.TIMEOUT)
