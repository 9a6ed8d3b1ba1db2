"""What was not well and is not seen any more, as the API shows it, and what it asks of whoever keeps it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Protocol

import msgspec

from polaris.domain import HealthStatus

Timestamp = Annotated[datetime, msgspec.Meta(tz=True)]
_INSTANT_MAX = 1 << 62


class HealthPeriod(msgspec.Struct, frozen=True, kw_only=True):
    """A time in which a part of the node or a managed system was not well; what is well for 30 s has ended one."""

    period_id: str
    component: str | None = None
    """The part of the node; None when it was the managed system that was not well."""
    system_id: str | None = None
    """The managed system; of its connector too. None for other parts of the node."""
    node: str
    """The node that tells of it."""
    status: HealthStatus
    """The worst of it. `unknown` is a managed system of which no samples came: that is a period of its own."""
    message: str = ""
    """The reason of that, as it was told first."""
    remedy: str = ""
    """What to do about it."""
    since: Timestamp
    until: Timestamp | None = None
    """None while it lasts."""
    times: int = 1
    """How often it began: more where it was well for less than 30 s in between."""
    cut_off: bool = False
    """Whether the node stopped meanwhile: it was over by `until`, and nobody saw when."""


class PeriodKey(msgspec.Struct, frozen=True, array_like=True):
    """The place of a period in the listing: by its begin, then its id, newest first."""

    since_us: Annotated[int, msgspec.Meta(ge=-_INSTANT_MAX, le=_INSTANT_MAX)]
    period_id: str


class PeriodFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which periods are asked for; what is None does not matter."""

    system_id: str | None = None
    component: str | None = None
    lasting_only: bool = False
    start: datetime | None = None
    """Only what was not over by then."""
    end: datetime | None = None
    """Only what began before."""


class KeptHealth(Protocol):
    """Who keeps what was not well."""

    async def periods(
        self, wanted: PeriodFilter, *, limit: int, before: PeriodKey | None
    ) -> Sequence[tuple[PeriodKey, HealthPeriod]]:
        """At most `limit` periods with their keys, newest first, only those before the key if given."""
        ...
