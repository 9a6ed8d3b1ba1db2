"""Work on many dead letters: each is accounted for, what fails stays and holds up nobody, people see progress."""

from __future__ import annotations

import asyncio
import io
import json
import sys
from typing import Any, cast

import click
import pytest

from polaris.cli._dlq import Done, Selection, Wanted, _do_all
from polaris.cli._progress import Progress
from polaris.exceptions import BusConnectionError, InvalidTopicError, PublishError, UnconfirmedPublishError
from polaris.messaging import DeadLetterReason, DeadLetters

LETTERS = cast(DeadLetters, None)


async def act(letters: DeadLetters, sequence: int) -> Done:
    """The outcome is in the number: tens succeed, others fail in their ways."""
    match sequence % 10:
        case 0:
            return Done(0, "replayed", "well", {"topic": "t"})
        case 1:
            raise PublishError("refused")
        case 2:
            raise UnconfirmedPublishError("no answer")
        case 3:
            return Done(4, "missing", "not there", {})
        case _:
            raise BusConnectionError("away")


def work(sequences: list[int], *, as_json: bool = False) -> int:
    return asyncio.run(_do_all(LETTERS, sequences, act, past="replayed", as_json=as_json))


def test_what_fails_stays_and_the_others_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert work([10, 11, 20, 12, 13, 30]) == 1
    said = capsys.readouterr()
    assert said.out.splitlines() == [
        "10  replayed  well",
        "11  failed  refused; the entry is kept",
        "20  replayed  well",
        "12  unconfirmed  no answer; it may be stored. The entry is kept; replaying it again is safe",
        "13  missing  not there",
        "30  replayed  well",
    ]
    assert said.err == "polaris: 3 of 6 replayed\n"


@pytest.mark.parametrize(
    ("sequences", "code"), [([10], 0), ([10, 20], 0), ([11], 1), ([12], 75), ([13, 10], 4), ([12, 11], 75)]
)
def test_the_exit_code_is_that_of_the_first_that_did_not_succeed(sequences: list[int], code: int) -> None:
    assert work(sequences) == code


def test_without_the_bus_nothing_goes_on_and_what_was_done_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BusConnectionError):
        work([10, 20, 14, 30])
    said = capsys.readouterr()
    assert said.out.splitlines() == ["10  replayed  well", "20  replayed  well"]
    assert said.err == "polaris: 2 of 4 replayed; the others are untouched\n"


def test_json_has_one_line_for_each(capsys: pytest.CaptureFixture[str]) -> None:
    work([10, 11, 12, 13], as_json=True)
    said = capsys.readouterr()
    assert [json.loads(line) for line in said.out.splitlines()] == [
        {"sequence": 10, "outcome": "replayed", "topic": "t"},
        {"sequence": 11, "outcome": "failed", "error_code": "polaris.bus.publish", "error_message": "refused"},
        {
            "sequence": 12,
            "outcome": "unconfirmed",
            "error_code": "polaris.bus.publish_unconfirmed",
            "error_message": "no answer",
        },
        {"sequence": 13, "outcome": "missing"},
    ]
    assert said.err == ""


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_shown_to_people_now_and_then_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now_s)
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    progress = Progress()
    for number in range(100):
        now_s += 0.01
        progress.tell(f"{number} of 100")
    progress.clear()
    progress.clear()
    shown = screen.getvalue().split("\r\x1b[K")
    assert shown[0] == shown[-1] == ""
    assert 4 <= len(shown) - 2 <= 5


def test_progress_is_not_shown_to_programs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now_s)
    progress = Progress()
    now_s = 10.0
    progress.tell("1 of 2")
    progress.clear()
    assert capsys.readouterr() == ("", "")


def selection(*sequences: int, everything: bool = False, limit: int | None = None, **wanted: Any) -> Selection:
    return Selection(sequences=sequences, everything=everything, wanted=Wanted(**wanted), limit=limit)


def test_entries_are_named_by_number_or_by_filter_and_never_by_nothing() -> None:
    for right in (
        selection(1),
        selection(1, 2),
        selection(everything=True),
        selection(topic="a"),
        selection(reason="r"),
    ):
        right.check()
    selection(everything=True, limit=3).check()
    for wrong in (
        selection(),
        selection(limit=3),
        selection(1, everything=True),
        selection(1, topic="a"),
        selection(1, limit=3),
    ):
        with pytest.raises(click.BadParameter):
            wrong.check()


def test_options_become_a_filter_or_are_refused() -> None:
    chosen = Wanted(topic="polaris.*.web", reason="unknown_type", subscription="s").filter()
    assert (chosen.topic, chosen.reason, chosen.subscription) == (
        "polaris.*.web",
        DeadLetterReason.UNKNOWN_TYPE,
        "s",
    )
    with pytest.raises(click.BadParameter, match="did you mean exhausted"):
        Wanted(reason="exhaustd").filter()
    with pytest.raises(InvalidTopicError):
        Wanted(topic="a..b").filter()
