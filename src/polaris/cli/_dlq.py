"""`polaris dlq`: look at what was put aside, publish it once more, or erase it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click
import msgspec

from polaris.cli import _exit
from polaris.cli._bus import connected_broker
from polaris.cli._dlq_text import HEADINGS, SPARE_HEADINGS, facts_of, lines_of, printable, row_of
from polaris.cli._near import hint
from polaris.cli._output import print_json, print_json_line, print_table, say_next
from polaris.cli._progress import Progress
from polaris.cli._publish import guarantee_of
from polaris.exceptions import BusConnectionError, MessageBusError, UnconfirmedPublishError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import datetime

    from polaris.messaging import DeadLetters
    from polaris.messaging._dead_letter_entry import DeadLetterFilter
    from polaris.runtime import Settings

NOTHING = "there are no such dead letters"


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """The entries that a command is about, as the options say it."""

    topic: str | None = None
    subscription: str | None = None
    reason: str | None = None
    since: datetime | None = None

    def filter(self) -> DeadLetterFilter:
        """The options, checked. Raises `InvalidTopicError` and `click.BadParameter`."""
        from polaris.messaging import DeadLetterReason
        from polaris.messaging._dead_letter_entry import DeadLetterFilter
        from polaris.messaging._subjects import check_pattern

        known = [kind.value for kind in DeadLetterReason]
        if self.reason is not None and self.reason not in known:
            message = f"there is no reason {self.reason!r}{hint(self.reason, known, 'one of')}"
            raise click.BadParameter(message, param_hint="--reason")
        return DeadLetterFilter(
            topic=None if self.topic is None else check_pattern(self.topic),
            subscription=self.subscription,
            reason=None if self.reason is None else DeadLetterReason(self.reason),
            since=self.since,
        )


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """What a command works on: entries by number, or all that the options fit, oldest first."""

    sequences: tuple[int, ...]
    everything: bool
    wanted: Wanted
    limit: int | None = None

    def check(self) -> None:
        """Raise `click.BadParameter` for nothing at all, and for numbers together with a filter."""
        filtered = self.everything or self.wanted != Wanted() or self.limit is not None
        if self.sequences and filtered:
            raise click.BadParameter("name entries by number or by filter, not both", param_hint="SEQUENCE")
        if not self.sequences and not (self.everything or self.wanted != Wanted()):
            raise click.BadParameter(
                "name entries by number, by a filter, or take --all of them", param_hint="SEQUENCE"
            )


class Done(NamedTuple):
    """What happened to one entry: an exit code, a word and a sentence for people, and facts for programs."""

    code: int
    word: str
    text: str
    facts: dict[str, Any]


Act = Callable[["DeadLetters", int], Awaitable[Done]]


class Search:
    """The progress of looking through the stream."""

    def __init__(self) -> None:
        self._progress = Progress()
        self._count = 0

    def look(self, sequence: int) -> None:
        """One more message was looked at."""
        self._count += 1
        self._progress.tell(f"looked at {self._count}, now at number {sequence} ...")

    def end(self) -> None:
        """Leave nothing of it on the screen."""
        self._progress.clear()


# list and show


def list_letters(
    settings: Settings, wanted: Wanted, *, newest_first: bool, after: int | None, limit: int, as_json: bool
) -> int:
    """The entries that fit, with the cursor of the next page when there are more."""
    chosen = wanted.filter()

    async def look() -> Any:
        async with connected_letters(settings) as letters:
            search = Search()
            try:
                return await letters.find(
                    chosen, newest_first=newest_first, after=after, count_max=limit, on_look=search.look
                )
            finally:
                search.end()

    page = asyncio.run(look())
    if as_json:
        print_json({"dead_letters": [facts_of(record) for record in page.records], "next": page.after})
        return _exit.OK
    if not page.records:
        _exit.complain(NOTHING)
        return _exit.NOTHING_FOUND
    rows = [row_of(record) for record in page.records]
    print_table(HEADINGS, rows, spare_columns=[HEADINGS.index(name) for name in SPARE_HEADINGS])
    if page.after is not None:
        _exit.complain(f"there are more; go on with --after {page.after}")
    say_next(f"polaris dlq show {page.records[0].sequence}")
    return _exit.OK


def show_letter(settings: Settings, sequence: int, *, raw: bool, output: Path | None, as_json: bool) -> int:
    """One entry in full; with `raw` or `output`, nothing but its original bytes."""
    if as_json and raw:
        raise click.BadParameter("the bytes are no JSON; take one of them", param_hint="--raw")

    async def look() -> Any:
        async with connected_letters(settings) as letters:
            return await letters.show(sequence) if await letters.get(sequence) is not None else None

    record = asyncio.run(look())
    if record is None:
        return _missing(sequence)
    if output is not None:
        try:
            output.write_bytes(record.entry.payload)
        except OSError as error:
            _exit.complain(f"{output}: {error.strerror or error}")
            return _exit.FAILED
        _exit.complain(f"{record.entry.payload_bytes} bytes written to {output}")
    if raw:
        sys.stdout.buffer.write(record.entry.payload)
        sys.stdout.buffer.flush()
    elif as_json:
        print_json(facts_of(record, with_payload=True))
    elif output is None:
        for line in lines_of(record):
            print(line)
    return _exit.OK


# replay and drop


def replay_letters(settings: Settings, selection: Selection, *, keep: bool, yes: bool, as_json: bool) -> int:
    """Publish entries once more with their original bytes, and say of each what came of it."""

    async def replay(letters: DeadLetters, sequence: int) -> Done:
        record = await letters.get(sequence)
        if record is None:
            return _gone(sequence)
        receipt = await letters.replay(sequence, keep=keep)
        rest = "the entry is kept" if keep else "the entry is dropped"
        text = f"{printable(record.entry.topic)}  {guarantee_of(receipt)}; {rest}"
        facts = {"topic": record.entry.topic, "kept": keep, **msgspec.to_builtins(receipt)}
        return Done(_exit.OK, "replayed", text, facts)

    return _work_on(settings, selection, replay, verb="replay", past="replayed", yes=yes, as_json=as_json)


def drop_letters(settings: Settings, selection: Selection, *, yes: bool, as_json: bool) -> int:
    """Erase entries for good, and say of each what came of it."""

    async def drop(letters: DeadLetters, sequence: int) -> Done:
        record = await letters.get(sequence)
        if record is None or not await letters.drop(sequence):
            return _gone(sequence)
        return Done(_exit.OK, "dropped", printable(record.entry.topic), {"topic": record.entry.topic})

    return _work_on(settings, selection, drop, verb="drop", past="dropped", yes=yes, as_json=as_json)


def _work_on(
    settings: Settings, selection: Selection, act: Act, *, verb: str, past: str, yes: bool, as_json: bool
) -> int:
    selection.check()
    chosen = selection.wanted.filter()

    async def work() -> int:
        async with connected_letters(settings) as letters:
            sequences = await _select(letters, selection, chosen)
            if not sequences:
                _exit.complain(f"{NOTHING}; nothing was done")
                return _exit.NOTHING_FOUND
            if not yes and _people_present() and not _agreed(verb, len(sequences)):
                _exit.complain("nothing was done")
                return _exit.FAILED
            return await _do_all(letters, sequences, act, past=past, as_json=as_json)

    return asyncio.run(work())


async def _select(letters: DeadLetters, selection: Selection, chosen: DeadLetterFilter) -> list[int]:
    """The numbers, as they are now: what fails again while it is replayed is not replayed again."""
    if selection.sequences:
        return list(dict.fromkeys(selection.sequences))
    found: list[int] = []
    search = Search()
    try:
        async with aclosing(letters.scan(chosen, newest_first=False, on_look=search.look)) as records:
            async for record in records:
                if selection.limit is not None and len(found) >= selection.limit:
                    break
                found.append(record.sequence)
    finally:
        search.end()
    return found


async def _do_all(letters: DeadLetters, sequences: list[int], act: Act, *, past: str, as_json: bool) -> int:
    """Each in its turn; what fails stays, and the others go on. Without the bus, nothing goes on."""
    worst, succeeded = _exit.OK, 0
    progress = Progress()
    for number, sequence in enumerate(sequences, 1):
        try:
            done = await act(letters, sequence)
        except BusConnectionError:
            progress.clear()
            _exit.complain(f"{succeeded} of {len(sequences)} {past}; the others are untouched")
            raise
        except MessageBusError as error:
            done = _failed(error)
        succeeded += done.code == _exit.OK
        worst = worst or done.code
        if sys.stdout.isatty():
            progress.clear()
        if as_json:
            print_json_line({"sequence": sequence, "outcome": done.word, **done.facts})
        else:
            print(f"{sequence}  {done.word}  {done.text}", flush=True)
        if number < len(sequences):
            progress.tell(f"{number} of {len(sequences)} ...")
    progress.clear()
    if len(sequences) > 1 and not as_json:
        _exit.complain(f"{succeeded} of {len(sequences)} {past}")
    return worst


def _failed(error: MessageBusError) -> Done:
    facts = {"error_code": error.code, "error_message": error.message}
    if isinstance(error, UnconfirmedPublishError):
        text = f"{error.message}; it may be stored. The entry is kept; replaying it again is safe"
        return Done(_exit.TIMED_OUT, "unconfirmed", text, facts)
    return Done(_exit.FAILED, "failed", f"{error.message}; the entry is kept", facts)


def _gone(sequence: int) -> Done:
    return Done(_exit.NOTHING_FOUND, "missing", f"there is no dead letter at {sequence}", {})


def _missing(sequence: int) -> int:
    _exit.complain(f"there is no dead letter at {sequence}; see: polaris dlq list")
    return _exit.NOTHING_FOUND


def _people_present() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


def _agreed(verb: str, count: int) -> bool:
    what = "this dead letter" if count == 1 else f"these {count} dead letters"
    return click.confirm(f"{verb} {what}?", err=True)


@asynccontextmanager
async def connected_letters(settings: Settings) -> AsyncIterator[DeadLetters]:
    """The dead letters of the node's bus. Raises `BusConnectionError` when there is none to connect to."""
    from polaris.messaging import DeadLetters

    async with connected_broker(settings) as broker:
        yield DeadLetters(broker)
