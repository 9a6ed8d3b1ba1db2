"""Identifiers that sort by time of creation."""

from __future__ import annotations

import os
import threading
import time
from functools import lru_cache
from random import Random

_lock = threading.Lock()
_last_ms = 0
_counter = 0

# Identifiers are not secrets, and the system's own source costs a call of the kernel for each.
_random = Random()  # noqa: S311
_COUNTER_BITS = 12 + 14  # rand_a and the head of rand_b: the monotonic counter of RFC 9562 section 6.2, method 1


def _renew_after_fork() -> None:
    # Another thread may have held the lock at the moment of the fork; that thread does not exist in the child. And two
    # processes must not draw the same numbers.
    global _lock  # noqa: PLW0603
    _lock = threading.Lock()
    _random.seed()


os.register_at_fork(after_in_child=_renew_after_fork)


def new_id() -> str:
    """A UUID version 7 (RFC 9562) in canonical text form, 36 characters.

    Ids made by one process sort in the order of the calls, also within a millisecond and when the wall clock goes
    back; 48 random bits per id keep ids of several processes apart. Safe from any thread and after a fork.
    """
    global _last_ms, _counter  # noqa: PLW0603 - the counter is the point
    with _lock:
        now_ms = time.time_ns() // 1_000_000
        if now_ms > _last_ms:
            _last_ms = now_ms
            _counter = _random.getrandbits(25)  # the top bit stays free, so that counting up cannot overflow soon
        else:
            _counter += 1
            if _counter >> _COUNTER_BITS:
                _last_ms += 1
                _counter = 0
        milliseconds, counter = _last_ms, _counter
    head = _head(milliseconds)
    return f"{head}{counter >> 14:03x}-{0x8000 | counter & 0x3FFF:04x}-{_random.getrandbits(48):012x}"


@lru_cache(maxsize=16)
def _head(milliseconds: int) -> str:
    """What all ids of a millisecond begin with: the time and the version."""
    text = f"{milliseconds:012x}"
    return f"{text[:8]}-{text[8:]}-7"
