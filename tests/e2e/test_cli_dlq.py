"""`polaris dlq` beside a running node: what a stranger's client broke is found, looked at, replayed and erased."""

from __future__ import annotations

import asyncio
import base64
import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import nats
import pytest
import pytest_asyncio
from nats.js.api import ConsumerConfig
from tests.commands import Polaris, end_of
from tests.nodes import NodeUnderTest, a_node, eventually_true

from polaris.domain import SystemState, TelemetryEvent
from polaris.messaging import DEAD_LETTER_STREAM, DeadLetters, EventCodec

pytestmark = pytest.mark.xdist_group("cli")

HOSTILE = bytes(range(256)) + b"\r\n+OK\r\n\x00"
FOREIGN = b'{"specversion":"1.0","id":"o1","source":"shop","type":"shop.order","data":{"amount":3}}'
LARGEST = 1 << 20


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[NodeUnderTest]:
    async with a_node(tmp_path_factory.mktemp("dlq")) as running:
        yield running


@pytest.fixture
def polaris(node: NodeUnderTest) -> Polaris:
    return Polaris(node.folder)


def put_aside(node: NodeUnderTest, topic: str, *payloads: bytes, headers: dict[str, str] | None = None) -> list[int]:
    """Publish with a client that knows nothing of POLARIS; the numbers of the entries when they are there."""

    async def publish() -> list[int]:
        client = await nats.connect(str(node.file.bus_url), token=node.file.bus_token)
        try:
            for payload in payloads:
                await client.jetstream().publish(topic, payload, headers=headers)
        finally:
            await client.close()
        found: list[int] = []

        async def are_there() -> bool:
            found[:] = await entries_of(node, topic)
            return len(found) >= len(payloads)

        await eventually_true(are_there, "the dead letters are there")
        return found

    return asyncio.run(publish())


async def entries_of(node: NodeUnderTest, topic: str) -> list[int]:
    """The numbers of the dead letters of a topic, oldest first."""
    broker = node.broker()
    await broker.connect()
    try:
        return [one.sequence for one in await DeadLetters(broker).list(count_max=10_000) if one.entry.topic == topic]
    finally:
        await broker.disconnect()


def stored_telemetry(node: NodeUnderTest, topic: str) -> list[bytes]:
    async def read() -> list[bytes]:
        broker = node.broker()
        await broker.connect()
        try:
            found = await broker.read_stored("POLARIS_TELEMETRY", count_max=10_000)
            return [message.payload for message in found if message.subject == topic]
        finally:
            await broker.disconnect()

    return asyncio.run(read())


def test_without_dead_letters_there_is_nothing_to_list_or_do(tmp_path: Path) -> None:
    async def look() -> None:
        async with a_node(tmp_path):
            fresh = Polaris(tmp_path)
            for command in (("list",), ("replay", "--all"), ("drop", "--all"), ("show", "1"), ("drop", "1")):
                ended = await asyncio.to_thread(fresh, "dlq", *command)
                assert ended.code == 4, ended
                assert "no such dead letters" in ended.complaint or "no dead letter at 1" in repr(ended)
            listed = await asyncio.to_thread(fresh, "dlq", "list", "--json")
            assert (listed.code, listed.json) == (0, {"dead_letters": [], "next": None})

    asyncio.run(look())


def test_undecodable_bytes_come_out_byte_for_byte(polaris: Polaris, node: NodeUnderTest, tmp_path: Path) -> None:
    (sequence,) = put_aside(node, "polaris.telemetry.bytes", HOSTILE, headers={"Origin": "boiler 7"})
    raw = subprocess.run(
        [sys.executable, "-m", "polaris", "dlq", "show", str(sequence), "--raw"],
        cwd=node.folder,
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert raw.stdout == HOSTILE
    copy = tmp_path / "copy.bin"
    ended = polaris("dlq", "show", str(sequence), "--output", str(copy))
    assert (ended.code, ended.output) == (0, "")
    assert copy.read_bytes() == HOSTILE
    shown = polaris("dlq", "show", str(sequence))
    assert shown.code == 0
    assert "  Origin: boiler 7" in shown.lines
    assert "reason:       undecodable" in shown.lines
    assert "error code:   polaris.bus.decode" in shown.lines
    assert f"payload:      {len(HOSTILE)} bytes" in shown.lines
    assert "00000010  10 11 12 13 14 15 16 17 18 19 1a 1b 1c 1d 1e 1f  ................" in shown.lines
    told = polaris("dlq", "show", str(sequence), "--json").json
    assert base64.b64decode(told["payload_base64"]) == HOSTILE
    assert (told["payload_text"], told["topic"], told["attempts"]) == (None, "polaris.telemetry.bytes", 1)
    nowhere = polaris("dlq", "show", str(sequence), "--output", str(tmp_path / "no" / "such"))
    assert nowhere.code == 1
    assert "No such file or directory" in nowhere.complaint


def test_the_largest_message_there_can_be_comes_out_byte_for_byte(
    polaris: Polaris, node: NodeUnderTest, tmp_path: Path
) -> None:
    payload = os.urandom(LARGEST)
    (sequence,) = put_aside(node, "polaris.telemetry.largest", payload)
    assert polaris("dlq", "show", str(sequence), "-o", str(tmp_path / "copy")).code == 0
    assert (tmp_path / "copy").read_bytes() == payload
    replayed = polaris("dlq", "replay", str(sequence), "--keep")
    assert replayed.code == 0
    assert stored_telemetry(node, "polaris.telemetry.largest") == [payload, payload]
    assert polaris("dlq", "drop", "--topic", "polaris.telemetry.largest").code == 0


def test_listing_filters_and_goes_through_pages(polaris: Polaris, node: NodeUnderTest) -> None:
    mine = "polaris.telemetry.listed"
    sequences = put_aside(node, mine, b"one", b"two", FOREIGN)
    newest_first = sequences[::-1]
    ended = polaris("dlq", "list", "--topic", mine)
    assert ended.code == 0
    assert ended.rows[0] == ["SEQUENCE", "PUT ASIDE", "TOPIC", "SUBSCRIPTION", "REASON", "ERROR", "ATTEMPTS", "SIZE"]
    assert [row[0] for row in ended.rows[1:]] == [str(one) for one in newest_first]
    assert [row[4] for row in ended.rows[1:]] == ["unknown_type", "undecodable", "undecodable"]
    assert [row[7] for row in ended.rows[1:]] == [f"{len(FOREIGN)} B", "3 B", "3 B"]

    def listed(*options: str) -> list[int]:
        told = polaris("dlq", "list", "--topic", mine, "--json", *options).json
        return [letter["sequence"] for letter in told["dead_letters"]]

    assert listed("--oldest-first") == sequences
    assert listed("--reason", "unknown_type") == sequences[2:]
    assert listed("--since", "1h") == newest_first
    assert listed("--since", (datetime.now(UTC) + timedelta(hours=1)).isoformat()) == []
    assert listed("--subscription", "nobody") == []
    first = polaris("dlq", "list", "--topic", mine, "--limit", "2", "--json").json
    assert [letter["sequence"] for letter in first["dead_letters"]] == newest_first[:2]
    assert listed("--after", str(first["next"])) == newest_first[2:]
    said = polaris("dlq", "list", "--topic", mine, "-n", "2")
    assert f"there are more; go on with --after {first['next']}" in said.complaint
    assert polaris("dlq", "list", "--topic", "polaris.telemetry.*", "--reason", "unknown_type").code == 0
    assert polaris("dlq", "drop", *map(str, sequences)).code == 0


def test_a_replayed_entry_goes_out_as_it_was_and_becomes_a_new_entry_when_it_fails_again(
    polaris: Polaris, node: NodeUnderTest
) -> None:
    topic = "polaris.telemetry.again"
    (sequence,) = put_aside(node, topic, HOSTILE)
    ended = polaris("dlq", "replay", str(sequence))
    assert ended.code == 0
    assert ended.lines[0].startswith(f"{sequence}  replayed  {topic}  stored as POLARIS_TELEMETRY #")
    assert ended.lines[0].endswith("(at least once); the entry is dropped")
    assert stored_telemetry(node, topic) == [HOSTILE, HOSTILE]

    async def failed_again() -> bool:
        return bool(await entries_of(node, topic))

    asyncio.run(eventually_true(failed_again, "it has failed again"))
    (again,) = asyncio.run(entries_of(node, topic))
    assert again > sequence
    gone = polaris("dlq", "replay", str(sequence), "--json")
    assert (gone.code, gone.json) == (4, {"sequence": sequence, "outcome": "missing"})
    assert polaris("dlq", "drop", str(again)).code == 0


def test_what_the_server_gave_up_for_another_client_is_listed_and_replayed(
    polaris: Polaris, node: NodeUnderTest
) -> None:
    topic = "polaris.telemetry.boiler"
    event = EventCodec().encode(TelemetryEvent(SystemState("boiler", datetime.now(UTC))))

    async def give_up() -> None:
        client = await nats.connect(str(node.file.bus_url), token=node.file.bus_token)
        try:
            jetstream = client.jetstream()
            await jetstream.publish(topic, event, headers={"Nats-Msg-Id": "b1"})
            limited = ConsumerConfig(durable_name="logger", max_deliver=1, filter_subject=topic)
            consumer = await jetstream.pull_subscribe(topic, "logger", "POLARIS_TELEMETRY", config=limited)
            (message,) = await consumer.fetch(1)
            await message.nak()
            with pytest.raises(nats.errors.TimeoutError):
                await consumer.fetch(1, timeout=0.2)
        finally:
            await client.close()

        async def is_there() -> bool:
            return len(await entries_of(node, topic)) == 1

        await eventually_true(is_there, "the dead letter is there")

    asyncio.run(give_up())
    ended = polaris("dlq", "list", "--reason", "given_up", "--subscription", "logger")
    assert ended.rows[1][2:5] == [topic, "logger", "given_up"]
    replayed = polaris("dlq", "replay", "--reason", "given_up", "--yes", "--json").json
    assert (replayed["outcome"], replayed["duplicate"]) == ("replayed", False)
    assert stored_telemetry(node, topic) == [event, event]
    assert asyncio.run(entries_of(node, topic)) == []


def test_a_kept_entry_replayed_twice_is_stored_once(polaris: Polaris, node: NodeUnderTest) -> None:
    topic = "polaris.telemetry.kept"
    (sequence,) = put_aside(node, topic, FOREIGN)
    first = polaris("dlq", "replay", str(sequence), "--keep", "--json").json
    assert (first["outcome"], first["kept"], first["duplicate"]) == ("replayed", True, False)
    again = polaris("dlq", "replay", str(sequence), "--keep")
    assert ", was there already (at least once); the entry is kept" in again.lines[0]
    assert stored_telemetry(node, topic) == [FOREIGN, FOREIGN]
    assert polaris("dlq", "drop", "--topic", topic).code == 0


def test_of_a_batch_only_the_bad_member_is_put_aside(polaris: Polaris, node: NodeUnderTest) -> None:
    from polaris.domain import MetricValue, SystemState, TelemetryEvent

    state = SystemState("mended", datetime.now(UTC), {"n": MetricValue("n", 7.0)})
    event = TelemetryEvent(state)
    payload = b"[" + EventCodec().encode(event) + b',{"specversion":"1.0"}]'
    (sequence,) = put_aside(node, "polaris.telemetry.mended", payload)
    told = polaris("dlq", "show", str(sequence), "--json").json
    assert told["payload_text"] == '{"specversion":"1.0"}'
    assert polaris("query", "mended", "n").code == 0
    assert polaris("dlq", "drop", str(sequence)).code == 0


def test_all_that_match_are_replayed_and_dropped_and_each_is_accounted_for(
    polaris: Polaris, node: NodeUnderTest
) -> None:
    topic = "polaris.telemetry.many"
    sequences = put_aside(node, topic, *(f"junk {number}".encode() for number in range(12)))
    ended = polaris("dlq", "replay", "--topic", topic, "--limit", "5", "--keep")
    assert ended.code == 0
    assert [line.split("  ")[:2] for line in ended.lines] == [[str(one), "replayed"] for one in sequences[:5]]
    assert "5 of 5 replayed" in ended.complaint
    mixed = polaris("dlq", "drop", str(sequences[0]), "999999999", str(sequences[1]))
    assert mixed.code == 4
    assert [line.split("  ")[1] for line in mixed.lines] == ["dropped", "missing", "dropped"]
    assert "2 of 3 dropped" in mixed.complaint
    dropped = polaris("dlq", "drop", "--topic", topic, "--json")
    outcomes = [line for line in dropped.lines if '"outcome":"dropped"' in line]
    assert len(outcomes) >= 10
    assert dropped.code == 0


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["replay"], "name entries by number, by a filter, or take --all of them"),
        (["drop", "--limit", "3"], "name entries by number, by a filter, or take --all of them"),
        (["drop", "3", "--all"], "by number or by filter, not both"),
        (["replay", "3", "--reason", "refused"], "by number or by filter, not both"),
        (["list", "--reason", "undecodabel"], "there is no reason 'undecodabel'; did you mean undecodable?"),
        (["list", "--topic", "a.>.b"], "is not a legal topic"),
        (["list", "--since", "yesterday"], "--since"),
        (["list", "--since", "2026-03-01T12:00:00"], "--since"),
        (["show", "0"], "SEQUENCE"),
        (["show", "1", "--raw", "--json"], "--raw"),
    ],
)
def test_wrong_options_are_refused_and_nothing_is_done(polaris: Polaris, arguments: list[str], complaint: str) -> None:
    ended = polaris("dlq", *arguments)
    assert (ended.code, ended.output) == (2, "")
    assert complaint in " ".join(ended.complaint.replace("│", " ").split())


def test_without_a_node_the_bus_is_unreachable(tmp_path: Path) -> None:
    ended = Polaris(tmp_path)("dlq", "list")
    assert ended.code == 69
    assert "no node runs" in ended.complaint


class Terminal:
    """A command with a person before it."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "polaris", *arguments],
            cwd=folder,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            start_new_session=True,
        )
        os.close(theirs)
        self.said = ""

    def read_until(self, text: str) -> None:
        while text not in self.said:
            try:
                self.said += os.read(self._ours, 65_536).decode()
            except OSError:
                break
        assert text in self.said

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def end(self) -> int:
        while True:
            try:
                said = os.read(self._ours, 65_536).decode()
            except OSError:
                said = ""
            if not said:
                os.close(self._ours)
                return self.process.wait(30)
            self.said += said


@pytest.mark.parametrize(
    ("answer", "code", "left"), [("n\n", 1, True), ("\n", 1, True), ("y\n", 0, False)], ids=["no", "nothing", "yes"]
)
def test_a_person_is_asked_before_anything_is_erased(node: NodeUnderTest, answer: str, code: int, left: bool) -> None:
    (sequence, *_) = put_aside(node, "polaris.telemetry.asked", b"junk")
    terminal = Terminal(node.folder, "dlq", "drop", "--topic", "polaris.telemetry.asked")
    terminal.read_until("drop this dead letter? [y/N]: ")
    terminal.type(answer)
    assert terminal.end() == code
    assert ("nothing was done" in terminal.said) is left
    assert (sequence in asyncio.run(entries_of(node, "polaris.telemetry.asked"))) is left
    Polaris(node.folder)("dlq", "drop", "--topic", "polaris.telemetry.asked")


def test_a_person_who_said_yes_before_is_not_asked(node: NodeUnderTest) -> None:
    (sequence,) = put_aside(node, "polaris.telemetry.sure", b"junk")
    terminal = Terminal(node.folder, "dlq", "drop", str(sequence), "--yes")
    assert terminal.end() == 0
    assert f"{sequence}  dropped" in terminal.said
    assert "[y/N]" not in terminal.said


def test_what_others_put_into_the_stream_is_left_alone(polaris: Polaris, node: NodeUnderTest) -> None:
    async def intrude() -> int:
        client = await nats.connect(str(node.file.bus_url), token=node.file.bus_token)
        try:
            return (await client.jetstream().publish("polaris.dead_letter.x", b"noise")).seq
        finally:
            await client.close()

    sequence = asyncio.run(intrude())
    assert polaris("dlq", "show", str(sequence)).code == 4
    assert polaris("dlq", "drop", str(sequence)).code == 4

    async def is_there() -> bool:
        broker = node.broker()
        await broker.connect()
        try:
            stored = await broker.read_stored(DEAD_LETTER_STREAM.name, from_sequence=sequence, count_max=1)
            return bool(stored) and stored[0].payload == b"noise"
        finally:
            await broker.disconnect()

    assert asyncio.run(is_there())


def test_replaying_that_is_interrupted_says_nothing_wrong(polaris: Polaris, node: NodeUnderTest) -> None:
    topic = "polaris.telemetry.interrupted"
    put_aside(node, topic, *(b"junk" for _ in range(150)))
    process = polaris.start("dlq", "drop", "--topic", topic)
    assert process.stdout is not None
    told = [process.stdout.readline()]
    process.send_signal(signal.SIGINT)
    # to the end by the same reader: more lines than one may be in its buffer already
    told += process.stdout.readlines()
    assert end_of(process).code in (0, 130)
    left = asyncio.run(entries_of(node, topic))
    assert len(left) + len(told) in (150, 149)
    assert polaris("dlq", "drop", "--topic", topic).code in (0, 4)
