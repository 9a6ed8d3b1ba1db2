"""What can be asked of a node that changes something, and the dead letters, which are there to be acted on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Protocol

import msgspec

from polaris._redaction import redact_fields
from polaris.api._parameters import NO_CONTROL
from polaris.api._view import Timestamp
from polaris.domain import AdaptationAction
from polaris.ids import new_id

BODY_BYTES_MAX = 262_144
BODY_WAIT_S = 10.0
CHANGES_PER_S = 20
"""Changes that a node takes of one client in a second, on average; five seconds' worth may come at once."""
CHANGES_OF_ALL_PER_S = 100
"""The same for all clients together."""

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=256, extra_json_schema={"pattern": NO_CONTROL})]


_PARAMETERS = "JSON values: at most 10 000 in 16 levels, integers of at most 64 bits."


class ActionRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An action that is asked for. Asking again with the same `action_id` does nothing twice."""

    action_type: _Name
    parameters: Annotated[dict[str, Any], msgspec.Meta(description=_PARAMETERS)] = {}
    action_id: _Name | None = None
    """None makes one. Give it to be able to ask again when no answer came."""
    priority: Annotated[float, msgspec.Meta(ge=0, le=1_000, multiple_of=1)] = 1
    """A whole number; to JSON Schema, and to some clients, 1.0 is one too."""
    timeout_seconds: Annotated[float, msgspec.Meta(gt=0, le=86_400)] | None = None
    """For one attempt; None takes the node's."""

    def action(self, system_id: str) -> AdaptationAction:
        """The action on that system. Raises `InvalidValueError` naming the field."""
        return AdaptationAction(
            self.action_id or f"api-{new_id()}",
            self.action_type,
            system_id,
            self.parameters,
            priority=int(self.priority),
            timeout_seconds=self.timeout_seconds,
        )


class DeadLetterView(msgspec.Struct, frozen=True, kw_only=True):
    """A message that was put aside. `sequence` names it."""

    sequence: int
    stored_at: Timestamp
    topic: str
    subscription: str
    reason: str
    error_code: str
    error_message: str
    attempts: int
    event_id: str
    correlation_id: str | None = None
    first_at: Timestamp
    failed_at: Timestamp
    payload_bytes: int


class DeadLetterDetails(DeadLetterView, frozen=True, kw_only=True):
    """The same with its original bytes (base64) and headers; values under secret-looking names are redacted."""

    payload: bytes = b""
    headers: Mapping[str, str] = {}

    @staticmethod
    def shown_headers(headers: Mapping[str, str]) -> dict[str, str]:
        """The headers, fit to be shown."""
        return {name: str(value) for name, value in redact_fields(dict(headers)).items()}


class NodeCommands(Protocol):
    """What a node does when it is asked. All raise `MessageBusError` when the bus cannot; nothing was changed then,
    but for `UnconfirmedPublishError`, where it may have been. Arguments come checked."""

    async def act(self, action: AdaptationAction) -> None:
        """Publish the action; when this returns it is stored, and will be carried out once."""
        ...

    async def dead_letters(self, *, limit: int, before: int | None) -> Sequence[DeadLetterView]:
        """At most `limit` dead letters, newest first, only those before the sequence when it is given."""
        ...

    async def dead_letter(self, sequence: int) -> DeadLetterDetails | None:
        """One dead letter with its bytes, None when there is none."""
        ...

    async def replay(self, sequence: int) -> bool:
        """Publish the message once more on its topic, with its id, and drop the entry; False when there is none."""
        ...

    async def drop(self, sequence: int) -> bool:
        """Erase the entry; False when there is none."""
        ...
