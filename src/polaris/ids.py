"""Identifiers that sort by time of creation."""

from __future__ import annotations

import os
import threading
import time
from random import Random

_lock = threading.Lock()
_last_ms = 0
_counter = 0
_prefix = ""

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
    global _last_ms, _counter, _prefix  # noqa: PLW0603 - the counter is the point
    with _lock:
        now_ms = time.time_ns() // 1_000_000
        if now_ms > _last_ms:
            _last_ms = now_ms
            _counter = _random.getrandbits(25)  # the top bit stays free, so that counting up cannot overflow soon
            _prefix = _head(now_ms, _counter >> 14)
        else:
            _counter += 1
            if not _counter & 0x3FFF:
                if _counter >> _COUNTER_BITS:
                    _last_ms += 1
                    _counter = 0
                _prefix = _head(_last_ms, _counter >> 14)
        prefix, low = _prefix, 0x8000 | _counter & 0x3FFF
    # Bytes are written as hex in half the time of a number.
    return f"{prefix}{low.to_bytes(2, 'big').hex()}-{_random.getrandbits(48).to_bytes(6, 'big').hex()}"


def _head(milliseconds: int, high: int) -> str:
    """What ids of a millisecond begin with: the time, the version, and the head of the counter."""
    text = f"{milliseconds:012x}"
    return f"{text[:8]}-{text[8:]}-7{high:03x}-"
