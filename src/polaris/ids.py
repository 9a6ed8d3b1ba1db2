"""Identifiers that sort by time of creation."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from random import Random

# The handler of a signal, or what collects garbage, may make an id in the midst of another one's making.
_lock = threading.RLock()
# The millisecond that ids are of now, and the counter with which the present run of them begins.
_last_ms = 0
_counter = 0

# Identifiers are not secrets, and the system's own source costs a call of the kernel for each.
_random = Random()  # noqa: S311
_COUNTER_BITS = 12 + 14  # rand_a and the head of rand_b: the monotonic counter of RFC 9562 section 6.2, method 1
_RUN = 256
_ENDS = tuple(f"{low:02x}-" for low in range(_RUN))
"""The last digits of the counter, and the hyphen behind them."""

_run: tuple[int, str, Iterator[str]] = (0, "", iter(()))
"""Until when it holds, in ns, what its ids begin with, and which ends of the counter are left. Never changed in place:
whoever holds one takes from its iterator, which gives every end to one thread alone, so that no lock is needed."""
_tails: list[str] = []
"""48 random bits each, as digits; made many at once, which costs half."""


def _renew_after_fork() -> None:
    # Another thread may have held the lock at the moment of the fork; that thread does not exist in the child. And two
    # processes must not draw the same numbers.
    global _lock  # noqa: PLW0603
    _lock = threading.RLock()
    _random.seed()
    _tails.clear()


os.register_at_fork(after_in_child=_renew_after_fork)


def new_id() -> str:
    """A UUID version 7 (RFC 9562) in canonical text form, 36 characters.

    Ids made by one process sort in the order of the calls, also within a millisecond and when the wall clock goes
    back; 48 random bits per id keep ids of several processes apart. Safe from any thread and after a fork.
    """
    while True:
        run = _run
        until_ns, head, ends = run
        if time.time_ns() < until_ns:
            for end in ends:
                try:
                    return head + end + _tails.pop()
                except IndexError:
                    return head + end + _draw()
        _begin_after(run)


def _begin_after(run: tuple[int, str, Iterator[str]]) -> None:
    """Begin another run of ids, unless another thread has done so."""
    global _last_ms, _counter, _run
    with _lock:
        if _run is not run:
            return
        now_ms, last_ms = time.time_ns() // 1_000_000, _last_ms
        if now_ms > last_ms:
            last_ms = now_ms
            counter = _random.getrandbits(25)  # the top bit stays free, so that counting up cannot overflow soon
        else:
            counter = (_counter | _RUN - 1) + 1
            if counter >> _COUNTER_BITS:
                last_ms += 1
                counter = 0
        text = f"{last_ms:012x}"
        high = 0x80 | counter >> 8 & 0x3F
        head = f"{text[:8]}-{text[8:]}-7{counter >> 14:03x}-{high:02x}"
        begun = (last_ms + 1) * 1_000_000, head, iter(_ENDS[counter & _RUN - 1 :])
        if _run is run:  # nothing came between
            _last_ms, _counter, _run = last_ms, counter, begun


def _draw() -> str:
    """Draw many tails: one for the caller, as other threads may take all that lie about, and the others for all."""
    text = _random.randbytes(6 * _RUN).hex()
    mine, *others = [text[at : at + 12] for at in range(0, len(text), 12)]
    _tails.extend(others)
    return mine
