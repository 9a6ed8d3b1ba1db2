"""`polaris status --history`: what was not well, from when to when, read beside a running node or without one."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from polaris.api import HealthPeriod, PeriodFilter
from polaris.cli import _exit
from polaris.cli._output import duration_text, print_json, print_wrapped, status_text
from polaris.cli._store import ask
from polaris.runtime._health_periods import find_periods

if TYPE_CHECKING:
    from polaris.runtime import Settings

SHOWN_MAX = 50
INDENT = 11


def show_history(settings: Settings, *, as_json: bool) -> int:
    """The last periods in which something was not well, newest first; it is no failure that there are none."""
    found = ask(settings, lambda store: find_periods(store.documents, PeriodFilter(), limit=SHOWN_MAX))
    periods = [period for _, period in found]
    if as_json:
        print_json({"periods": periods})
    elif not periods:
        print("nothing was not well, as far as the store remembers")
    else:
        for period in periods:
            _print(period)
    return _exit.OK


def _print(period: HealthPeriod) -> None:
    began = period.since.astimezone(UTC).isoformat(" ", "seconds").removesuffix("+00:00")
    whose = period.component or f"system {period.system_id}"
    times = f", {period.times} times" if period.times > 1 else ""
    print(f"{status_text(period.status, INDENT - 2)}  {began}Z  {_length(period):<18}  {whose}{times}")
    if period.message:
        print_wrapped(period.message, INDENT, mark=" " * INDENT)


def _length(period: HealthPeriod) -> str:
    if period.until is None:
        return f"lasts for {duration_text((datetime.now(UTC) - period.since).total_seconds())}"
    length = duration_text((period.until - period.since).total_seconds())
    return f"at most {length}" if period.cut_off else f"for {length}"
