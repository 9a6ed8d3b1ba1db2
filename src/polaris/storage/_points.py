"""A point of a time series: what was measured at one instant, and the checks of what may be in it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec
from msgspec.structs import force_setattr

from polaris.domain._checks import INTEGER_MAX, utc
from polaris.exceptions import InvalidValueError
from polaris.storage._limits import FIELD_CHARS_MAX, FIELDS_MAX, TAG_CHARS_MAX, TAGS_MAX, TEXT_CHARS_MAX, check_name

FieldValue = bool | int | float | str | None
Tags = Mapping[str, str]

_FLOAT_MAX = 1.7976931348623157e308
_FIELDS_KNOWN_MAX = 4_096
_TAGS_KNOWN_MAX = 16_384
# What was checked and found good: most points have the same fields and tags.
_fields_known: set[str] = set()
_tags_known: set[tuple[str, str]] = set()


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
    if type(tags) is not dict and not isinstance(tags, Mapping):
        raise InvalidValueError("tags", "a mapping of strings", tags)
    if len(tags) > TAGS_MAX:
        raise InvalidValueError("tags", f"at most {TAGS_MAX} tags (found {len(tags)})", tags)
    for key, text in tags.items():
        if type(text) is not str or (key, text) not in _tags_known:
            _check_tag(key, text)
    return dict(tags)


def _check_tag(key: str, text: str) -> None:
    check_name("tags", key, chars_max=TAG_CHARS_MAX)
    if text != "":
        check_name(f"tags.{key}", text, chars_max=TAG_CHARS_MAX)
    if type(key) is str and type(text) is str:
        if len(_tags_known) >= _TAGS_KNOWN_MAX:
            _tags_known.clear()
        _tags_known.add((key, text))


def checked_fields(fields: object) -> dict[str, FieldValue]:
    """A copy of `fields`, or `InvalidValueError`. A point without any field is refused: it would say nothing."""
    if type(fields) is not dict and not isinstance(fields, Mapping):
        raise InvalidValueError("fields", "a mapping of names to values", fields)
    if not 0 < len(fields) <= FIELDS_MAX:
        raise InvalidValueError("fields", f"1 to {FIELDS_MAX} fields (found {len(fields)})", fields)
    for name, value in fields.items():
        if type(name) is not str or name not in _fields_known:
            _check_field(name)
        if not (type(value) is float and -_FLOAT_MAX <= value <= _FLOAT_MAX):
            check_value(f"fields.{name}", value)
    return dict(fields)


def _check_field(name: object) -> None:
    check_name("fields", name, chars_max=FIELD_CHARS_MAX)
    if type(name) is str:
        if len(_fields_known) >= _FIELDS_KNOWN_MAX:
            _fields_known.clear()
        _fields_known.add(name)


def check_value(path: str, value: object) -> None:
    """Refuse what cannot be the value of a field, with `InvalidValueError`."""
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


_TEMPLATE = TimeSeriesPoint(datetime(2000, 1, 1, tzinfo=UTC), {}, {"template": 0})
_new_point = _TEMPLATE.__copy__  # type: ignore[attr-defined] # structs have it; their type does not say so


def new_point(timestamp: datetime, tags: Tags, fields: Mapping[str, FieldValue]) -> TimeSeriesPoint:
    """A point of whatever mappings; they are checked, and copied once."""
    return valid_point(utc("timestamp", timestamp), checked_tags(tags or None), checked_fields(fields))


def valid_point(timestamp: datetime, tags: dict[str, str], fields: dict[str, FieldValue]) -> TimeSeriesPoint:
    """A point of what was checked before, at a tenth of the cost. The dictionaries become its own."""
    point: TimeSeriesPoint = _new_point()
    force_setattr(point, "timestamp", timestamp)
    force_setattr(point, "tags", tags)
    force_setattr(point, "fields", fields)
    return point
