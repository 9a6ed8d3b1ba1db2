"""The tutorial is done as it is written: files, commands and what they say, with a real node, within five minutes."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from polaris.runtime import DataFolder

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "tutorial.md").read_text()
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LASTING = ("python service.py", "polaris run", "python controller.py")
"""Commands that go on in terminals of their own."""
LOOKS = ("polaris systems", "polaris query")
"""Commands that change nothing: what is not there yet is looked for again."""
UNTIDY = ("Traceback", "Warning:", "never awaited", "Exception ignored", "Task was destroyed")
PATIENCE_S = 40.0
LOOK_AGAIN_S = 0.5
WHOLE_WAY_S = 300.0
COPYING_S = 8.0
"""What it takes a person to read what stands above a block, and to copy it."""
MASKS = (
    (r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", "ID"),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", "TIME"),
    (r"(?<=127\.0\.0\.1:)\d+", "PORT"),
    (r"\b\d+(?:\.\d+)? ?(?:ms|s)\b", "DURATION"),
    (r"(?<=POLARIS node )\S+", "NAME"),
    (r" {2,}", "  "),  # widths follow contents
)


class Block(NamedTuple):
    """A block of the page; `said` is what it prints, None when the page does not tell."""

    language: str
    text: str
    said: str | None


def blocks(page: str) -> Iterator[Block]:
    """The blocks in their order; a text that follows commands at once is what they print."""
    found = list(BLOCK.finditer(page))
    for this, following in zip(found, [*found[1:], None], strict=True):
        if this[1] == "text":
            continue
        printed = following is not None and following[1] == "text" and page[this.end() : following.start()] == "\n"
        yield Block(this[1], this[2], following[2] if following is not None and printed else None)


def masked(text: str) -> str:
    for pattern, name in MASKS:
        text = re.sub(pattern, name, text)
    return text.strip()


def agrees(shown: str, said: str) -> bool:
    """Whether a command says what the page shows: the same but for ids, times and ports; `...` stands for anything."""
    return re.fullmatch(re.escape(masked(shown)).replace(r"\.\.\.", ".*"), masked(said)) is not None


class Reader:
    """Somebody with a folder and some terminals who does what the page says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.copied = 0
        self.lasting: dict[str, subprocess.Popen[bytes]] = {}
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("POLARIS_", "PYTEST_"))}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self._environment = {**inherited, "PATH": path}

    def follow(self, block: Block) -> None:
        self.copied += 1
        if block.language == "python":
            name = re.match(r"# (\w+\.py)\n", block.text)
            assert name is not None, f"a file without a name: {block.text}"
            (self.folder / name[1]).write_text(block.text)
        elif block.language == "toml":
            self._edit(block.text.strip())
        else:
            assert block.language == "sh", block.language
            self._command(block.text.strip(), block.said)

    def _edit(self, line: str) -> None:
        """The page shows a line of polaris.toml as it shall be."""
        file = self.folder / "polaris.toml"
        key = line.partition(" = ")[0]
        edited, count = re.subn(rf"^{key} = .*$", line, file.read_text(), count=1, flags=re.MULTILINE)
        assert count == 1, f"there is no {key} in polaris.toml"
        file.write_text(edited)

    def _command(self, text: str, shown: str | None) -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        if text in LASTING:
            assert shown is not None, text
            said = self._begin(text, shown, deadline_s)
        else:
            said = self._run(text)
            while text.startswith(LOOKS) and not agrees(shown or "", said) and time.monotonic() < deadline_s:
                time.sleep(LOOK_AGAIN_S)
                said = self._run(text)
        assert not [mark for mark in UNTIDY if mark in said], said
        assert shown is None or agrees(shown, said), f"{text}\nthe page says\n{shown}\nand the command says\n{said}"

    def _run(self, text: str) -> str:
        ended = subprocess.run(
            ["bash", "-c", text],
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=PATIENCE_S,
            check=False,
        )
        return ended.stdout.decode()

    def _begin(self, text: str, shown: str, deadline_s: float) -> str:
        """Start it in a terminal of its own; what it has said when it has said as many lines as the page shows."""
        out, err = self._log(text, "stdout"), self._log(text, "stderr")
        with out.open("wb") as stdout, err.open("wb") as stderr:
            self.lasting[text] = subprocess.Popen(
                ["bash", "-c", f"exec {text}"],
                cwd=self.folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
            )
        lines = len(shown.splitlines())
        while out.read_text().count("\n") < lines and time.monotonic() < deadline_s:
            assert self.lasting[text].poll() is None, f"{text} ended: {out.read_text()}{err.read_text()}"
            time.sleep(0.05)
        return "\n".join(out.read_text().splitlines()[:lines])

    def _log(self, text: str, stream: str) -> Path:
        return self.folder.parent / f"{LASTING.index(text)}.{stream}"

    def press_ctrl_c(self) -> dict[str, tuple[int, list[str]]]:
        """In every terminal, the last opened first; how each command ended, and what untidy it has said."""
        ended = {}
        for text, process in reversed(self.lasting.items()):
            process.send_signal(signal.SIGINT)
            code = process.wait(PATIENCE_S)
            said = self._log(text, "stderr").read_text()
            ended[text] = (code, [said] if any(mark in said for mark in UNTIDY) else [])
        return ended

    def close(self) -> None:
        for process in self.lasting.values():
            if process.poll() is None:
                process.kill()
                process.wait(PATIENCE_S)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    folder = tmp_path / "shop"
    folder.mkdir()
    reader = Reader(folder)
    yield reader
    reader.close()


def asked(reader: Reader, path: str) -> Any:
    """What the page in the browser would get of the node."""
    node = DataFolder(reader.folder / "polaris-data").running_node()
    assert node is not None
    with urllib.request.urlopen(f"{node.http_url}{path}", timeout=PATIENCE_S) as answer:
        body = answer.read().decode()
    return json.loads(body) if path else body


def spans_of_a_decision(reader: Reader) -> set[str]:
    """Those of a trace that an action of the controller belongs to; they are kept once a second."""
    deadline_s = time.monotonic() + PATIENCE_S
    found: set[str] = set()
    while "execute action" not in found and time.monotonic() < deadline_s:
        for trace in asked(reader, "api/v1/traces?system=shop")["traces"]:
            if any(action.startswith("for-") for action in trace["actions"]):
                found = {span["name"] for span in asked(reader, f"api/v1/traces/{trace['trace_id']}")["spans"]}
        time.sleep(LOOK_AGAIN_S)
    return found


@pytest.mark.slow
@pytest.mark.timeout(250)
def test_the_whole_way_works_as_it_is_written_and_takes_less_than_five_minutes(reader: Reader) -> None:
    begun_s = time.monotonic()
    for block in blocks(PAGE.replace("8765", str(free_port()))):
        reader.follow(block)
    took_s = time.monotonic() - begun_s
    assert took_s + reader.copied * COPYING_S < WHOLE_WAY_S
    # What the page says of the page.
    assert "<title>" in asked(reader, "")
    assert {system["system_id"] for system in asked(reader, "api/v1/systems")["systems"]} == {"shop", "this-machine"}
    statuses = [action["status"] for action in asked(reader, "api/v1/actions?system=shop")["actions"]]
    assert {"success", "rejected"} <= set(statuses)
    spans = spans_of_a_decision(reader)
    assert {"collect telemetry", "decide", "execute action", "attempt action"} <= spans
    assert (reader.folder / "shop.csv").read_text().count("\n") > 3
    assert set(reader.lasting) == set(LASTING)
    assert reader.press_ctrl_c() == dict.fromkeys(LASTING, (0, []))


def test_the_controller_is_a_rule_of_ten_lines() -> None:
    (controller,) = [block.text for block in blocks(PAGE) if block.text.startswith("# controller.py")]
    rule = controller[controller.index("    async def decide") : controller.index("    await bus.subscribe")]
    assert len([line for line in rule.splitlines() if line.strip()]) <= 10


@pytest.mark.parametrize(
    ("shown", "said", "same"),
    [
        ("shop  healthy   479 ms ago   2", "shop  healthy  1.2 s ago  2", True),
        ("shop  healthy   479 ms ago   2", "shop  warning   479 ms ago   2", False),
        ("a\nthis  ...", "a\nthis  healthy  1 ms ago", True),
        ("a\nthis  ...", "a\nthis  healthy\nmore", False),
        ("waiting: ...\nworkers: 3", "waiting: 57\nworkers: 4", False),
    ],
)
def test_what_a_command_says_is_compared_with_the_page(shown: str, said: str, same: bool) -> None:
    assert agrees(shown, said) is same
