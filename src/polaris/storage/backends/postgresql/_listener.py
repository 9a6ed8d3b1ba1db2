"""Hearing of the commits of other processes: a connection that listens, for as long as somebody waits for events."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from random import Random
from typing import Any

from polaris.exceptions import StoreConnectionError
from polaris.resilience import Backoff
from polaris.storage.backends.postgresql._connector import FAILURES

CHECK_S = 15.0
"""How often a connection that says nothing is asked whether it is still there."""


class OutboxListener:
    """Calls `heard` whenever some process has committed an event, and whenever it may have missed that.

    Started by the first who waits; lost connections are made anew, with growing pauses.
    """

    def __init__(self, connect: Callable[[], Awaitable[Any]], channel: str, heard: Callable[[], None]) -> None:
        self._connect = connect
        self._channel = channel
        self._heard = heard
        self._task: asyncio.Task[None] | None = None
        self._listening = asyncio.Event()
        self._backoff = Backoff(0.05, 2.0, random=Random())  # noqa: S311 # spreads waits, no secret

    async def start(self, *, timeout_s: float) -> None:
        """Listen from now on; returns when it does, or after `timeout_s` when the server cannot be reached."""
        if self._task is None:
            self._task = asyncio.create_task(self._listen(), name="polaris-store-listener")
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._listening.wait()

    async def stop(self) -> None:
        """Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        self._listening.clear()

    async def _listen(self) -> None:
        attempt = 0
        while True:
            try:
                connection = await self._connect()
                try:
                    await self._stay(connection)
                finally:
                    connection.terminate()
            except (*FAILURES, StoreConnectionError):
                # A listener that has worked begins with short pauses again.
                attempt = 1 if self._listening.is_set() else attempt + 1
                self._listening.clear()
            await asyncio.sleep(self._backoff.delay_s(attempt))

    async def _stay(self, connection: Any) -> None:
        is_lost = asyncio.Event()
        connection.add_termination_listener(lambda _: is_lost.set())
        await connection.add_listener(self._channel, lambda *_: self._heard())
        self._listening.set()
        self._heard()
        while not is_lost.is_set():
            try:
                async with asyncio.timeout(CHECK_S):
                    await is_lost.wait()
            except TimeoutError:
                await connection.execute("SELECT 1")
        raise ConnectionResetError
