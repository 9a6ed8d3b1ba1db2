"""The endpoint of what was not well."""

from __future__ import annotations

import msgspec

from polaris.api._endpoints import Arguments, Context, Endpoint
from polaris.api._history_view import HealthPeriod, PeriodFilter, PeriodKey
from polaris.api._parameters import choice, encode_cursor, identifier, instant, key_cursor, limit
from polaris.exceptions import InvalidValueError


class HealthHistoryAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Periods, those that began last first; `next_cursor` goes on with older ones, None at the end."""

    periods: tuple[HealthPeriod, ...]
    next_cursor: str | None


async def _history(context: Context, arguments: Arguments) -> HealthHistoryAnswer:
    """One page of what was not well."""
    count, start, end = arguments["limit"], arguments["start"], arguments["end"]
    if start is not None and end is not None and start >= end:
        raise InvalidValueError("start", "a time before end", start)
    wanted = PeriodFilter(
        system_id=arguments["system"],
        component=arguments["component"],
        lasting_only=arguments["state"] == "lasting",
        start=start,
        end=end,
    )
    found = await context.view.kept_health.periods(wanted, limit=count + 1, before=arguments["cursor"])
    page = found[:count]
    cursor = encode_cursor(page[-1][0]) if len(found) > count else None
    return HealthHistoryAnswer(periods=tuple(period for _, period in page), next_cursor=cursor)


HISTORY_ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint(
        "/api/v1/health/history",
        "health_history",
        "What was not well, from when to when: parts of the node and managed systems, newest first.",
        _history,
        HealthHistoryAnswer,
        parameters=(
            identifier("system", "Only this managed system and its connector."),
            identifier("component", "Only this part of the node."),
            choice("state", "Only what lasts still, or all.", ("any", "lasting"), default="any"),
            instant("start", "Only what was not over by then."),
            instant("end", "Only what began before."),
            limit(default=50, maximum=500),
            key_cursor(PeriodKey),
        ),
    ),
)
