"""Live streams on virtual time: one beat for all clients, one frame for all who want the same."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime

from starlette.responses import StreamingResponse

from polaris.api import LiveFeed, SampleUpdate
from polaris.api._frames import BYTES_KEPT_MAX, FRAMES_KEPT, HEARTBEAT
from polaris.api._live import BATCH_EVENTS_MAX
from polaris.api._pulse import Pulse
from polaris.api._stream import HEARTBEAT_S, PAUSE_S, WRITES_PER_S_MAX, Streams
from polaris.domain import HealthStatus
from polaris.testing import run_virtual

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def update() -> SampleUpdate:
    return SampleUpdate(system_id="s", timestamp=NOW, health_status=HealthStatus.HEALTHY, values={"m": 1.0})


def now_s() -> float:
    return asyncio.get_running_loop().time()


class Client:
    """Reads a stream as fast as it comes and notes when what came."""

    def __init__(self, streams: Streams, last_event_id: str | None = None) -> None:
        response = streams.response(last_event_id, head=False)
        assert isinstance(response, StreamingResponse)
        self.chunks: list[tuple[float, bytes]] = []
        self._body = response.body_iterator
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for chunk in self._body:
            assert isinstance(chunk, bytes)
            self.chunks.append((now_s(), chunk))

    @property
    def ended(self) -> bool:
        return self._reading.done()

    @property
    def times_s(self) -> list[float]:
        """Of everything after the greeting."""
        return [at_s for at_s, _ in self.chunks[1:]]

    @property
    def samples(self) -> int:
        return sum(chunk.count(b"event: sample") for _, chunk in self.chunks)

    async def go(self) -> None:
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)


@contextlib.asynccontextmanager
async def clients(streams: Streams, count: int) -> AsyncIterator[list[Client]]:
    found = [Client(streams) for _ in range(count)]
    await asyncio.sleep(0)
    try:
        yield found
    finally:
        for client in found:
            await client.go()


async def publish_every(feed: LiveFeed, step_s: float, times: int) -> None:
    for _ in range(times):
        await asyncio.sleep(step_s)
        feed.publish(update())


def test_clients_that_keep_up_get_the_same_bytes_at_the_same_moments() -> None:
    async def scenario() -> None:
        feed = LiveFeed()
        streams = Streams(feed)
        async with clients(streams, 40) as all_of_them:
            await publish_every(feed, 0.03, 100)
            await asyncio.sleep(PAUSE_S)
            first = all_of_them[0]
            assert first.samples == 100
            for other in all_of_them:
                assert other.times_s == first.times_s
                pairs = zip(first.chunks[1:], other.chunks[1:], strict=True)
                assert all(ours is theirs for (_, ours), (_, theirs) in pairs), "framed more than once"
            assert streams._frames.made_total == len(first.times_s)

    run_virtual(scenario())


def test_nobody_is_written_to_more_than_ten_times_a_second() -> None:
    async def scenario() -> None:
        feed = LiveFeed()
        async with clients(Streams(feed), 2) as (one, _):
            await publish_every(feed, 0.001, 2_000)
            await asyncio.sleep(PAUSE_S)
            gaps = [later - earlier for earlier, later in zip(one.times_s, one.times_s[1:], strict=False)]
            assert one.samples == 2_000
            assert 18 <= len(gaps) <= 21
            assert min(gaps) > PAUSE_S - 1e-6

    run_virtual(scenario())


def test_an_update_after_a_quiet_time_comes_at_once() -> None:
    async def scenario() -> None:
        feed = LiveFeed()
        async with clients(Streams(feed), 2) as (one, _):
            await asyncio.sleep(1.0)
            feed.publish(update())
            begun = now_s()
            await asyncio.sleep(0.01)
            assert one.times_s == [begun]

    run_virtual(scenario())


def test_many_clients_are_written_to_less_often_so_that_all_together_cost_no_more() -> None:
    async def scenario() -> None:
        feed = LiveFeed()
        async with clients(Streams(feed), 200) as (one, *_):
            await publish_every(feed, 0.01, 400)
            await asyncio.sleep(1.0)
            assert one.samples == 400
            assert len(one.times_s) * 200 <= WRITES_PER_S_MAX * 5.1

    run_virtual(scenario())


def test_a_quiet_stream_has_a_heartbeat_and_no_more_than_that() -> None:
    async def scenario() -> None:
        async with clients(Streams(LiveFeed()), 3) as all_of_them:
            await asyncio.sleep(HEARTBEAT_S * 3 + 1)
            for client in all_of_them:
                assert [chunk for _, chunk in client.chunks[1:]] == [HEARTBEAT] * 3

    run_virtual(scenario())


def test_updates_take_the_place_of_heartbeats() -> None:
    async def scenario() -> None:
        feed = LiveFeed()
        async with clients(Streams(feed), 1) as (one,):
            await publish_every(feed, HEARTBEAT_S - 1, 5)
            assert all(chunk != HEARTBEAT for _, chunk in one.chunks)

    run_virtual(scenario())


def test_a_client_that_missed_much_is_sent_all_of_it_without_waiting_for_beats() -> None:
    async def scenario() -> None:
        feed = LiveFeed()
        for _ in range(3 * BATCH_EVENTS_MAX + 1):
            feed.publish(update())
        client = Client(Streams(feed), feed.event_id(0))
        await asyncio.sleep(PAUSE_S)
        assert [chunk.count(b"event: sample") for _, chunk in client.chunks[1:]] == [BATCH_EVENTS_MAX] * 3 + [1]
        assert max(client.times_s[:3]) - client.chunks[0][0] < 1e-3
        await client.go()

    run_virtual(scenario())


def test_a_client_that_does_not_read_loses_the_oldest_and_the_others_nothing() -> None:
    async def scenario() -> None:
        feed = LiveFeed(events_max=50)
        streams = Streams(feed)
        slow = streams.response(None, head=False)
        assert isinstance(slow, StreamingResponse)
        unread = aiter(slow.body_iterator)
        assert b"event: hello" in await anext(unread)
        async with clients(streams, 1) as (quick,):
            await publish_every(feed, 0.01, 120)
            await asyncio.sleep(PAUSE_S)
            assert quick.samples == 120
        chunk = await anext(unread)
        assert isinstance(chunk, bytes)
        assert chunk.startswith(b'event: dropped\ndata: {"count":70}\n\nid: ')
        assert chunk.count(b"event: sample") == 50
        assert streams.dropped_total == 70
        await unread.aclose()  # type: ignore[attr-defined]

    run_virtual(scenario())


def test_closing_ends_all_streams_at_once_and_they_leave_nothing_behind() -> None:
    async def scenario() -> None:
        feed = LiveFeed()
        streams = Streams(feed)
        async with clients(streams, 20) as all_of_them:
            assert streams.count == feed.subscribers == 20
            begun = now_s()
            streams.close()
            for _ in range(20):
                await asyncio.sleep(0)
            assert all(client.ended for client in all_of_them)
            assert now_s() == begun
        assert streams.count == feed.subscribers == 0
        assert feed._listeners == []

    run_virtual(scenario())


def test_the_frames_that_are_kept_are_bounded() -> None:
    async def scenario() -> None:
        feed = LiveFeed()
        streams = Streams(feed)
        async with clients(streams, 1):
            await publish_every(feed, PAUSE_S, 5 * FRAMES_KEPT)
        assert len(streams._frames._kept) == FRAMES_KEPT

    run_virtual(scenario())


def test_the_bytes_of_the_frames_that_are_kept_are_bounded() -> None:
    async def scenario() -> None:
        feed = LiveFeed()
        streams = Streams(feed)
        large = SampleUpdate(
            system_id="x" * (BYTES_KEPT_MAX // 3), timestamp=NOW, health_status=HealthStatus.HEALTHY, values={}
        )
        async with clients(streams, 1) as (one,):
            for _ in range(6):
                feed.publish(large)
                await asyncio.sleep(PAUSE_S)
            assert one.samples == 6
        kept = [len(frame) for frame in streams._frames._kept.values()]
        assert sum(kept) == streams._frames._kept_bytes <= BYTES_KEPT_MAX
        assert len(kept) == 2

    run_virtual(scenario())


def test_a_waiter_that_is_cancelled_disturbs_no_other() -> None:
    async def scenario() -> None:
        pulse = Pulse(PAUSE_S)
        waiting = [asyncio.create_task(pulse.wait(60)) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[1].cancel()
        await asyncio.sleep(0)
        pulse.ask()
        assert await waiting[0] is True
        assert await waiting[2] is True

    run_virtual(scenario())


def test_others_get_their_turn_between_the_clients_of_one_beat() -> None:
    async def scenario() -> None:
        pulse = Pulse(PAUSE_S)
        order: list[str] = []

        async def wait() -> None:
            await pulse.wait(60)
            order.append("client")

        waiting = [asyncio.create_task(wait()) for _ in range(64)]
        await asyncio.sleep(0)
        pulse.beat()
        asyncio.get_running_loop().call_soon(order.append, "other")
        await asyncio.gather(*waiting)
        assert "other" in order[:32]

    run_virtual(scenario())
