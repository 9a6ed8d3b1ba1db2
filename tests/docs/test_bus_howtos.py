"""The pages on dead letters and on testing a loop: their programs run, their tests pass, their commands work."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from tests.commands import Polaris
from tests.docs.test_pages_run import wrong_with
from tests.nodes import a_node, eventually_true

from polaris.messaging import DeadLetters, DeliveryClass, OutgoingMessage

HOW_TO = Path(__file__).resolve().parents[2] / "docs" / "how-to"


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (HOW_TO / page).read_text(), re.MULTILINE | re.DOTALL)


def test_the_program_on_dead_letters_runs_and_prints_what_the_page_says(tmp_path: Path) -> None:
    wrong = wrong_with(HOW_TO / "dead-letters.md", tmp_path)
    assert wrong == [], "\n".join(wrong)


async def test_the_commands_on_dead_letters_work_beside_a_node(tmp_path: Path) -> None:
    commands = [line for block in blocks("dead-letters.md", "sh") for line in block.splitlines()]
    assert len(commands) >= 10
    async with a_node(tmp_path) as node:
        broker = node.broker()
        await broker.connect()
        try:
            for command in commands:
                # Every command finds one entry, which is number 1 the first time.
                number = await _one_entry(broker)
                arguments = [str(number) if word == "1" else word for word in shlex.split(command)[1:]]
                ended = await asyncio.to_thread(Polaris(tmp_path), *arguments)
                assert ended.code == 0, (command, ended)
                if "replay" in arguments or "drop" in arguments:
                    assert re.search(rf"^{number}  (replayed|dropped)  polaris\.telemetry\.web", ended.output), command
                elif "--output" not in arguments:
                    assert "nonsense" in ended.output or "polaris.telemetry.web" in ended.output, command
            assert (tmp_path / "message.bin").read_bytes() == b"nonsense"
        finally:
            await broker.disconnect()


async def _one_entry(broker: object) -> int:
    from polaris.messaging import MessageBroker

    assert isinstance(broker, MessageBroker)
    letters = DeadLetters(broker)
    if not await letters.list():
        message = OutgoingMessage("polaris.telemetry.web", b"nonsense")
        await broker.publish(message, delivery=DeliveryClass.AT_LEAST_ONCE)

    async def is_there() -> bool:
        return bool(await letters.list())

    await eventually_true(is_there, "a dead letter is there")
    return (await letters.list())[0].sequence


def unfold(folder: Path) -> list[str]:
    """Write the modules of the page on testing, each named in its first line."""
    names = []
    for block in blocks("test-your-loop.md", "python"):
        name = re.match(r"# (\w+\.py)\n", block)
        assert name is not None, block
        (folder / name[1]).write_text(block)
        names.append(name[1])
    return names


def run_tests(folder: Path) -> subprocess.CompletedProcess[str]:
    (folder / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("POLARIS_", "PYTEST_"))}
    # With pytest alone: the plugins of this project take longer to load than the tests to run.
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", "."],
        cwd=folder,
        env={**inherited, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_the_tests_on_the_page_pass(tmp_path: Path) -> None:
    assert unfold(tmp_path) == [
        "controller.py",
        "test_controller.py",
        "samples.py",
        "test_failures.py",
        "test_faults.py",
    ]
    ended = run_tests(tmp_path)
    assert ended.returncode == 0, ended.stdout
    assert re.search(r"^10 passed", ended.stdout, re.MULTILINE), ended.stdout


@pytest.mark.parametrize(
    ("right", "wrong", "complaint"),
    [
        ("latency > 0.5", "latency > 50", "no AdaptationEvent was published within 5 s"),
        ("latency is not None and latency > 0.5", "latency is None or latency > 0.5", "where nothing was expected"),
        ('f"for-{event.event_id}"', 'f"for-{id(event)}"', "test_every_slow_sample"),
    ],
    ids=["deaf", "overeager", "not idempotent"],
)
def test_the_tests_on_the_page_notice_a_broken_controller(
    tmp_path: Path, right: str, wrong: str, complaint: str
) -> None:
    unfold(tmp_path)
    controller = (tmp_path / "controller.py").read_text()
    assert right in controller
    (tmp_path / "controller.py").write_text(controller.replace(right, wrong))
    ended = run_tests(tmp_path)
    assert ended.returncode == 1
    assert complaint in ended.stdout


def test_a_wait_in_vain_reads_as_the_page_shows_it(tmp_path: Path) -> None:
    unfold(tmp_path)
    controller = (tmp_path / "controller.py").read_text()
    (tmp_path / "controller.py").write_text(
        controller.replace("latency is not None and latency > 0.5", "latency > 0.5")
    )
    (tmp_path / "test_controller.py").write_text(
        (tmp_path / "test_controller.py").read_text().replace("sample(latency=0.9)", "sample(latency=None)")
    )
    said = run_tests(tmp_path).stdout
    (shown,) = blocks("test-your-loop.md", "text")
    assert len(shown.splitlines()) == 5
    for line in shown.splitlines():
        pattern = re.escape(line).replace(r"\.\.\.", ".*")
        assert re.search(pattern, said), f"{line}\nis not in\n{said}"


def test_the_test_of_ten_lines_has_ten() -> None:
    module = blocks("test-your-loop.md", "python")[1]
    (test,) = re.findall(r"^def test_a_slow.*?^    run_virtual\(main\(\)\)\n", module, re.MULTILINE | re.DOTALL)
    assert len([line for line in test.splitlines() if line.strip()]) <= 10


@pytest.mark.parametrize("page", ["dead-letters.md", "test-your-loop.md"])
def test_no_line_of_a_page_is_too_long_for_an_editor(page: str) -> None:
    assert [line for line in (HOW_TO / page).read_text().splitlines() if len(line) > 140] == []
