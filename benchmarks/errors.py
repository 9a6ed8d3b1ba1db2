"""What making an error costs, beside the bare exception of Python that says the same.

    python benchmarks/errors.py [--rounds 25] [--calls 20000]

Every error redacts what it is made with; those that policies reject with are worded when they are read. "worded" adds
reading the message and the context.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from _harness import print_table
from _micro import in_turns, ratio

from polaris.exceptions import (
    BulkheadRejectedException,
    CircuitBreakerOpenException,
    DeadlineExceededError,
    InvalidValueError,
    PolarisException,
    PublishError,
    RateLimitExceededError,
)

BARE = "bare exception, the same text"
NAME, WAIT_S, TOPIC = "orders", 1.5, "polaris.telemetry.web-1"


class BareError(Exception):
    """The least that an error can be."""


def worded(error: PolarisException) -> object:
    """The error after somebody has read it."""
    return error.message, error.context


CONTENDERS: dict[str, Callable[[], object]] = {
    BARE: lambda: BareError(f"circuit breaker {NAME!r} is open, retry after {WAIT_S:.3g} s"),
    "PolarisException, message and context": lambda: PolarisException(
        f"could not store the reading of {NAME!r}", {"system": NAME, "attempt": 3}
    ),
    "PublishError, message and context": lambda: PublishError("not stored", {"topic": TOPIC, "bytes": 3}),
    "CircuitBreakerOpenException": lambda: CircuitBreakerOpenException(NAME, state="open", retry_after=WAIT_S),
    "the same, worded": lambda: worded(CircuitBreakerOpenException(NAME, state="open", retry_after=WAIT_S)),
    "BulkheadRejectedException": lambda: BulkheadRejectedException(NAME, active=10, queued=0),
    "RateLimitExceededError": lambda: RateLimitExceededError(NAME, retry_after=WAIT_S),
    "DeadlineExceededError": lambda: DeadlineExceededError(NAME, timeout_s=WAIT_S),
    "InvalidValueError": lambda: InvalidValueError("ratio", "a number from 0 to 1", NAME),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--calls", type=int, default=20_000)
    arguments = parser.parse_args()
    times = in_turns(CONTENDERS, calls=arguments.calls, rounds=arguments.rounds)
    rows = [(name, f"{min(each) * 1e6:.2f}", f"{ratio(times, name, BARE):.1f}") for name, each in times.items()]
    print_table("Making an error", ("error", "us", "x bare"), rows)


if __name__ == "__main__":
    main()
