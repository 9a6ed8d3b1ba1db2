"""How being not well goes on: it begins, grows worse, rests and comes back, and is over. In memory, without a clock."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import msgspec

from polaris.api._history_view import HealthPeriod
from polaris.domain import HealthStatus

REST = timedelta(seconds=30)
"""What is not well again so soon has not been over: it is the same period."""
_WORSE_LATER = (HealthStatus.UNKNOWN, HealthStatus.WARNING, HealthStatus.UNHEALTHY, HealthStatus.CRITICAL)

OnPeriod = Callable[[HealthPeriod], None]


class Courses:
    """The periods of many, by name: those that last, and those that were over a moment ago.

    Tells of every period that begins, grows worse, comes back or is over.
    """

    def __init__(self, tell: OnPeriod, admit: Callable[[HealthPeriod], bool]) -> None:
        """`admit` says whether there is room for one that begins."""
        self._tell = tell
        self._admit = admit
        self._lasting: dict[str, HealthPeriod] = {}
        self._rested: dict[str, HealthPeriod] = {}

    def __len__(self) -> int:
        return len(self._lasting)

    def is_silent(self, name: str) -> bool:
        """Whether nothing is known of it."""
        lasting = self._lasting.get(name)
        return lasting is not None and _is_silence(lasting)

    def says_nothing_new(self, name: str, status: HealthStatus | None) -> bool:
        """Whether `note` would change nothing, a message apart: quick, as every sample is asked about."""
        lasting = self._lasting.get(name)
        if lasting is None or status is None:
            return lasting is None and status is None
        return lasting.status is status or not (_is_silence(lasting) or _is_worse(status, lasting.status))

    def note(self, name: str, new: HealthPeriod | None, at: datetime) -> None:
        """How it does from now on: `new` is the period that begins if none lasts; None is well.

        Silence (`unknown`) and illness are two periods.
        """
        lasting = self._lasting.get(name)
        if lasting is not None and (new is None or _is_silence(new) is not _is_silence(lasting)):
            self.end(name, at)
            lasting = None
        if new is None:
            return
        former = lasting or self._rested.pop(name, None)
        if former is None or not (lasting or _comes_back(former, new, at)):
            if self._admit(new):
                self._go_on(name, new)
            return
        worse = new if _is_worse(new.status, former.status) else former
        on = msgspec.structs.replace(
            former,
            status=worse.status,
            message=worse.message or former.message or new.message,
            until=None,
            times=former.times + (lasting is None),
        )
        if on != lasting:
            self._go_on(name, on)

    def _go_on(self, name: str, period: HealthPeriod) -> None:
        self._lasting[name] = period
        self._tell(period)

    def go_on_with(self, name: str, period: HealthPeriod) -> None:
        """Take over what lasts from somebody else, who has told of it."""
        self.end(name, period.since)
        self._lasting[name] = period

    def end(self, name: str, at: datetime, *, cut_off: bool = False) -> None:
        """It is over, if it lasts. What is cut off does not come back: nobody knows how it went on."""
        period = self._lasting.pop(name, None)
        if period is not None:
            over = msgspec.structs.replace(period, until=max(at, period.since), cut_off=cut_off)
            if not cut_off:
                self._rested[name] = over
            self._tell(over)

    def end_all(self, at: datetime, *, cut_off: bool) -> None:
        """All are over."""
        for name in list(self._lasting):
            self.end(name, at, cut_off=cut_off)

    def forget(self, at: datetime | None = None) -> None:
        """Forget what has rested for good by then; without a time everything."""
        if at is None:
            self._lasting.clear()
        self._rested = {
            name: period
            for name, period in self._rested.items()
            if at is not None and period.until is not None and period.until + REST > at
        }


def _is_silence(period: HealthPeriod) -> bool:
    return period.status is HealthStatus.UNKNOWN


def _comes_back(former: HealthPeriod, new: HealthPeriod, at: datetime) -> bool:
    return _is_silence(former) is _is_silence(new) and former.until is not None and at <= former.until + REST


def _is_worse(status: HealthStatus, than: HealthStatus) -> bool:
    return _WORSE_LATER.index(status) > _WORSE_LATER.index(than)
