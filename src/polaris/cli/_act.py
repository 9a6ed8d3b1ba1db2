"""`polaris act`: ask for a change and wait for what comes of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from polaris.cli import _exit
from polaris.cli._bus import connected_bus
from polaris.cli._output import duration_text, print_json, status_text
from polaris.domain import AdaptationAction, AdaptationEvent, ExecutionResult, ExecutionResultEvent, ExecutionStatus
from polaris.exceptions import InvalidValueError
from polaris.ids import new_id

if TYPE_CHECKING:
    from polaris.runtime import Settings

# The node retries what was certainly not done, so its answer may come later than one execution takes.
ANSWER_MARGIN_S = 15.0


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What `polaris act` asks for."""

    system_id: str
    action_type: str
    parameters: list[str]
    action_id: str | None
    timeout_s: float
    wait: bool


def act_on(settings: Settings, request: Request, *, as_json: bool) -> int:
    """Publish the action; 0 when it succeeded (or was stored, without waiting), 1 when not, 75 when nobody answered."""
    action = AdaptationAction(
        request.action_id or f"cli-{new_id()}",
        request.action_type,
        request.system_id,
        parameters_of(request.parameters),
        timeout_seconds=request.timeout_s,
    )
    result = asyncio.run(_act(settings, action, wait=request.wait))
    if as_json:
        print_json({"action": action, "result": result})
    elif result is not None:
        _print(result)
    elif not request.wait:
        print(f"{action.action_id}  stored")
    if result is None:
        if request.wait:
            _exit.complain(f"no answer yet; the action {action.action_id} is stored and will be carried out once")
            return _exit.TIMED_OUT
        return _exit.OK
    return _exit.OK if result.status is ExecutionStatus.SUCCESS else _exit.FAILED


async def _act(settings: Settings, action: AdaptationAction, *, wait: bool) -> ExecutionResult | None:
    from polaris.messaging import DeliveryClass, adaptation_topic, execution_topic

    answer: asyncio.Future[ExecutionResult] = asyncio.get_running_loop().create_future()

    async def listen(event: ExecutionResultEvent) -> None:
        if event.result.action_id == action.action_id and not answer.done():
            answer.set_result(event.result)

    async with connected_bus(settings) as bus:
        if wait:
            topic = execution_topic(action.target_system)
            await bus.subscribe(topic, listen, event_type=ExecutionResultEvent, delivery=DeliveryClass.AT_MOST_ONCE)
        await bus.publish(adaptation_topic(action.target_system), AdaptationEvent(action, source="polaris-cli"))
        if not wait:
            return None
        try:
            async with asyncio.timeout((action.timeout_seconds or 0) + ANSWER_MARGIN_S):
                return await answer
        except TimeoutError:
            return None


def parameters_of(pairs: list[str]) -> dict[str, Any]:
    """`key=value` pairs; a value that is JSON is taken as such, anything else as text."""
    parameters: dict[str, Any] = {}
    for pair in pairs:
        key, separator, text = pair.partition("=")
        if not separator or not key:
            raise InvalidValueError("--param", "key=value", pair)
        try:
            parameters[key] = msgspec.json.decode(text.encode())
        except msgspec.DecodeError:
            parameters[key] = text
    return parameters


def _print(result: ExecutionResult) -> None:
    took = "" if result.duration_s is None else f"  in {duration_text(result.duration_s)}"
    print(f"{result.action_id}  {status_text(result.status)}{took}")
    if result.error_message:
        print(f"  {result.error_message}")
    for key, value in result.result_data.items():
        print(f"  {key}: {value}")
