"""Reading events of another version: older data are brought up to the current version before they are decoded."""

from __future__ import annotations

from typing import Any

import msgspec

from polaris.domain import EventRegistry, EventType
from polaris.domain._versions import version_of
from polaris.exceptions import MessageDecodeError
from polaris.messaging._wire_format import is_finite


class OfOtherVersion(ValueError):
    """The data of a message cannot be taken as they are; `current_payload` knows what to do, or says what is wrong."""


def check_version(entry: EventType, dataschema: str) -> None:
    """Let data pass that may be read as the current version: of just this one, of a newer one, of a foreign schema.

    Raises `OfOtherVersion` for older ones, and when a schema of another type is named.
    """
    try:
        version = version_of(entry, dataschema)
    except MessageDecodeError as error:
        raise OfOtherVersion from error
    if version < entry.version:
        raise OfOtherVersion


def current_payload(registry: EventRegistry, entry: EventType, dataschema: str | None, payload: bytes) -> bytes | None:
    """The event in `payload` as it would be if its data were of the current version; None when they are already.

    Raises `UnknownEventTypeError` when no upcaster leads on from its version, and `MessageDecodeError` when one fails
    or gives what JSON cannot carry. `payload` must have been found to be an event of this type.
    """
    version = version_of(entry, dataschema)
    if version >= entry.version:
        return None
    path = registry.path(entry, version)
    try:
        envelope = msgspec.json.decode(payload, type=dict[str, msgspec.Raw])
        data: Any = msgspec.json.decode(envelope["data"]) if "data" in envelope else {}
    except (msgspec.MsgspecError, RecursionError) as error:
        raise MessageDecodeError(f"the data of a {entry.name!r} cannot be read: {type(error).__name__}") from error
    if not isinstance(data, dict):
        raise MessageDecodeError(f"the data of a {entry.name!r} are no object", {"type": entry.name})
    for step in path:
        data = step.lift(data)
    if not is_finite(data):
        reason = f"upcasting {entry.name!r} from version {version} gave a number that JSON cannot carry"
        raise MessageDecodeError(reason, {"type": entry.name, "version": version})
    try:
        envelope["data"] = msgspec.Raw(msgspec.json.encode(data))
        envelope["dataschema"] = msgspec.Raw(msgspec.json.encode(entry.schema_uri))
        return msgspec.json.encode(envelope)
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError) as error:
        reason = f"upcasting {entry.name!r} from version {version} gave what JSON cannot carry: {type(error).__name__}"
        raise MessageDecodeError(reason, {"type": entry.name, "version": version}) from error


def newer_note(entry: EventType, dataschema: str | None) -> str:
    """What to say before the reason why data that may be newer could not be read; nothing when they are not."""
    version = version_of(entry, dataschema)
    return f"its data are of version {version}, newer than {entry.version}: " if version > entry.version else ""
