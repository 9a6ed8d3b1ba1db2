"""Questions to a NATS server: each ends by its answer or in its time, however many wait, and leaves nothing behind."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from polaris.exceptions import InvalidValueError
from polaris.messaging.brokers._deadlines import TICKS_A_SECOND, Deadlines
from polaris.messaging.brokers._nats_protocol import encode_headers, encode_id
from polaris.messaging.brokers._nats_replies import NoReply, Reply, ReplyInbox


class Client:
    """Keeps where answers are expected, and hands them over."""

    def __init__(self) -> None:
        self.expected: list[str] = []

    def new_inbox(self) -> str:
        return "inbox"

    async def listen(self, pattern: str, receive: Any) -> None:
        self.receive = receive

    def send(self, subject: str, reply: str, headers: bytes | None, payload: bytes) -> None:
        self.expected.append(reply)


async def opened() -> tuple[Client, ReplyInbox]:
    client = Client()
    inbox = ReplyInbox(client)  # type: ignore[arg-type]
    await inbox.open()
    return client, inbox


@pytest.mark.parametrize("timeout_s", [0.001, 0.3, 0.999, 10.1, 400.0])
async def test_short_and_long_times_are_exact(timeout_s: float) -> None:
    _, inbox = await opened()
    began_s = asyncio.get_running_loop().time()
    assert await inbox.ask("a", b"", timeout_s=timeout_s) is NoReply.TIMEOUT
    assert asyncio.get_running_loop().time() - began_s == pytest.approx(timeout_s)
    assert inbox.waiting == 0


async def test_times_of_seconds_end_within_a_sixteenth_of_a_second_and_never_late() -> None:
    _, inbox = await opened()
    loop = asyncio.get_running_loop()

    async def ask(number: int) -> None:
        await asyncio.sleep(number * 0.0137)
        timeout_s = 1.0 + number * 0.11 % 9.0
        began_s = loop.time()
        assert await inbox.ask("a", b"", timeout_s=timeout_s) is NoReply.TIMEOUT
        spent_s = loop.time() - began_s
        assert timeout_s - 1 / TICKS_A_SECOND <= spent_s <= timeout_s + 1e-6

    await asyncio.gather(*(ask(number) for number in range(200)))
    assert inbox.waiting == 0


async def test_an_answer_ends_its_question_and_no_other() -> None:
    client, inbox = await opened()
    asking = [asyncio.create_task(inbox.ask("a", b"", timeout_s=5.0)) for _ in range(3)]
    await asyncio.sleep(0)
    client.receive(client.expected[1], "", b"yes", None)
    assert await asking[1] == Reply(client.expected[1], b"yes", None)
    assert not asking[0].done()
    asking[2].cancel()
    await asyncio.wait([asking[2]])
    assert inbox.waiting == 1
    assert await asking[0] is NoReply.TIMEOUT
    client.receive(client.expected[0], "", b"late", None)
    assert inbox.waiting == 0


async def test_deadlines_that_fall_together_share_a_timer_and_keep_nothing_that_was_answered() -> None:
    loop = asyncio.get_running_loop()
    ended: list[asyncio.Future[str]] = []
    deadlines: Deadlines[str] = Deadlines(ended.append)
    answers: list[asyncio.Future[str]] = [loop.create_future() for _ in range(1_000)]
    groups = [deadlines.join(answer, 2.0) for answer in answers]
    assert len({id(group) for group in groups}) == 1
    for answer, group in zip(answers[1:], groups[1:], strict=True):
        del group[answer]
    assert list(groups[0]) == answers[:1]
    await asyncio.sleep(2.0)
    assert ended == answers[:1]
    assert deadlines._groups == {}


@pytest.mark.parametrize("message_id", ["01a2225f-23c4-70d2-9a03-5dce6da1ce81", "x", "", "ünder", "two words", "~!"])
def test_the_block_of_a_message_id_is_that_of_any_header(message_id: str) -> None:
    assert encode_id(message_id) == encode_headers({"Nats-Msg-Id": message_id})


@pytest.mark.parametrize("message_id", [" x", "x ", "x\r\nEvil: 1", "\x00", "\ud800", 7])
def test_a_message_id_that_would_not_arrive_unchanged_is_refused(message_id: Any) -> None:
    with pytest.raises(InvalidValueError):
        encode_id(message_id)
