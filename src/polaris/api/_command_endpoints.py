"""The endpoints of a node that can be asked for changes: actions on its systems, and its dead letters."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.responses import Response

from polaris.api._commands import ActionRequest, DeadLetterDetails, DeadLetterView, NodeCommands
from polaris.api._endpoints import SYSTEM_ID, Arguments, Context, Endpoint, found, json_response
from polaris.api._parameters import Parameter, limit, number, sequence_cursor
from polaris.api._view import ActionRecord
from polaris.domain import AdaptationAction
from polaris.exceptions import InvalidValueError, NotFoundError, RequestConflictError, RequestError

NO_DEAD_LETTER = "there is no dead letter with this sequence"


class DeadLettersAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Dead letters, newest first; `next_cursor` goes on with older ones, None at the end."""

    dead_letters: tuple[DeadLetterView, ...]
    next_cursor: str | None


def _commands(context: Context) -> NodeCommands:
    assert context.commands is not None  # noqa: S101 - these endpoints are there only with commands
    return context.commands


async def _act(context: Context, arguments: Arguments) -> Response:
    system_id, asked = arguments["system_id"], arguments["body"]
    found(await context.view.system(system_id), "no system with this id")
    action: AdaptationAction = asked.action(system_id)
    known = None if asked.action_id is None else await context.view.action(action.action_id)
    if known is not None:
        _require_same(known, action)
        return json_response(known)
    await _commands(context).act(action)
    return json_response(ActionRecord.of(action, None), status=202)


def _require_same(known: ActionRecord, action: AdaptationAction) -> None:
    asked = ActionRecord.of(action, None)
    if (known.target_system, known.action_type, known.parameters) != (
        asked.target_system,
        asked.action_type,
        asked.parameters,
    ):
        raise RequestConflictError(
            f"the id {action.action_id!r} belongs to another action ({known.action_type} on {known.target_system}); "
            "nothing was done"
        )


async def _dead_letters(context: Context, arguments: Arguments) -> DeadLettersAnswer:
    count = arguments["limit"]
    entries = await _commands(context).dead_letters(limit=count + 1, before=arguments["cursor"])
    page = tuple(entries[:count])
    return DeadLettersAnswer(dead_letters=page, next_cursor=str(page[-1].sequence) if len(entries) > count else None)


async def _dead_letter(context: Context, arguments: Arguments) -> DeadLetterDetails:
    return found(await _commands(context).dead_letter(arguments["sequence"]), NO_DEAD_LETTER)


async def _replay(context: Context, arguments: Arguments) -> Response:
    return _done(await _commands(context).replay(arguments["sequence"]))


async def _drop(context: Context, arguments: Arguments) -> Response:
    return _done(await _commands(context).drop(arguments["sequence"]))


def _done(there: bool) -> Response:
    if not there:
        raise NotFoundError(NO_DEAD_LETTER)
    return Response(status_code=204)


_SEQUENCE: Parameter = number("sequence", "The place of the dead letter.")
_DEAD_LETTER = "/api/v1/dead-letters/{sequence}"

COMMAND_ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint(
        "/api/v1/systems/{system_id}/actions",
        "act",
        "Ask a managed system to change. 202: stored, and carried out once; follow it by its id. 200: this id was "
        "asked for before, and this is what came of it. 409: the id belongs to another action.",
        _act,
        ActionRecord,
        parameters=(SYSTEM_ID,),
        method="POST",
        body=ActionRequest,
        status=202,
        problems=(409,),
    ),
    Endpoint(
        "/api/v1/dead-letters",
        "deadLetters",
        "Messages that were put aside as undeliverable, newest first.",
        _dead_letters,
        DeadLettersAnswer,
        parameters=(limit(default=50, maximum=500), sequence_cursor()),
    ),
    Endpoint(
        _DEAD_LETTER,
        "deadLetter",
        "One dead letter with its original bytes.",
        _dead_letter,
        DeadLetterDetails,
        parameters=(_SEQUENCE,),
    ),
    Endpoint(
        _DEAD_LETTER,
        "dropDeadLetter",
        "Erase a dead letter.",
        _drop,
        parameters=(_SEQUENCE,),
        method="DELETE",
        status=204,
    ),
    Endpoint(
        _DEAD_LETTER + "/replay",
        "replayDeadLetter",
        "Publish the message once more where it came from, under its id, and drop the entry.",
        _replay,
        parameters=(_SEQUENCE,),
        method="POST",
        status=204,
    ),
)


def body_of(endpoint: Endpoint, raw: bytes) -> Any:
    """The body of a request as the type that the endpoint takes. Raises `InvalidValueError` or `RequestError`."""
    assert endpoint.body is not None  # noqa: S101 - asked only for those that have one
    try:
        return msgspec.json.decode(raw, type=endpoint.body)
    except msgspec.ValidationError as error:
        raise InvalidValueError("body", str(error)[:400]) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError("the body is no JSON text in UTF-8") from error
