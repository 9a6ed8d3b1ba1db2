"""Operations that do what a test tells them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any


class BoomError(Exception):
    """The dependency failed."""


async def succeed() -> str:
    return "ok"


async def fail() -> str:
    raise BoomError("boom")


async def hang() -> str:
    await asyncio.Event().wait()
    return "never"


def taking(seconds: float, error: BaseException | None = None) -> Callable[[], Awaitable[str]]:
    async def operation() -> str:
        await asyncio.sleep(seconds)
        if error is not None:
            raise error
        return "ok"

    return operation


class Script:
    """Answers call after call with the next of the given outcomes: a value, or an error to raise."""

    def __init__(self, outcomes: Iterable[Any]) -> None:
        self._outcomes = iter(outcomes)
        self.calls = 0

    async def __call__(self) -> Any:
        self.calls += 1
        outcome = next(self._outcomes)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


async def settle() -> None:
    """Let everything that is ready run, without time passing."""
    for _ in range(20):
        await asyncio.sleep(0)
