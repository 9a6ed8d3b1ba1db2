"""What commands show, kept as files: in terminals of 80 and 120 columns, with colours and without, and into a pipe.

Times, ids, ports and the machine's own figures are masked. When what is shown changes for good, write the files anew
and read the difference before it is committed:

    GOLDEN=write pytest tests/e2e/test_cli_golden.py; git diff tests/e2e/golden
"""

from __future__ import annotations

import asyncio
import os
import pty
import re
import shutil
import struct
import tempfile
import termios
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from fcntl import ioctl
from pathlib import Path
from typing import NamedTuple

import pytest
import pytest_asyncio
from tests.commands import UNTIDY, Polaris, environment, warm_commands
from tests.nodes import NodeUnderTest, a_node, eventually_true
from tests.warm_commands import Request

from polaris.domain import HealthStatus, MetricValue, SystemState, TelemetryEvent
from polaris.messaging import DeadLetters, DeliveryClass, OutgoingMessage

pytestmark = pytest.mark.xdist_group("golden")

GOLDEN = Path(__file__).parent / "golden"
PATIENCE_S = 30.0
BEGUN = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
METRIC = "service.response_time.p95"
LONG_ID = "warehouse-robots-of-the-northern-hall"

HELP = {
    "help": ("--help",),
    "help-query": ("query", "--help"),
    "help-act": ("act", "--help"),
    "help-dlq": ("dlq", "--help"),
    "help-dlq-replay": ("dlq", "replay", "--help"),
    "wrong-command": ("staus",),
    "wrong-option": ("systems", "--jsn"),
    "missing-argument": ("act", "pump"),
}
BESIDE_A_NODE = {
    "status": ("status",),
    "systems": ("systems",),
    "query-state": ("query", LONG_ID),
    "query-points": ("query", LONG_ID, METRIC, "--start", "2026-03-01T12:00:00Z", "--end", "2026-03-01T13:00:00Z"),
    "query-buckets": ("query", LONG_ID, METRIC, "--start", "2026-03-01T12:00:00Z", "--end", "2026-03-01T12:00:04Z",
                      "--agg", "p95", "--bucket", "2s"),
    "query-unknown": ("query", "pmup"),
    "dlq-list": ("dlq", "list"),
    "doctor": ("doctor",),
    "act": ("act", "pump", "poke", "--id", "golden-1"),  # carried out in the fixture; not again here
    "act-unknown": ("act", "pmup", "poke"),
    "replay": ("replay", f"polaris.telemetry.{LONG_ID}"),
}  # fmt: skip
WITHOUT_A_NODE = {
    "check": ("check", "--offline"),
    "check-mistakes": ("check", "--offline", "-c", "wrong.toml"),
    "doctor-unwell": ("doctor",),
    "doctor-refused": ("doctor", "-c", "wrong.toml"),
    "status-no-node": ("status",),
    "query-no-store": ("query", "pump"),
}
PASSING = ("status", "systems", "doctor")
WRONG = """\
[node]
naem = "x"
[http]
port = "many"
[systems.web]
connector = "gunicron"
[logging]
level = "debgu"
"""
_AGO = r"(?:\d+(?:\.\d+)? (?:ms|s|min|h|d) ago)"
# Findings about the machine that the tests run on: whatever they are, they are no business of these files.
MACHINE = "disk|clock|python|extra|port|data folder|secret files"


class Way(NamedTuple):
    """Where a command shows what it says: `columns` are None for a pipe."""

    name: str
    columns: int | None
    variables: dict[str, str]


WAYS = (
    Way("a terminal of 80 columns", 80, {}),
    Way("a terminal of 120 columns", 120, {}),
    Way("a terminal of 80 columns, NO_COLOR", 80, {"NO_COLOR": "1"}),
    Way("a pipe", None, {}),
)


class Scene(NamedTuple):
    """The folder of a running node, and what some commands showed when it had just begun."""

    folder: Path
    told: dict[str, str]


@contextmanager
def gathering(columns: int) -> Iterator[tuple[str, list[bytes]]]:
    """The name of a terminal, and what is shown on it; complete after the block."""
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    pieces: list[bytes] = []

    def read() -> None:
        # Ends by the mark: while the other side is open there is no other end.
        while not (pieces and pieces[-1].endswith(b"\x04")):
            pieces.append(os.read(ours, 65_536))

    reading = threading.Thread(target=read)
    reading.start()
    try:
        yield os.ttyname(theirs), pieces
    finally:
        os.write(theirs, b"\x04")
        reading.join(PATIENCE_S)
        os.close(theirs)
        os.close(ours)


def shown(folder: Path, arguments: tuple[str, ...], way: Way) -> str:
    """What the command shows there, and the code that it ends with."""
    variables = {**environment(), **way.variables, "TERM": "xterm"}
    if way.columns is None:
        code, output, complaint = warm_commands().run(
            arguments, folder=folder, environment=variables, stdin="", patience_s=PATIENCE_S
        )
        told = output + complaint
    else:
        del variables["COLUMNS"]
        with gathering(way.columns) as (terminal, pieces):
            request = Request(list(arguments), str(folder), variables, os.devnull, terminal, terminal)
            code = warm_commands().carry_out(request, PATIENCE_S)
        told = b"".join(pieces).decode().removesuffix("\x04").replace("\r\n", "\n")
    assert not [mark for mark in UNTIDY if mark in told], told
    return f"{told}[{code}]\n"


def masked(text: str, folder: Path) -> str:
    """`text` without what is different each time; columns of tables stay where they are."""
    text = re.sub(r".*\r\x1b\[K", "", text)  # progress, gone when the command has ended
    # What is broken between words is whole again: where, depends on the length of paths.
    text = re.sub(r"\n {9,12}(?=\S)(?!->)", " ", text)
    text = text.replace(str(folder), "FOLDER").replace("\x1b", "\N{SYMBOL FOR ESCAPE}")
    text = re.sub(rf"(?m)^(\S*)(?:ok|note|warning|PROBLEM)\b( *\S*)  ({MACHINE})\b.*\n(?: +-> .*\n)?", "", text)
    text = re.sub(r"(?m)^\d+ problems, .*$", "N problems, N warnings, N well", text)
    text = re.sub(rf"{_AGO}( {{2,}})", lambda ago: "AGO".ljust(len(ago[0])), text)
    text = re.sub(_AGO, "AGO", text)
    text = re.sub(r"\d+(?= more have their defaults)", "N", text)
    text = re.sub(r"\bcli-[0-9a-f-]{36}\b", "cli-ID", text)
    text = re.sub(r"\bin \d+(?:\.\d+)? (?:ms|s)\b", "in DURATION", text)
    text = re.sub(r"(?<![\dT])\d\d:\d\d:\d\d\.\d{3}Z", "HH:MM:SS.mmmZ", text)
    text = re.sub(r"(?<=127\.0\.0\.1:)\d+", "PORT", text)
    return re.sub(r"\bpid:? \d+", "pid N", text)


def told(arguments: tuple[str, ...], folder: Path) -> str:
    """What the command shows in all ways, as it is kept."""
    text, before = "", None
    for way in WAYS:
        said = masked(shown(folder, arguments, way), folder)
        text += f"=== polaris {' '.join(arguments)}: {way.name}\n"
        text += "(the same)\n" if said == before else said
        before = said
    return text


def compare(name: str, arguments: tuple[str, ...], folder: Path, text: str | None = None) -> None:
    """Hold what is shown, or `text`, to the file, or write the file when that is asked for."""
    file = GOLDEN / f"{name}.txt"
    text = text or told(arguments, folder)
    if os.environ.get("GOLDEN") == "write":
        file.write_text(text, encoding="utf-8")
    assert file.exists(), f"there is no {file}; see the head of this module"
    kept = file.read_text(encoding="utf-8")
    deadline_s = time.monotonic() + PATIENCE_S
    # A node that was held up by its machine says so, for a while.
    while text != kept and name in PASSING and time.monotonic() < deadline_s:
        time.sleep(0.5)
        text = told(arguments, folder)
    assert text == kept


def samples() -> Iterator[SystemState]:
    """Of a system that pushed for four seconds, long ago."""
    for number in range(4):
        metrics = {
            METRIC: MetricValue(METRIC, 0.25 * number, "s"),
            "queue": MetricValue("queue", None if number == 3 else number, "{job}"),
            "memory.usage": MetricValue("memory.usage", 1536.0, "By"),
        }
        yield SystemState(LONG_ID, BEGUN + timedelta(seconds=number), metrics, HealthStatus.WARNING)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene() -> AsyncIterator[Scene]:
    """A node with a system that does what it is told, one that is not there, one that is silent, and dead letters."""
    folder = Path(tempfile.mkdtemp(prefix="golden-"))
    witness = {"connector": "tests.witness_connector:WitnessConnector", "interval_s": 3600.0}
    gone = {"connector": "gunicorn", "options": {"pidfile": "/nowhere/gunicorn.pid"}, "interval_s": 3600.0}
    systems = {"pump": {**witness, "options": {"journal": "pump.jsonl"}}, "gone": gone}
    try:
        async with a_node(folder, {"systems": systems}) as running:
            async with running.bus() as bus, running.store() as store:
                for state in samples():
                    await bus.publish_telemetry(TelemetryEvent(state))

                async def stored() -> bool:
                    known = {state.system_id for state in await store.states.get_current_states()}
                    return {LONG_ID, "pump"} <= known

                await eventually_true(stored, "the samples are stored")
            await put_aside(running)
            # At once: how long ago they were put aside sets the width of a column.
            letters = await asyncio.to_thread(told, BESIDE_A_NODE["dlq-list"], folder)
            await asyncio.to_thread(Polaris(folder), *BESIDE_A_NODE["act"])

            async def noticed() -> bool:
                _, answer = await running.get("api/v1/components")
                return "unhealthy" in {one["status"] for one in answer["components"]}

            await eventually_true(noticed, "the system that is not there is missed")
            yield Scene(running.folder, {"dlq-list": letters})
    finally:
        shutil.rmtree(folder)


async def put_aside(node: NodeUnderTest) -> None:
    """Two messages that nobody can read, one after the other, both a second old: shorter times are written longer."""
    broker = node.broker()
    await broker.connect()
    try:
        letters = DeadLetters(broker)
        messages = [("polaris.telemetry.pump", b"nonsense"), (f"polaris.telemetry.{LONG_ID}", b"\x00" * 2048)]
        for number, (topic, payload) in enumerate(messages, 1):
            await broker.publish(OutgoingMessage(topic, payload), delivery=DeliveryClass.AT_LEAST_ONCE)

            async def there(count: int = number) -> bool:
                found = await letters.list()
                newest = max((one.stored_at for one in found), default=BEGUN)
                return len(found) == count and newest < datetime.now(UTC) - timedelta(seconds=1)

            await eventually_true(there, "it is put aside")
    finally:
        await broker.disconnect()


@pytest.mark.parametrize("name", HELP)
def test_help_and_refusals_look_as_they_are_kept(name: str, tmp_path: Path) -> None:
    compare(name, HELP[name], tmp_path)


@pytest.mark.parametrize("name", BESIDE_A_NODE)
def test_beside_a_node_commands_look_as_they_are_kept(name: str, scene: Scene) -> None:
    compare(name, BESIDE_A_NODE[name], scene.folder, scene.told.get(name))


@pytest.mark.parametrize("name", WITHOUT_A_NODE)
def test_without_a_node_commands_look_as_they_are_kept(name: str, tmp_path: Path) -> None:
    (tmp_path / "polaris.toml").write_text(
        '[node]\nname = "alone"\n[http]\nport = 0\n[systems.this-machine]\nconnector = "host"\n'
    )
    (tmp_path / "wrong.toml").write_text(WRONG)
    compare(name, WITHOUT_A_NODE[name], tmp_path)


@pytest.mark.parametrize("name", ["systems", "dlq-list", "doctor"])
def test_no_line_is_broken_by_a_terminal_of_80_columns(name: str, scene: Scene) -> None:
    text = re.sub(r"\x1b\[\d*m|.*\r\x1b\[K", "", shown(scene.folder, BESIDE_A_NODE[name], WAYS[0]))
    assert len(text.splitlines()) > 3
    assert [line for line in text.splitlines() if len(line) > 80] == []


POKE = '{"action": {"action_id": "published-1", "action_type": "poke", "target_system": "pump"}}'


@pytest.mark.parametrize(
    ("arguments", "step"),
    [
        (("act", "pump", "poke"), "polaris query pump"),
        (("publish", "polaris.adaptations.pump", POKE), "polaris replay polaris.adaptations.pump"),
    ],
    ids=["act", "publish"],
)
def test_after_a_change_people_are_told_where_to_look_and_programs_are_not(
    arguments: tuple[str, ...], step: str, scene: Scene
) -> None:
    assert f"next: {step}\n[0]\n" in shown(scene.folder, arguments, WAYS[2])
    assert "next:" not in shown(scene.folder, arguments, WAYS[3])


def test_every_file_is_compared_with_something() -> None:
    assert {file.stem for file in GOLDEN.iterdir()} == {*HELP, *BESIDE_A_NODE, *WITHOUT_A_NODE}
