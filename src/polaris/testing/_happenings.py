"""What happened on a bus under test: the record, what is looked for in it, and how it reads when it was not found."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from polaris.domain import PolarisEvent
from polaris.messaging import DeadLetter
from polaris.messaging._patterns import matches

HAPPENINGS_KEPT_MAX = 100_000
SHOWN_MAX = 40
TEXT_CHARS_MAX = 120


class HappeningKind(enum.StrEnum):
    """What was seen."""

    PUBLISHED = "published"
    """A bus has published an event and got its receipt."""
    NOT_PUBLISHED = "not published"
    """A bus could not publish an event, or cannot tell."""
    HANDLED = "handled"
    """A handler has returned."""
    FAILED = "failed"
    """A handler, or a middleware round it, has raised."""
    DEAD_LETTERED = "dead-lettered"
    """A message was put aside."""


class Happening(msgspec.Struct, frozen=True):
    """One thing that happened, `at_s` seconds after the harness began."""

    kind: HappeningKind
    at_s: float
    topic: str
    event: PolarisEvent | None = None
    """None for what was put aside: its bytes are in `letter`."""
    subscription: str | None = None
    attempt: int = 1
    error: BaseException | None = None
    letter: DeadLetter | None = None

    def __str__(self) -> str:
        what = self._letter_text(self.letter) if self.letter is not None else _event_text(self.event)
        by = f"  by {self.subscription}" if self.subscription is not None else ""
        again = f", delivery {self.attempt}" if self.attempt > 1 else ""
        error = "" if self.error is None else f": {type(self.error).__name__}: {self.error}"
        line = f"+{self.at_s:.3f} s  {self.kind.value:13}  {self.topic}  {what}{by}{again}{error}"
        return line if len(line) <= 2 * TEXT_CHARS_MAX else line[: 2 * TEXT_CHARS_MAX - 3] + "..."

    @staticmethod
    def _letter_text(letter: DeadLetter) -> str:
        return f"{letter.payload_bytes} bytes, {letter.reason.value}, {letter.error_code}: {letter.error_message}"


class Sought(msgspec.Struct, frozen=True, kw_only=True):
    """What is looked for: all that is not None must fit, `where` last."""

    kind: HappeningKind
    event_type: type[PolarisEvent] | None = None
    topic: str | None = None
    subscription: str | None = None
    where: Callable[[Any], bool] | None = None

    def concerns(self, happening: Happening) -> bool:
        """Whether everything but `where` fits."""
        return (
            happening.kind is self.kind
            and (self.event_type is None or isinstance(happening.event, self.event_type))
            and (self.topic is None or matches(self.topic, happening.topic))
            and self.subscription in (None, happening.subscription)
        )

    def fits(self, happening: Happening) -> bool:
        """Whether this is what was looked for. What `where` raises is raised."""
        if not self.concerns(happening):
            return False
        return self.where is None or bool(self.where(happening.event if happening.letter is None else happening.letter))

    def __str__(self) -> str:
        name = "message" if self.event_type is None else self.event_type.__name__
        on = f" on {self.topic}" if self.topic is not None else ""
        by = f" by {self.subscription}" if self.subscription is not None else ""
        return f"{name} was {self.kind.value}{on}{by}"


class Record:
    """Everything that happened, oldest first; of more than `HAPPENINGS_KEPT_MAX` the newest."""

    def __init__(self) -> None:
        self._happenings: deque[Happening] = deque(maxlen=HAPPENINGS_KEPT_MAX)

    def __iter__(self) -> Iterator[Happening]:
        return iter(tuple(self._happenings))

    def add(self, happening: Happening) -> None:
        self._happenings.append(happening)

    def clear(self) -> None:
        self._happenings.clear()

    def find(self, sought: Sought) -> list[Happening]:
        """All that fit, oldest first."""
        return [happening for happening in self if sought.fits(happening)]

    def story(self) -> str:
        """What happened, a line each; of very much the last lines."""
        lines = [f"  {happening}" for happening in self]
        if not lines:
            return "Nothing happened at all."
        left_out = len(lines) - SHOWN_MAX
        head = [f"  ... {left_out} before"] if left_out > 0 else []
        return "\n".join(["What happened:", *head, *lines[-SHOWN_MAX:]])

    def disappointment(self, sought: Sought, found: int, nth: int, waited_s: float) -> str:
        """Why what was looked for is not there, and what is."""
        number = f"no {nth}. " if nth > 1 else "no "
        lines = [f"{number}{sought} within {waited_s:g} s" + (f", only {found}" if nth > 1 else "")]
        near = sum(sought.concerns(happening) for happening in self) - found
        if near:
            lines.append(f"{near} otherwise like it did not satisfy `where`.")
        return "\n".join([*lines, self.story()])


def _event_text(event: PolarisEvent | None) -> str:
    if event is None:
        return ""
    text = repr(event)
    return text if len(text) <= TEXT_CHARS_MAX else text[: TEXT_CHARS_MAX - 3] + "..."
