"""What the policies add to a call, beside their peers.

    python benchmarks/resilience.py [--rounds 15] [--calls 10000]

The guarded operation is a coroutine function that does nothing; it succeeds at the first try. The figures are what a
policy adds to awaiting it bare: the median difference between the two in the same round, contenders in turns within
one process and one event loop. Rejections are calls that are refused: made, raised and caught.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Mapping

import _resilience_contenders as contenders
from _harness import print_table
from _micro import added_us, in_turns_async

BARE = "bare"
GROUPS = {
    "Retry": (contenders.retries, 0.3),
    "Circuit breaker, rate over the last 100 calls": (contenders.breakers_with_a_window, 0.8),
    "Circuit breaker, consecutive failures": (contenders.breakers_that_count, None),
    "Bulkhead": (contenders.bulkheads, 0.4),
    "Timeout": (contenders.deadlines, None),
    "Bulkhead, retry and breaker": (contenders.three, 1.5),
    "The three and a deadline": (contenders.three_and_a_deadline, 4.5),
    "Rejection": (contenders.rejections, 2.0),
}


async def measure(rounds: int, calls: int, only: str) -> None:
    for title, (make, target_us) in GROUPS.items():
        if only not in title:
            continue
        group: Mapping[str, contenders.Call] = {BARE: contenders.operation, **make()}
        times = await in_turns_async(group, calls=calls, rounds=rounds)
        rows = []
        for name in group:
            if name != BARE:
                added = added_us(times, name, BARE)
                ours = added_us(times, "POLARIS" if "POLARIS" in group else "POLARIS breaker", BARE)
                target = f"{target_us}" if target_us is not None and name.startswith("POLARIS") else ""
                rows.append((name, f"{added:.2f}", f"{added / ours:.1f}", target))
        print_table(title, ("contender", "us added", "x POLARIS", "target us"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--only", default="", help="a part of the title of the only tables to make")
    arguments = parser.parse_args()
    asyncio.run(measure(arguments.rounds, arguments.calls, arguments.only))


if __name__ == "__main__":
    main()
