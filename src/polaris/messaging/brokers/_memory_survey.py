"""A survey of the streams in memory."""

from __future__ import annotations

from polaris.messaging._survey import ConsumerSurvey, StreamSurvey, Survey, ours_first
from polaris.messaging.brokers._memory_hub import InMemoryHub
from polaris.messaging.brokers._memory_streams import ConsumerPosition, MemoryStream


def survey(hub: InMemoryHub, *, streams_max: int, consumers_max: int) -> Survey:
    """See `SurveyedBroker.survey`."""
    names = sorted(hub.streams, key=ours_first)
    streams = tuple(_stream(hub.streams[name], consumers_max) for name in names[:streams_max])
    return Survey(streams=streams, streams_total=len(names))


def _stream(stream: MemoryStream, consumers_max: int) -> StreamSurvey:
    stream.enforce_bounds()
    records = list(stream.records.values())
    names = sorted(stream.positions)
    return StreamSurvey(
        name=stream.spec.name,
        subjects=stream.spec.subjects,
        messages=len(records),
        bytes=sum(record.size_bytes for record in records),
        bytes_max=stream.spec.max_bytes,
        messages_max=None,
        age_max_s=stream.spec.max_age_s,
        first_sequence=records[0].sequence if records else stream.last_sequence + 1,
        last_sequence=stream.last_sequence,
        first_at=records[0].stored_at if records else None,
        last_at=records[-1].stored_at if records else None,
        replicas=1,
        consumers=tuple(_consumer(stream.positions[name]) for name in names[:consumers_max]),
        consumers_total=len(names),
    )


def _consumer(position: ConsumerPosition) -> ConsumerSurvey:
    spec, info = position.spec, position.info()
    return ConsumerSurvey(
        name=spec.durable,
        patterns=(spec.pattern,),
        ack=spec.ack.value,
        durable=True,
        pending=info.pending,
        unacknowledged=info.ack_pending,
        redelivered=info.redelivered,
        in_flight_max=spec.in_flight_max,
    )
