"""Every endpoint of the API: what it is called, takes and answers, and the few lines that ask the view for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal, TypeVar, get_args

import msgspec
from starlette.responses import Response

from polaris.api._answers import (
    ActionsAnswer,
    AggregatesAnswer,
    ComponentsAnswer,
    DependenciesAnswer,
    HealthAnswer,
    SeriesAnswer,
    SystemsAnswer,
)
from polaris.api._bus_view import BusView
from polaris.api._commands import NodeCommands
from polaris.api._parameters import (
    Parameter,
    choice,
    encode_cursor,
    identifier,
    instant,
    key_cursor,
    limit,
    metric,
    seconds,
)
from polaris.api._stream import Streams
from polaris.api._view import (
    ActionKey,
    ActionRecord,
    AggregationName,
    DependencyKey,
    NodeFacts,
    NodeView,
    SystemView,
    Verdict,
)
from polaris.clock import Clock
from polaris.domain import EVENTS, EventRegistry
from polaris.exceptions import InvalidValueError, NotFoundError

RANGE_DEFAULT = timedelta(hours=1)
RANGE_MAX = timedelta(days=3660)
BUCKETS_MAX = 5_000
JSON_TYPE = "application/json"

T = TypeVar("T")


@dataclass(frozen=True)
class Context:
    """What the endpoints work with."""

    view: NodeView
    streams: Streams
    clock: Clock
    registry: EventRegistry = EVENTS
    commands: NodeCommands | None = None
    """None for a node that can only be read."""
    rendering: asyncio.Lock = field(default_factory=asyncio.Lock)
    """One rendering of metrics or of a document at a time: many clients at once must not take all worker threads."""


Arguments = Mapping[str, Any]
Handler = Callable[[Context, Arguments], Awaitable[msgspec.Struct | Response]]


@dataclass(frozen=True)
class Endpoint:
    """One resource. `answer` is its type when it is JSON, else `media_type` says what comes."""

    path: str
    name: str
    summary: str
    handle: Handler
    answer: type[msgspec.Struct] | None = None
    media_type: str = JSON_TYPE
    parameters: tuple[Parameter, ...] = ()
    failing_answer: bool = False
    """Whether the same answer also comes with status 503."""
    method: Literal["GET", "POST", "DELETE"] = "GET"
    """GET answers HEAD too. All others change something."""
    body: type[msgspec.Struct] | None = None
    """What the request says, as JSON."""
    status: int = 200
    """204 comes without an answer."""
    problems: tuple[int, ...] = ()
    """Statuses of problems that do not follow from the rest of this description."""


def json_response(answer: object, *, status: int = 200) -> Response:
    """`answer` as JSON: times as RFC 3339 in UTC."""
    return Response(msgspec.json.encode(answer), status_code=status, media_type=JSON_TYPE)


def _verdict_response(verdict: Verdict) -> Response:
    failing = tuple(f"{check.component}: {check.reason}" for check in verdict.checks if not check.ok)
    answer = HealthAnswer(status="ok" if verdict.ok else "failing", failing=failing, checks=verdict.checks)
    return json_response(answer, status=200 if verdict.ok else 503)


async def _healthz(context: Context, _: Arguments) -> Response:
    return _verdict_response(context.view.liveness())


async def _readyz(context: Context, _: Arguments) -> Response:
    return _verdict_response(context.view.readiness())


async def _metrics(context: Context, arguments: Arguments) -> Response:
    async with context.rendering:
        body, content_type = await asyncio.to_thread(context.view.render_metrics, arguments["accept"])
    return Response(body, headers={"Content-Type": content_type})


async def _node(context: Context, _: Arguments) -> NodeFacts:
    return context.view.node()


async def _systems(context: Context, arguments: Arguments) -> SystemsAnswer:
    count = arguments["limit"]
    # One more than asked for tells whether there is a next page.
    systems = await context.view.systems(limit=count + 1, after=arguments["cursor"])
    page = tuple(systems[:count])
    return SystemsAnswer(systems=page, next_cursor=page[-1].system_id if len(systems) > count else None)


async def _system(context: Context, arguments: Arguments) -> SystemView:
    return found(await context.view.system(arguments["system_id"]), "no system with this id")


async def _series(context: Context, arguments: Arguments) -> SeriesAnswer:
    start, end = _range(context, arguments)
    system_id, name = arguments["system_id"], arguments["metric"]
    series = found(
        await context.view.series(system_id, name, start=start, end=end, limit=arguments["limit"]),
        "no system with this id",
    )
    return SeriesAnswer(
        system_id=system_id,
        metric=name,
        unit=series.unit,
        start=start,
        end=end,
        timestamps=series.timestamps,
        values=series.values,
        truncated=series.truncated,
    )


async def _aggregates(context: Context, arguments: Arguments) -> AggregatesAnswer:
    start, end = _range(context, arguments)
    system_id, name = arguments["system_id"], arguments["metric"]
    aggregation, bucket_s = arguments["aggregation"], arguments["bucket_s"]
    if (end - start).total_seconds() > BUCKETS_MAX * bucket_s:
        raise InvalidValueError("bucket_s", f"at most {BUCKETS_MAX} buckets in the range of start to end", bucket_s)
    aggregates = found(
        await context.view.aggregates(
            system_id, name, aggregation=aggregation, bucket_s=bucket_s, start=start, end=end
        ),
        "no system with this id",
    )
    return AggregatesAnswer(
        system_id=system_id,
        metric=name,
        unit=aggregates.unit,
        aggregation=aggregation,
        bucket_s=bucket_s,
        start=start,
        end=end,
        starts=aggregates.starts,
        values=aggregates.values,
    )


async def _actions(context: Context, arguments: Arguments) -> ActionsAnswer:
    count = arguments["limit"]
    actions = await context.view.actions(system_id=arguments["system"], limit=count + 1, before=arguments["cursor"])
    page = tuple(actions[:count])
    cursor = None
    if len(actions) > count:
        cursor = encode_cursor(ActionKey(page[-1].created_at, page[-1].action_id))
    return ActionsAnswer(actions=page, next_cursor=cursor)


async def _action(context: Context, arguments: Arguments) -> ActionRecord:
    return found(await context.view.action(arguments["action_id"]), "no action with this id")


async def _components(context: Context, _: Arguments) -> ComponentsAnswer:
    return ComponentsAnswer(components=tuple(context.view.components()))


async def _bus(context: Context, _: Arguments) -> BusView:
    return context.view.bus()


async def _dependencies(context: Context, arguments: Arguments) -> DependenciesAnswer:
    count = arguments["limit"]
    edges = await context.view.dependencies(limit=count + 1, after=arguments["cursor"])
    page, more = tuple(edges[:count]), len(edges) > count
    cursor = None
    if more:
        cursor = encode_cursor(DependencyKey(page[-1].source_system, page[-1].target_system, page[-1].dependency_type))
    return DependenciesAnswer(dependencies=page, truncated=more, next_cursor=cursor)


async def _stream(context: Context, arguments: Arguments) -> Response:
    last_event_id = arguments["last_event_id"] or arguments["Last-Event-ID"]
    return context.streams.response(last_event_id, head=arguments["method"] == "HEAD")


def found(value: T | None, message: str) -> T:
    """The value; `NotFoundError` with the message when there is none."""
    if value is None:
        raise NotFoundError(message)
    return value


def _range(context: Context, arguments: Arguments) -> tuple[datetime, datetime]:
    end: datetime = arguments["end"] or context.clock.now()
    try:
        start: datetime = arguments["start"] or end - RANGE_DEFAULT
    except OverflowError as error:
        raise InvalidValueError("end", "a time later than the year 1", end) from error
    if start >= end:
        raise InvalidValueError("start", "a time before end", start)
    if end - start > RANGE_MAX:
        raise InvalidValueError("start", f"a time at most {RANGE_MAX.days} days before end", start)
    return start, end


SYSTEM_ID = identifier("system_id", "The managed system.", place="path")
_START = instant("start", "First instant of the range; default: one hour before `end`.")
_END = instant("end", "End of the range, exclusive; default: now.")

ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint("/healthz", "liveness", "Whether the process does its work.", _healthz, HealthAnswer, failing_answer=True),
    Endpoint(
        "/readyz",
        "readiness",
        "Whether the node does what it is for; if not, which component does not and why.",
        _readyz,
        HealthAnswer,
        failing_answer=True,
    ),
    Endpoint("/metrics", "metrics", "Metrics in the Prometheus text format.", _metrics, media_type="text/plain"),
    Endpoint("/api/v1/node", "node", "Who the node is, how it does and how much flows through it.", _node, NodeFacts),
    Endpoint(
        "/api/v1/systems",
        "systems",
        "Managed systems with their latest state, by id.",
        _systems,
        SystemsAnswer,
        parameters=(
            limit(default=100, maximum=1_000),
            identifier("cursor", "Go on after a former page: its `next_cursor`."),
        ),
    ),
    Endpoint(
        "/api/v1/systems/{system_id}",
        "system",
        "One managed system with its latest state.",
        _system,
        SystemView,
        parameters=(SYSTEM_ID,),
    ),
    Endpoint(
        "/api/v1/systems/{system_id}/series",
        "series",
        "Raw points of one metric.",
        _series,
        SeriesAnswer,
        parameters=(
            SYSTEM_ID,
            metric("The metric, by its key in the system's state."),
            _START,
            _END,
            limit(default=1_000, maximum=10_000),
        ),
    ),
    Endpoint(
        "/api/v1/systems/{system_id}/aggregates",
        "aggregates",
        "One metric, summarised in buckets of equal length.",
        _aggregates,
        AggregatesAnswer,
        parameters=(
            SYSTEM_ID,
            metric("The metric, by its key in the system's state."),
            choice("aggregation", "How a bucket becomes one value.", get_args(AggregationName), default="avg"),
            seconds("bucket_s", "Length of a bucket in seconds.", default=60, minimum=1, maximum=31 * 86_400),
            _START,
            _END,
        ),
    ),
    Endpoint(
        "/api/v1/actions",
        "actions",
        "Adaptation actions with their results, newest first.",
        _actions,
        ActionsAnswer,
        parameters=(
            identifier("system", "Only actions on this managed system."),
            limit(default=50, maximum=500),
            key_cursor(ActionKey),
        ),
    ),
    Endpoint(
        "/api/v1/actions/{action_id}",
        "action",
        "One adaptation action with its result.",
        _action,
        ActionRecord,
        parameters=(identifier("action_id", "The action.", place="path"),),
    ),
    Endpoint(
        "/api/v1/components", "components", "The parts of the node and how they do.", _components, ComponentsAnswer
    ),
    Endpoint(
        "/api/v1/bus",
        "bus",
        "What becomes of what the node publishes and receives: confirmed, waiting, dropped for which reason.",
        _bus,
        BusView,
    ),
    Endpoint(
        "/api/v1/dependencies",
        "dependencies",
        "Which managed system needs which.",
        _dependencies,
        DependenciesAnswer,
        parameters=(limit(default=1_000, maximum=10_000), key_cursor(DependencyKey)),
    ),
    Endpoint(
        "/api/v1/stream",
        "stream",
        "Live updates as server-sent events: `hello`, then `sample`, `action`, `component`, `system`, `node` and "
        "`health` as they happen, `dropped` when the client was too slow, `heartbeat` when nothing happens.",
        _stream,
        media_type="text/event-stream",
        parameters=(
            identifier("last_event_id", "Go on after this event, as the header does: for scripts that reconnect."),
            Parameter(
                "Last-Event-ID", "Go on after this event.", {"type": "string", "maxLength": 256}, str, place="header"
            ),
        ),
    ),
)
