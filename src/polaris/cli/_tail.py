"""`polaris tail`: the events on the bus, as they pass."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import TYPE_CHECKING, Any

import msgspec

from polaris.cli import _exit
from polaris.cli._bus import connected_bus
from polaris.cli._output import coloured, print_json_line, status_text, value_text
from polaris.domain import (
    EVENTS,
    AdaptationEvent,
    ExecutionResultEvent,
    HealthEvent,
    PolarisEvent,
    TelemetryBatch,
    TelemetryEvent,
)

if TYPE_CHECKING:
    from polaris.runtime import Settings

METRICS_SHOWN_MAX = 6


def follow(settings: Settings, pattern: str, *, count_max: int | None, as_json: bool) -> int:
    """Print events until Ctrl-C or `count_max`."""
    return asyncio.run(_follow(settings, pattern, count_max=count_max, as_json=as_json))


async def _follow(settings: Settings, pattern: str, *, count_max: int | None, as_json: bool) -> int:
    from polaris.messaging import DeliveryClass

    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    shown = 0

    async def show(event: PolarisEvent) -> None:
        nonlocal shown
        if ended.is_set():
            return
        try:
            print_json_line(_facts(event)) if as_json else print(line_of(event), flush=True)
        except BrokenPipeError:
            ended.set()
        shown += 1
        if count_max is not None and shown >= count_max:
            ended.set()

    async with connected_bus(settings) as bus:
        await bus.subscribe(pattern, show, event_type=PolarisEvent, delivery=DeliveryClass.AT_MOST_ONCE)
        await ended.wait()
    return _exit.OK


def _facts(event: PolarisEvent) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(event)
    with contextlib.suppress(LookupError):
        return {"type": EVENTS.require(type(event)).name, **fields}
    return fields


def line_of(event: PolarisEvent) -> str:
    """One line about an event, for people."""
    moment = coloured(event.timestamp.strftime("%H:%M:%S.%f")[:-3], "dim")
    match event:
        case TelemetryEvent():
            state = event.system_state
            shown = [f"{name}={value_text(metric.value, metric.unit)}" for name, metric in state.metrics.items()]
            more = f" +{len(shown) - METRICS_SHOWN_MAX}" if len(shown) > METRICS_SHOWN_MAX else ""
            text = f"{state.system_id}  {status_text(state.health_status)}  {' '.join(shown[:METRICS_SHOWN_MAX])}{more}"
            return f"{moment}  telemetry   {text}"
        case TelemetryBatch():
            return f"{moment}  telemetry   {event.system_id}  {len(event.timestamps)} samples"
        case AdaptationEvent():
            action = event.action
            return f"{moment}  action      {action.target_system}  {action.action_type}  {action.action_id}"
        case ExecutionResultEvent():
            result = event.result
            text = f"{result.action_id}  {status_text(result.status)}  {result.error_message or ''}"
            return f"{moment}  result      {text}".rstrip()
        case HealthEvent():
            return f"{moment}  health      {event.component}  {status_text(event.status)}  {event.message}".rstrip()
        case _:
            return f"{moment}  {type(event).__name__}  {event.event_id}"
