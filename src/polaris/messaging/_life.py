"""The life of a bus: started, and ended once, by whoever asks first; then it may be started again."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Sequence

from polaris.exceptions import BusConnectionError, ConfigurationError, InvalidValueError, PolarisException
from polaris.messaging._broker import MessageBroker, StreamSpec
from polaris.messaging._inbound import Inbound
from polaris.messaging._outbound import Outbound


class Life:
    """Connects the broker, which it owns from then on, and lets go of it. `PolarisMessageBus` documents the rest."""

    def __init__(
        self,
        broker: MessageBroker,
        streams: Sequence[StreamSpec],
        inbound: Inbound,
        outbound: Outbound,
        *,
        grace_s: float,
    ) -> None:
        if not grace_s >= 0:
            raise InvalidValueError("grace_s", "seconds, at least 0", grace_s)
        self.started = False
        self._broker = broker
        self._streams = streams
        self._inbound = inbound
        self._outbound = outbound
        self._grace_s = grace_s
        self._starting = asyncio.Lock()
        self._ending: asyncio.Task[None] | None = None

    def require_started(self) -> None:
        """Raise `BusConnectionError` unless the bus may be used."""
        if not self.started:
            raise BusConnectionError("the bus is not started")

    def require_going_on(self) -> None:
        """Raise `BusConnectionError` unless something new may begin."""
        self.require_started()
        if self._ending is not None:
            raise BusConnectionError("the bus is ending")

    async def start(self) -> None:
        """Connect and ensure the streams; after a failure nothing stays connected. An end under way is waited for."""
        async with self._starting:
            if self._ending is not None:
                # Its errors are for those who asked for it, and it goes on when this one is cancelled.
                await asyncio.wait([self._ending])
            if not self.started:
                await self._connect()

    async def _connect(self) -> None:
        try:
            await self._broker.connect()
            if self._streams and not self._broker.capabilities.redelivers:
                raise ConfigurationError(
                    f"{type(self._broker).__name__} cannot deliver again what was not handled, which streams promise; "
                    "use another broker, or streams=()"
                )
            for stream in self._streams:
                await self._broker.ensure_stream(stream)
            await self._inbound.start()
        except BaseException:  # boundary: nothing may stay connected after a failed start
            await self._broker.disconnect()
            raise
        self.started = True

    async def end(self, *, finish_all: bool) -> None:
        """Wind up, or wait for that if somebody else has begun it."""
        begins_it = self._ending is None
        if self._ending is None:
            if not self.started:
                return
            self._ending = asyncio.create_task(self._wind_up(finish_all), name="polaris-bus-end")
        try:
            # The end goes on when the one who waits for it is cancelled.
            await asyncio.shield(self._ending)
        except PolarisException as error:
            if begins_it:
                raise
            raise copy.copy(error) from error.__cause__

    async def _wind_up(self, finish_all: bool) -> None:
        try:
            # Handlers may publish until the last of them has ended.
            await self._inbound.stop(finish_all=finish_all)
            await self._outbound.finish(timeout_s=self._grace_s)
        finally:
            self.started = False
            try:
                await self._broker.disconnect()
                await self._outbound.finish(timeout_s=self._grace_s)
            finally:
                # The last of it: until then nobody may start the bus again, or take it for ended.
                self._ending = None
