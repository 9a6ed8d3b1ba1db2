"""How stored messages are read in batches when those who answer lag, stop, refuse or send what looks like an end."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from polaris.exceptions import BusConnectionError
from polaris.messaging.brokers._jetstream_api import JetStreamAPI
from polaris.messaging.brokers._nats_direct import BATCH_MESSAGES, StoredReader
from polaris.messaging.brokers._nats_protocol import encode_headers
from polaris.messaging.brokers._nats_replies import NoReply, Reply, ReplyInbox, Take

AT = "2026-03-01T00:00:00.123456789Z"
END = b"NATS/1.0 204 EOB\r\nNats-Num-Pending: %d\r\nNats-Last-Sequence: 9\r\n\r\n"
NOTHING = b"NATS/1.0 404 Message Not Found\r\n\r\n"
NOBODY = b"NATS/1.0 503\r\nNats-Subject: $JS.API.DIRECT.GET.S\r\n\r\n"


def stored(sequence: int, headers: bytes = b"NATS/1.0\r\n\r\n", *, pending: int | None = 0) -> Reply:
    """A message as the server sends it: its own headers behind those of the message, without whose last line."""
    own = f"Nats-Stream: S\r\nNats-Subject: s.{sequence}\r\nNats-Sequence: {sequence}\r\nNats-Time-Stamp: {AT}\r\n"
    if pending is not None:
        own += f"Nats-Num-Pending: {pending}\r\nNats-Last-Sequence: 0\r\n"
    return Reply("inbox", b"%d" % sequence, headers[:-2] + own.encode() + b"\r\n")


def status(block: bytes) -> Reply:
    return Reply("inbox", b"", block)


class Replica:
    """Answers direct gets by a script, and counts them."""

    def __init__(self, answer: Callable[[int, int], tuple[Sequence[Reply], NoReply | None]]) -> None:
        self._answer = answer
        self.asked: list[tuple[int, int]] = []

    async def gather(self, subject: str, payload: bytes, take: Take, *, silence_s: float) -> NoReply | None:
        question = msgspec.json.decode(payload)
        self.asked.append((question["seq"], question["batch"]))
        replies, failure = self._answer(*self.asked[-1])
        ended = [take(reply) for reply in replies]
        assert not any(ended[:-1]), "an answer was taken for the last one"
        assert failure is not None or ended[-1:] == [True], "the reader waits for more answers"
        return failure


class Leader:
    """Answers gets of single messages from what it holds."""

    def __init__(self, last: int) -> None:
        self.last = last
        self.asked: list[int] = []

    async def __call__(self, subject: str, payload: bytes) -> bytes:
        sequence = msgspec.json.decode(payload)["seq"]
        self.asked.append(sequence)
        if sequence > self.last:
            return b'{"error":{"code":404,"err_code":10037}}'
        data = base64.b64encode(b"%d" % sequence).decode()
        return msgspec.json.encode({"message": {"seq": sequence, "subject": f"s.{sequence}", "data": data, "time": AT}})


def reader(replica: Replica, leader: Leader) -> StoredReader:
    return StoredReader(replica, JetStreamAPI(leader))


def holding(last: int, *, at_most: int = 10**6) -> Replica:
    """A replica that holds the messages up to `last` and gives no more than `at_most` of them at once."""

    def answer(sequence: int, batch: int) -> tuple[list[Reply], None]:
        end = min(sequence + min(batch, at_most), last + 1)
        if sequence > last:
            return [status(NOTHING)], None
        messages = [stored(number, pending=last - number) for number in range(sequence, end)]
        return [*messages, status(END % (last + 1 - end))], None

    return Replica(answer)


async def sequences(of: StoredReader, from_sequence: int = 1, count_max: int = 100) -> list[int]:
    return [message.sequence for message in await of.read("S", from_sequence, count_max)]


async def test_a_page_is_one_question() -> None:
    replica, leader = holding(500), Leader(500)
    assert await sequences(reader(replica, leader), 11, 100) == list(range(11, 111))
    assert (replica.asked, leader.asked) == ([(11, 100)], [])


async def test_more_than_a_batch_is_read_in_batches() -> None:
    replica, leader = holding(1_000, at_most=200), Leader(1_000)
    assert await sequences(reader(replica, leader), 0, 700) == list(range(1, 701))
    assert replica.asked == [(1, BATCH_MESSAGES), (201, BATCH_MESSAGES), (401, BATCH_MESSAGES), (601, 100)]
    assert leader.asked == []


async def test_what_a_lagging_replica_does_not_have_yet_is_asked_of_the_leader() -> None:
    for known in (0, 3, 4):
        replica, leader = holding(known), Leader(5)
        assert await sequences(reader(replica, leader)) == [1, 2, 3, 4, 5]
        assert leader.asked[0] == known + 1
        assert leader.asked[-1] == 6


async def test_a_single_message_is_asked_of_the_leader() -> None:
    replica, leader = holding(5), Leader(5)
    assert await sequences(reader(replica, leader), 3, 1) == [3]
    assert (replica.asked, leader.asked) == ([], [3])


@pytest.mark.parametrize(
    ("replies", "failure"),
    [
        ([status(NOBODY)], None),
        ([status(b"NATS/1.0 408 Bad Request\r\n\r\n")], None),
        ([stored(1, pending=4), stored(2, pending=3)], NoReply.TIMEOUT),
        ([], NoReply.TIMEOUT),
        ([], NoReply.FORBIDDEN),
        ([Reply("inbox", b"what", None)], None),
        ([stored(1, pending=4), stored(1, pending=4), status(END % 0)], None),
        ([stored(1, pending=4), status(b"NATS/1.0\r\nfoNats-Stream: S\r\n\r\n")], None),
    ],
    ids=["nobody", "bad request", "stopped", "silent", "forbidden", "no headers", "twice", "damaged headers"],
)
async def test_without_a_batch_the_leader_is_asked_for_the_rest(replies: list[Reply], failure: NoReply | None) -> None:
    replica, leader = Replica(lambda *_: (replies, failure)), Leader(5)
    of = reader(replica, leader)
    assert await sequences(of) == [1, 2, 3, 4, 5]
    assert len(replica.asked) == 1
    await of.read("S", 1, 100)
    assert len(replica.asked) == (1 if failure is NoReply.FORBIDDEN else 2)


async def test_a_lost_connection_is_an_error() -> None:
    replica = Replica(lambda *_: ([stored(1)], NoReply.LOST))
    with pytest.raises(BusConnectionError):
        await reader(replica, Leader(5)).read("S", 1, 100)


async def test_a_server_that_knows_no_batches_gives_one_message_at_a_time() -> None:
    def answer(sequence: int, batch: int) -> tuple[list[Reply], None]:
        return [stored(sequence, pending=None) if sequence <= 3 else status(NOTHING)], None

    replica, leader = Replica(answer), Leader(3)
    assert await sequences(reader(replica, leader)) == [1, 2, 3]
    assert leader.asked == [4]


async def test_headers_of_a_message_are_told_from_those_of_the_server() -> None:
    odd = {"Nats-Stream": "mine", "Nats-Sequence": "77", "Nats-Num-Pending": "0", "A": "b"}
    ending = b"NATS/1.0 204 EOB\r\nNats-Num-Pending: 0\r\n\r\n"
    replies = [stored(1, encode_headers(odd), pending=2), stored(2, ending, pending=1), stored(3), status(END % 0)]
    replica, leader = Replica(lambda *_: (replies, None)), Leader(3)
    first, second, third = await reader(replica, leader).read("S", 1, 100)
    assert (first.sequence, first.subject, first.headers) == (1, "s.1", odd)
    assert (second.sequence, second.headers["Status"], second.headers["Nats-Num-Pending"]) == (2, "204", "0")
    assert (third.sequence, third.headers, third.payload) == (3, {}, b"3")
    assert first.stored_at == datetime(2026, 3, 1, 0, 0, 0, 123456, tzinfo=UTC)


# The inbox that gathers several answers.


class Client:
    """Takes what is sent, and lets a test answer."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.receive: Any = None

    def new_inbox(self) -> str:
        return "_INBOX.x"

    async def listen(self, pattern: str, receive: Any) -> None:
        self.receive = receive

    def send(self, subject: str, reply: str, headers: bytes | None, payload: bytes) -> None:
        self.sent.append(reply)

    def answer(self, payload: bytes) -> None:
        self.receive(self.sent[-1], "", payload, None)


async def gathering(client: Client, taken: list[bytes]) -> tuple[ReplyInbox, asyncio.Task[NoReply | None]]:
    inbox = ReplyInbox(client)  # type: ignore[arg-type]
    await inbox.open()

    def take(reply: Reply) -> bool:
        taken.append(reply.payload)
        return reply.payload == b"last"

    task = asyncio.create_task(inbox.gather("subject", b"", take, silence_s=2.0))
    await asyncio.sleep(0)
    return inbox, task


async def test_answers_are_gathered_until_the_last_however_long_that_takes() -> None:
    client, taken = Client(), list[bytes]()
    inbox, task = await gathering(client, taken)
    for _ in range(10):
        await asyncio.sleep(1.5)
        client.answer(b"more")
    client.answer(b"last")
    client.answer(b"late")
    assert await task is None
    assert taken == [b"more"] * 10 + [b"last"]
    assert inbox.waiting == 0


async def test_silence_ends_it_with_what_came() -> None:
    client, taken = Client(), list[bytes]()
    inbox, task = await gathering(client, taken)
    loop = asyncio.get_running_loop()
    await asyncio.sleep(1.5)
    client.answer(b"more")
    heard_s = loop.time()
    assert await task is NoReply.TIMEOUT
    assert loop.time() - heard_s == pytest.approx(2.0)
    assert (taken, inbox.waiting) == ([b"more"], 0)


async def test_a_lost_connection_and_a_cancellation_end_it_at_once() -> None:
    client = Client()
    inbox, task = await gathering(client, [])
    inbox.give_up(NoReply.LOST)
    assert await task is NoReply.LOST
    inbox, task = await gathering(client, [])
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert inbox.waiting == 0
