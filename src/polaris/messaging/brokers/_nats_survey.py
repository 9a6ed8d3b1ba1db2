"""A survey of JetStream: its streams and their consumers, as the server lists them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime
from typing import Any

import msgspec

from polaris.messaging._survey import ConsumerSurvey, StreamSurvey, Survey, ours_first
from polaris.messaging.brokers._jetstream_api import ACK_POLICIES, STREAM_NOT_FOUND, JetStreamAPI, Json

PAGES_MAX = 64
_NS = 1e9
_ACK_OF = {its: ours.value for ours, its in ACK_POLICIES.items()}


async def survey(api: JetStreamAPI, *, streams_max: int, consumers_max: int) -> Survey:
    """See `SurveyedBroker.survey`."""
    entries = [entry async for entry in _listed(api, "STREAM.LIST", "streams")]
    entries.sort(key=lambda entry: ours_first(entry["config"]["name"]))
    found = [await _stream(api, entry, consumers_max) for entry in entries[:streams_max]]
    return Survey(streams=tuple(found), streams_total=len(entries))


async def count_stored(api: JetStreamAPI, stream: str, subject: str | None) -> int:
    """See `SurveyedBroker.count_stored`."""
    body = None if subject is None else {"subjects_filter": subject}
    answer = await api.call(f"STREAM.INFO.{stream}", body)
    assert answer is not None  # noqa: S101 - an unknown stream raises
    state = answer["state"]
    if subject is None:
        return int(state["messages"])
    return sum((state.get("subjects") or {}).values())


async def _listed(api: JetStreamAPI, endpoint: str, key: str) -> AsyncGenerator[Json, None]:
    """The entries of a listing, page by page; none of a stream that has been deleted meanwhile."""
    offset = 0
    for _ in range(PAGES_MAX):
        answer = await api.call(endpoint, {"offset": offset}, absent=(STREAM_NOT_FOUND,)) or {}
        entries = answer.get(key) or ()
        for entry in entries:
            yield entry
        offset += len(entries)
        if not entries or offset >= answer.get("total", 0):
            return


async def _stream(api: JetStreamAPI, listed: Json, consumers_max: int) -> StreamSurvey:
    config, state = listed["config"], listed["state"]
    name = config["name"]
    consumers: list[ConsumerSurvey] = []
    total = state.get("consumer_count", 0)
    if total:
        async with aclosing(_listed(api, f"CONSUMER.LIST.{name}", "consumers")) as entries:
            async for entry in entries:
                consumers.append(_consumer(entry))
                if len(consumers) >= consumers_max:
                    break
    empty = not state["messages"]
    return StreamSurvey(
        name=name,
        subjects=tuple(config.get("subjects") or ()),
        messages=state["messages"],
        bytes=state["bytes"],
        bytes_max=_limit(config.get("max_bytes")),
        messages_max=_limit(config.get("max_msgs")),
        age_max_s=config["max_age"] / _NS if config.get("max_age") else None,
        first_sequence=state["first_seq"],
        last_sequence=state["last_seq"],
        first_at=None if empty else _moment(state.get("first_ts")),
        last_at=None if empty else _moment(state.get("last_ts")),
        replicas=config.get("num_replicas", 1),
        consumers=tuple(sorted(consumers, key=lambda consumer: consumer.name)),
        consumers_total=total,
    )


def _consumer(entry: dict[str, Any]) -> ConsumerSurvey:
    config = entry["config"]
    one = config.get("filter_subject")
    return ConsumerSurvey(
        name=entry["name"],
        patterns=(one,) if one else tuple(config.get("filter_subjects") or ()),
        ack=_ACK_OF.get(config.get("ack_policy"), "each"),
        durable=bool(config.get("durable_name")),
        pending=entry.get("num_pending", 0),
        unacknowledged=entry.get("num_ack_pending", 0),
        redelivered=entry.get("num_redelivered", 0),
        in_flight_max=_limit(config.get("max_ack_pending")),
        paused=bool(entry.get("paused")),
        last_active_at=_moment(entry.get("delivered", {}).get("last_active")),
    )


def _limit(value: int | None) -> int | None:
    return value if value is not None and value > 0 else None


def _moment(text: str | None) -> datetime | None:
    """A time of the server, which writes the year 1 for never."""
    found = None if text is None else msgspec.convert(text, datetime)
    return None if found is None or found.year == 1 else found
