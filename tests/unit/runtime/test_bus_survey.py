"""The broker is asked for its streams at most once a second, and never waited for long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.awake import until

from polaris.api import StreamsView
from polaris.exceptions import BusConnectionError
from polaris.messaging import DEAD_LETTER_STREAM, DeliveryClass, InMemoryMessageBroker, OutgoingMessage
from polaris.messaging._survey import Survey
from polaris.observability import StructuredLogger
from polaris.runtime._bus_survey import ANSWER_S_MAX, COUNT_EVERY_S, BusSurvey
from polaris.runtime._health import HealthBoard
from polaris.testing import VirtualClock


class CountingBroker(InMemoryMessageBroker):
    """Counts how often it is surveyed, and may keep silent."""

    asked = 0
    silent: asyncio.Event | None = None

    async def survey(self, *, streams_max: int, consumers_max: int) -> Survey:
        self.asked += 1
        if self.silent is not None:
            await self.silent.wait()
        return await super().survey(streams_max=streams_max, consumers_max=consumers_max)


@pytest.fixture
async def broker(clock: VirtualClock) -> CountingBroker:
    made = CountingBroker(clock=clock)
    await made.connect()
    await made.ensure_stream(DEAD_LETTER_STREAM)
    return made


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
async def survey(broker: CountingBroker, clock: VirtualClock) -> AsyncIterator[BusSurvey]:
    made = BusSurvey(broker, HealthBoard(clock=clock), StructuredLogger("test"), clock=clock)
    yield made
    await made.stop()


async def put_aside(broker: CountingBroker, subject: str = "polaris.dead_letter.polaris.telemetry.web") -> None:
    await broker.publish(OutgoingMessage(subject, b"{}"), delivery=DeliveryClass.AT_LEAST_ONCE)


async def test_however_many_ask_the_broker_is_asked_once_a_second(
    survey: BusSurvey, broker: CountingBroker, clock: VirtualClock
) -> None:
    answers = await asyncio.gather(*(survey.streams() for _ in range(20)))
    assert broker.asked == 1
    assert {answer.streams[0].name for answer in answers} == {"POLARIS_DEAD_LETTER"}
    clock.advance(0.9)
    assert await survey.streams() is answers[0]
    await put_aside(broker)
    clock.advance(0.2)
    later = await survey.streams()
    assert (broker.asked, later.streams[0].messages) == (2, 1)
    assert later.asked_at > answers[0].asked_at


async def test_a_client_that_goes_away_does_not_take_the_answer_from_the_others(
    survey: BusSurvey, broker: CountingBroker
) -> None:
    broker.silent = asyncio.Event()
    gone, stays = asyncio.create_task(survey.streams()), asyncio.create_task(survey.streams())
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    broker.silent.set()
    assert isinstance(await stays, StreamsView)
    assert broker.asked == 1


async def test_a_broker_that_keeps_silent_is_given_up_and_asked_again_a_second_later(
    broker: CountingBroker, clock: VirtualClock
) -> None:
    survey = BusSurvey(broker, HealthBoard(clock=clock), StructuredLogger("test"), clock=clock, answer_s_max=0.01)
    broker.silent = asyncio.Event()
    waiting = [asyncio.create_task(survey.streams()) for _ in range(2)]
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [BusConnectionError] * 2
    assert outcomes[0] is not outcomes[1], "an error is never raised twice"
    with pytest.raises(BusConnectionError):
        await survey.streams()
    assert broker.asked == 1
    broker.silent.set()
    clock.advance(1)
    assert (await survey.streams()).streams_total == 1
    await survey.stop()
    assert ANSWER_S_MAX == 3.0


async def test_the_number_of_dead_letters_follows_and_is_unknown_while_the_broker_is_away(
    survey: BusSurvey, broker: CountingBroker, clock: VirtualClock
) -> None:
    assert survey.dead_letters is None
    await survey.start()
    await until(lambda: survey.dead_letters == 0, "counted")
    await put_aside(broker)
    await put_aside(broker, "polaris.dead_letter.body")
    clock.advance(COUNT_EVERY_S)
    await until(lambda: survey.dead_letters == 1, "counted again")
    await broker.disconnect()
    clock.advance(COUNT_EVERY_S)
    await until(lambda: survey.dead_letters is None, "not known any more")
