"""A delivery that a subscription took and has not settled."""

from __future__ import annotations

from collections.abc import Hashable

import msgspec

from polaris.messaging._broker import Delivery


class Accepted(msgspec.Struct, eq=False):
    """A delivery that was taken and is not settled; `beat_s` is when the broker last heard of it (unless core).

    `repeats` counts how often it was tried again in place, `probes` how often it failed as a probe of a breaker.
    """

    delivery: Delivery
    beat_s: float
    repeats: int = 0
    probes: int = 0

    @property
    def identity(self) -> Hashable:
        """Which message it is: a stream that was made anew gives its numbers again."""
        return self.delivery.sequence, self.delivery.stored_at
