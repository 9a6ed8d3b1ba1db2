"""Periods of trouble as documents of the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from polaris.api._history_view import HealthPeriod, PeriodFilter, PeriodKey

if TYPE_CHECKING:
    from polaris.storage import DocumentStorageBackend

PERIODS = "health_periods"
LASTING_US = 1 << 62
"""As `until_us` of what is not over: later than everything."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


async def find_periods(
    documents: DocumentStorageBackend, wanted: PeriodFilter, *, limit: int, before: PeriodKey | None = None
) -> Sequence[tuple[PeriodKey, HealthPeriod]]:
    """At most `limit` periods with their keys, newest first, only those before the key if given."""
    query: dict[str, Any] = {}
    if wanted.system_id is not None:
        query["system_id"] = wanted.system_id
    if wanted.component is not None:
        query["component"] = wanted.component
    if wanted.lasting_only:
        query["until_us"] = LASTING_US
    elif wanted.start is not None:
        query["until_us"] = {"$gt": microseconds(wanted.start)}
    if wanted.end is not None:
        query["since_us"] = {"$lt": microseconds(wanted.end)}
    if before is not None:
        same = {"since_us": before.since_us, "_id": {"$lt": before.period_id}}
        query["$or"] = [{"since_us": {"$lt": before.since_us}}, same]
    found = await documents.find_documents(PERIODS, query, limit, sort=["-since_us", "-_id"])
    return [(PeriodKey(one["since_us"], one["_id"]), period_of(one)) for one in found]


def subject_of(period: HealthPeriod) -> str:
    """Of whom a period is: systems belong to all nodes, components to one."""
    return f"system {period.system_id}" if period.component is None else f"{period.node} {period.component}"


def microseconds(moment: datetime) -> int:
    """Since 1970."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def document_of(period: HealthPeriod) -> dict[str, Any]:
    """The period as it is stored."""
    document: dict[str, Any] = msgspec.to_builtins(period)
    document["_id"] = document.pop("period_id")
    document["subject"] = subject_of(period)
    document["since_us"] = microseconds(period.since)
    document["until_us"] = LASTING_US if period.until is None else microseconds(period.until)
    return document


def period_of(document: Mapping[str, Any]) -> HealthPeriod:
    """What `document_of` has stored."""
    return msgspec.convert({**document, "period_id": document["_id"]}, HealthPeriod)
