"""What is asked of a managed system and what came of it."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec.structs import force_setattr

from polaris.clock import utc_now
from polaris.domain._checks import TEXT_CHARS_MAX, check_fraction, check_id, check_text, check_tree, utc
from polaris.domain._frozen import EMPTY, frozen
from polaris.domain._states import Id, Timestamp
from polaris.exceptions import InvalidValueError

PRIORITY_MAX = 1000
TIMEOUT_S_MAX = 86_400.0

# Limits that the published schema tells; what enforces them are the checks below.
_Priority = Annotated[int, msgspec.Meta(extra_json_schema={"minimum": 0, "maximum": PRIORITY_MAX})]
_Timeout = Annotated[float, msgspec.Meta(extra_json_schema={"exclusiveMinimum": 0, "maximum": TIMEOUT_S_MAX})]
_Text = Annotated[str, msgspec.Meta(extra_json_schema={"maxLength": TEXT_CHARS_MAX})]


class ExecutionStatus(enum.StrEnum):
    """How far an action has come.

    `unknown` is final: the execution was cut off, and nobody can tell whether the system was changed.
    """

    PENDING = "pending"
    RUNNING = "running"
    SUCCESS = "success"
    PARTIAL = "partial"
    FAILED = "failed"
    REJECTED = "rejected"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"

    @property
    def is_final(self) -> bool:
        """Whether nothing more will happen to the action."""
        return self not in (ExecutionStatus.PENDING, ExecutionStatus.RUNNING)


class AdaptationAction(msgspec.Struct, frozen=True, omit_defaults=True):
    """One change asked of one managed system.

    `action_id` makes it unique for ever: no id is executed twice, however often the action is delivered.
    `parameters` is a JSON tree without NaN. `priority` from 0 to 1 000, higher goes first. `timeout_seconds`: how long
    one execution may take, over 0 and at most a day; None takes the runtime's default.

    Raises `InvalidValueError` naming the field.
    """

    action_id: Id
    action_type: Id
    target_system: Id
    parameters: dict[str, Any] = EMPTY
    priority: _Priority = 1
    timeout_seconds: _Timeout | None = None
    created_at: Timestamp = msgspec.field(default_factory=utc_now)

    def __post_init__(self) -> None:
        check_id("action_id", self.action_id)
        check_id("action_type", self.action_type)
        check_id("target_system", self.target_system)
        force_setattr(self, "parameters", _tree("parameters", self.parameters))
        if type(self.priority) is not int or not 0 <= self.priority <= PRIORITY_MAX:
            raise InvalidValueError("priority", f"an integer from 0 to {PRIORITY_MAX}", self.priority)
        timeout = self.timeout_seconds
        if timeout is not None and (
            isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 < timeout <= TIMEOUT_S_MAX
        ):
            raise InvalidValueError("timeout_seconds", f"seconds, over 0 and at most {TIMEOUT_S_MAX:g}", timeout)
        force_setattr(self, "created_at", utc("created_at", self.created_at))


class ExecutionResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """What came of one action. `result_data` is what the connector saw, a JSON tree without NaN.

    Raises `InvalidValueError` naming the field.
    """

    action_id: Id
    status: ExecutionStatus
    result_data: dict[str, Any] = EMPTY
    error_message: _Text | None = None
    started_at: Timestamp | None = None
    completed_at: Timestamp | None = None

    def __post_init__(self) -> None:
        check_id("action_id", self.action_id)
        try:
            force_setattr(self, "status", ExecutionStatus(self.status))
        except ValueError as error:
            raise InvalidValueError("status", "one of " + ", ".join(ExecutionStatus), self.status) from error
        force_setattr(self, "result_data", _tree("result_data", self.result_data))
        if self.error_message is not None:
            check_text("error_message", self.error_message, chars_max=TEXT_CHARS_MAX)
        for field in ("started_at", "completed_at"):
            stamp: datetime | None = getattr(self, field)
            if stamp is not None:
                force_setattr(self, field, utc(field, stamp))

    @property
    def duration_s(self) -> float | None:
        """Seconds from start to completion, None while either is open."""
        if self.started_at is None or self.completed_at is None:
            return None
        return (self.completed_at - self.started_at).total_seconds()


class SystemDependency(msgspec.Struct, frozen=True, omit_defaults=True):
    """`source_system` needs `target_system`; `strength` from 0 (loose) to 1 (cannot work without).

    Raises `InvalidValueError` naming the field.
    """

    source_system: Id
    target_system: Id
    dependency_type: Id
    strength: float = 1.0
    metadata: dict[str, Any] = EMPTY

    def __post_init__(self) -> None:
        check_id("source_system", self.source_system)
        check_id("target_system", self.target_system)
        check_id("dependency_type", self.dependency_type)
        check_fraction("strength", self.strength)
        force_setattr(self, "metadata", _tree("metadata", self.metadata))


class LearnedPattern(msgspec.Struct, frozen=True, omit_defaults=True):
    """Knowledge gained from the past: under these conditions, these outcomes, with this confidence (0 to 1).

    Raises `InvalidValueError` naming the field.
    """

    pattern_id: Id
    pattern_type: Id
    conditions: dict[str, Any] = EMPTY
    outcomes: dict[str, Any] = EMPTY
    confidence: float = 0.0
    learned_at: Timestamp = msgspec.field(default_factory=utc_now)
    usage_count: int = 0

    def __post_init__(self) -> None:
        check_id("pattern_id", self.pattern_id)
        check_id("pattern_type", self.pattern_type)
        force_setattr(self, "conditions", _tree("conditions", self.conditions))
        force_setattr(self, "outcomes", _tree("outcomes", self.outcomes))
        check_fraction("confidence", self.confidence)
        force_setattr(self, "learned_at", utc("learned_at", self.learned_at))
        if type(self.usage_count) is not int or self.usage_count < 0:
            raise InvalidValueError("usage_count", "an integer of at least 0", self.usage_count)


def _tree(field: str, value: object) -> dict[str, Any]:
    if value is EMPTY:
        return EMPTY
    if not isinstance(value, Mapping):
        raise InvalidValueError(field, "a mapping with string keys", value)
    check_tree(field, value)
    return frozen(value) if value else EMPTY
