"""What the broker of the node holds: asked for at most once a second, and never waited for long."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from polaris.api._bus_view import StreamsView, StreamView
from polaris.clock import SYSTEM_CLOCK, Clock
from polaris.exceptions import BusConnectionError, MessageBusError, PolarisException
from polaris.messaging import DeadLetters
from polaris.messaging._survey import Survey, SurveyedBroker
from polaris.resilience import Timeout
from polaris.runtime._supervision import Supervisor

if TYPE_CHECKING:
    from polaris.messaging import MessageBroker
    from polaris.observability import StructuredLogger
    from polaris.runtime._health import HealthBoard

ANSWER_S_MAX = 3.0
EVERY_S = 1.0
"""One answer serves all who ask within this."""
COUNT_EVERY_S = 2.0
STREAMS_MAX = 64
CONSUMERS_MAX = 512


class BusSurvey:
    """Asks the broker for its streams when somebody wants to know, and for the number of dead letters all the time."""

    def __init__(
        self,
        broker: MessageBroker,
        board: HealthBoard,
        logger: StructuredLogger,
        *,
        answer_s_max: float = ANSWER_S_MAX,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._broker = broker
        self._letters = DeadLetters(broker)
        self._supervisor = Supervisor(board, logger, clock=clock)
        self._clock = clock
        self._limit = Timeout(answer_s_max)
        self._asking: asyncio.Task[StreamsView | PolarisException] | None = None
        self._answered_s = float("-inf")
        self.dead_letters: int | None = None
        """How many there were a moment ago; None when the broker cannot tell."""

    async def start(self) -> None:
        """Begin to count."""
        self._supervisor.run("dead letter count", self._count_for_ever)

    async def stop(self) -> None:
        """End everything that is being asked."""
        await self._supervisor.stop()
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)
            self._asking = None

    async def streams(self) -> StreamsView:
        """What the broker holds, as it said at most a second ago. Raises `BusConnectionError` to all who share it."""
        asking = self._asking
        if asking is None or (asking.done() and self._clock.monotonic() - self._answered_s >= EVERY_S):
            asking = self._asking = asyncio.create_task(self._ask(), name="bus survey")
        # One client that goes away must not take the answer from the others.
        answer = await asyncio.shield(asking)
        if isinstance(answer, PolarisException):
            raise BusConnectionError(f"the broker cannot be asked for its streams: {answer.message}") from answer
        return answer

    async def _ask(self) -> StreamsView | PolarisException:
        asked_at = self._clock.now()
        try:
            found = await self._limit.execute(self._survey, "bus survey")
        except PolarisException as error:
            return error
        finally:
            self._answered_s = self._clock.monotonic()
        streams = msgspec.convert(found.streams, tuple[StreamView, ...], from_attributes=True)
        return StreamsView(asked_at=asked_at, streams=streams, streams_total=found.streams_total)

    async def _survey(self) -> Survey:
        if not isinstance(self._broker, SurveyedBroker):
            raise MessageBusError("this broker cannot be surveyed")
        return await self._broker.survey(streams_max=STREAMS_MAX, consumers_max=CONSUMERS_MAX)

    async def _count_for_ever(self) -> None:
        while True:
            await self._count()
            await self._clock.sleep(COUNT_EVERY_S)

    async def _count(self) -> None:
        try:
            self.dead_letters = await self._limit.execute(self._letters.waiting, "dead letter count")
        except PolarisException:
            self.dead_letters = None
