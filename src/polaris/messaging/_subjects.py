"""Topics and patterns: how ids become subject tokens, which topics exist, and what a legal topic is.

An id becomes one token by percent-encoding (RFC 3986 2.1): letters, digits, `-`, `_`, `~`, `:`, `@`, `=`, `+` and `,`
stay, every other byte of its UTF-8 form becomes `%XX`. So an id never holds a dot or a wildcard on the wire, can never
widen a subscription, and any language's URL decoder reads it back.
"""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import quote

from polaris.domain import (
    AdaptationAction,
    AdaptationEvent,
    ExecutionResultEvent,
    HealthEvent,
    PolarisEvent,
    SystemState,
    TelemetryBatch,
    TelemetryEvent,
)
from polaris.exceptions import InvalidTopicError, InvalidValueError
from polaris.messaging._patterns import covers, has_wildcard, matches, overlap

__all__ = [
    "ADAPTATION_PREFIX",
    "CONFIG_TOPIC",
    "DEAD_LETTER_PREFIX",
    "EXECUTION_PREFIX",
    "HEALTH_PREFIX",
    "TELEMETRY_PREFIX",
    "adaptation_topic",
    "check_pattern",
    "check_topic",
    "covers",
    "dead_letter_topic",
    "decode_token",
    "encode_token",
    "execution_topic",
    "has_wildcard",
    "health_topic",
    "matches",
    "overlap",
    "telemetry_topic",
    "topic_of",
    "topic_pattern",
]

TELEMETRY_PREFIX = "polaris.telemetry."
ADAPTATION_PREFIX = "polaris.adaptations."
EXECUTION_PREFIX = "polaris.executions."
HEALTH_PREFIX = "polaris.health."
CONFIG_TOPIC = "polaris.config.updates"
DEAD_LETTER_PREFIX = "polaris.dead_letter."

ID_CHARS_MAX = 256
TOPIC_CHARS_MAX = 3_500
"""nats-server reads protocol lines of at most 4 096 bytes; the rest of the line holds inboxes and lengths."""

_TOKEN = re.compile(r"[A-Za-z0-9_~:@=+,-]+")
_SAFE = "~:@=+,"
_ESCAPED = re.compile(r"(?:[^%]|%[0-9A-Fa-f]{2})+")
# Printable ASCII without space; no empty token; `*` and `>` may not stand inside a token.
_TOPIC = re.compile(r"[!-)+-\-/-=?-~]+(?:\.[!-)+-\-/-=?-~]+)*")
_FAMILIES = (TELEMETRY_PREFIX, ADAPTATION_PREFIX, EXECUTION_PREFIX, HEALTH_PREFIX)


def encode_token(text: str) -> str:
    """An id as one subject token; `decode_token` gives it back.

    Raises `InvalidTopicError` when it is empty, has over 256 characters or holds what UTF-8 cannot express.
    """
    if not isinstance(text, str) or not text:
        raise InvalidTopicError("an id must be a string that is not empty", {"type": type(text).__name__})
    if len(text) > ID_CHARS_MAX:
        raise InvalidTopicError(
            f"an id has {len(text)} characters, the limit is {ID_CHARS_MAX}", {"chars": len(text), "max": ID_CHARS_MAX}
        )
    if _TOKEN.fullmatch(text):
        return text
    try:
        # `quote` leaves the dot alone, which is the one that must go.
        return quote(text, safe=_SAFE).replace(".", "%2E")
    except UnicodeEncodeError as error:
        raise InvalidTopicError("an id must be a string that UTF-8 can express", {"id": text[:64]}) from error


def decode_token(token: str) -> str:
    """The id that a token stands for. Raises `InvalidTopicError` when the token is no encoded id."""
    if "%" not in token:
        found = token
    else:
        if not _ESCAPED.fullmatch(token):
            raise InvalidTopicError(f"{token[:64]!r} is not an encoded id", {"token": token[:64]})
        head, *escaped = token.split("%")
        try:
            octets = head.encode() + b"".join(bytes.fromhex(part[:2]) + part[2:].encode() for part in escaped)
            found = octets.decode()
        except UnicodeError as error:
            raise InvalidTopicError(f"{token[:64]!r} is not an encoded id", {"token": token[:64]}) from error
    if not found or len(found) > ID_CHARS_MAX:
        raise InvalidTopicError(f"{token[:64]!r} is not an encoded id", {"token": token[:64]})
    return found


def telemetry_topic(system_id: str) -> str:
    """Where the telemetry of a managed system travels."""
    return _join(TELEMETRY_PREFIX, system_id)


def adaptation_topic(system_id: str) -> str:
    """Where changes are asked of a managed system."""
    return _join(ADAPTATION_PREFIX, system_id)


def execution_topic(system_id: str) -> str:
    """Where the results of actions on a managed system travel."""
    return _join(EXECUTION_PREFIX, system_id)


def health_topic(component: str) -> str:
    """Where changes of a component's health travel."""
    return _join(HEALTH_PREFIX, component)


def dead_letter_topic(topic: str) -> str:
    """Where the dead letters of a topic are kept: `polaris.dead_letter.` before the topic they failed on."""
    return DEAD_LETTER_PREFIX + topic[:TOPIC_CHARS_MAX]


def _join(prefix: str, text: str) -> str:
    # What is no string may not be hashable either.
    return _joined(prefix, text) if isinstance(text, str) else prefix + encode_token(text)


@lru_cache(maxsize=65_536)
def _joined(prefix: str, text: str) -> str:
    return prefix + encode_token(text)


def topic_of(event: PolarisEvent) -> str:
    """The natural topic of an event that names its system or component.

    Execution results name an action only, so theirs must be given. Raises `InvalidTopicError` for all others, and
    `InvalidValueError` when the event holds no state or no action.
    """
    if isinstance(event, TelemetryEvent):
        if not isinstance(event.system_state, SystemState):
            raise InvalidValueError("system_state", "a SystemState", event.system_state)
        return telemetry_topic(event.system_state.system_id)
    if isinstance(event, TelemetryBatch):
        return telemetry_topic(event.system_id)
    if isinstance(event, AdaptationEvent):
        if not isinstance(event.action, AdaptationAction):
            raise InvalidValueError("action", "an AdaptationAction", event.action)
        return adaptation_topic(event.action.target_system)
    if isinstance(event, HealthEvent):
        return health_topic(event.component)
    hint = " (an execution result does not name its system)" if isinstance(event, ExecutionResultEvent) else ""
    raise InvalidTopicError(f"{type(event).__name__} has no topic of its own{hint}; give one")


def check_topic(topic: str) -> str:
    """`topic` itself when events can be published on it; `InvalidTopicError` otherwise.

    Legal: tokens of printable ASCII without spaces, joined by single dots, at most 3 500 characters, no wildcard
    tokens, and not beginning with `$`, which belongs to the server.
    """
    if type(topic) is str and _is_topic(topic):
        return topic
    raise InvalidTopicError(_complaint(topic, wildcards="no wildcards"), {"topic": _shown(topic)})


@lru_cache(maxsize=4_096)
def _is_topic(topic: str) -> bool:
    return len(topic) <= TOPIC_CHARS_MAX and _TOPIC.fullmatch(topic) is not None and topic[0] != "$"


def check_pattern(pattern: str) -> str:
    """`pattern` itself when it can be subscribed to: a legal topic whose tokens may be `*`, and the last one `>`."""
    if type(pattern) is str and len(pattern) <= TOPIC_CHARS_MAX and not pattern.startswith("$"):
        head = pattern.removesuffix(".>")
        if pattern == ">" or _TOPIC.fullmatch(".".join("x" if part == "*" else part for part in head.split("."))):
            return pattern
    raise InvalidTopicError(
        _complaint(pattern, wildcards="'*' as a whole token, '>' at the end"), {"topic": _shown(pattern)}
    )


@lru_cache(maxsize=65_536)
def topic_pattern(topic: str) -> str:
    """The label of a topic in metrics: its family, so that the number of series does not grow with the systems."""
    for prefix in _FAMILIES:
        if topic.startswith(prefix):
            return prefix + "*"
    if topic.startswith(DEAD_LETTER_PREFIX):
        return DEAD_LETTER_PREFIX + ">"
    if topic.startswith("_INBOX."):
        return "_INBOX.>"
    parts = topic.split(".", 3)
    return topic if len(parts) <= 2 or topic == CONFIG_TOPIC else f"{parts[0]}.{parts[1]}.>"


def _complaint(topic: object, *, wildcards: str) -> str:
    return (
        f"{_shown(topic)!r} is not a legal topic: printable ASCII tokens joined by dots, at most {TOPIC_CHARS_MAX} "
        f"characters, {wildcards}; ids go through encode_token"
    )


def _shown(topic: object) -> str:
    return topic[:128] if isinstance(topic, str) else f"[{type(topic).__name__}]"
