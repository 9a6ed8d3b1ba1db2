"""`polaris act`: ask for a change and wait for what comes of it."""

from __future__ import annotations

import asyncio
import shlex
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import click
import msgspec

from polaris.cli import _exit
from polaris.cli._bus import connected_bus
from polaris.cli._near import hint
from polaris.cli._output import duration_text, print_json, say_next, status_text
from polaris.cli._store import opened_store
from polaris.domain import AdaptationAction, AdaptationEvent, ExecutionResult, ExecutionResultEvent, ExecutionStatus
from polaris.exceptions import DataStoreError
from polaris.ids import new_id

if TYPE_CHECKING:
    from polaris.runtime import Settings

# The node retries what was certainly not done, so its answer may come later than one execution takes.
ANSWER_MARGIN_S = 15.0
# The answer comes over the bus; the store is asked now and then in case it came while nobody listened.
LOOK_INTO_STORE_EVERY_S = 1.0


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What `polaris act` asks for."""

    system_id: str
    action_type: str
    parameters: list[str]
    action_id: str | None
    timeout_s: float
    wait: bool

    def action(self) -> AdaptationAction:
        """The action, with an id of its own unless one was given. Raises `InvalidValueError`."""
        return AdaptationAction(
            self.action_id or f"cli-{new_id()}",
            self.action_type,
            self.system_id,
            parameters_of(self.parameters),
            timeout_seconds=self.timeout_s,
        )


class Outcome(NamedTuple):
    """An action that has come to its end, and what came of it."""

    action: AdaptationAction
    result: ExecutionResult


def act_on(settings: Settings, request: Request, *, as_json: bool) -> int:
    """Publish the action; 0 when it succeeded (or was stored, without waiting), 1 when not, 75 when nobody answered.

    An id that was carried out before is answered with its stored result, and nothing is published.
    """
    action = request.action()
    if request.action_id is not None:
        earlier = asyncio.run(stored_outcome(settings, action.action_id))
        if earlier is not None:
            return _tell_earlier(action, earlier, as_json=as_json)
    result = asyncio.run(_act(settings, action, wait=request.wait))
    if as_json:
        print_json({"action": action, "result": result})
    elif result is not None:
        _print(result)
        if result.status is ExecutionStatus.SUCCESS:
            say_next(f"polaris query {shlex.quote(request.system_id)}")
        if result.status is ExecutionStatus.REJECTED and request.system_id not in settings.systems:
            _exit.complain(f"nothing to act on is called {request.system_id!r}{_meant(settings, request.system_id)}")
    elif not request.wait:
        print(f"{action.action_id}  stored")
    if result is not None:
        return _exit_code(result)
    if not request.wait:
        return _exit.OK
    _exit.complain(
        f"no answer in time; the action is stored and will be carried out once. Ask again with: --id {action.action_id}"
    )
    return _exit.TIMED_OUT


def _meant(settings: Settings, system_id: str) -> str:
    return hint(system_id, sorted(settings.systems), "configured:")


def _tell_earlier(action: AdaptationAction, earlier: Outcome, *, as_json: bool) -> int:
    if as_json:
        print_json({"action": earlier.action, "result": earlier.result})
    else:
        _print(earlier.result)
    known = earlier.action
    if (known.target_system, known.action_type, known.parameters) != (
        action.target_system,
        action.action_type,
        action.parameters,
    ):
        asked = f"{known.action_type} on {known.target_system}"
        _exit.complain(f"the id {action.action_id} belongs to another action ({asked}); nothing was done now")
        return _exit.FAILED
    _exit.complain(f"the action {action.action_id} was asked for before; it is not executed again")
    return _exit_code(earlier.result)


async def stored_outcome(settings: Settings, action_id: str) -> Outcome | None:
    """The end of an action that the store knows; None when it has none yet, or there is no store to ask here."""
    try:
        async with opened_store(settings) as store:
            action = await store.actions.find_by_id(action_id)
            result = await store.results.find_by_action(action_id)
    except DataStoreError:
        return None
    return None if action is None or result is None else Outcome(action, result)


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
        limit_s = (action.timeout_seconds or 0.0) + ANSWER_MARGIN_S
        if sys.stderr.isatty():
            _exit.complain(f"{action.action_id} is stored; waiting at most {duration_text(limit_s)} for its outcome")
        try:
            async with asyncio.timeout(limit_s):
                return await _outcome(settings, action.action_id, answer)
        except TimeoutError:
            return None


async def _outcome(settings: Settings, action_id: str, answer: asyncio.Future[ExecutionResult]) -> ExecutionResult:
    while True:
        done, _ = await asyncio.wait((answer,), timeout=LOOK_INTO_STORE_EVERY_S)
        if done:
            return answer.result()
        stored = await stored_outcome(settings, action_id)
        if stored is not None:
            return stored.result


def parameters_of(pairs: list[str]) -> dict[str, Any]:
    """`key=value` pairs; a value that is JSON is taken as such, anything else as text."""
    parameters: dict[str, Any] = {}
    for pair in pairs:
        key, separator, text = pair.partition("=")
        if not separator or not key:
            message = f"{pair!r} is no key=value"
            raise click.BadParameter(message, param_hint="--param")
        try:
            parameters[key] = msgspec.json.decode(text.encode())
        except msgspec.DecodeError:
            parameters[key] = text
    return parameters


def _exit_code(result: ExecutionResult) -> int:
    return _exit.OK if result.status is ExecutionStatus.SUCCESS else _exit.FAILED


def _print(result: ExecutionResult) -> None:
    took = "" if result.duration_s is None else f"  in {duration_text(result.duration_s)}"
    print(f"{result.action_id}  {status_text(result.status)}{took}")
    if result.error_message:
        print(f"  {result.error_message}")
    for key, value in result.result_data.items():
        print(f"  {key}: {value}")
