"""`polaris replay`: what passed on the bus, as its streams still hold it, in order and to its end."""

from __future__ import annotations

import asyncio
import sys
from datetime import datetime
from typing import TYPE_CHECKING

from polaris.cli import _exit
from polaris.cli._bus import connected_bus
from polaris.cli._lines import line_of
from polaris.cli._output import print_json_line
from polaris.cli._tail import facts_of
from polaris.domain import PolarisEvent

if TYPE_CHECKING:
    from polaris.messaging import MessageContext, ReplayReport
    from polaris.runtime import Settings


class _Enough(Exception):
    pass


def replay(
    settings: Settings,
    pattern: str,
    *,
    since: datetime | None,
    until: datetime | None,
    count_max: int | None,
    as_json: bool,
) -> int:
    """Print what is stored in that window; nothing is published anew and no position moves. 4 when nothing is."""
    telling = _Telling(count_max, as_json=as_json)
    report = asyncio.run(_replay(settings, pattern, telling, since, until))
    if report is not None and (unread := report.undecodable + report.skipped):
        _exit.complain(f"{unread} more were no events that POLARIS knows; see: polaris dlq list")
    if telling.told:
        return _exit.OK
    _exit.complain(f"nothing on {pattern} is stored in that time")
    return _exit.NOTHING_FOUND


class _Telling:
    """The handler: a line for each event."""

    def __init__(self, count_max: int | None, *, as_json: bool) -> None:
        self._count_max = count_max
        self._as_json = as_json
        self.told = 0

    async def tell(self, event: PolarisEvent, context: MessageContext) -> None:
        if self._as_json:
            print_json_line({"topic": context.topic, **facts_of(event)})
        else:
            print(line_of(event))
        self.told += 1
        if self.told == self._count_max:
            raise _Enough


async def _replay(
    settings: Settings, pattern: str, telling: _Telling, since: datetime | None, until: datetime | None
) -> ReplayReport | None:
    from polaris.messaging import Start

    start = Start.ALL if since is None else Start.at_time(since)
    async with connected_bus(settings) as bus:
        try:
            return await bus.replay(pattern, telling.tell, start=start, until=until, event_type=PolarisEvent)
        except _Enough:
            return None
        finally:
            sys.stdout.flush()
