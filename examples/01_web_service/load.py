"""Replays a request trace as open-loop load on a service of this machine.

Each request is sent at the time that the trace gives it, divided by the speed, whether or not earlier ones were
answered: a slow service does not slow its load down. Response times count from that scheduled time, so a request that
had to wait anywhere (even in this program) shows it; there is no coordinated omission.

    python load.py --url http://127.0.0.1:8000 --speed 6 --duration 60
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import math
import signal
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import NamedTuple, TextIO

TRACE = Path(__file__).parent / "data" / "azure_llm_conv_excerpt.csv"
LATE_S = 0.010
IN_FLIGHT_MAX = 2000
TIMEOUT_S = 60.0
ANSWER_BYTES_MAX = 1 << 20
OUTCOMES_MAX = 100_000
LOOPBACK = ("127.0.0.1", "localhost")


class Arrival(NamedTuple):
    """One request of the trace: seconds after the first one, tokens of prompt and answer, and its number."""

    at_s: float
    context: int
    generated: int
    number: int


class Outcome(NamedTuple):
    """What came of one request. `status` is 0 when no answer came; `response_s` counts from the scheduled time."""

    at_s: float
    response_s: float
    status: int


@dataclass
class Tally:
    """What the load did and got. `refused`: not sent, because too many were in flight. `late`: sent over 10 ms late."""

    sent: int = 0
    late: int = 0
    refused: int = 0
    outcomes: deque[Outcome] = field(default_factory=lambda: deque(maxlen=OUTCOMES_MAX))
    """The newest 100 000 of them."""

    def summary(self) -> dict[str, float | int | None]:
        """The counts, and response times of answered requests in seconds."""
        answered = sorted(outcome.response_s for outcome in self.outcomes if outcome.status == 200)

        def quantile(q: float) -> float | None:
            return round(answered[max(0, math.ceil(q * len(answered)) - 1)], 4) if answered else None

        return {
            "sent": self.sent,
            "answered": len(answered),
            "failed": len(self.outcomes) - len(answered),
            "late": self.late,
            "refused": self.refused,
            "p50_s": quantile(0.50),
            "p95_s": quantile(0.95),
            "p99_s": quantile(0.99),
        }


def read_trace(path: Path) -> Iterator[Arrival]:
    """The requests of a CSV with the columns TIMESTAMP, ContextTokens, GeneratedTokens, from the first one on."""
    with path.open(encoding="utf-8", newline="") as file:
        first: float | None = None
        for number, row in enumerate(csv.DictReader(file)):
            at = timestamp_s(row["TIMESTAMP"])
            first = at if first is None else first
            yield Arrival(at - first, int(row["ContextTokens"]), int(row["GeneratedTokens"]), number)


def timestamp_s(text: str) -> float:
    """Unix seconds of a UTC time such as `2023-11-16 18:15:46.6805900`; Python's own parser takes six digits only."""
    whole, _, fraction = text.partition(".")
    return datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp() + float(f"0.{fraction or 0}")


def schedule(trace: Iterable[Arrival], *, speed: float, loop: bool, duration_s: float | None) -> Iterator[Arrival]:
    """The trace in the time of the replay: `speed` times as fast, again and again if `loop`, until `duration_s`."""
    arrivals = list(trace)
    if not arrivals:
        return
    # Between two rounds passes the mean time between two requests.
    round_s = arrivals[-1].at_s * (len(arrivals) / max(1, len(arrivals) - 1)) or 1.0
    for turn in count():
        for arrival in arrivals:
            at_s = (turn * round_s + arrival.at_s) / speed
            if duration_s is not None and at_s >= duration_s:
                return
            yield arrival._replace(at_s=at_s, number=turn * len(arrivals) + arrival.number)
        if not loop:
            return


async def replay(
    arrivals: Iterable[Arrival],
    send: Callable[[Arrival, float], Awaitable[int]],
    *,
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    in_flight_max: int = IN_FLIGHT_MAX,
    on_outcome: Callable[[Outcome], None] | None = None,
    tally: Tally | None = None,
) -> Tally:
    """Send every request at its time and wait for the answers at the end only.

    `send` gets the request and how long ago it was due, and returns the HTTP status. Cancelling ends all of it.
    """
    tally = tally if tally is not None else Tally()
    start_s = monotonic()

    async def one(arrival: Arrival, late_s: float) -> None:
        try:
            status = await send(arrival, late_s)
        except (OSError, ValueError, EOFError):
            status = 0
        outcome = Outcome(arrival.at_s, monotonic() - start_s - arrival.at_s, status)
        tally.outcomes.append(outcome)
        if on_outcome is not None:
            on_outcome(outcome)

    in_flight: set[asyncio.Task[None]] = set()
    try:
        for arrival in arrivals:
            wait_s = start_s + arrival.at_s - monotonic()
            if wait_s > 0:
                await sleep(wait_s)
            late_s = monotonic() - start_s - arrival.at_s
            if len(in_flight) >= in_flight_max:
                tally.refused += 1
                await sleep(0)  # a long row of refusals must not keep the answers from being read
                continue
            tally.sent += 1
            tally.late += late_s > LATE_S
            task = asyncio.ensure_future(one(arrival, late_s))
            in_flight.add(task)
            task.add_done_callback(in_flight.discard)
        if in_flight:
            await asyncio.wait(in_flight)
    finally:
        for task in list(in_flight):
            task.cancel()
        await asyncio.gather(*in_flight, return_exceptions=True)
    return tally


def http_sender(host: str, port: int, *, timeout_s: float = TIMEOUT_S) -> Callable[[Arrival, float], Awaitable[int]]:
    """Sends a request of the trace to `/generate` over a connection of its own."""

    async def send(arrival: Arrival, late_s: float) -> int:
        due = time.time() - late_s
        path = f"/generate?context={arrival.context}&generated={arrival.generated}&seed={arrival.number}"
        head = (
            f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nX-Request-Start: t={due:.6f}\r\nConnection: close\r\n\r\n"
        )
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(head.encode("ascii"))
                line = await reader.readline()
                status = int(line.split()[1]) if line.count(b" ") >= 1 else 0
                received = 0
                while chunk := await reader.read(1 << 16):
                    received += len(chunk)
                    if received > ANSWER_BYTES_MAX:
                        raise ValueError("the answer is too long")
                return status
            finally:
                writer.close()

    return send


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Replay a request trace as open-loop load.")
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="the service, on this machine")
    parser.add_argument("--trace", type=Path, default=TRACE, help="CSV with TIMESTAMP,ContextTokens,GeneratedTokens")
    parser.add_argument("--speed", type=float, default=4.0, help="how many times faster than the trace")
    parser.add_argument("--duration", type=float, help="seconds; default: one round, or for ever with --loop")
    parser.add_argument("--loop", action="store_true", help="start the trace again at its end")
    parser.add_argument("--in-flight-max", type=int, default=IN_FLIGHT_MAX)
    parser.add_argument("--results", type=Path, help="write every outcome as a JSON line")
    options = parser.parse_args(arguments)
    if not options.speed > 0:
        parser.error("--speed must be over 0")
    if not 0 < options.in_flight_max <= 100_000:
        parser.error("--in-flight-max must be from 1 to 100000")
    scheme, _, address = options.url.rstrip("/").partition("://")
    options.host, _, port = address.partition(":")
    if scheme != "http" or options.host not in LOOPBACK or not port.isdigit():
        parser.error("--url must be http://127.0.0.1:<port>: this load is not for other people's machines")
    options.port = int(port)
    return options


async def run(options: argparse.Namespace, results: TextIO | None) -> Tally:
    """Replay until the end of the schedule or SIGTERM / SIGINT, and return what came of it."""
    arrivals = schedule(read_trace(options.trace), speed=options.speed, loop=options.loop, duration_s=options.duration)
    tally = Tally()

    def write(outcome: Outcome) -> None:
        if results is not None:
            results.write(json.dumps(outcome._asdict()) + "\n")

    send = http_sender(options.host, options.port)
    main = asyncio.ensure_future(
        replay(arrivals, send, in_flight_max=options.in_flight_max, on_outcome=write, tally=tally)
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, main.cancel)
    try:
        await main
    except asyncio.CancelledError:
        if not main.cancelled():
            raise
    return tally


def main(arguments: list[str] | None = None) -> int:
    from lifeline import end_with_parent

    options = parse(arguments)
    end_with_parent(grace_s=2.0)
    if options.results is None:
        tally = asyncio.run(run(options, None))
    else:
        with options.results.open("w", encoding="utf-8", buffering=1) as results:
            tally = asyncio.run(run(options, results))
    print(json.dumps(tally.summary()), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
