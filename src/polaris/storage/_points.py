"""A point of a time series: what was measured at one instant, and the checks of what may be in it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec
from msgspec.structs import force_setattr

from polaris.domain._checks import INTEGER_MAX, utc
from polaris.exceptions import InvalidValueError
from polaris.storage._limits import FIELD_CHARS_MAX, FIELDS_MAX, TAG_CHARS_MAX, TAGS_MAX, TEXT_CHARS_MAX, check_name

FieldValue = bool | int | float | str | None
Tags = Mapping[str, str]

_FLOAT_MAX = 1.7976931348623157e308


class TimeSeriesPoint(msgspec.Struct, frozen=True):
    """What was measured at one instant on one series.

    The series is given by the collection and all `tags` (at most 64; keys of 1 to 256, values of up to 256
    characters). `fields`: at most 10 240 of names with up to 512 characters; a value is a finite number of 64 bits, a
    bool, a string of at most 262 144 characters, or None for what could not be measured. Integers stay integers.

    Raises `InvalidValueError` naming the field; naive timestamps, NaN and infinities are refused.
    """

    timestamp: datetime
    tags: dict[str, str]
    fields: dict[str, FieldValue]

    def __post_init__(self) -> None:
        force_setattr(self, "timestamp", utc("timestamp", self.timestamp))
        force_setattr(self, "tags", checked_tags(self.tags))
        force_setattr(self, "fields", checked_fields(self.fields))


def checked_tags(tags: object) -> dict[str, str]:
    """A copy of `tags`, or `InvalidValueError`."""
    if tags is None:
        return {}
    if not isinstance(tags, Mapping):
        raise InvalidValueError("tags", "a mapping of strings", tags)
    if len(tags) > TAGS_MAX:
        raise InvalidValueError("tags", f"at most {TAGS_MAX} tags (found {len(tags)})", tags)
    for key, text in tags.items():
        check_name("tags", key, chars_max=TAG_CHARS_MAX)
        if text != "":
            check_name(f"tags.{key}", text, chars_max=TAG_CHARS_MAX)
    return dict(tags)


def checked_fields(fields: object) -> dict[str, FieldValue]:
    """A copy of `fields`, or `InvalidValueError`. A point without any field is refused: it would say nothing."""
    if not isinstance(fields, Mapping):
        raise InvalidValueError("fields", "a mapping of names to values", fields)
    if not 0 < len(fields) <= FIELDS_MAX:
        raise InvalidValueError("fields", f"1 to {FIELDS_MAX} fields (found {len(fields)})", fields)
    for name, value in fields.items():
        if not (type(name) is str and 0 < len(name) <= FIELD_CHARS_MAX and name.isascii() and name.isprintable()):
            check_name("fields", name, chars_max=FIELD_CHARS_MAX)
        if not (type(value) is float and -_FLOAT_MAX <= value <= _FLOAT_MAX):
            _check_value(f"fields.{name}", value)
    return dict(fields)


def _check_value(path: str, value: object) -> None:
    if value is None or isinstance(value, bool):
        return
    if isinstance(value, float):
        if not -_FLOAT_MAX <= value <= _FLOAT_MAX:
            raise InvalidValueError(path, "a finite number; what is missing is None", value)
    elif isinstance(value, int):
        if not -INTEGER_MAX - 1 <= value <= INTEGER_MAX:
            raise InvalidValueError(path, "an integer of at most 64 bits", value)
    elif isinstance(value, str):
        if len(value) > TEXT_CHARS_MAX:
            raise InvalidValueError(path, f"at most {TEXT_CHARS_MAX} characters (found {len(value)})", value)
        if "\0" in value:
            raise InvalidValueError(path, "a string without NUL characters", value)
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise InvalidValueError(path, "a string that UTF-8 can express", value) from error
    else:
        raise InvalidValueError(path, "a number, bool, string or None", value)
