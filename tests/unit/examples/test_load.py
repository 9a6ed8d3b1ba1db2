"""The open-loop load: it keeps its schedule whatever the service does, and its response times hide no waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import islice, pairwise
from pathlib import Path

import load
import pytest
from hypothesis import given
from hypothesis import strategies as st
from load import Arrival, Outcome, Tally

from polaris.testing import run_virtual, running_clock


def arrivals(*times_s: float) -> list[Arrival]:
    return [Arrival(at_s, 10, 5, number) for number, at_s in enumerate(times_s)]


def replayed(given: list[Arrival], *, service_s: float, in_flight_max: int = 1000) -> tuple[Tally, list[float]]:
    """Replay against a service with one server that takes `service_s` a request, in virtual time."""

    async def main() -> tuple[Tally, list[float]]:
        clock, sent, server = running_clock(), [], asyncio.Lock()
        start_s = clock.monotonic()

        async def send(arrival: Arrival, late_s: float) -> int:
            sent.append(clock.monotonic() - start_s)
            async with server:
                await clock.sleep(service_s)
            return 200

        tally = await load.replay(
            given, send, monotonic=clock.monotonic, sleep=clock.sleep, in_flight_max=in_flight_max
        )
        return tally, sent

    return run_virtual(main())


def test_every_request_is_sent_at_its_time_however_slow_the_answers_are() -> None:
    times_s = [0.0, 0.1, 0.2, 0.30001, 5.0]
    tally, sent = replayed(arrivals(*times_s), service_s=60.0)
    assert sent == pytest.approx(times_s, abs=1e-6)
    assert (tally.sent, tally.late, tally.refused) == (5, 0, 0)


def test_response_times_count_from_the_scheduled_arrival_and_contain_the_queue() -> None:
    tally, _ = replayed(arrivals(0.0, 0.0, 0.0, 10.0), service_s=1.0)
    assert [outcome.response_s for outcome in tally.outcomes] == pytest.approx([1.0, 2.0, 3.0, 1.0])


@given(st.lists(st.floats(0, 5), min_size=1, max_size=40), st.floats(0.001, 1.0))
def test_nothing_is_omitted_and_the_queue_is_exact(gaps_s: list[float], service_s: float) -> None:
    times_s = [sum(gaps_s[:index]) for index in range(len(gaps_s))]
    tally, _ = replayed(arrivals(*times_s), service_s=service_s)
    free_s, expected = 0.0, []
    for at_s in times_s:
        free_s = max(free_s, at_s) + service_s
        expected.append(free_s - at_s)
    assert sorted(o.response_s for o in tally.outcomes) == pytest.approx(sorted(expected), abs=1e-6)


def test_what_would_be_over_the_bound_in_flight_is_refused_and_counted() -> None:
    tally, sent = replayed(arrivals(*(number / 100 for number in range(100))), service_s=1_000.0, in_flight_max=10)
    assert (len(sent), tally.sent, tally.refused) == (10, 10, 90)


def test_a_late_send_is_counted_and_its_lateness_is_in_the_response_time() -> None:
    async def main() -> Tally:
        clock = running_clock()

        async def send(arrival: Arrival, late_s: float) -> int:
            assert late_s == pytest.approx(3.0 if arrival.number == 1 else 0.0)
            return 200

        async def oversleep(delay_s: float) -> None:
            await clock.sleep(delay_s + 3.0)

        return await load.replay(arrivals(0.0, 1.0), send, monotonic=clock.monotonic, sleep=oversleep)

    tally = run_virtual(main())
    assert tally.late == 1
    assert [outcome.response_s for outcome in tally.outcomes] == pytest.approx([0.0, 3.0])


def test_a_failed_request_is_an_outcome_and_the_load_goes_on() -> None:
    async def main() -> Tally:
        async def send(arrival: Arrival, late_s: float) -> int:
            if arrival.number == 0:
                raise ConnectionRefusedError
            return 503 if arrival.number == 1 else 200

        return await load.replay(arrivals(0.0, 0.1, 0.2), send)

    tally = asyncio.run(main())
    assert [outcome.status for outcome in tally.outcomes] == [0, 503, 200]
    assert tally.summary()["failed"] == 2


def test_a_cancelled_load_leaves_no_request_behind() -> None:
    async def main() -> None:
        async def send(arrival: Arrival, late_s: float) -> int:
            await asyncio.sleep(1_000)
            return 200

        replaying = asyncio.ensure_future(load.replay(arrivals(0.0, 0.0, 50.0), send))
        await asyncio.sleep(1)
        replaying.cancel()
        await asyncio.wait([replaying])
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run_virtual(main())


def test_the_schedule_is_the_trace_sped_up_and_repeated_at_its_own_rate() -> None:
    trace = arrivals(0.0, 2.0, 4.0)
    once = list(load.schedule(trace, speed=2.0, loop=False, duration_s=None))
    assert [arrival.at_s for arrival in once] == [0.0, 1.0, 2.0]
    looped = list(islice(load.schedule(trace, speed=2.0, loop=True, duration_s=None), 7))
    assert [arrival.at_s for arrival in looped] == pytest.approx([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    assert [arrival.number for arrival in looped] == list(range(7))
    cut = list(load.schedule(trace, speed=2.0, loop=True, duration_s=3.5))
    assert [arrival.at_s for arrival in cut] == pytest.approx([0.0, 1.0, 2.0, 3.0])
    assert list(load.schedule([], speed=1.0, loop=True, duration_s=None)) == []


def test_the_committed_excerpt_is_ten_minutes_of_the_trace() -> None:
    trace = list(load.read_trace(load.TRACE))
    assert len(trace) == 2867
    assert trace[0] == Arrival(0.0, 374, 44, 0)
    assert trace[1].at_s == pytest.approx(4.314579, abs=1e-6)
    assert all(earlier.at_s <= later.at_s for earlier, later in pairwise(trace))
    assert 590 < trace[-1].at_s < 600


def test_seven_digits_of_a_second_are_read() -> None:
    assert load.timestamp_s("1970-01-01 00:00:01.2345678") == pytest.approx(1.2345678, abs=1e-9)
    assert load.timestamp_s("1970-01-02 00:00:00") == 86_400.0
    with pytest.raises(ValueError, match="format"):
        load.timestamp_s("yesterday")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--url", "http://example.com:80"],
        ["--url", "http://127.0.0.1.example.com:80"],
        ["--url", "https://127.0.0.1:80"],
        ["--url", "http://127.0.0.1"],
        ["--speed", "0"],
        ["--in-flight-max", "0"],
    ],
)
def test_other_machines_and_nonsense_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        load.parse(arguments)
    assert "error" in capsys.readouterr().err


@pytest.fixture
async def answering() -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that answers every request with 200 and keeps what it was asked."""
    asked: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1], asked
    server.close()
    await server.wait_closed()


async def test_a_request_carries_the_tokens_and_the_time_it_was_due(answering: tuple[int, list[bytes]]) -> None:
    port, asked = answering
    send = load.http_sender("127.0.0.1", port)
    assert await send(Arrival(0.0, 374, 44, 7), 0.0) == 200
    assert asked[0].startswith(b"GET /generate?context=374&generated=44&seed=7 HTTP/1.1\r\n")
    assert b"\r\nX-Request-Start: t=" in asked[0]


def test_a_summary_without_answers_has_no_response_time() -> None:
    tally = Tally(sent=1)
    tally.outcomes.append(Outcome(0.0, 1.0, 0))
    assert tally.summary()["p95_s"] is None
    assert tally.summary()["failed"] == 1


async def test_the_outcomes_can_be_written_down(tmp_path: Path, answering: tuple[int, list[bytes]]) -> None:
    trace = tmp_path / "trace.csv"
    rows = "".join(f"2023-11-16 18:15:46.{number}000000,10,{number}\n" for number in range(5))
    trace.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + rows)
    options = load.parse(["--url", f"http://127.0.0.1:{answering[0]}", "--trace", str(trace), "--speed", "100"])
    with (tmp_path / "results.jsonl").open("w") as results:
        tally = await load.run(options, results)
    assert tally.summary()["answered"] == 5
    assert len((tmp_path / "results.jsonl").read_text().splitlines()) == 5
